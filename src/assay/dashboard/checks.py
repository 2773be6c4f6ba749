"""The checks of a report as they are read: what is wrong, what only takes more time, and what is well."""

from collections.abc import Sequence
from typing import NamedTuple

from assay.catalog.editing import LIVE
from assay.reports.report import Check, Health, Report

_WORST = (Health.FAILED, Health.WARNING, Health.UNKNOWN)
#: What every experiment lacks at first and gets by going on: no fault while it is under way.
_IN_TIME = frozenset({"planned_sample", "enough_units", "enough_days"})


class Sifted(NamedTuple):
    """The checks, sorted. `nothing` says that there are no units, so that none could find anything wrong.

    `mark` is how the data stand: the state of the worst check among `worries`, and no worse for what waits.
    """

    worries: Sequence[Check]
    waiting: Sequence[Check]
    well: Sequence[Check]
    nothing: bool
    mark: str


def sifted(report: Report) -> Sifted:
    """The checks of a report, sorted."""
    off = [each for each in report.checks if each.health is not Health.OK]
    if not report.total_units:
        failed = [each for each in off if each.health is Health.FAILED]
        return Sifted(failed, (), (), nothing=True, mark=str(Health.FAILED if failed else Health.UNKNOWN))
    going = report.spec.status in LIVE
    waiting = [each for each in off if going and each.name in _IN_TIME and each.health is Health.WARNING]
    worries = [each for each in off if each not in waiting]
    states = {each.health for each in worries}
    return Sifted(
        worries,
        waiting,
        [each for each in report.checks if each.health is Health.OK],
        nothing=False,
        mark=str(next((state for state in _WORST if state in states), Health.OK)),
    )
