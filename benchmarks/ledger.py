"""What a server has promised, and whether it is still so: each assignment the same, each event there once."""

from array import array
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from benchmarks.wire import Target

#: What became of an event: nobody has sent it; nobody knows; acknowledged; refused, so it must not be there.
UNSENT, DOUBT, STORED, REFUSED = range(4)
TYPES = ("buy", "view", "click")
NAMELESS = "nameless"
"""The type of events that are sent without an id; their value tells them apart."""
#: Experiments of a ledger: everybody; half of the traffic; those whose context says so.
PLAIN, HALF, TARGETED = range(3)
UNKNOWN = "no-such-experiment"

_MOST_FINDINGS = 50
_IN_BULK = 2_000
_PER_SLICE = 20_000
_MIX = 0x9E37_79B9_7F4A_7C15_F39D
_WIDE = (1 << 80) - 1


class Assigned(msgspec.Struct):
    """An assignment as the server tells it."""

    experiment_id: int
    user_id: str
    assigned: bool
    variant_id: int | None
    variant: str | None
    variant_name: str | None
    config: Any
    reason: str
    assigned_variant_id: int | None
    assigned_at: str | None
    assignment_timestamp: str | None


class Listed(msgspec.Struct):
    """An event as the server lists it."""

    event_id: str
    user_id: str
    type: str
    value: float | None
    experiment_id: int | None
    properties: dict[str, Any]


class _Page(msgspec.Struct):
    events: list[Listed]
    next_cursor: str | None


class _Bulk(msgspec.Struct):
    assignments: list[Assigned]
    total: int


class _Row(msgspec.Struct):
    user_id: str
    variant_id: int
    variant: str
    assigned_at: str


class _Rows(msgspec.Struct):
    assignments: list[_Row]
    next_cursor: str | None


class Experiment(NamedTuple):
    """An experiment of the load: its variants' names and payloads by id."""

    id: int
    key: str
    variants: dict[int, tuple[str, Any]]


class Findings:
    """What is not as it should be: how much of it, and the first in words."""

    def __init__(self) -> None:
        self.count = 0
        self.said: list[str] = []
        self.assignments = 0
        """Acknowledged assignments that were read back."""
        self.events = 0
        """Events that were found stored."""
        self.doubtful = 0
        """Stored events whose acknowledgement never came; each may be there or not, but once."""

    def add(self, what: str) -> None:
        """One more."""
        self.count += 1
        if len(self.said) < _MOST_FINDINGS:
            self.said.append(what)

    def __bool__(self) -> bool:
        return self.count > 0

    def __repr__(self) -> str:
        return f"{self.count} findings: " + "; ".join(self.said)


