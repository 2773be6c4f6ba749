"""What became of the latest events: do they reach the units they are meant for, once and in time?

Events that name no experiment belong to users' lives, before the experiment and after it; that those do not
count is as it should be. Whoever names the experiment means it, so only such events can be out of place.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from assay.eventstore.base import Fate, LedgerReason, Repetitions
from assay.reports.checks.base import Finding
from assay.reports.report import Health
from assay.reports.spec import ExperimentSpec
from assay.reports.wording import percent

#: Above this share of events with another variant than the unit's, assignment itself is broken.
MOST_SEVERAL = 0.01
#: Shares of events above which something is out of place.
_BEFORE = 0.01
_LATE = 0.01
_UNASSIGNED = 0.05
_REPEATED = 0.01
_REVERSED = 0.2
#: Fewer are mishaps.
_FEWEST = 10


def one_variant(fates: Sequence[Fate], conflicts: int) -> Finding:
    """Whether callers believe of units what is on record; `conflicts` are exposures that say something else.

    Those are a warning at most: one is counted each time that an SDK reports it, so they are no share of
    units.
    """
    claims, wrong = sum(each.claims for each in fates), sum(each.mismatched for each in fates)
    units = sum(each.mismatched_units for each in fates)
    inputs = {
        "claims": claims,
        "mismatched_events": wrong,
        "mismatched_units": units,
        "mismatched_exposures": conflicts,
    }
    if conflicts and not wrong:
        return Finding(
            Health.WARNING,
            f"{conflicts:,} exposures name another variant than the unit has on record: those units have "
            "seen two variants (was the split changed under an SDK without sticky buckets?). They are "
            "counted for the variant on record.",
            inputs,
        )
    if not wrong:
        return Finding(Health.OK, "No unit is known under two variants.", inputs)
    broken = wrong >= _FEWEST and wrong / claims > MOST_SEVERAL
    return Finding(
        Health.FAILED if broken else Health.WARNING,
        f"{_events(wrong)} of {units:,} units ({percent(wrong / claims)} of those that say one) name another "
        "variant than the unit has on record: those units have seen two variants, or the caller keeps an old "
        "answer. They are counted for the variant on record.",
        inputs,
    )


def before_assignment(fates: Sequence[Fate]) -> Finding:
    """Whether events that name the experiment happened before their unit was in it."""
    all_before = [each for each in fates if each.reason is LedgerReason.BEFORE_ASSIGNMENT]
    misplaced, named = sum(each.named for each in all_before), _named(fates)
    return _told(
        _Share(misplaced, named, _BEFORE),
        "{} that name the experiment ({}) happened before their unit was assigned and do not count: ask for "
        "the assignment before what it changes is shown, and compare the clocks.",
        "Events that name the experiment come after the assignment.",
        {
            "events": sum(each.events for each in all_before),
            "naming_the_experiment": misplaced,
            "of": named,
        },
    )


def unassigned_events(fates: Sequence[Fate]) -> Finding:
    """Whether events that name the experiment are of units that are not in it."""
    strangers = sum(each.events for each in fates if each.reason is LedgerReason.UNASSIGNED)
    named = _named(fates)
    return _told(
        _Share(strangers, named, _UNASSIGNED),
        "{} that name the experiment ({}) are of units that have no assignment and do not count: are "
        "exposures lost, or do events carry another id than assignments?",
        "Events that name the experiment are of units that are in it.",
        {"events": strangers, "of": named},
    )


def late_events(spec: ExperimentSpec, fates: Sequence[Fate]) -> Finding:
    """Whether events that name the experiment happened after its end."""
    late = sum(each.named for each in fates if each.reason is LedgerReason.LATE)
    named = _named(fates)
    inputs = {"naming_the_experiment": late, "of": named}
    if spec.ended_at is None:
        return Finding(Health.OK, "The experiment has no end yet, so no event can be after it.", inputs)
    return _told(
        _Share(late, named, _LATE),
        "{} that name the experiment ({}) happened after its end and do not count: the application still "
        "shows its variants, or was told late of the end.",
        "Events that name the experiment happened before its end.",
        inputs,
    )


def duplicates(repetitions: Repetitions) -> Finding:
    """Whether many events were sent again."""
    dropped, stored = repetitions
    share = _Share(dropped, dropped + stored, _REPEATED)
    return _told(
        share,
        "{} ({}) were sent again with the same id and dropped. That harms no number, but somebody sends "
        "twice: if it also sends events without ids, those count twice.",
        "Hardly any event was sent twice.",
        {"dropped": dropped, "stored": stored, "share": share.share},
    )


def reversals(fates: Sequence[Fate]) -> Finding:
    """Whether many events were taken back."""
    back = sum(each.events for each in fates if each.reason is LedgerReason.REVERSED)
    counted = sum(each.events for each in fates if each.reason is LedgerReason.COUNTED)
    return _told(
        _Share(back, back + counted, _REVERSED),
        "{} ({}) were taken back by later ones: look at whether the variants lead to more of that, for it "
        "may still go on.",
        "Few events were taken back by later ones.",
        {"reversed": back, "counted": counted},
    )


class _Share(NamedTuple):
    """Some events of all, and the share above which something is out of place."""

    some: int
    of: int
    most: float

    @property
    def share(self) -> float:
        """The share they are; of none it is zero."""
        return self.some / self.of if self.of else 0.0

    @property
    def stands_out(self) -> bool:
        """Whether it is more than that, and more than mishaps."""
        return self.some >= _FEWEST and self.some > self.most * self.of


def _told(found: _Share, warning: str, fine: str, inputs: Mapping[str, object]) -> Finding:
    """The finding on a share of events; the warning has places for how many they are, and what share."""
    if not found.stands_out:
        return Finding(Health.OK, fine, inputs)
    said = warning.format(_events(found.some), percent(found.share))
    return Finding(Health.WARNING, said, inputs)


def _named(fates: Sequence[Fate]) -> int:
    return sum(each.named for each in fates)


def _events(count: int) -> str:
    return f"{count:,} events"
