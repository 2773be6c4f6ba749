"""The clients an application holds: `Client`, and `AsyncClient` with the same calls for asyncio.

No call raises once the client is made: what goes wrong is logged to `assay.client`, counted, and answered
with what is known. No call takes longer than it says.
"""

import asyncio
import concurrent.futures
import contextlib
import math
import time
import weakref
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote

import msgspec

from assay.bucketing.features import unit_text
from assay.client.engine import Change, Engine, Status
from assay.client.evaluation import Evaluation, Origin, evaluate, flag_value
from assay.client.ids import uuid7
from assay.client.memory import Recent
from assay.client.options import Options
from assay.client.outbox import Delivery, Item, Kind
from assay.client.waiting import ended, result, shielded
from assay.client.wire import Answer, WireError

T = TypeVar("T")

#: Exposures that are remembered, so that each is sent once; and answers of `assign`.
_MOST_SEEN: Final = 20_000
_MOST_ANSWERS: Final = 10_000
#: Seconds that a call may take beyond what its work in the client's thread may.
_HANDOVER: Final = 0.25
_NOTHING: Final[Mapping[str, Any]] = {}
_DEFAULTS: Final = Options()

Attributes = Mapping[str, Any]
Units = Mapping[str, str]


class _Asked(msgspec.Struct, frozen=True):
    """A question of `assign`, which is also what its answer is remembered by."""

    experiment: str
    user_id: str
    units: frozenset[tuple[str, str]]


class _Assigned(msgspec.Struct):
    """The server's answer to `assign`, as far as it matters here."""

    assigned: bool
    reason: str
    variant_key: str | None = None
    variant: str | None = None
    config: dict[str, Any] | None = None
    assigned_at: str | None = None


