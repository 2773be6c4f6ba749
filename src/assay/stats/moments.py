"""Moments: what a store answers and everything else is computed from.

A `Moments` holds, for one arm, the number of units, the mean of each column and the matrix of centred
co-moments C_xy = sum (x - mean x)(y - mean y). Moments of disjoint sets of units add (Chan, Golub & LeVeque
1983), so days, shards and phases combine without returning to the units, and nothing is lost when the mean is
a billion times the spread.

Means are kept as an unevaluated sum of two doubles (`means` + `carries`): with one double the mean of values
near 1e9 is known to 1e-7 only, and merging would turn that into a relative error of 1e-7 in the variance.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from operator import add
from typing import Self

import numpy as np
import numpy.typing as npt

from assay.stats.reasons import Reason

Number = int | float
_EPS = 2.0**-52
_EXACT = 2**53


def _two_sum(a: float, b: float) -> tuple[float, float]:
    """The rounded sum of two doubles and the part that rounding dropped (Knuth)."""
    total = a + b
    shadow = total - a
    return total, (a - (total - shadow)) + (b - shadow)


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, means and centred co-moments of named columns over the units of one arm.

    `count` is a Python integer of any size, `means` has one entry per column, `comoments` is the symmetric
    matrix of centred sums of products in the same order (its diagonal is the sum of squared deviations, M2).
    `flaw` is set when the moments came from raw sums whose rounding error is not small beside the spread.
    """

    count: int
    columns: tuple[str, ...]
    means: tuple[float, ...]
    comoments: tuple[tuple[float, ...], ...]
    carries: tuple[float, ...] = ()
    flaw: Reason | None = None

    def __post_init__(self) -> None:
        k = len(self.columns)
        if not self.carries:
            object.__setattr__(self, "carries", (0.0,) * k)
        if self.count < 0:
            raise ValueError(f"count must not be negative, got {self.count}")
        if len(set(self.columns)) != k:
            raise ValueError(f"columns repeat: {self.columns}")
        if len(self.means) != k or len(self.comoments) != k or any(len(row) != k for row in self.comoments):
            raise ValueError(f"{k} columns need {k} means and a {k} by {k} co-moment matrix")

    @classmethod
    def empty(cls, columns: Sequence[str] = ("y",)) -> Self:
        """No units at all: the neutral element of addition."""
        k = len(columns)
        return cls(0, tuple(columns), (0.0,) * k, ((0.0,) * k,) * k)

    @classmethod
    def from_centred(
        cls,
        count: int,
        means: Mapping[str, float | None],
        covariances: Mapping[tuple[str, str], float | None],
        *,
        ddof: int = 1,
    ) -> Self:
        """Moments from what a database returns: averages, `var_samp` and `covar_samp`.

        `covariances[(x, x)]` is the variance of x; a pair may stand in either order, and every pair must be
        there. `ddof=1` for the `_samp` functions, `ddof=0` for the `_pop` ones. Databases answer null for the
        variance of a single row and for averages over nothing: both count as zero.
        """
        columns = tuple(means)
        scale = max(count - ddof, 0)

        def cell(x: str, y: str) -> float:
            found = covariances.get((x, y), covariances.get((y, x)))
            if found is None and (x, y) not in covariances and (y, x) not in covariances:
                raise ValueError(f"the covariance of {x!r} and {y!r} is missing")
            return float(found or 0.0) * scale

        matrix = tuple(tuple(cell(x, y) for y in columns) for x in columns)
        return cls(count, columns, tuple(float(mean or 0.0) for mean in means.values()), matrix)

    @classmethod
    def from_mean(cls, count: int, mean: float, variance: float, *, column: str = "y", ddof: int = 1) -> Self:
        """One column from its count, mean and variance."""
        return cls(count, (column,), (float(mean),), ((float(variance) * max(count - ddof, 0),),))

    @classmethod
    def from_counts(cls, count: int, successes: int, *, column: str = "y") -> Self:
        """A yes/no column: `successes` of `count` units."""
        if not 0 <= successes <= count:
            raise ValueError(f"successes must lie between 0 and {count}, got {successes}")
        if count == 0:
            return cls.empty((column,))
        # Integers stay exact until the one division.
        return cls(count, (column,), (successes / count,), ((successes * (count - successes) / count,),))

    @classmethod
    def from_sums(
        cls,
        count: int,
        sums: Mapping[str, Number],
        products: Mapping[tuple[str, str], Number],
        *,
        shift: Mapping[str, float] | None = None,
    ) -> Self:
        """Moments from raw sums: `sums[x]` = sum of x, `products[(x, y)]` = sum of x*y (each pair in either
        order).

        Sums of squares lose the variance when the mean is large: the difference Q - S^2/n is taken in exact
        arithmetic, but Q itself arrived rounded. Unless the sums are integers small enough to be exact, a
        difference below 64 eps Q sets `flaw`, and no p-value is made from such moments. `shift[x]` says that
        a constant was subtracted from x before summing, which avoids the loss; it is added back to the mean.
        """
        columns = tuple(sums)
        if count == 0:
            return cls.empty(columns)

        def product(x: str, y: str) -> Number:
            found = products.get((x, y), products.get((y, x)))
            if found is None:
                raise ValueError(f"the sum of products of {x!r} and {y!r} is missing")
            return found

        flaw: Reason | None = None
        rows = []
        for x in columns:
            row = []
            for y in columns:
                raw = product(x, y)
                centred = float(Fraction(raw) - Fraction(sums[x]) * Fraction(sums[y]) / count)
                if x == y and not (_exact(raw) and _exact(sums[x])):
                    noise = _EPS * abs(float(raw))
                    flaw = Reason.PRECISION_LOSS if centred < 64.0 * noise else flaw
                    centred = 0.0 if centred < 4.0 * noise else centred
                row.append(centred)
            rows.append(tuple(row))
        if flaw is None and any(rows[i][i] < 0.0 for i in range(len(columns))):
            raise ValueError(
                "the sums contradict each other: a sum of squares is smaller than its mean allows"
            )
        means, carries = [], []
        for x in columns:
            exact = Fraction(sums[x]) / count + Fraction((shift or {}).get(x, 0.0))
            means.append(float(exact))
            carries.append(float(exact - Fraction(means[-1])))
        return cls(count, columns, tuple(means), tuple(rows), tuple(carries), flaw)

    @classmethod
    def from_sum(cls, count: int, total: Number, squares: Number, *, column: str = "y") -> Self:
        """One column from its count, sum and sum of squares; see `from_sums`."""
        return cls.from_sums(count, {column: total}, {(column, column): squares})

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.ArrayLike]) -> Self:
        """Moments of unit-level values, one equally long array per column."""
        columns = tuple(arrays)
        data = np.array([np.asarray(values, dtype=np.float64) for values in arrays.values()])
        if data.ndim != 2:
            raise ValueError("each column must be one-dimensional, all of the same length")
        if not np.isfinite(data).all():
            raise ValueError("values must be finite")
        count = data.shape[1]
        if count == 0:
            return cls.empty(columns)
        # Differences from a nearby anchor are exact for values close to it, so no digit of the spread is
        # lost.
        anchor = data[:, 0]
        away = data - anchor[:, None]
        centre = np.array([math.fsum(row) / count for row in away])
        away -= centre[:, None]
        pairs = [_two_sum(float(a), float(c)) for a, c in zip(anchor, centre, strict=True)]
        # The centre was rounded as well; what remains of it is taken out of the products (Neely's corrected
        # two-pass).
        rest = away.sum(axis=1)
        matrix = away @ away.T - np.outer(rest, rest) / count
        return cls(
            count,
            columns,
            tuple(high for high, _ in pairs),
            tuple(tuple(float(value) for value in row) for row in matrix),
            tuple(low for _, low in pairs),
        )

    def __add__(self, other: "Moments") -> "Moments":
        """Moments of the union of two disjoint sets of units. Source: Chan, Golub & LeVeque (1983)."""
        if self.columns != other.columns:
            raise ValueError(f"cannot add moments of {self.columns} and {other.columns}")
        if not other.count:
            return self
        if not self.count:
            return other
        total = self.count + other.count
        share, factor = other.count / total, self.count * other.count / total
        gaps, means, carries = [], [], []
        for mean_a, low_a, mean_b, low_b in zip(
            self.means, self.carries, other.means, other.carries, strict=True
        ):
            high, low = _two_sum(mean_b, -mean_a)
            low += low_b - low_a
            gaps.append(high + low)
            # The shift of the mean is rounded once, relative to itself; the sum keeps both parts.
            mean, rest = _two_sum(mean_a, (high + low) * share)
            mean, rest = _two_sum(mean, rest + low_a)
            means.append(mean)
            carries.append(rest)
        matrix = tuple(
            tuple(a + b + gx * gy * factor for a, b, gy in zip(row_a, row_b, gaps, strict=True))
            for row_a, row_b, gx in zip(self.comoments, other.comoments, gaps, strict=True)
        )
        flaw = self.flaw or other.flaw
        return Moments(total, self.columns, tuple(means), matrix, tuple(carries), flaw)

    def mean(self, column: str | None = None) -> float:
        """Mean of a column (of the first, when not named)."""
        return self.means[self.columns.index(column) if column else 0]

    def variance(self, column: str | None = None) -> float | None:
        """Sample variance (divisor n - 1) of a column; `None` below two units."""
        return self.covariance(column, column)

    def covariance(self, x: str | None = None, y: str | None = None) -> float | None:
        """Sample covariance (divisor n - 1) of two columns; `None` below two units."""
        if self.count < 2:
            return None
        i = self.columns.index(x) if x else 0
        j = self.columns.index(y) if y else 0
        return self.comoments[i][j] / (self.count - 1)

    def matrix(self) -> npt.NDArray[np.float64]:
        """The co-moments as a fresh array of shape (columns, columns)."""
        return np.array(self.comoments, dtype=np.float64)

    def select(self, *columns: str) -> "Moments":
        """The same units, only these columns, in this order."""
        at = [self.columns.index(column) for column in columns]
        return Moments(
            self.count,
            columns,
            tuple(self.means[i] for i in at),
            tuple(tuple(self.comoments[i][j] for j in at) for i in at),
            tuple(self.carries[i] for i in at),
            self.flaw,
        )

    def transform(
        self, weights: Mapping[str, Mapping[str, float]], offsets: Mapping[str, float] | None = None
    ) -> "Moments":
        """Moments of linear combinations: new column = sum of weight * old column, plus an offset.

        `weights={"net": {"revenue": 1.0, "cost": -1.0}}` makes one column named "net".
        """
        rows = np.array([[row.get(column, 0.0) for column in self.columns] for row in weights.values()])
        unknown = {name for row in weights.values() for name in row} - set(self.columns)
        if unknown:
            raise ValueError(f"no such columns: {sorted(unknown)}")
        means, carries = [], []
        for name, row in zip(weights, rows, strict=True):
            exact = Fraction((offsets or {}).get(name, 0.0)) + sum(
                (
                    Fraction(float(w)) * (Fraction(m) + Fraction(c))
                    for w, m, c in zip(row, self.means, self.carries, strict=True)
                ),
                Fraction(0),
            )
            means.append(float(exact))
            carries.append(float(exact - Fraction(means[-1])))
        matrix = rows @ self.matrix() @ rows.T
        return Moments(
            self.count,
            tuple(weights),
            tuple(means),
            tuple(tuple(float(value) for value in row) for row in matrix),
            tuple(carries),
            self.flaw,
        )


def _exact(value: Number) -> bool:
    """Whether a sum is certainly free of rounding: a Python integer, or a whole double that small."""
    return isinstance(value, int) or (value.is_integer() and abs(value) <= _EXACT)


def total(parts: Iterable[Moments]) -> Moments:
    """All parts merged into one; at least one is needed."""
    return reduce(add, parts)
