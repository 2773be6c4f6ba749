"""Posterior distributions of one arm, and exact comparisons between any of them.

Chances and expected losses are one-dimensional integrals over densities and distribution functions; they are
taken by Gauss-Legendre quadrature in panels between the extreme quantiles of all distributions involved, so
that a narrow posterior beside a wide one is resolved, and no Monte Carlo noise enters.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from assay.stats import special
from assay.stats.contrast import Array
from assay.stats.tails import Interval

_NODES = 96
# Quantile that counts as the end of a distribution: what lies beyond is below double precision.
_END = 1e-18


class Posterior(Protocol):
    """What the comparisons need to know of a distribution."""

    @property
    def mean(self) -> float:
        """Expected value."""

    def density(self, x: Array) -> Array:
        """Density at x."""

    def below(self, x: Array) -> Array:
        """P(X <= x)."""

    def above(self, x: Array) -> Array:
        """P(X > x)."""

    def ends(self) -> tuple[float, float, float]:
        """Lower end, median and upper end of the mass that matters."""

    def interval(self, level: float) -> Interval:
        """Equal-tailed credible interval."""


class Normal(NamedTuple):
    """Normal posterior."""

    mean: float
    sd: float

    def density(self, x: Array) -> Array:
        """Density at x."""
        found: Array = np.exp(-0.5 * ((x - self.mean) / self.sd) ** 2) / (self.sd * math.sqrt(2.0 * math.pi))
        return found

    def below(self, x: Array) -> Array:
        """P(X <= x)."""
        found: Array = special.ndtr((x - self.mean) / self.sd)
        return found

    def above(self, x: Array) -> Array:
        """P(X > x)."""
        found: Array = special.ndtr((self.mean - x) / self.sd)
        return found

    def ends(self) -> tuple[float, float, float]:
        """Lower end, median and upper end of the mass that matters."""
        return self.mean - 9.0 * self.sd, self.mean, self.mean + 9.0 * self.sd

    def interval(self, level: float) -> Interval:
        """Equal-tailed credible interval."""
        reach = -float(special.ndtri((1.0 - level) / 2.0)) * self.sd
        return Interval(self.mean - reach, self.mean + reach)


class Beta(NamedTuple):
    """Beta posterior of a rate."""

    alpha: float
    beta: float

    @property
    def mean(self) -> float:
        """Expected value."""
        return self.alpha / (self.alpha + self.beta)

    def density(self, x: Array) -> Array:
        """Density at x."""
        x = np.clip(x, 1e-300, 1.0 - 2.0**-53)
        log = (self.alpha - 1.0) * np.log(x) + (self.beta - 1.0) * np.log1p(-x)
        found: Array = np.exp(log - special.betaln(self.alpha, self.beta))
        return found

    def below(self, x: Array) -> Array:
        """P(X <= x)."""
        found: Array = special.betainc(self.alpha, self.beta, np.clip(x, 0.0, 1.0))
        return found

    def above(self, x: Array) -> Array:
        """P(X > x)."""
        found: Array = special.betaincc(self.alpha, self.beta, np.clip(x, 0.0, 1.0))
        return found

    def ends(self) -> tuple[float, float, float]:
        """Lower end, median and upper end of the mass that matters."""
        a, b = self
        return (
            float(special.betaincinv(a, b, _END)),
            float(special.betaincinv(a, b, 0.5)),
            float(special.betainccinv(a, b, _END)),
        )

    def interval(self, level: float) -> Interval:
        """Equal-tailed credible interval."""
        tail = (1.0 - level) / 2.0
        a, b = self
        return Interval(float(special.betaincinv(a, b, tail)), float(special.betainccinv(a, b, tail)))


class Gamma(NamedTuple):
    """Gamma posterior of an event rate per unit of exposure."""

    shape: float
    rate: float

    @property
    def mean(self) -> float:
        """Expected value."""
        return self.shape / self.rate

    def density(self, x: Array) -> Array:
        """Density at x."""
        y = np.maximum(x * self.rate, 1e-300)
        found: Array = self.rate * np.exp((self.shape - 1.0) * np.log(y) - y - special.gammaln(self.shape))
        return found

    def below(self, x: Array) -> Array:
        """P(X <= x)."""
        found: Array = special.gammainc(self.shape, np.maximum(x, 0.0) * self.rate)
        return found

    def above(self, x: Array) -> Array:
        """P(X > x)."""
        found: Array = special.gammaincc(self.shape, np.maximum(x, 0.0) * self.rate)
        return found

    def ends(self) -> tuple[float, float, float]:
        """Lower end, median and upper end of the mass that matters."""
        return (
            float(special.gammaincinv(self.shape, _END)) / self.rate,
            float(special.gammaincinv(self.shape, 0.5)) / self.rate,
            float(special.gammainccinv(self.shape, _END)) / self.rate,
        )

    def interval(self, level: float) -> Interval:
        """Equal-tailed credible interval."""
        tail = (1.0 - level) / 2.0
        return Interval(
            float(special.gammaincinv(self.shape, tail)) / self.rate,
            float(special.gammainccinv(self.shape, tail)) / self.rate,
        )


def _panels(arms: Sequence[Posterior]) -> tuple[Array, Array]:
    """Nodes and weights of a quadrature over all mass of all arms."""
    edges: set[float] = set()
    for arm in arms:
        low, middle, high = arm.ends()
        # Quarter points keep each panel within a few standard deviations of the arm it belongs to.
        for share in (0.0, 0.25, 0.5, 0.75, 0.9375):
            edges.add(middle + (low - middle) * (1.0 - share))
            edges.add(middle + (high - middle) * (1.0 - share))
        edges.add(middle)
    cuts = np.array(sorted(edges))
    # Ends that differ by rounding alone would make a panel of nothing.
    cuts = cuts[np.concatenate([[True], np.diff(cuts) > 1e-13 * (cuts[-1] - cuts[0])])]
    if any(arm[0] < 1.0 for arm in arms if isinstance(arm, (Beta, Gamma))):
        cuts = _graded(cuts)
    points, weights = special.roots_legendre(_NODES)
    s = 0.5 * (points + 1.0)
    # Densities may grow without bound at the ends of their support (Beta below 1). Nodes crowd towards both
    # ends of a panel by a polynomial that is flat to third order there, which takes the singularity away.
    place = s**4 * (35.0 - 84.0 * s + 70.0 * s**2 - 20.0 * s**3)
    stretch = 140.0 * (s * (1.0 - s)) ** 3 * 0.5 * weights
    width = np.diff(cuts)[:, None]
    return (cuts[:-1, None] + width * place).ravel(), (width * stretch).ravel()


def _graded(cuts: Array) -> Array:
    """Cuts whose distances from the first grow by at most a factor of 100.

    A density without bound at the first cut is nearly so at one close to it: a long panel from there would
    not resolve it.
    """
    away = cuts[1:] - cuts[0]
    more = [
        np.geomspace(a, b, math.ceil(math.log10(b / a) / 2.0) + 1)[1:-1]
        for a, b in itertools.pairwise(away)
        if b > 100.0 * a
    ]
    found: Array = np.sort(np.concatenate([cuts, *(cuts[0] + each for each in more)]))
    return found


def chance_above(first: Posterior, second: Posterior) -> float:
    """P(first > second)."""
    turned = _complements((first, second))
    if turned is not None:
        second, first = turned
    nodes, weights = _panels((first, second))
    # The tail beyond the quadrature is below double precision on either side.
    return min(1.0, float(weights @ (first.density(nodes) * second.below(nodes))))


def _complements(arms: Sequence[Posterior]) -> list[Beta] | None:
    """Posteriors of the complements of rates, where those are better known to doubles; `None` elsewhere.

    A Beta density whose second parameter is below 1 has no bound at 1, where doubles are 1e-16 apart: up to
    1e-6 of its mass is out of reach. Its complement has the same peak at 0, where doubles are far denser.
    """
    rates = [arm for arm in arms if isinstance(arm, Beta)]
    if len(rates) < len(arms) or min(b for _, b in rates) >= min(1.0, *(a for a, _ in rates)):
        return None
    return [Beta(b, a) for a, b in rates]


def expected_excess(first: Posterior, second: Posterior) -> float:
    """E[max(first - second, 0)], as the integral of P(first > x > second): nothing cancels."""
    nodes, weights = _panels((first, second))
    return float(weights @ (first.above(nodes) * second.below(nodes)))


def best_probabilities(arms: Sequence[Posterior]) -> tuple[float, ...]:
    """For each arm the probability that it is the largest."""
    turned = _complements(arms)
    used: Sequence[Posterior] = arms if turned is None else turned
    nodes, weights = _panels(used)
    # The best arm has the largest rate, and the smallest complement.
    beaten = np.array([arm.below(nodes) if turned is None else arm.above(nodes) for arm in used])
    found = np.array(
        [
            weights @ (arm.density(nodes) * np.delete(beaten, i, axis=0).prod(axis=0))
            for i, arm in enumerate(used)
        ]
    )
    return tuple(float(value) for value in found / found.sum())


def second_probabilities(arms: Sequence[Posterior]) -> Array:
    """Joint chances: entry [j, i] is P(arm j is the largest and arm i the second largest)."""
    nodes, weights = _panels(arms)
    below = np.array([arm.below(nodes) for arm in arms])
    above = np.array([arm.above(nodes) for arm in arms])
    joint = np.zeros((len(arms), len(arms)))
    for i, arm in enumerate(arms):
        density = arm.density(nodes)
        for j in range(len(arms)):
            if i != j:
                others = np.delete(below, [i, j], axis=0).prod(axis=0)
                joint[j, i] = weights @ (density * above[j] * others)
    joint /= joint.sum()
    return joint


def expected_losses(arms: Sequence[Posterior]) -> tuple[float, ...]:
    """For each arm E[max - arm], the expected distance to the largest: what choosing it would cost."""
    nodes, weights = _panels(arms)
    below = np.array([arm.below(nodes) for arm in arms])
    # E[max - X_i] is the integral of P(X_i <= x < max of the others).
    return tuple(
        float(weights @ (below[i] * (1.0 - np.delete(below, i, axis=0).prod(axis=0))))
        for i in range(len(arms))
    )