class _Base:
    """What both clients have in common: everything but waiting."""

    def __init__(self, url: str, key: str, options: Options = _DEFAULTS) -> None:
        """`url` is the server's address and `key` the secret of an API key with the role `client`.

        Nothing is sent until the first call. Raises `ValueError` for an address, a key or a bound that cannot
        work: this is the one place that raises.
        """
        self._engine = Engine(url, key, options)
        self._options = options
        self._seen: Recent[int, None] = Recent(_MOST_SEEN)
        self._answers: Recent[_Asked, tuple[str, Evaluation]] = Recent(_MOST_ANSWERS)
        self._missed = False
        self._ask_after = 0.0
        # One that is forgotten sends what it has, and nobody waits; at the exit the engine itself sees to it.
        weakref.finalize(self, self._engine.retire).atexit = False

    @property
    def status(self) -> Status:
        """How the client is; `STALE` and `ERROR` mend themselves when the server comes back."""
        return self._engine.status

    def delivery(self) -> Delivery:
        """What became of what was recorded, in numbers."""
        return self._engine.outbox.delivery()

    def subscribe(self, listener: Callable[[Change], None]) -> Callable[[], None]:
        """Be told of every change of the status or of an experiment; calling the result ends it.

        Listeners are called in the client's thread, one after the other, and should be quick.
        """
        listeners = self._engine.listeners
        listeners.append(listener)

        def leave() -> None:
            with contextlib.suppress(ValueError):
                listeners.remove(listener)

        return leave

    def units_in(self, attributes: Attributes) -> dict[str, str]:
        """The ids of units other than the user, such as `account_id`, that experiments have, among these."""
        rules = self._engine.rules
        names = () if rules is None else rules.units
        found = {name: unit_text(attributes.get(name)) for name in names}
        return {name: unit_id for name, unit_id in found.items() if unit_id}

    def track(
        self,
        user_id: str,
        event: str,
        *,
        value: float | None = None,
        properties: Mapping[str, Any] | None = None,
        experiment: str | None = None,
        units: Units | None = None,
        timestamp: datetime | None = None,
        event_id: str | None = None,
    ) -> str:
        """Record that a user did something; returns the event's id at once.

        With `experiment` it counts for that experiment alone. It is sent in the background, again and again
        with the same id until the server has it on disk, and counts once. A naive time is UTC.
        """
        known = event_id or uuid7()
        document: dict[str, Any] = {"event_id": known, "user_id": user_id, "type": event}
        given = {"value": value, "properties": properties, "experiment_id": experiment, "units": units}
        document.update({name: each for name, each in given.items() if each is not None})
        self._record(Kind.EVENT, document, at=timestamp)
        return known

    def expose(self, evaluation: Evaluation) -> None:
        """Record that a user met a variant, where `evaluate` was called with `expose=False`.

        Only a variant that was drawn is recorded, once for each unit and process. Returns at once.
        """
        if not evaluation.counted or evaluation.variant is None:
            return
        unit_id = evaluation.unit_id or evaluation.user_id
        if self._missed and not self._engine.courier.full:
            # Exposures may have been among what was lost while there was no room: let each be told again.
            self._missed = False
            self._seen.clear()
        mark = hash((evaluation.experiment, evaluation.unit, unit_id, evaluation.variant))
        if not self._seen.put(mark, None):
            return
        document: dict[str, Any] = {
            "user_id": evaluation.user_id,
            "experiment": evaluation.experiment,
            "variant": evaluation.variant,
        }
        if evaluation.unit != "user_id":
            document["units"] = {evaluation.unit: unit_id}
        self._missed |= not self._record(Kind.EXPOSURE, document)

    def _record(self, kind: Kind, document: dict[str, Any], at: datetime | None = None) -> bool:
        """Put it into the outbox. Whether nothing was lost for it."""
        engine = self._engine
        try:
            if at is not None:
                document["timestamp"] = (at if at.tzinfo else at.replace(tzinfo=UTC)).isoformat()
            now = time.time_ns() // 1_000 if at is None else None
            if not math.isfinite(document.get("value", 0)):
                document["value"] = str(
                    document["value"]
                )  # JSON would make a null of it, and nobody would know
            body = msgspec.json.encode(document)
            return engine.record(Item(kind, body, now))
        except Exception as error:  # noqa: BLE001 - whatever the application hands over must not break it
            engine.outbox.note(lost=1)
            engine.notices.warn(
                f"{kind} {type(error).__name__}", "An %s cannot be recorded and is lost: %s", kind, error
            )
            return True

    def _local(
        self, experiment: str, user_id: str, attributes: Attributes | None, units: Units | None, expose: bool
    ) -> Evaluation:
        """The answer of the rules in memory."""
        engine, sticky = self._engine, self._options.sticky
        rules = engine.rules
        if rules is None:
            return _nobody(experiment, user_id, "not_ready", "no rules have come from the server yet")
        if not isinstance(user_id, str) or not user_id:
            return _nobody(experiment, user_id, "error", f"user_id must be a text, got {user_id!r}")
        known = (rules, experiment, user_id, attributes or _NOTHING, units or _NOTHING)
        try:
            found, keep = evaluate(*known, sticky)
            if keep is not None and sticky is not None:
                sticky.put(*keep)
        except Exception as error:  # noqa: BLE001 - attributes and sticky buckets are the application's own
            engine.notices.warn(
                f"evaluate {type(error).__name__}", "%s cannot be evaluated: %r", experiment, error
            )
            if sticky is None:
                return _nobody(experiment, user_id, "error", repr(error))
            with contextlib.suppress(Exception):
                found, _ = evaluate(*known, None)
                return found
            return _nobody(experiment, user_id, "error", repr(error))
        if expose:
            self.expose(found)
        return found

    def _patience(self) -> float:
        """Seconds that an evaluation may still wait for the first rules."""
        engine = self._engine
        if engine.start() is None or engine.tried.done():
            return 0.0
        return engine.started_at + self._options.first_wait - time.monotonic()

    def _picked(self, found: Evaluation, default: T) -> T:
        """The value of an evaluation where it has the type of the default, else the default."""
        value = found.value
        if value is None:
            return default
        if _fits(value, default):
            fitting: T = value
            return fitting
        self._engine.notices.warn(
            f"type {found.experiment}",
            "%s has a value of the type %s where %s is asked for: the default is served",
            found.experiment,
            type(value).__name__,
            type(default).__name__,
        )
        return default

    # `assign`, around the question itself.

    def _before_asking(
        self, experiment: str, user_id: str, units: Units | None
    ) -> tuple[_Asked, Evaluation | None]:
        """The question, and the server's answer from memory, where the rules have not changed since."""
        try:
            asked = _Asked(experiment, user_id, frozenset((units or _NOTHING).items()))
            known, rules = self._answers.get(asked), self._engine.rules
        except (TypeError, AttributeError) as error:
            return _Asked("", "", frozenset()), _nobody(experiment, user_id, "error", repr(error))
        if known is None or rules is None or rules.mark != known[0]:
            return asked, None
        return asked, msgspec.structs.replace(known[1], origin=Origin.MEMORY)

    def _question(
        self, asked: _Asked, attributes: Attributes | None, seconds: float
    ) -> "concurrent.futures.Future[Answer] | None":
        """The question on its way; None for a while after one that was not answered."""
        if time.monotonic() < self._ask_after:
            return None
        path = f"/api/v1/experiments/{quote(str(asked.experiment), safe='', errors='replace')}/assign"
        document = {"user_id": asked.user_id, "context": attributes or _NOTHING, "units": dict(asked.units)}
        return self._engine.call(lambda: self._engine.ask(path, document, seconds))

    def _unanswered(self, asked: _Asked, attributes: Attributes | None, error: object) -> Evaluation:
        """What is known without the server: its last answer, or else the rules."""
        if error is not None:
            if isinstance(error, WireError | TimeoutError):
                self._ask_after = time.monotonic() + self._options.assign_wait
            self._engine.notices.warn(
                "assign", "The server does not assign: %s", str(error) or "no answer in time"
            )
        known = self._answers.get(asked)
        if known is not None:
            return msgspec.structs.replace(known[1], origin=Origin.MEMORY)
        return self._local(asked.experiment, asked.user_id, attributes, dict(asked.units), True)

    def _answered(
        self, asked: _Asked, attributes: Attributes | None, question: "concurrent.futures.Future[Answer]"
    ) -> Evaluation:
        """What the server said, if it has said anything by now."""
        try:
            answer = question.result(0)
        except Exception as error:  # noqa: BLE001 - no answer, and whatever makes that it cannot be asked
            question.cancel()
            return self._unanswered(asked, attributes, error)
        if answer.status == 404:
            return Evaluation(
                experiment=asked.experiment,
                user_id=asked.user_id,
                reason="unknown_experiment",
                origin=Origin.SERVER,
            )
        if answer.status != 200:
            return self._unanswered(asked, attributes, f"it answers {answer.status}")
        try:
            said = msgspec.json.decode(answer.body, type=_Assigned)
        except msgspec.MsgspecError as error:
            return self._unanswered(asked, attributes, error)
        self._engine.notices.well("assign")
        if said.assigned_at is not None:
            self._engine.clock.note_assigned(said.assigned_at)
        found = Evaluation(
            experiment=asked.experiment,
            user_id=asked.user_id,
            variant=said.variant_key,
            value=flag_value(said.config or said.variant) if said.assigned else None,
            reason=said.reason,
            origin=Origin.SERVER,
        )
        rules = self._engine.rules
        if rules is not None and said.assigned:
            self._answers.put(asked, (rules.mark, found))
        return found


