"""Circuit breakers: guardrails that pause or stop an experiment once harm beyond their margin is shown.

A breaker looks all the time, so each look rests on an always-valid bound (`assay.stats.harm_beyond`). The
rate of false trips is that of the experiment: guardrails and treatments share it evenly (Bonferroni).
"""

from dataclasses import replace
from datetime import datetime
from typing import Any, Final, NamedTuple

from assay.bucketing.ruleset import Status
from assay.catalog import lifecycle
from assay.catalog.breakers import UNWATCHED
from assay.catalog.database import Database
from assay.catalog.documents import iso
from assay.catalog.editing import find
from assay.reports.compare import contrasts
from assay.reports.report import Comparison, MetricReport, Report
from assay.reports.snapshots import Snapshot
from assay.reports.spec import BreakerSpec, Direction, Role
from assay.reports.wording import number, percent
from assay.stats import Harm, harm_beyond

#: The units of both arms at which the bound is tightest: early, as that is when harm can still be prevented.
TUNED: Final = 10_000


class Found(NamedTuple):
    """What a guardrail shows of one treatment."""

    of: MetricReport
    comparison: Comparison
    harm: Harm


def watched(report: Report) -> tuple[Found, ...]:
    """Every guardrail that can trip the breaker, by every treatment that is on."""
    breaker = report.spec.breaker
    if breaker is None:
        return ()
    pairs = [
        (of, each)
        for of in report.metrics
        if of.metric.role is Role.GUARDRAIL and of.metric.type not in UNWATCHED
        for each in of.comparisons
    ]
    alpha = breaker.rate / max(1, len(pairs))
    return tuple(
        Found(of, each, _harm(report, breaker, of, each, alpha)) for of, each in pairs if each.treatment.is_on
    )


def _harm(report: Report, breaker: BreakerSpec, of: MetricReport, each: Comparison, alpha: float) -> Harm:
    """The harm among the units that came since the breaker was last set."""
    since = breaker.since_phase
    later = {
        variant: {phase: tally for phase, tally in by_phase.items() if phase >= since}
        for variant, by_phase in of.tallies.items()
    }
    given = contrasts(report.spec, replace(of, tallies=later), each).adjusted
    margin = of.metric.margin
    return harm_beyond(
        given,
        0.0 if margin is None else margin.size,
        planned=TUNED,
        relative=margin is not None and margin.is_relative,
        direction="increase" if of.metric.direction is Direction.INCREASE else "decrease",
        alpha=alpha,
    )


def first_shown(report: Report) -> Found | None:
    """The guardrail that trips the breaker now: of those shown to be harmed, the clearest."""
    shown = [each for each in watched(report) if each.harm.shown]
    return min(shown, key=lambda each: each.harm.p_value or 0.0, default=None)


def look(database: Database, snapshot: Snapshot, now: datetime) -> bool:
    """Trip the experiment's breaker if this report shows harm; whether it did.

    Not where somebody has changed the experiment since the report: the next one says what holds then.
    """
    spec = snapshot.report.spec
    found = first_shown(snapshot.report)
    if found is None or spec.breaker is None:
        return False
    with database.writing(lifecycle.SCHEDULE, now) as tx:
        experiment = find(tx, spec.id)
        state = experiment.breaker_state or {}
        same = experiment.breaker is not None and state.get("since_phase", 0) == spec.breaker.since_phase
        if experiment.status != Status.RUNNING or not same:
            return False
        lifecycle.trip(tx, experiment, evidence(snapshot, found), reason(found, spec.breaker))
    return True


def reason(found: Found, breaker: BreakerSpec) -> str:
    """The evidence in a sentence."""
    harm, metric, each = found.harm, found.of.metric, found.comparison
    margin, gap, bound = metric.margin, harm.estimate or 0.0, harm.bound or 0.0
    if margin is None:
        beyond = "for the worse"
    else:
        size = percent(margin.size) if margin.is_relative else number(margin.size)
        beyond = f"for the worse by more than its margin of {size}"
    side = "at most" if harm.direction == "increase" else "at least"
    return (
        f"{each.treatment.name} changes the guardrail {metric.name} {beyond}: {_signed(gap)} against "
        f"{each.control.name}, and {side} {_signed(bound)} by a bound that holds at all times "
        f"(false-trip rate {percent(breaker.rate)})."
    )


def _signed(value: float) -> str:
    return f"{'+' if value > 0.0 else ''}{number(value)}".replace("-", "−")


def evidence(snapshot: Snapshot, found: Found) -> dict[str, Any]:
    """The numbers, for the record: of the units since the breaker was last set."""
    harm, metric, each, spec = found.harm, found.of.metric, found.comparison, snapshot.report.spec
    breaker = spec.breaker
    units = {
        arm.id: sum(
            tally.units
            for phase, tally in found.of.tallies.get(arm.id, {}).items()
            if breaker is not None and phase >= breaker.since_phase
        )
        for arm in (each.control, each.treatment)
    }
    return {
        "metric": metric.key,
        "control": each.control.key,
        "treatment": each.treatment.key,
        "units_control": units[each.control.id],
        "units_treatment": units[each.treatment.id],
        "difference": harm.estimate,
        "standard_error": harm.standard_error,
        "margin": None
        if metric.margin is None
        else {"relative" if metric.margin.is_relative else "absolute": metric.margin.size},
        "difference_at_margin": harm.null,
        "bound": harm.bound,
        "limit": harm.limit,
        "statistic": harm.statistic,
        "p_value": harm.p_value,
        "alpha": harm.alpha,
        "false_trip_rate": None if breaker is None else breaker.rate,
        "computed_at": iso(snapshot.report.computed_at),
        "watermark": list(snapshot.mark.mark),
    }
