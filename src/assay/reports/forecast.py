"""How far an experiment is, what more days would bring, and what an effect is worth at the stop."""

import math
from datetime import datetime, timedelta

from assay.reports.judging import fractions, information, planned_units
from assay.reports.report import AtStop, Comparison, Judgement, MetricReport, Outlook, Progress
from assay.reports.spec import Direction, ExperimentSpec
from assay.stats import Contrast, Reason, adjusted_at_stop, boundaries, predict, winners_curse

#: How many days ahead the report looks.
AHEAD = (3, 7, 14)
_DAY = timedelta(days=1)
_NO_CORRECTION = {
    "always_valid": "An always-valid interval holds at a stop as it is; the estimate alone may be too large.",
    "bandit": "An always-valid interval holds at a stop as it is; the estimate alone may be too large.",
    "bayesian": "A posterior mean is pulled towards the prior already; it needs no other correction.",
}


def progress(spec: ExperimentSpec, units: int, begin: datetime | None, end: datetime) -> Progress:
    """How far it is, and how long the rest takes at the pace so far."""
    planned = planned_units(spec)
    if not (spec.analysis.planned_units or spec.target_sample_size):
        planned = None
    days = (end - begin) / _DAY if begin is not None else 0.0
    # The pace of some hours is none of a day.
    pace = units / days if days >= 1.0 and units else None
    left = None
    if planned is not None and spec.status == "running":
        left = 0.0 if units >= planned else (planned - units) / pace if pace else None
    return Progress(units, planned, information(spec, units, end) if planned else None, pace, left)


def outlooks(primary: MetricReport, ahead: Progress) -> tuple[Outlook, ...]:
    """What a fixed-horizon test of each treatment will say in some days, if units come as they did.

    No more units are reckoned with than were planned.
    """
    if not ahead.per_day or not ahead.units:
        return ()
    most = max(ahead.planned / ahead.units, 1.0) if ahead.planned is not None else math.inf
    lower = primary.metric.direction is Direction.DECREASE
    return tuple(
        Outlook(
            each.treatment,
            days,
            predict(
                each.judged.contrast,
                each.judged.contrast.units * min(most, 1.0 + days * ahead.per_day / ahead.units),
                alpha=each.judged.numbers.alpha,
                lower_is_better=lower,
            ),
        )
        for each in primary.comparisons
        if each.judged is not None
        for days in AHEAD
    )


def at_stop(spec: ExperimentSpec, primary: MetricReport) -> tuple[AtStop, ...]:
    """The effects on the primary metric, corrected for the selection by which they are looked at."""
    return tuple(
        _corrected(spec, each, each.judged) for each in primary.comparisons if each.judged is not None
    )


def _corrected(spec: ExperimentSpec, each: Comparison, judged: Judgement) -> AtStop:
    method, naive = spec.analysis.method, judged.numbers.difference
    if method in _NO_CORRECTION:
        return AtStop(each.treatment, method, naive, None, None, _NO_CORRECTION[method])
    if method == "group_sequential":
        return _after_looks(spec, each, judged)
    found = winners_curse(judged.contrast, alpha=judged.numbers.alpha)
    sentence = None if found.reason is None else found.reason.sentence
    return AtStop(each.treatment, "conditional_likelihood", found.naive, found.estimate, None, sentence)


def _after_looks(spec: ExperimentSpec, each: Comparison, judged: Judgement) -> AtStop:
    """By the stage-wise ordering, at the look that crossed or the last one."""
    name, look = "stage_wise", judged.look
    if look is None or judged.look_number is None or not look.z or look.estimate is None:
        return AtStop(each.treatment, name, judged.numbers.difference, None, None, judged.waiting)
    made = fractions(one for one in spec.looks if one.number <= judged.look_number)
    analysis = spec.analysis
    plan = boundaries(
        made,
        alpha=judged.numbers.alpha,
        sides=2 if judged.numbers.alternative == "two-sided" else 1,
        spending=analysis.spending,
        power=analysis.spending_power,
        final=judged.look_number == analysis.looks or _after_the_end(spec, judged.look_number),
    )
    error = look.estimate / look.z
    now: Contrast = judged.contrast
    then = now._replace(estimate=look.estimate, variance=error * error, reason=None)
    found = adjusted_at_stop(then, plan, alternative=judged.numbers.alternative)
    if isinstance(found, Reason):
        return AtStop(each.treatment, name, look.estimate, None, None, found.sentence)
    return AtStop(each.treatment, name, look.estimate, found.estimate, found.interval, None)


def _after_the_end(spec: ExperimentSpec, number: int) -> bool:
    """Whether the look was the one at the stop, which spends what is left of the level."""
    made = next(look.at for look in spec.looks if look.number == number)
    return spec.ended_at is not None and made >= spec.ended_at
