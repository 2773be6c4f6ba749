"""Requests of many kinds, what their answers must say, and the ledger they are entered in."""

import random
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from benchmarks.ledger import (
    HALF,
    NAMELESS,
    PLAIN,
    REFUSED,
    STORED,
    TARGETED,
    TYPES,
    UNKNOWN,
    Assigned,
    Experiment,
    Ledger,
    value_of,
)
from benchmarks.wire import Answer, Target

#: Of a thousand requests. Most users come back; most events come alone.
WEIGHTS: Mapping[str, int] = {
    "repeat": 370,
    "first": 150,
    "assign": 120,
    "event": 160,
    "nameless": 50,
    "duplicate": 50,
    "eligibility": 60,
    "batch": 30,
    "bulk": 10,
}
#: Of the events of a batch: refused, sent before, and twice in this very batch.
_INVALID, _AGAIN, _TWICE = 2, 2, 2
_BULK = 20
_assigned = msgspec.json.Decoder(Assigned)


class _Event(msgspec.Struct):
    event_id: str
    user_id: str
    status: str
    experiment_id: int | None = None
    variant_id: int | None = None
    type: str | None = None
    timestamp: str | None = None
    value: float | None = None
    properties: dict[str, Any] | None = None


class _Rejected(msgspec.Struct):
    index: int
    code: str
    message: str


class _Batch(msgspec.Struct):
    accepted: int
    duplicates: int
    rejected: list[_Rejected]
    event_ids: list[str]


class _Many(msgspec.Struct):
    assignments: list[Assigned]
    total: int


class _Eligible(msgspec.Struct):
    user_id: str
    eligible_experiment_ids: dict[str, Assigned]
    ineligible: dict[str, str]


_event = msgspec.json.Decoder(_Event)
_batch = msgspec.json.Decoder(_Batch)
_many = msgspec.json.Decoder(_Many)
_eligible = msgspec.json.Decoder(_Eligible)


class Step(NamedTuple):
    """One request.

    `check(answer, again)` enters the answer and says what is wrong with it; `again`: the same was sent before
    and may have been stored. `refused` hears that it never was. `safe`: it may be repeated.
    """

    kind: str
    line: bytes
    body: bytes
    check: Callable[[Answer, bool], str | None]
    refused: Callable[[], None] | None = None
    safe: bool = True