class Client(_Base):
    """A client for threads; make one for the whole application and share it. A context manager closes it.

    ::

        with Client("https://assay.example", "assay_…") as assay:
            colour = assay.value("checkout-button", "user-17", "grey", {"country": "DE"})
            assay.track("user-17", "purchase", value=9.5)
    """

    def evaluate(
        self,
        experiment: str,
        user_id: str,
        attributes: Attributes | None = None,
        *,
        units: Units | None = None,
        expose: bool = True,
    ) -> Evaluation:
        """What this user is served, by the rules in memory.

        Waits for the first rules until `first_wait` after the client's start, and never afterwards. Records
        the exposure unless `expose` is False.
        """
        patience = self._patience()
        if patience > 0:
            concurrent.futures.wait([self._engine.tried], patience)
        return self._local(experiment, user_id, attributes, units, expose)

    def value(
        self,
        experiment: str,
        user_id: str,
        default: T,
        attributes: Attributes | None = None,
        *,
        units: Units | None = None,
    ) -> T:
        """The value this user is served, or the default where there is none or it has another type."""
        return self._picked(self.evaluate(experiment, user_id, attributes, units=units), default)

    def assign(
        self,
        experiment: str,
        user_id: str,
        attributes: Attributes | None = None,
        *,
        units: Units | None = None,
    ) -> Evaluation:
        """What this user is served for good: the server's answer, which it has on disk.

        Waits for it up to `assign_wait`. Without one, its last answer is repeated, or else the rules in
        memory decide and the exposure tells the server later; then it is not asked for `assign_wait`.
        """
        asked, known = self._before_asking(experiment, user_id, units)
        if known is not None:
            return known
        question = self._question(asked, attributes, self._options.assign_wait)
        if question is None:
            return self._unanswered(asked, attributes, None)
        concurrent.futures.wait([question], self._options.assign_wait)
        return self._answered(asked, attributes, question)

    def wait_until_ready(self, timeout: float = 5.0) -> bool:
        """Wait until the rules are those in force on the server; whether they are, in time."""
        return self._wait(lambda: self._engine.until_ready(timeout), timeout)

    def flush(self, timeout: float = 5.0) -> bool:
        """Send what was recorded until now; whether all of it was taken or refused, in time."""
        if not len(self._engine.outbox):
            return True
        return self._wait(lambda: self._engine.courier.flush(timeout), timeout)

    def _wait(self, work: Callable[[], Coroutine[Any, Any, bool]], seconds: float) -> bool:
        waiting = self._engine.call(work)
        if waiting is None:
            return False
        concurrent.futures.wait([waiting], seconds + _HANDOVER)
        return result(waiting)

    def close(self, timeout: float | None = None) -> bool:
        """Send what waits, for at most `exit_wait` or `timeout`, and end. Whether everything was sent."""
        return self._engine.close(self._options.exit_wait if timeout is None else timeout)

    def __enter__(self) -> Self:
        self._engine.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient(_Base):
    """A client for asyncio, with the calls of `Client`. It works in any loop, and in several.

    ::

        async with AsyncClient("https://assay.example", "assay_…") as assay:
            colour = await assay.value("checkout-button", "user-17", "grey", {"country": "DE"})
            assay.track("user-17", "purchase", value=9.5)
    """

    async def evaluate(
        self,
        experiment: str,
        user_id: str,
        attributes: Attributes | None = None,
        *,
        units: Units | None = None,
        expose: bool = True,
    ) -> Evaluation:
        """What this user is served, by the rules in memory; see `Client.evaluate`."""
        patience = self._patience()
        if patience > 0:
            await ended(shielded(self._engine.tried), patience)
        return self._local(experiment, user_id, attributes, units, expose)

    async def value(
        self,
        experiment: str,
        user_id: str,
        default: T,
        attributes: Attributes | None = None,
        *,
        units: Units | None = None,
    ) -> T:
        """The value this user is served, or the default where there is none or it has another type."""
        return self._picked(await self.evaluate(experiment, user_id, attributes, units=units), default)

    async def assign(
        self,
        experiment: str,
        user_id: str,
        attributes: Attributes | None = None,
        *,
        units: Units | None = None,
    ) -> Evaluation:
        """What this user is served for good; see `Client.assign`."""
        asked, known = self._before_asking(experiment, user_id, units)
        if known is not None:
            return known
        question = self._question(asked, attributes, self._options.assign_wait)
        if question is None:
            return self._unanswered(asked, attributes, None)
        await ended(question, self._options.assign_wait)
        return self._answered(asked, attributes, question)

    async def wait_until_ready(self, timeout: float = 5.0) -> bool:  # noqa: ASYNC109 - as in `Client`
        """Wait until the rules are those in force on the server; whether they are, in time."""
        return await self._wait(lambda: self._engine.until_ready(timeout), timeout)

    async def flush(self, timeout: float = 5.0) -> bool:  # noqa: ASYNC109
        """Send what was recorded until now; whether all of it was taken or refused, in time."""
        if not len(self._engine.outbox):
            return True
        return await self._wait(lambda: self._engine.courier.flush(timeout), timeout)

    async def _wait(self, work: Callable[[], Coroutine[Any, Any, bool]], seconds: float) -> bool:
        waiting = self._engine.call(work)
        if waiting is None:
            return False
        await ended(waiting, seconds + _HANDOVER)
        return result(waiting)

    async def close(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109
        """Send what waits, for at most `exit_wait` or `timeout`, and end. Whether everything was sent."""
        seconds = self._options.exit_wait if timeout is None else timeout
        return await asyncio.to_thread(self._engine.close, seconds)

    async def __aenter__(self) -> Self:
        self._engine.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _nobody(experiment: str, user_id: str, reason: str, detail: str) -> Evaluation:
    return Evaluation(
        experiment=experiment, user_id=user_id, reason=reason, origin=Origin.NOBODY, detail=detail
    )


def _fits(value: Any, default: object) -> bool:
    """Whether code that has this default can work with this value; a whole number is a float, too."""
    if default is None:
        return True
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, float):
        return isinstance(value, int | float)
    return isinstance(value, type(default))
