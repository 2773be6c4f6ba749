"""Which units of two arms may be compared with each other.

While an experiment ramps from 90/10 to 50/50 its baseline drifts, too: the late weeks weigh more in the
treatment than in the control, and a plain difference takes the drift for an effect. Within a stretch of equal
split the arms are comparable; the difference is taken there and averaged over the strata.
"""

from functools import reduce
from typing import NamedTuple

from assay.reports.arms import NOTHING, ByPhase, Tally
from assay.reports.spec import ExperimentSpec

#: Digits to which shares are the same split; thirds do not come out of a division alike.
_SAME_SPLIT = 9


class Pair(NamedTuple):
    """The units of a control and a treatment that were dealt under the same split."""

    control: Tally
    treatment: Tally

    @property
    def fewest(self) -> int:
        """Units of the smaller arm."""
        return min(self.control.units, self.treatment.units)

    def joined(self, other: "Pair") -> "Pair":
        """Both sets of units as one."""
        return Pair(self.control + other.control, self.treatment + other.treatment)


class Strata(NamedTuple):
    """Comparable pairs, each with at least two units in both arms, unless there is but one.

    `pooled` are all of them, regardless of when they came; `left_out` units came while one of the two arms
    was dealt nothing.
    """

    pairs: tuple[Pair, ...]
    pooled: Pair
    left_out: int


_NOBODY = Pair(NOTHING, NOTHING)


def comparable(spec: ExperimentSpec, control: ByPhase, treatment: ByPhase, places: tuple[int, int]) -> Strata:
    """Group two arms' tallies by phase into pairs of equal split; `places` are the arms' in `spec.variants`.

    Units dealt while only one of the arms was open have nobody to be compared with and are left out, unless
    that leaves nothing: then the allocation on record says nothing about these units, all are compared as
    they are, and the sample-ratio check has its say. A stratum with fewer than two units in an arm joins the
    largest.
    """
    by_split: dict[float, Pair] = {}
    for phase in sorted({*control, *treatment}):
        weights = spec.weights(phase)
        own, other = weights[places[0]], weights[places[1]]
        split = round(other / (own + other), _SAME_SPLIT) if own + other else 0.0
        pair = Pair(control.get(phase, NOTHING), treatment.get(phase, NOTHING))
        by_split[split] = by_split.get(split, _NOBODY).joined(pair)
    everybody = reduce(Pair.joined, by_split.values(), _NOBODY)
    fair = [pair for split, pair in sorted(by_split.items()) if 0.0 < split < 1.0]
    pooled = reduce(Pair.joined, fair, _NOBODY)
    if not pooled.fewest:
        return Strata((everybody,), everybody, 0)
    large = sorted((pair for pair in fair if pair.fewest >= 2), key=_units, reverse=True)
    small = [pair for pair in fair if pair.fewest < 2]
    pairs = (reduce(Pair.joined, small, large[0]), *large[1:]) if large else (pooled,)
    return Strata(pairs, pooled, _units(everybody) - _units(pooled))


def _units(pair: Pair) -> int:
    return pair.control.units + pair.treatment.units