class Traffic:
    """Requests of a mixed load on experiments of its own, and the ledger of what was answered.

    Making one creates the experiments. The same `seed` gives the same requests, as far as answers come in the
    same order. `salt` tells the ids of several traffics on one server apart. `batch` is the number
    of events in a batch.
    """

    def __init__(
        self,
        target: Target,
        *,
        seed: int,
        salt: str = "",
        weights: Mapping[str, int] = WEIGHTS,
        batch: int = 100,
    ) -> None:
        self.target = target
        self.random = random.Random(seed)
        self.late_duplicates = 0
        self._batch_size = batch
        salt = salt or f"{seed:x}x{time.time_ns() & 0xFFFFFFFF:08x}"
        self.ledger = Ledger(salt, tuple(self._experiment(salt, kind) for kind in range(3)))
        makers: dict[str, Callable[[], Step]] = {
            "repeat": self._repeat,
            "first": self._first,
            "assign": self._assign,
            "event": self._single,
            "nameless": self._nameless,
            "duplicate": self._duplicate,
            "eligibility": self._eligibility,
            "batch": self._batch,
            "bulk": self._bulk,
        }
        self._table = [makers[kind] for kind, weight in weights.items() for _ in range(weight)]
        plain = self.ledger.experiments[PLAIN].key
        self._get = f"GET /api/v1/experiments/{plain}/assignment/".encode()

    def _experiment(self, salt: str, kind: int) -> Experiment:
        """Everybody over two variants; half of the traffic over three; only users from one country."""
        split = {PLAIN: (0.5, 0.5), HALF: (0.2, 0.3, 0.5), TARGETED: (0.7, 0.3)}[kind]
        body: dict[str, Any] = {
            "name": f"Load {salt}",
            "key": f"load-{salt}-{kind}",
            "status": "running",
            "variants": [
                {"name": f"arm-{i}", "allocation": share, "config": {"arm": i, "of": salt, "list": [kind]}}
                for i, share in enumerate(split)
            ],
        }
        if kind == HALF:
            body["traffic_allocation"] = 0.5
        if kind == TARGETED:
            body["condition"] = {"country": "DE"}
        made = self.target.json("POST", "/api/v1/experiments", body)
        variants = {each["id"]: (each["name"], each["config"]) for each in made["variants"]}
        return Experiment(made["id"], made["key"], variants)

    def next(self) -> Step:
        """The next request."""
        table = self._table
        return table[int(self.random.random() * len(table))]()

    def _new_user(self) -> int:
        ledger = self.ledger
        ledger.users += 1
        return ledger.users - 1

    def _known_user(self) -> int | None:
        known = self.ledger.assigned
        return known[int(self.random.random() * len(known))] if known else None

    def _one(self, kind: str, user: int) -> Step:
        ledger = self.ledger

        def check(answer: Answer, _: bool) -> str | None:
            if answer.status != 200:
                return "an assignment"
            return ledger.judge(user, PLAIN, _assigned.decode(answer.body), must=True)

        return Step(kind, self._get + ledger.user(user).encode(), b"", check)

    def _first(self) -> Step:
        return self._one("first", self._new_user())

    def _repeat(self) -> Step:
        user = self._known_user()
        return self._first() if user is None else self._one("repeat", user)

    def _assign(self) -> Step:
        """With attributes; the experiment takes only users whom their context makes German."""
        ledger = self.ledger
        user = self._new_user() if self.random.random() < 0.5 else self._known_user()
        if user is None:
            return self._first()
        inside = user % 2 == 0
        country = "DE" if inside else "FR"

        def check(answer: Answer, _: bool) -> str | None:
            if answer.status != 200:
                return "an assignment"
            told = _assigned.decode(answer.body)
            if told.assigned and not inside:
                return f"{told} does not fulfil the condition"
            return ledger.judge(user, TARGETED, told, must=inside)

        line = f"POST /api/v1/experiments/{ledger.experiments[TARGETED].id}/assign"
        body = f'{{"user_id":"{ledger.user(user)}","context":{{"country":"{country}","age":{user % 90}}}}}'
        return Step("assign", line.encode(), body.encode(), check)

    def _eligibility(self) -> Step:
        ledger = self.ledger
        user = self._known_user() if self.random.random() < 0.7 else self._new_user()
        if user is None:
            return self._first()
        keys = [ledger.experiments[PLAIN].key, ledger.experiments[HALF].key]

        def check(answer: Answer, _: bool) -> str | None:
            if answer.status != 200:
                return "an answer on eligibility"
            told = _eligible.decode(answer.body)
            named = {**told.eligible_experiment_ids, **told.ineligible}
            if told.user_id != ledger.user(user) or set(named) != {*keys, UNKNOWN}:
                return "the user and the three experiments asked for"
            if told.ineligible.get(UNKNOWN) != "unknown_experiment":
                return "no experiment where there is none"
            for experiment in (PLAIN, HALF):
                one = told.eligible_experiment_ids.get(keys[experiment])
                if one is None:
                    if experiment == PLAIN or ledger.place(user, experiment) in ledger.assignments:
                        return f"the user in {keys[experiment]}"
                    continue
                wrong = ledger.judge(user, experiment, one, must=True)
                if wrong is not None:
                    return wrong
            return None

        body = {"user_id": ledger.user(user), "experiment_ids": [*keys, UNKNOWN]}
        return Step(
            "eligibility", b"POST /api/v1/experiments/check-eligibility", msgspec.json.encode(body), check
        )

    def _bulk(self) -> Step:
        ledger = self.ledger
        known = [self._known_user() for _ in range(_BULK // 2)]
        users = [*dict.fromkeys(user for user in known if user is not None)]
        users += [self._new_user() for _ in range(_BULK - len(users))]
        experiments = (PLAIN, HALF)

        def check(answer: Answer, _: bool) -> str | None:
            if answer.status != 200:
                return "many assignments"
            told = _many.decode(answer.body)
            if told.total != len(told.assignments) or told.total != len(users) * len(experiments):
                return f"{len(users) * len(experiments)} assignments"
            pairs = ((user, experiment) for user in users for experiment in experiments)
            for (user, experiment), one in zip(pairs, told.assignments, strict=True):
                wrong = ledger.judge(user, experiment, one, must=experiment == PLAIN)
                if wrong is not None:
                    return wrong
            return None

        body = {
            "user_ids": [ledger.user(user) for user in users],
            "experiments": [ledger.experiments[each].id for each in experiments],
        }
        return Step("bulk", b"POST /api/v1/assignments", msgspec.json.encode(body), check)

    def _text(self, number: int) -> str:
        """An event as it is sent; sent again, it says the same at another time."""
        ledger = self.ledger
        extra = f',"experiment_id":{ledger.experiments[PLAIN].id}' if number % 8 == 0 else ""
        if number % 4 == 1:
            extra += f',"timestamp":"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"'
        return (
            f'{{"event_id":"{ledger.event_id(number)}","user_id":"{ledger.user(ledger.owners[number])}",'
            f'"type":"{TYPES[number % 3]}","value":{value_of(number)},"properties":{{"n":{number}}}{extra}}}'
        )

    def _event_step(self, kind: str, number: int) -> Step:
        ledger = self.ledger
        user = ledger.owners[number]
        known = ledger.states[number] == STORED
        text = self._text(number)

        def check(answer: Answer, again: bool) -> str | None:
            status = answer.status
            if status not in {200, 201}:
                return "an acknowledged event"
            told = _event.decode(answer.body)
            if told.event_id != ledger.event_id(number) or told.user_id != ledger.user(user):
                return f"event {ledger.event_id(number)} of {ledger.user(user)}"
            if told.status != ("accepted" if status == 201 else "duplicate"):
                return f"a status that goes with {status}"
            if status == 200 and not known and not again:
                return "a new event"
            if number % 8 == 0:
                experiment = ledger.experiments[PLAIN].id
                variant = ledger.assignments[ledger.place(user, PLAIN)][0]
                if (told.experiment_id, told.variant_id) != (experiment, variant):
                    return f"variant {variant} of experiment {experiment}"
            if status == 201:
                if known or again:
                    self.late_duplicates += known
                if (told.type, told.value, told.properties) != (
                    TYPES[number % 3],
                    value_of(number),
                    {"n": number},
                ):
                    return "the event as it was sent"
                if number % 4 == 1 and told.timestamp is not None and told.timestamp not in text:
                    return "the time that was sent"
            ledger.states[number] = STORED
            return None

        def refused() -> None:
            if not known:
                ledger.states[number] = REFUSED

        return Step(kind, b"POST /api/v1/events", text.encode(), check, refused)

    def _single(self) -> Step:
        user = self._known_user()
        return self._first() if user is None else self._event_step("event", self.ledger.new_event(user))

    def _duplicate(self) -> Step:
        """Something that was acknowledged before, sent once more."""
        number = self._stored_event()
        return self._single() if number is None else self._event_step("duplicate", number)

    def _stored_event(self) -> int | None:
        states = self.ledger.states
        for _ in range(5 if states else 0):
            number = int(self.random.random() * len(states))
            if states[number] == STORED:
                return number
        return None

    def _nameless(self) -> Step:
        """Without an id, so that the server makes one; not to be repeated: it would count twice."""
        user = self._known_user()
        if user is None:
            return self._first()
        ledger = self.ledger
        number = ledger.new_unnamed(user)

        def check(answer: Answer, _: bool) -> str | None:
            if answer.status != 201:
                return "a new event"
            told = _event.decode(answer.body)
            if (told.user_id, told.value, told.type, told.status) != (
                ledger.user(user),
                number,
                NAMELESS,
                "accepted",
            ):
                return f"the nameless event {number}"
            if len(told.event_id) != 36:
                return "an id"
            ledger.unnamed_ids[number] = told.event_id
            ledger.unnamed_states[number] = STORED
            return None

        def refused() -> None:
            ledger.unnamed_states[number] = REFUSED

        body = f'{{"user_id":"{ledger.user(user)}","type":"{NAMELESS}","value":{number}}}'
        return Step("nameless", b"POST /api/v1/events", body.encode(), check, refused, safe=False)

    def _batch(self) -> Step:
        """New events among which some are invalid, some were stored before and some stand here twice."""
        user = self._known_user()
        if user is None:
            return self._first()
        ledger, pick = self.ledger, self.random
        fresh = []
        for i in range(self._batch_size - _INVALID - _AGAIN - _TWICE):
            owner = self._known_user() if i % 10 == 0 else user
            fresh.append(ledger.new_event(user if owner is None else owner))
        old = [number for number in (self._stored_event() for _ in range(_AGAIN)) if number is not None]
        sent = fresh + old + pick.choices(fresh, k=_TWICE)
        texts = list(map(self._text, sent))
        ids = list(map(ledger.event_id, sent))
        bad = sorted(pick.sample(range(len(sent)), _INVALID))
        for i, index in enumerate(bad):
            number = ledger.new_event(user, REFUSED)
            right, wrong = (
                (f'"user_id":"{ledger.user(user)}"', '"user_id":""')
                if i % 2
                else (f'"value":{value_of(number)}', '"value":"much"')
            )
            texts.insert(index, self._text(number).replace(right, wrong))
        total = len(texts)

        def check(answer: Answer, again: bool) -> str | None:
            if answer.status != 202:
                return "a batch that is taken"
            told = _batch.decode(answer.body)
            if told.accepted + told.duplicates + len(told.rejected) != total:
                return f"{total} events accounted for"
            if [each.index for each in told.rejected] != bad:
                return f"events {bad} refused and no others"
            if told.event_ids != ids:
                return "the ids in the order sent"
            expected = len(fresh)
            if told.accepted > expected + len(old) or (told.accepted < expected and not again):
                return f"{expected} new events"
            if not again:
                self.late_duplicates += told.accepted - expected
            for number in fresh:
                ledger.states[number] = STORED
            return None

        def refused() -> None:
            for number in fresh:
                ledger.states[number] = REFUSED

        return Step("batch", b"POST /api/v1/events", f"[{','.join(texts)}]".encode(), check, refused)
