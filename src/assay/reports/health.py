"""Health: can these numbers be trusted?

Each check declares the evidence it needs and is given nothing else. All checks are made, whatever the others
find, and one that breaks says so in its own place: none can hide another, nor the report.
"""

from collections.abc import Sequence

from assay.reports.checks import effects, fates, intake, meetings, sample, split
from assay.reports.checks.base import HealthCheck
from assay.reports.evidence import Evidence
from assay.reports.report import Check, Health


def examine(evidence: Evidence, checks: Sequence[HealthCheck] | None = None) -> tuple[Check, ...]:
    """Make every check."""
    return tuple(_made(check, evidence) for check in (CHECKS if checks is None else checks))


def _made(check: HealthCheck, evidence: Evidence) -> Check:
    try:
        found = check.judge(**{name: getattr(evidence, name) for name in check.needs})
    except Exception as problem:  # noqa: BLE001 a broken check must not take the others with it
        sentence = f"This check could not be made ({type(problem).__name__})."
        return Check(check.name, Health.UNKNOWN, sentence, {})
    return Check(check.name, found.health, found.sentence, found.inputs)


#: In the order in which they matter: what makes every number wrong comes first.
CHECKS: tuple[HealthCheck, ...] = (
    HealthCheck("sample_ratio", ("spec", "arrivals", "activated", "attributes"), split.sample_ratio),
    HealthCheck(
        "sample_ratio_assigned",
        ("spec", "arrivals", "activated", "attributes"),
        split.sample_ratio_assigned,
    ),
    HealthCheck("one_variant", ("fates", "conflicts"), fates.one_variant),
    HealthCheck("events_arrive", ("metrics", "units"), sample.events_arrive),
    HealthCheck("before_assignment", ("fates",), fates.before_assignment),
    HealthCheck("unassigned_events", ("fates",), fates.unassigned_events),
    HealthCheck("late_events", ("spec", "fates"), fates.late_events),
    HealthCheck("duplicates", ("repetitions",), fates.duplicates),
    HealthCheck("reversals", ("fates",), fates.reversals),
    HealthCheck("exposure_drop", ("spec", "arrivals", "end"), intake.exposure_drop),
    HealthCheck("events_stop", ("spec", "fates", "end"), intake.events_stop),
    HealthCheck("balance", ("spec", "metrics", "before"), effects.balance),
    HealthCheck("novelty", ("spec", "course"), effects.novelty),
    HealthCheck("interactions", ("spec", "meetings"), meetings.interactions),
    HealthCheck("enough_power", ("spec", "metrics", "units"), effects.enough_power),
    HealthCheck("steady_split", ("spec", "metrics"), sample.steady_split),
    HealthCheck("planned_sample", ("spec", "units"), sample.planned_sample),
    HealthCheck("enough_units", ("spec", "units"), sample.enough_units),
    HealthCheck("enough_days", ("begin", "end"), sample.enough_days),
)
