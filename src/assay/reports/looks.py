"""Looks at sequential experiments: when one is due, and what making one does.

A verdict that changed whenever somebody opened a page would be right too often by chance. So it changes at
looks alone: made by the schedule when the plan says so, or by an explicit call, which takes the place of the
next planned one. Each is kept with its verdicts, and never made again.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, time
from typing import Any, Final, NamedTuple

from assay.bucketing.ruleset import Status
from assay.catalog import looks
from assay.catalog.database import Actor, Database
from assay.catalog.editing import find
from assay.catalog.tables import Look
from assay.errors import Conflict
from assay.reports.judging import information, look_verdicts, next_look
from assay.reports.question import Question
from assay.reports.report import Report
from assay.reports.snapshots import Snapshots
from assay.reports.spec import ExperimentSpec, LookVerdict

#: The methods whose verdicts belong to looks.
METHODS: Final = frozenset({"group_sequential", "always_valid"})
#: Two looks of a group-sequential test with less new information than this would be one to its limits.
LEAST: Final = 1e-5


class Made(NamedTuple):
    """A look, and whether it was made just now."""

    look: Look
    new: bool


def due(spec: ExperimentSpec, units: int, now: datetime) -> bool:
    """Whether the plan asks for a look now, with so many units in.

    By date, by units, or, where neither was planned, each day after midnight UTC. An experiment that has
    ended is looked at once more.
    """
    if spec.started_at is None or not spec.analysis.is_sequential or _done(spec):
        return False
    last = spec.looks[-1].at if spec.looks else None
    if spec.status == Status.STOPPED:
        return last is None or (spec.ended_at is not None and last < spec.ended_at)
    coming = next_look(spec)
    if coming is None:
        return False
    if coming.at is not None:
        return coming.at <= now
    if coming.units is not None:
        return coming.units <= units
    midnight = datetime.combine(now.date(), time(), now.tzinfo)
    return max(spec.started_at, last or spec.started_at) < midnight


def make(snapshots: Snapshots, database: Database, reference: int | str, actor: Actor, now: datetime) -> Made:
    """Look at everything acknowledged before the call; the last look, where nothing new has come since.

    Raises `NotFound`, `Unavailable`, and `Conflict` where the method has no looks or nothing can be judged.
    """
    _expect_looks(snapshots.spec(reference))
    report = snapshots.anew(reference, Question(), now).report
    spec, units = report.spec, sum(report.units.values())
    fraction = information(spec, units, report.end)
    if not fraction:
        raise Conflict(_WHY_NOT[units > 0], code="nothing_to_look_at")
    found = look_verdicts(report)
    if spec.looks and (_done(spec) or _nothing_new(report, fraction, found)):
        with database.reading() as read:
            last = looks.find(read, spec.id, spec.looks[-1].number)
        if last is not None:
            return Made(last, new=False)
    with database.writing(actor, now) as tx:
        row, new = looks.add(
            tx,
            find(tx, spec.id),
            len(spec.looks) + 1,
            at=report.computed_at,
            units=units,
            fraction=fraction,
            verdicts=[_stored(each) for each in found],
        )
    return Made(row, new)


_WHY_NOT: Final[Mapping[bool, str]] = {
    False: "Nobody is in the experiment yet, so there is nothing to look at.",
    True: (
        "Nothing says how much information is planned, so the look would have no limit: set "
        "a target sample size, planned units or the dates of the looks."
    ),
}


def _expect_looks(spec: ExperimentSpec) -> None:
    if not spec.analysis.is_sequential:
        raise Conflict(
            f"The method {spec.analysis.method} has no looks: its verdict is that of each report. "
            "Experiments with the method group_sequential or always_valid have them.",
            code="no_looks",
        )
    if spec.started_at is None:
        raise Conflict("The experiment has not started, so there is nothing to look at.", code="not_started")


def _done(spec: ExperimentSpec) -> bool:
    """Whether a group-sequential test has spent its error: no look can add to it."""
    if spec.analysis.method != "group_sequential" or not spec.looks:
        return False
    planned = spec.analysis.looks
    return spec.looks[-1].fraction >= 1.0 or (planned is not None and len(spec.looks) >= planned)


def _nothing_new(report: Report, fraction: float, found: tuple[LookVerdict, ...]) -> bool:
    last = report.spec.looks[-1]
    if report.spec.analysis.method == "group_sequential":
        return fraction - last.fraction < LEAST
    said = [[list(_stored(each).values()) for each in one] for one in (last.verdicts, found)]
    return _alike(*said)


def _alike(one: Any, other: Any) -> bool:
    """Equal, numbers to nine digits: the same rows summed in another order differ in the last ones."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_alike, one, other))
    return bool(one == other)


def _stored(each: LookVerdict) -> dict[str, Any]:
    """As it is kept: JSON has no number without end."""
    return {name: _finite(value) for name, value in asdict(each).items()}


def _finite(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
