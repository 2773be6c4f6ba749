"""A file's comparisons in the words of the engine that judges them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from assay.offline.request import FileMetric, Judging, Kind, Method
from assay.offline.units import Summary
from assay.stats import (
    Case,
    Contrast,
    Count,
    Judged,
    QuantileArm,
    Ratio,
    Reason,
    Rules,
    Verdict,
    adjust,
    contrast,
    judge,
    judge_family,
    quantile_contrast,
    verdicts,
)

_METHODS: dict[Method, verdicts.Method] = {
    "fixed": "fixed",
    "always-valid": "always_valid",
    "group-sequential": "group_sequential",
    "bayesian": "bayesian",
}


@dataclass(frozen=True, slots=True)
class Pair:
    """A control and a treatment by one metric, ready to be judged at any level."""

    metric: FileMetric
    control: Summary
    treatment: Summary
    covariates: tuple[str, ...] = ()

    @property
    def plain(self) -> "Pair":
        """The same arms without covariates."""
        return replace(self, covariates=())

    def contrast(self) -> Contrast:
        """What differs between the arms, adjusted for the covariates where there are any."""
        if self.metric.kind is Kind.QUANTILE:
            return quantile_contrast(_arm(self.control), _arm(self.treatment))
        value = Ratio("y", "d") if self.metric.kind is Kind.RATIO else "y"
        if self.covariates:
            return adjust(self.control.moments, self.treatment.moments, value, self.covariates)
        return contrast(self.control.moments, self.treatment.moments, value)


def _arm(summary: Summary) -> QuantileArm:
    return summary.quantile or QuantileArm(0.5, 0, 0, None, None, Reason.NO_DATA)


def judge_pair(pair: Pair, judging: Judging, alpha: float) -> Verdict:
    """The verdict on one pair at the level `alpha`."""
    return judge(_case(pair, judging), _rules(judging), alpha)


def judge_pairs(pairs: Sequence[Pair], judging: Judging) -> tuple[Judged, ...]:
    """All pairs as one family."""
    return judge_family([_case(pair, judging) for pair in pairs], _rules(judging))


def _case(pair: Pair, judging: Judging) -> Case:
    low, high = pair.control.successes, pair.treatment.successes
    counts = None
    if not pair.covariates and low is not None and high is not None:
        units = pair.control.moments.count, pair.treatment.moments.count
        counts = Count(units[0], low), Count(units[1], high)
    return Case(pair.contrast(), judging.alternative(pair.metric), pair.metric.lower_is_better, counts)


def _rules(judging: Judging) -> Rules:
    return Rules(
        _METHODS[judging.method],
        judging.alpha,
        judging.correction,
        judging.fraction,
        judging.earlier,
        judging.final,
    )
