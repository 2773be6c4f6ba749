"""Group-sequential boundaries: how often the best of many looks exceeds a limit, and the limits that keep
alpha.

With information fraction t the score process B(t) = Z sqrt(t) is Brownian motion with drift. The sub-density
of B over paths that have not stopped is carried from look to look by numerical integration; a boundary is the
point beyond which exactly the error to be spent lies.

Sources: Armitage, McPherson & Rowe (1969), JRSS A 132, for the recursion; Lan & DeMets (1983), Biometrika 70,
for spending; Kim & DeMets (1987) for the power family; Pocock (1977) and O'Brien & Fleming (1979) for the
classical constants, tabulated in Jennison & Turnbull (2000), tables 2.1 to 2.4.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np

from assay.stats import special
from assay.stats.contrast import Array
from assay.stats.roots import find_root
from assay.stats.tails import check_alpha, normal_quantile, normal_sf

Spending = Literal["obrien_fleming", "pocock", "power"]
# A limit beyond this many standard errors cannot be reached in practice: the error stays unspent until later.
CAP = 8.0
# Less new information than this is not a look.
LEAST_STEP = 1e-5
_SQRT2 = math.sqrt(2.0)


class Boundaries(NamedTuple):
    """Limits for z at each look, and what was spent until then.

    `z[k]` is `None` where look k brought too little new information to be one; `spent` is the cumulative
    error over both sides (one side for a one-sided test), `sides` is 1 or 2.
    """

    fractions: tuple[float, ...]
    z: tuple[float | None, ...]
    spent: tuple[float, ...]
    alpha: float
    sides: Literal[1, 2]
    spending: Spending


class Crossing(NamedTuple):
    """Probabilities of first leaving the limits at each look, above and below."""

    upper: tuple[float, ...]
    lower: tuple[float, ...]

    @property
    def total(self) -> float:
        """Probability of leaving at any look, on either side."""
        return math.fsum(self.upper) + math.fsum(self.lower)


def spent_by(
    fraction: float, alpha_side: float, spending: Spending = "obrien_fleming", *, power: float = 1.0
) -> float:
    """Error that one side may have spent by an information fraction; all of it from fraction 1 on."""
    t = min(fraction, 1.0)
    if t <= 0.0:
        return 0.0
    if spending == "obrien_fleming":
        return 2.0 * normal_sf(-normal_quantile(alpha_side / 2.0) / math.sqrt(t))
    if spending == "pocock":
        return alpha_side * math.log1p((math.e - 1.0) * t)
    return float(alpha_side * t**power)


class _Walk:
    """The sub-density of B over paths still inside the limits, advanced look by look."""

    def __init__(self, drift: float, *, both: bool) -> None:
        self._drift, self._both = drift, both
        self._time = 0.0
        self._nodes = np.zeros(1)
        self._mass = np.ones(1)

    def beyond(self, time: float, limit: float, *, lower: bool = False) -> float:
        """Probability of being still inside before `time` and beyond the z limit at it."""
        step = time - self._time
        at = limit * math.sqrt(time)
        sign = -1.0 if lower else 1.0
        gap = at - sign * (self._nodes + self._drift * step)
        return float(0.5 * self._mass @ special.erfc(gap / math.sqrt(2.0 * step)))

    def advance(self, time: float, limit: float) -> None:
        """Carry the density to `time`, keeping the paths within +-limit (below it, for one side)."""
        step = time - self._time
        width = math.sqrt(step)
        # No path gets beyond 40 standard errors with a probability that a double can hold.
        high = min(limit, 40.0 + abs(self._drift)) * math.sqrt(time)
        low = -high
        if not self._both:
            low = min(-(CAP + 2.0) * math.sqrt(time) + min(self._drift * time, 0.0), high - 1.0)
        # Enough nodes to resolve the kernel, whose width is that of the step.
        count = min(32 * math.ceil((2.5 * (high - low) / width + 64.0) / 32.0), 3200)
        points, weights = _legendre(count)
        nodes = 0.5 * (high - low) * points + 0.5 * (high + low)
        kernel = (nodes[:, None] - self._nodes[None, :] - self._drift * step) / width
        density = np.exp(-0.5 * kernel * kernel) @ self._mass / (width * math.sqrt(2.0 * math.pi))
        self._nodes, self._mass, self._time = nodes, density * weights * 0.5 * (high - low), time


@lru_cache(maxsize=64)
def _legendre(count: int) -> tuple[Array, Array]:
    # A rule is a pure function of its length, and the caller asks for few lengths (multiples of 32).
    points, weights = special.roots_legendre(count)
    return points, weights


def boundaries(
    fractions: Sequence[float],
    *,
    alpha: float = 0.05,
    sides: Literal[1, 2] = 2,
    spending: Spending = "obrien_fleming",
    power: float = 1.0,
    final: bool = False,
) -> Boundaries:
    """Limits for |z| (or z, one-sided) at looks made at the given increasing information fractions.

    Looks may be unequal and unplanned: a limit depends only on the past. Error that an earlier limit could
    not spend (cap, rounding) is spent later. Past fraction 1 everything is spent, with correlations by the
    true fractions (over-run); `final=True` says that the last look is the last one even if it came early.
    """
    check_alpha(alpha)
    if any(b < a for a, b in pairwise(fractions)) or any(t <= 0.0 for t in fractions):
        raise ValueError(f"information fractions must be positive and must not decrease: {list(fractions)}")
    return _boundaries(tuple(fractions), alpha, sides, spending, power, final)


@lru_cache(maxsize=256)
def _boundaries(
    fractions: tuple[float, ...],
    alpha: float,
    sides: Literal[1, 2],
    spending: Spending,
    power: float,
    final: bool,
) -> Boundaries:
    # All comparisons of a report share their looks, and some dozens of looks take a tenth of a second.
    side = alpha / sides
    walk = _Walk(0.0, both=sides == 2)
    limits: list[float | None] = []
    spent: list[float] = []
    used, last = 0.0, 0.0
    for number, t in enumerate(fractions):
        closing = final and number == len(fractions) - 1
        target = side if closing else spent_by(t, side, spending, power=power)
        if t - last < LEAST_STEP or used >= side * (1.0 - 1e-12):
            limits.append(None)
            spent.append(used * sides)
            continue
        limit = _limit(walk, t, target - used)
        used += walk.beyond(t, limit)
        walk.advance(t, limit)
        limits.append(limit)
        spent.append(used * sides)
        last = t
    return Boundaries(fractions, tuple(limits), tuple(spent), alpha, sides, spending)


def _limit(walk: _Walk, time: float, error: float) -> float:
    if error <= walk.beyond(time, CAP):
        return CAP
    low = 0.0
    while walk.beyond(time, low) < error:
        low -= 2.0
    # In logarithms: the error spans many powers of ten over the bracket.
    aim = math.log(error)
    return find_root(lambda z: math.log(max(walk.beyond(time, z), 1e-300)) - aim, low, CAP, tolerance=1e-12)


def crossing(
    fractions: Sequence[float],
    limits: Sequence[float | None],
    *,
    drift: float = 0.0,
    sides: Literal[1, 2] = 2,
) -> Crossing:
    """Where paths with the given drift first leave the limits; `drift` is the expected z at fraction 1."""
    walk = _Walk(drift, both=sides == 2)
    upper, lower = [], []
    for t, limit in zip(fractions, limits, strict=True):
        if limit is None:
            upper.append(0.0)
            lower.append(0.0)
            continue
        upper.append(walk.beyond(t, limit))
        lower.append(walk.beyond(t, limit, lower=True) if sides == 2 else 0.0)
        walk.advance(t, limit)
    return Crossing(tuple(upper), tuple(lower))


def classical_constant(
    looks: int, *, alpha: float = 0.05, kind: Literal["pocock", "obrien_fleming"] = "pocock"
) -> float:
    """Constant C of a two-sided test with K = `looks` equal stages.

    The limits are C (Pocock) or C sqrt(K/k) (O'Brien-Fleming).
    """
    check_alpha(alpha)
    fractions = [(k + 1) / looks for k in range(looks)]

    def excess(constant: float) -> float:
        return crossing(fractions, _classical(constant, looks, kind)).total - alpha

    start = -normal_quantile(alpha / 2.0)
    return find_root(excess, start * 0.999, start + 3.0, tolerance=1e-11)


def _classical(constant: float, looks: int, kind: str) -> list[float]:
    return [
        constant * (math.sqrt(looks / (k + 1)) if kind == "obrien_fleming" else 1.0) for k in range(looks)
    ]


def drift_for_power(
    fractions: Sequence[float],
    limits: Sequence[float | None],
    power: float,
    *,
    sides: Literal[1, 2] = 2,
) -> float:
    """The drift (expected z at fraction 1) at which the limits are left with probability `power`."""
    if not 0.0 < power < 1.0:
        raise ValueError(f"power must lie strictly between 0 and 1, not {power!r}")

    def short(drift: float) -> float:
        return crossing(fractions, limits, drift=drift, sides=sides).total - power

    high = 4.0
    while short(high) < 0.0:
        high *= 2.0
    return find_root(short, 0.0, high, tolerance=1e-10) if short(0.0) < 0.0 else 0.0


def inflation(
    looks: int,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    kind: Literal["pocock", "obrien_fleming"] = "obrien_fleming",
) -> float:
    """Largest sample of a classical design relative to the fixed-sample test of the same power."""
    limits = _classical(classical_constant(looks, alpha=alpha, kind=kind), looks, kind)
    drift = drift_for_power([(k + 1) / looks for k in range(looks)], limits, power)
    return (drift / (normal_quantile(power) - normal_quantile(alpha / 2.0))) ** 2


def peeking_error(looks: int, *, alpha: float = 0.05) -> float:
    """Chance of at least one false positive when a fixed-sample test is repeated at equally spaced looks."""
    check_alpha(alpha)
    limit = -normal_quantile(alpha / 2.0)
    return crossing([(k + 1) / looks for k in range(looks)], [limit] * looks).total
