"""From an experiment and a user to the bytes of the answer.

Everything of an answer that does not depend on the user is encoded once per published experiment and
recorded variant; a repeat assignment then costs two dictionary look-ups and one join.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from assay.assignments.base import AssignmentStore, Record
from assay.bucketing.evaluate import Decision, Reason, evaluate, serve, unmet
from assay.bucketing.ruleset import Experiment
from assay.hotpath.attributes import NONE_KNOWN, Attributes
from assay.published import Published
from assay.telemetry import Telemetry

_encode = msgspec.json.Encoder().encode
_new = tuple.__new__  # a third of what calling a named tuple costs
# Naive, because it is then printed without an offset; the Z says that it is UTC.
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001


def iso(moment: int) -> str:
    """Microseconds since the epoch as ISO 8601 text in UTC, always with six decimals."""
    return (_EPOCH + timedelta(microseconds=moment)).isoformat(timespec="microseconds") + "Z"


#: The text of whole minutes up to their seconds: formatting a date costs as much as the rest of an answer.
_minutes: dict[int, bytes] = {}
_MOST_MINUTES = 50_000


def stamp(moment: int) -> bytes:
    """The same as `iso`, in bytes and faster."""
    minute, rest = divmod(moment, 60_000_000)
    text = _minutes.get(minute)
    if text is None:
        if len(_minutes) >= _MOST_MINUTES:
            _minutes.clear()
        text = _minutes[minute] = iso(minute * 60_000_000)[:17].encode()
    return b"%s%02d.%06dZ" % (text, rest // 1_000_000, rest % 1_000_000)


class Settled(NamedTuple):
    """What a unit is served, as far as it is known.

    `tail` is the encoded middle of the answer; `variant_id` is what is on record, with its time in
    microseconds, both None where nothing is. `reason` is the decision's.
    """

    tail: bytes
    reason: str
    served_id: int | None
    variant_id: int | None
    assigned_at: int | None


def _provisional(outcome: Settled | Record | None) -> bool:
    """Whether other experiments may still refuse it: a new assignment, or a winner for a new unit."""
    if isinstance(outcome, Settled):
        return outcome.reason == Reason.ROLLED_OUT and outcome.variant_id is None
    return outcome is not None


class Serving:
    """The encoded answers of one published experiment."""

    __slots__ = ("_tails", "experiment", "head", "plain", "repeats")

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.head = b'{"experiment_id":%d,"experiment_key":%s,"user_id":' % (
            experiment.id,
            _encode(experiment.key),
        )
        #: Without overrides, what is on record alone decides what is served.
        self.plain = not experiment.overrides
        #: Whether a user id and a record are all that an answer needs.
        self.repeats = self.plain and experiment.unit == "user_id"
        self._tails: dict[int, Settled] = {}

    def recorded(self, variant_id: int, assigned_at: int) -> Settled:
        """The answer for a unit with this record, where no override can interfere."""
        known = self._tails.get(variant_id)
        if known is None:
            decision = serve(self.experiment, "", variant_id)
            if decision is None:  # a record always decides
                raise AssertionError(f"variant {variant_id} on record decides nothing")
            known = self._tails[variant_id] = self.settled(decision, variant_id, None)
        return Settled(known.tail, known.reason, known.served_id, variant_id, assigned_at)

    def repeat(self, user_id: str, variant_id: int, assigned_at: int) -> bytes:
        """The answer for a user with this record; for experiments that are `repeats`."""
        known = self._tails.get(variant_id) or self.recorded(variant_id, assigned_at)
        time = stamp(assigned_at)
        return b'%s%s,%s,"assigned_at":"%s","assignment_timestamp":"%s"}' % (
            self.head,
            _encode(user_id),
            known.tail,
            time,
            time,
        )

    def settled(self, decision: Decision, variant_id: int | None, assigned_at: int | None) -> Settled:
        """Encode a decision beside what is on record."""
        variant = decision.variant
        served = variant is not None
        document = {
            "assigned": served,
            "variant_id": variant.id if variant else None,
            "variant_key": variant.key if variant else None,
            "variant": variant.name if variant else None,
            "variant_name": variant.name if variant else None,
            "config": variant.config if variant else None,
            "reason": str(decision.reason),
            "assigned_variant_id": variant_id,
        }
        tail = _encode(document)[1:-1]
        return Settled(tail, str(decision.reason), variant.id if variant else None, variant_id, assigned_at)

    def answer(self, user_id: str, unit_id: str | None, settled: Settled) -> bytes:
        """The JSON document of one assignment."""
        at = settled.assigned_at
        time = b"null" if at is None else b'"%s"' % stamp(at)
        unit = b""
        if self.experiment.unit != "user_id":
            unit = b'"unit":%s,"unit_id":%s,' % (_encode(self.experiment.unit), _encode(unit_id))
        return b'%s%s,%s%s,"assigned_at":%s,"assignment_timestamp":%s}' % (
            self.head,
            _encode(user_id),
            unit,
            settled.tail,
            time,
            time,
        )


#: What is asked: an experiment, a user, the unit, and the attributes that came with the call.
Asked = tuple[Serving, str, str | None, Mapping[str, Any]]


class Assigner:
    """Get-or-create of assignments over the published ruleset and the durable record."""

    def __init__(
        self,
        published: Published,
        assignments: AssignmentStore,
        attributes: Attributes,
        telemetry: Telemetry,
    ) -> None:
        self.published = published
        self.assignments = assignments
        self.attributes = attributes
        self._serving: dict[int, Serving] = {}
        self._count = telemetry.assignments.add

    def serving(self, experiment: Experiment) -> Serving:
        """The encoded answers of this very version of the experiment."""
        known = self._serving.get(experiment.id)
        if known is None or known.experiment is not experiment:
            known = self._serving[experiment.id] = Serving(experiment)
        return known

    def settle(
        self, serving: Serving, user_id: str, unit_id: str | None, context: Mapping[str, Any], now: int
    ) -> Settled | Record | None:
        """What this unit is served, from what is at hand; None: `look` at what is stored first.

        A `Record` is a proposal that must be stored before it is answered. A store whose `put` finds what is
        there gets the proposal at once; with the others, asking first costs less than a place in a commit.
        """
        experiment = serving.experiment
        if unit_id is None:
            decision = evaluate(experiment, None, user_id, context)
            return serving.settled(decision, None, None)
        hit = self.assignments.peek(experiment.id, unit_id)
        if hit is not None and serving.plain:
            return serving.recorded(hit[0], hit[1])
        sure = hit is not None or self.assignments.complete
        if not sure and not (self.assignments.put_finds and serving.plain):
            return None
        known = self.attributes.at_hand(user_id) if experiment.needs_attributes else NONE_KNOWN
        if known is None:
            return None
        settled = self.resolve(
            serving, user_id, unit_id, {**known, **context} if known else context, now, hit
        )
        return settled if sure or type(settled) is Record else None

    async def look(
        self,
        asked: Sequence[Asked],
        now: int,
    ) -> list[Settled | Record]:
        """What each of these (serving, user, unit, context) is served, by what is stored of them.

        One look-up for all records and, where conditions need them, one for all attributes.
        """
        pairs = [(serving.experiment.id, unit_id) for serving, _, unit_id, _ in asked if unit_id is not None]
        found = await self.assignments.find_many(pairs)
        needing = {user_id for serving, user_id, _, _ in asked if serving.experiment.needs_attributes}
        known = await self.attributes.fetch(needing) if needing else {}
        outcomes: list[Settled | Record] = []
        for serving, user_id, unit_id, context in asked:
            if unit_id is None:
                decision = evaluate(serving.experiment, None, user_id, context)
                outcomes.append(serving.settled(decision, None, None))
                continue
            record = found.get((serving.experiment.id, unit_id))
            hit = (record.variant_id, record.assigned_at) if record else None
            seen = {**known[user_id], **context} if user_id in known else context
            outcomes.append(self.resolve(serving, user_id, unit_id, seen, now, hit))
        return outcomes

    def resolve(
        self,
        serving: Serving,
        user_id: str,
        unit_id: str,
        attributes: Mapping[str, Any],
        now: int,
        hit: tuple[int, int] | None,
    ) -> Settled | Record:
        """What this unit is served, given the variant and time on record, if any.

        What is on record wins over every later change of the experiment. Other experiments that this one
        requires are not asked: `settle_all` does.
        """
        experiment = serving.experiment
        if serving.plain and hit is not None:
            return serving.recorded(hit[0], hit[1])
        variant_id, assigned_at = hit or (None, None)
        settled = serve(experiment, unit_id, variant_id)
        if settled is not None:
            return serving.settled(settled, variant_id, assigned_at)
        decision = evaluate(experiment, unit_id, user_id, attributes)
        if decision.variant is None:
            return serving.settled(decision, variant_id, assigned_at)
        return _new(Record, (experiment.id, unit_id, decision.variant.id, experiment.phase, now))

    async def settle_all(self, asked: Sequence[Asked], now: int) -> list[Settled]:
        """What each of these is served: at most one look-up and one commit for all.

        Where experiments require others, those are settled first, with a commit of their own.
        """
        outcomes = [self.settle(*each, now) for each in asked]
        unsure = [at for at, outcome in enumerate(outcomes) if outcome is None]
        if unsure:
            looked = await self.look([asked[at] for at in unsure], now)
            for at, outcome in zip(unsure, looked, strict=True):
                outcomes[at] = outcome
        if any(serving.experiment.requires for serving, *_ in asked):
            await self._ask_others(asked, outcomes, now)
        proposals = [outcome for outcome in outcomes if type(outcome) is Record]
        records = iter(await self.assignments.put_many(proposals) if proposals else ())
        return [
            self.stored(each[0], outcome, next(records)) if type(outcome) is Record else outcome  # type: ignore[misc]
            for each, outcome in zip(asked, outcomes, strict=True)
        ]

    async def _ask_others(
        self, asked: Sequence[Asked], outcomes: list[Settled | Record | None], now: int
    ) -> None:
        """Turn away those whom experiments required turn away; changes `outcomes`.

        A unit that would get in is assigned in what is required, so that the one decision rests on the other
        for good. That is also how a holdout gets its units, those held out and the others alike.
        """
        parents: dict[tuple[int, str | None], Asked] = {}
        waiting = [
            at
            for at, (serving, *_) in enumerate(asked)
            if serving.experiment.requires and _provisional(outcomes[at])
        ]
        for at in waiting:
            serving, user_id, unit_id, context = asked[at]
            for each in serving.experiment.requires:
                pair = (each.parent.id, unit_id)
                parents[pair] = (self.serving(each.parent), user_id, unit_id, context)
        settled = dict(zip(parents, await self.settle_all(list(parents.values()), now), strict=True))
        for at, (serving, _, unit_id, _) in enumerate(asked):
            known = settled.get((serving.experiment.id, unit_id))
            if known is not None:  # it was asked for itself, too
                outcomes[at] = known
        for at in waiting:
            serving, _, unit_id, _ = asked[at]
            requires = serving.experiment.requires
            served = {each.parent.id: settled[each.parent.id, unit_id].served_id for each in requires}
            refused = unmet(serving.experiment, served)
            if refused is not None:
                outcomes[at] = serving.settled(Decision(None, refused), None, None)

    async def answer_all(
        self, servings: Sequence[Serving], user_ids: Sequence[str], context: Mapping[str, Any], now: int
    ) -> list[bytes] | None:
        """The answers for users in experiments that are `repeats`, user by user, with one commit for all.

        None where memory and the hash do not decide everything: `settle_all` does. It says the same, at
        three times the cost for each pair.
        """
        assignments = self.assignments
        peek, complete = assignments.peek, assignments.complete
        if any(
            serving.experiment.needs_attributes or serving.experiment.requires or not serving.repeats
            for serving in servings
        ):
            return None
        answers: list[bytes] = []
        proposals: list[Record] = []
        places: list[tuple[int, Serving]] = []
        for user_id in user_ids:
            for serving in servings:
                hit = peek(serving.experiment.id, user_id)
                if hit is not None:
                    answers.append(serving.repeat(user_id, hit[0], hit[1]))
                    continue
                if not complete and not assignments.put_finds:
                    return None
                settled = self.resolve(serving, user_id, user_id, context, now, None)
                if type(settled) is Record:
                    places.append((len(answers), serving))
                    proposals.append(settled)
                    answers.append(b"")
                elif complete:
                    answers.append(serving.answer(user_id, user_id, settled))  # type: ignore[arg-type]
                else:
                    return None
        records = await assignments.put_many(proposals) if proposals else []
        made: dict[tuple[int, int], int] = {}
        for (place, serving), proposed, record in zip(places, proposals, records, strict=True):
            experiment_id, user_id, variant_id, _, assigned_at = record
            answers[place] = serving.repeat(user_id, variant_id, assigned_at)
            if record is proposed or record == proposed:
                made[experiment_id, variant_id] = made.get((experiment_id, variant_id), 0) + 1
        for key, number in made.items():
            self._count(key, number)
        return answers

    def stored(self, serving: Serving, proposed: Record, record: Record) -> Settled:
        """The answer once insert-or-get has said what is on record."""
        if record is proposed or record == proposed:
            self._count((record.experiment_id, record.variant_id))
        return serving.recorded(record.variant_id, record.assigned_at)
