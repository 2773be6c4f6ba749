"""From two arms to a verdict, by whichever method was chosen; one shape for all of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from assay.offline.request import FileMetric, Judging, Kind
from assay.offline.units import Summary
from assay.stats import (
    Contrast,
    Corrected,
    Count,
    Effect,
    Interval,
    QuantileArm,
    Ratio,
    Reason,
    SequentialEffect,
    adjust,
    always_valid,
    bayes,
    contrast,
    correct,
    group_sequential,
    infer,
    quantile_contrast,
    two_proportions,
)
from assay.stats.tails import Alternative


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a comparison says: treatment minus control, absolute and relative to the control.

    Under the Bayesian method `difference` and `lift` are posterior means, the intervals are credible, and
    there is no p-value; `chance_to_win` and the losses belong to the lift. `significant` is `None` where no
    test could be made, and `reason` says why; `lift_reason` says why the lift or its interval is missing.
    `fraction`, `limit` and `last` belong to a group-sequential look.
    """

    method: str
    alternative: Alternative
    alpha: float
    control: float | None
    treatment: float | None
    difference: float | None
    standard_error: float | None
    interval: Interval | None
    lift: float | None
    lift_interval: Interval | None
    lift_reason: Reason | None
    p_value: float | None = None
    log10_p_value: float | None = None
    significant: bool | None = None
    reason: Reason | None = None
    chance_to_win: float | None = None
    loss_if_shipped: float | None = None
    loss_if_kept: float | None = None
    fraction: float | None = None
    limit: float | None = None
    last: bool | None = None


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


def judge(pair: Pair, judging: Judging, alpha: float) -> Verdict:
    """The verdict on one pair at the level `alpha`."""
    alternative = judging.alternative(pair.metric)
    match judging.method:
        case "fixed":
            return _fixed(pair, alpha, alternative)
        case "always-valid":
            return _always_valid(pair.contrast(), judging, alpha, alternative)
        case "group-sequential":
            return _group_sequential(pair.contrast(), judging, alpha, alternative)
        case "bayesian":
            return _bayesian(pair.contrast(), pair.metric, alpha)


def _fixed(pair: Pair, alpha: float, alternative: Alternative) -> Verdict:
    successes = pair.control.successes, pair.treatment.successes
    units = pair.control.moments.count, pair.treatment.moments.count
    if not pair.covariates and successes[0] is not None and successes[1] is not None and min(units) > 1:
        counts = Count(units[0], successes[0]), Count(units[1], successes[1])
        found = two_proportions(*counts, alpha=alpha, alternative=alternative)
    else:
        found = infer(pair.contrast(), alpha=alpha, alternative=alternative)
    return _tested(found)


def _always_valid(given: Contrast, judging: Judging, alpha: float, alternative: Alternative) -> Verdict:
    found = always_valid(given, planned=given.units / judging.fraction, alpha=alpha, alternative=alternative)
    return _tested(found)


def _tested(found: Effect | SequentialEffect) -> Verdict:
    return Verdict(
        found.method,
        found.alternative,
        found.alpha,
        found.control,
        found.treatment,
        found.estimate,
        found.standard_error,
        found.interval,
        found.lift.value,
        found.lift.interval,
        found.lift.reason,
        found.p_value,
        found.log10_p_value,
        found.significant,
        found.reason,
    )


def _group_sequential(given: Contrast, judging: Judging, alpha: float, alternative: Alternative) -> Verdict:
    fraction = judging.fraction
    found = group_sequential(
        given,
        (*(each for each in judging.earlier if each < fraction), fraction),
        alpha=alpha,
        alternative=alternative,
        final=judging.final,
    )
    return Verdict(
        found.method,
        alternative,
        alpha,
        found.control,
        found.treatment,
        found.estimate,
        found.standard_error,
        found.interval,
        found.lift.value,
        found.lift.interval,
        found.lift.reason,
        found.p_value,
        None,
        found.crossed,
        found.reason,
        fraction=fraction,
        limit=found.limit,
        last=found.last,
    )


def _bayesian(given: Contrast, metric: FileMetric, alpha: float) -> Verdict:
    level, lower = 1.0 - alpha, metric.lower_is_better
    relative = bayes(given, level=level, lower_is_better=lower)
    absolute = bayes(given, scale="absolute", level=level, lower_is_better=lower)
    shown = relative if relative.reason is None else absolute
    return Verdict(
        "normal_posterior",
        "two-sided",
        alpha,
        given.control_shown,
        given.treatment_shown,
        absolute.mean,
        absolute.sd,
        absolute.interval,
        relative.mean,
        relative.interval,
        relative.reason,
        reason=given.reason or shown.reason,
        chance_to_win=shown.chance_to_win,
        loss_if_shipped=shown.loss_treatment if shown is relative else None,
        loss_if_kept=shown.loss_control if shown is relative else None,
    )


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict within its family; `adjusted_p_value` is there where a correction was made."""

    verdict: Verdict
    adjusted_p_value: float | None = None


def judge_family(pairs: Sequence[Pair], judging: Judging) -> tuple[Judged, ...]:
    """All comparisons together, with decisions and intervals at the level that the correction leaves each.

    Group-sequential looks share alpha evenly (Bonferroni): a limit, not a p-value, decides them. A posterior
    is no error rate and is not corrected.
    """
    first = [judge(pair, judging, judging.alpha) for pair in pairs]
    if judging.method == "bayesian" or judging.correction == "none" or len(pairs) < 2:
        return tuple(Judged(verdict) for verdict in first)
    if judging.method == "group-sequential":
        members = sum(verdict.reason is None for verdict in first)
        share = judging.alpha / max(members, 1)
        return tuple(Judged(judge(pair, judging, share)) for pair in pairs)
    found = correct([each.p_value for each in first], method=judging.correction, alpha=judging.alpha)
    return tuple(
        _matched(pair, verdict, judging, found, at)
        for at, (pair, verdict) in enumerate(zip(pairs, first, strict=True))
    )


def _matched(pair: Pair, verdict: Verdict, judging: Judging, found: Corrected, at: int) -> Judged:
    level, rejected = found.alphas[at], found.rejected[at]
    if level is None:
        return Judged(verdict)
    wider = replace(judge(pair, judging, level), significant=rejected)
    return Judged(_ended_at_zero(wider) if rejected else wider, found.p_values[at])


def _ended_at_zero(verdict: Verdict) -> Verdict:
    """Step-wise corrections reject more than equally wide intervals show: a rejection ends them at zero."""
    up = (verdict.difference or 0.0) > 0.0

    def cut(interval: Interval | None) -> Interval | None:
        if interval is None:
            return None
        low, high = interval
        if up:
            return Interval(None if low is None else max(low, 0.0), high)
        return Interval(low, None if high is None else min(high, 0.0))

    return replace(verdict, interval=cut(verdict.interval), lift_interval=cut(verdict.lift_interval))
