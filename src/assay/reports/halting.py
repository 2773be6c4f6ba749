"""Whether an experiment is well enough to be shown to more people."""

from datetime import datetime

from assay.reports.breaker import TUNED
from assay.reports.compare import contrasts
from assay.reports.question import Question
from assay.reports.report import Comparison, Health, MetricReport, Report
from assay.reports.snapshots import Snapshots
from assay.reports.spec import Direction, Role
from assay.stats import harm_beyond


def problem(snapshots: Snapshots, experiment_id: int, now: datetime) -> str | None:
    """Why its ramp should halt, in a sentence; None where the report of this moment has nothing against it.

    That is a health check that failed, or a guardrail that a variant is shown to make worse. The report is
    the one that everybody else is shown. Raises `NotFound` and `Unavailable`.
    """
    return objection(snapshots.get(experiment_id, Question(), now).report)


def objection(report: Report) -> str | None:
    """What in a report speaks against showing the experiment to more people, in a sentence."""
    failed = next((check.sentence for check in report.checks if check.health is Health.FAILED), None)
    return failed or _harm(report)


def _harm(report: Report) -> str | None:
    """The guardrail that is shown to be harmed, in a sentence.

    Every step of a ramp is a look, at a moment that the method of the experiment does not plan for: so each
    rests on a bound that holds at all moments, at the experiment's level, shared by all guardrails and
    treatments.
    """
    pairs = [
        (of, each)
        for of in report.metrics
        if of.metric.role is Role.GUARDRAIL
        for each in of.comparisons
        if each.treatment.is_on
    ]
    for of, each in pairs:
        if _harmed(report, of, each, report.alpha / len(pairs)):
            return f"{each.treatment.name} harms the guardrail {of.metric.name}."
    return None


def _harmed(report: Report, of: MetricReport, each: Comparison, alpha: float) -> bool:
    """Whether it is worse for certain, and not shown to be within its margin, where it has one."""
    if each.judged is not None and each.judged.margin is not None and each.judged.margin.passed:
        return False
    return harm_beyond(
        contrasts(report.spec, of, each).adjusted,
        0.0,
        planned=TUNED,
        direction="increase" if of.metric.direction is Direction.INCREASE else "decrease",
        alpha=alpha,
    ).shown
