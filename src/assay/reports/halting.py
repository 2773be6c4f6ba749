"""Whether an experiment is well enough to be shown to more people."""

from datetime import datetime

from assay.reports.question import Question
from assay.reports.report import Health, Report
from assay.reports.snapshots import Snapshots
from assay.reports.spec import Role


def problem(snapshots: Snapshots, experiment_id: int, now: datetime) -> str | None:
    """Why its ramp should halt, in a sentence; None where the report of this moment has nothing against it.

    That is a health check that failed, or a guardrail that a variant makes significantly worse. The report is
    the one that everybody else is shown. Raises `NotFound` and `Unavailable`.
    """
    return objection(snapshots.get(experiment_id, Question(), now).report)


def objection(report: Report) -> str | None:
    """What in a report speaks against showing the experiment to more people, in a sentence."""
    failed = next((check.sentence for check in report.checks if check.health is Health.FAILED), None)
    return failed or _harm(report)


def _harm(report: Report) -> str | None:
    for each in report.metrics:
        if each.metric.role is Role.GUARDRAIL:
            for found in each.comparisons:
                if found.significant and not found.improves(each.metric.direction):
                    return f"{found.treatment.name} harms the guardrail {each.metric.name}."
    return None
