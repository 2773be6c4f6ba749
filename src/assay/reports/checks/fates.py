"""What became of the latest events: do they reach the units they are meant for, once and in time?

Events that name no experiment belong to users' lives, before the experiment and after it; that those do not
count is as it should be. Whoever names the experiment means it, so only such events can be out of place.
"""

from collections.abc import Sequence

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
    events = sum(each.events for each in all_before)
    misplaced, named = sum(each.named for each in all_before), _named(fates)
    inputs = {"events": events, "naming_the_experiment": misplaced, "of": named}
    if _stands_out(misplaced, named, _BEFORE):
        return Finding(
            Health.WARNING,
            f"{_events(misplaced)} that name the experiment ({percent(misplaced / named)}) happened before "
            "their unit was assigned and do not count: ask for the assignment before what it changes is "
            "shown, and compare the clocks.",
            inputs,
        )
    return Finding(Health.OK, "Events that name the experiment come after the assignment.", inputs)


def unassigned_events(fates: Sequence[Fate]) -> Finding:
    """Whether events that name the experiment are of units that are not in it."""
    strangers = sum(each.events for each in fates if each.reason is LedgerReason.UNASSIGNED)
    named = _named(fates)
    inputs = {"events": strangers, "of": named}
    if _stands_out(strangers, named, _UNASSIGNED):
        return Finding(
            Health.WARNING,
            f"{_events(strangers)} that name the experiment ({percent(strangers / named)}) are of units that "
            "have no assignment and do not count: are exposures lost, or do events carry another id than "
            "assignments?",
            inputs,
        )
    return Finding(Health.OK, "Events that name the experiment are of units that are in it.", inputs)


def late_events(spec: ExperimentSpec, fates: Sequence[Fate]) -> Finding:
    """Whether events that name the experiment happened after its end."""
    late = sum(each.named for each in fates if each.reason is LedgerReason.LATE)
    named = _named(fates)
    inputs = {"naming_the_experiment": late, "of": named}
    if spec.ended_at is None:
        return Finding(Health.OK, "The experiment has no end yet, so no event can be after it.", inputs)
    if _stands_out(late, named, _LATE):
        return Finding(
            Health.WARNING,
            f"{_events(late)} that name the experiment ({percent(late / named)}) happened after its end and "
            "do not count: the application still shows its variants, or was told late of the end.",
            inputs,
        )
    return Finding(Health.OK, "Events that name the experiment happened before its end.", inputs)


def duplicates(repetitions: Repetitions) -> Finding:
    """Whether many events were sent again."""
    dropped, stored = repetitions
    share = dropped / (dropped + stored) if dropped else 0.0
    inputs = {"dropped": dropped, "stored": stored, "share": share}
    if _stands_out(dropped, dropped + stored, _REPEATED):
        return Finding(
            Health.WARNING,
            f"{_events(dropped)} ({percent(share)}) were sent again with the same id and dropped. That harms "
            "no number, but somebody sends twice: if it also sends events without ids, those count twice.",
            inputs,
        )
    return Finding(Health.OK, "Hardly any event was sent twice.", inputs)


def reversals(fates: Sequence[Fate]) -> Finding:
    """Whether many events were taken back."""
    back = sum(each.events for each in fates if each.reason is LedgerReason.REVERSED)
    counted = sum(each.events for each in fates if each.reason is LedgerReason.COUNTED)
    inputs = {"reversed": back, "counted": counted}
    if _stands_out(back, back + counted, _REVERSED):
        return Finding(
            Health.WARNING,
            f"{_events(back)} ({percent(back / (back + counted))}) were taken back by later ones: look at "
            "whether the variants lead to more of that, for it may still go on.",
            inputs,
        )
    return Finding(Health.OK, "Few events were taken back by later ones.", inputs)


def _named(fates: Sequence[Fate]) -> int:
    return sum(each.named for each in fates)


def _stands_out(some: int, of: int, share: float) -> bool:
    return some >= _FEWEST and some > share * of


def _events(count: int) -> str:
    return f"{count:,} events"