class Ledger:
    """Users, assignments and events of one load, known by number so that millions fit in memory.

    `salt` makes its ids unlike those of any other load on the same server.
    """

    def __init__(self, salt: str, experiments: tuple[Experiment, ...]) -> None:
        self.salt = salt
        self.experiments = experiments
        self.began = datetime.now(UTC)
        self.users = 0
        """Users that have been sent so far are those below this number."""
        self.assignments: dict[int, tuple[int, str]] = {}
        """Variant and time acknowledged, by user and experiment; see `place`."""
        self.assigned = array("L")
        """Users whose assignment in the plain experiment is acknowledged."""
        self.states = bytearray()
        self.owners = array("L")
        """The user of each event."""
        self.unnamed_states = bytearray()
        self.unnamed_owners = array("L")
        self.unnamed_ids: dict[int, str] = {}
        """The ids the server gave to events that came without."""
        self._seed = int.from_bytes(salt.encode()[-8:], "big") << 16

    def user(self, number: int) -> str:
        """The id of a user."""
        return f"u{self.salt}-{number}"

    def event_id(self, number: int) -> str:
        """The id of an event: for even numbers a UUID, for others plain text."""
        if number & 1:
            return f"{self.salt}-{number}"
        high = f"{(number * _MIX + self._seed) & _WIDE:020x}"
        return f"{high[:8]}-{high[8:12]}-{high[12:16]}-{high[16:]}-{number:012x}"

    def _number(self, event_id: str) -> int | None:
        """The number of one of our events, None where it is none."""
        prefix, _, rest = event_id.rpartition("-")
        try:
            number = int(rest) if prefix == self.salt else int(rest, 16)
        except ValueError:
            return None
        known = 0 <= number < len(self.states) and self.event_id(number) == event_id
        return number if known else None

    def new_event(self, user: int, state: int = DOUBT) -> int:
        """Note an event that is about to be sent."""
        self.states.append(state)
        self.owners.append(user)
        return len(self.states) - 1

    def new_unnamed(self, user: int) -> int:
        """Note an event without id that is about to be sent."""
        self.unnamed_states.append(DOUBT)
        self.unnamed_owners.append(user)
        return len(self.unnamed_states) - 1

    @staticmethod
    def place(user: int, experiment: int) -> int:
        """Where the assignment of a user in an experiment is kept."""
        return user * 3 + experiment

    def judge(self, user: int, experiment: int, told: Assigned, *, must: bool = False) -> str | None:
        """Enter what the server told about a user; what is wrong with it, None where nothing is.

        `must`: the user cannot but be in the experiment.
        """
        at = self.experiments[experiment]
        if told.experiment_id != at.id or told.user_id != self.user(user):
            return f"asked for {self.user(user)} in {at.id}, told of {told.user_id} in {told.experiment_id}"
        place = user * 3 + experiment
        known = self.assignments.get(place)
        if not told.assigned:
            if known is not None or must:
                return f"{told.user_id} is not in {at.key} ({told.reason}), though it was or must be: {known}"
            return None if told.variant_id is None and told.config is None else f"nothing, but served: {told}"
        variant = at.variants.get(told.variant_id or 0)
        if variant is None or variant != (told.variant, told.config) or told.variant_name != told.variant:
            return f"{told} is no variant of {at.key} as it was made"
        if told.assigned_at is None or told.assigned_at != told.assignment_timestamp:
            return f"two times for one assignment: {told}"
        assert told.variant_id is not None
        if known is None:
            self.assignments[place] = (told.variant_id, told.assigned_at)
            if experiment == PLAIN:
                self.assigned.append(user)
        elif known != (told.variant_id, told.assigned_at):
            return f"{told.user_id} in {at.key} was {known} and is {told.variant_id, told.assigned_at}"
        return None

    def verify(self, target: Target) -> Findings:
        """Read everything back. The server must be running and the load have ended."""
        found = Findings()
        for experiment in range(len(self.experiments)):
            self._read_back(target, experiment, found)
            self._list_assignments(target, experiment, found)
        self._list_events(target, found)
        return found

    def _read_back(self, target: Target, experiment: int, found: Findings) -> None:
        """Ask for every acknowledged assignment again."""
        users = [place // 3 for place in self.assignments if place % 3 == experiment]
        for start in range(0, len(users), _IN_BULK):
            some = users[start : start + _IN_BULK]
            asked = {"user_ids": list(map(self.user, some)), "experiments": [self.experiments[experiment].id]}
            status, body = target.read("POST", "/api/v1/assignments", asked)
            if status != 200:
                raise RuntimeError(f"assignments cannot be read back: {status} {body[:500]!r}")
            answer = msgspec.json.decode(body, type=_Bulk)
            if len(answer.assignments) != len(some):
                found.add(f"{len(some)} assignments asked for, {len(answer.assignments)} told")
                continue
            for user, told in zip(some, answer.assignments, strict=True):
                wrong = self.judge(user, experiment, told)
                if wrong is not None:
                    found.add(wrong)
            found.assignments += len(some)

    def _list_assignments(self, target: Target, experiment: int, found: Findings) -> None:
        """Everybody is listed once, as told; nobody is there who was never sent."""
        at = self.experiments[experiment]
        seen: set[int] = set()
        cursor = ""
        while True:
            path = f"/api/v1/experiments/{at.id}/assignments?limit=1000{cursor}"
            status, body = target.read("GET", path)
            if status != 200:
                raise RuntimeError(f"{path}: {status} {body[:500]!r}")
            page = msgspec.json.decode(body, type=_Rows)
            for row in page.assignments:
                prefix, _, number = row.user_id.rpartition("-")
                user = int(number) if prefix == f"u{self.salt}" else -1
                if not 0 <= user < self.users:
                    found.add(f"{row.user_id} is in {at.key} and was never sent")
                elif user in seen:
                    found.add(f"{row.user_id} is in {at.key} twice")
                else:
                    seen.add(user)
                    known = self.assignments.get(self.place(user, experiment))
                    if known is not None and known != (row.variant_id, row.assigned_at):
                        found.add(f"{row.user_id} in {at.key} is listed as {row}, acknowledged was {known}")
            if page.next_cursor is None:
                break
            cursor = f"&cursor={page.next_cursor}"
        for place in self.assignments:
            if place % 3 == experiment and place // 3 not in seen:
                found.add(f"{self.user(place // 3)} is not listed in {at.key}")

    def _pages(self, target: Target, count: int) -> Iterator[Listed]:
        """All stored events, in slices of time, so that a page never has to look at everything."""
        ended = datetime.now(UTC) + timedelta(seconds=1)
        number = max(count // _PER_SLICE, 1)
        bounds = [self.began + (ended - self.began) * i / number for i in range(1, number)]
        for i in range(number):
            query = "/api/v1/events?limit=1000"
            if i > 0:
                query += f"&start_time={bounds[i - 1]:%Y-%m-%dT%H:%M:%S.%fZ}"
            if i < number - 1:
                query += f"&end_time={bounds[i] - timedelta(microseconds=1):%Y-%m-%dT%H:%M:%S.%fZ}"
            cursor = ""
            while True:
                status, body = target.read("GET", query + cursor)
                if status != 200:
                    raise RuntimeError(f"{query}{cursor}: {status} {body[:500]!r}")
                page = msgspec.json.decode(body, type=_Page)
                yield from page.events
                if page.next_cursor is None:
                    break
                cursor = f"&cursor={page.next_cursor}"

    def _list_events(self, target: Target, found: Findings) -> None:
        seen = bytearray(len(self.states))
        unnamed = bytearray(len(self.unnamed_states))
        totals: Counter[str] = Counter()
        for event in self._pages(target, len(self.states) + len(self.unnamed_states)):
            totals[event.type] += 1
            if event.type == NAMELESS:
                self._check_unnamed(event, unnamed, found)
            else:
                self._check_event(event, seen, found)
        found.events = totals.total()
        for number, state in enumerate(self.states):
            if state == STORED and not seen[number]:
                found.add(f"event {self.event_id(number)} was acknowledged and is not there")
            elif state == DOUBT and seen[number]:
                found.doubtful += 1
        for number, state in enumerate(self.unnamed_states):
            if state == STORED and not unnamed[number]:
                found.add(f"nameless event {number}, {self.unnamed_ids[number]}, is not there")
            elif state == DOUBT and unnamed[number]:
                found.doubtful += 1
        self._check_totals(target, totals, found)

    def _check_event(self, event: Listed, seen: bytearray, found: Findings) -> None:
        number = self._number(event.event_id)
        if number is None:
            found.add(f"{event} was never sent")
            return
        if seen[number]:
            found.add(f"{event.event_id} is there more than once")
        seen[number] = 1
        if self.states[number] == REFUSED:
            found.add(f"{event.event_id} was refused and is there")
        expected = (self.user(self.owners[number]), TYPES[number % 3], value_of(number), {"n": number})
        if (event.user_id, event.type, event.value, event.properties) != expected:
            found.add(f"{event} is not what was sent: {expected}")

    def _check_unnamed(self, event: Listed, seen: bytearray, found: Findings) -> None:
        number = -1 if event.value is None else int(event.value)
        if not 0 <= number < len(seen):
            found.add(f"{event} was never sent")
            return
        if seen[number]:
            found.add(f"nameless event {number} is there more than once")
        seen[number] = 1
        if self.unnamed_states[number] == REFUSED:
            found.add(f"nameless event {number} was refused and is there")
        if event.user_id != self.user(self.unnamed_owners[number]):
            found.add(f"{event} belongs to {self.user(self.unnamed_owners[number])}")
        if self.unnamed_ids.get(number, event.event_id) != event.event_id:
            found.add(f"nameless event {number} was acknowledged as {self.unnamed_ids[number]}, is {event}")

    def _check_totals(self, target: Target, totals: Counter[str], found: Findings) -> None:
        """Reports count what is stored, for everybody with an event was in the plain experiment before."""
        plain = self.experiments[PLAIN]
        for kind in (*TYPES, NAMELESS):
            results = target.json("GET", f"/api/v1/experiments/{plain.id}/results?event_type={kind}")
            counted = sum(variant["event_count"] for variant in results["variants"])
            if counted != totals[kind]:
                found.add(f"the results of {plain.key} count {counted} of {kind}, {totals[kind]} are stored")
        ledger = target.json("GET", f"/api/v1/experiments/{plain.id}/events/ledger")
        counted = {row["type"]: row["counts"]["counted"] for row in ledger["types"]}
        for kind in (*TYPES, NAMELESS):
            if counted.get(kind, 0) != totals[kind]:
                number = counted.get(kind, 0)
                found.add(f"the ledger of {plain.key} counts {number} of {kind}, {totals[kind]} are stored")


def value_of(number: int) -> float:
    """The value that the event of this number is sent with."""
    return number % 100 + 0.5
