"""A mixed load that looks at every answer, keeps a ledger, and goes on as clients do when a server goes away.

    traffic = Traffic(Target(url, key), seed=1)
    report = Load(traffic, connections=32).run(seconds=10)
    assert report.wrong == 0, report.samples
    assert not traffic.ledger.verify(traffic.target)

`Traffic` makes the requests and judges the answers; `Load` has the connections and the pace. Loads on one
traffic may follow one another, not run at once.
"""

import asyncio
import random
import threading
import time
from typing import Any, Self

import msgspec
import uvloop

from benchmarks.seen import Loss, Report
from benchmarks.traffic import Step, Traffic
from benchmarks.wire import Answer, Connection, Lost, connect

_NO_WRITE = frozenset({"overloaded", "queue_full", "shutting_down"})
"""Refusals that promise that nothing was stored."""
_MAYBE = frozenset({"store_in_doubt", "database_in_doubt"})
"""Refusals that say that it may be stored."""


class _Problem(msgspec.Struct):
    status: int
    code: str
    detail: str


_problem = msgspec.json.Decoder(_Problem)


class Load:
    """Connections that send what `traffic` makes, in a thread with an event loop of its own.

    Without `rate` each connection sends when it has its answer (closed loop). With one, requests fall due at
    that rate with seeded exponential gaps, whether or not the server keeps up, and latency counts from the
    moment a request was due: a server that stalls cannot hide it (open loop; a request goes out up to 1 ms
    late).

    What got no answer is repeated with the same ids until it gets one, as is a 503 after its `Retry-After`
    where `insist`; but what has no ids is not repeated where it may be stored. What is unanswered `patience`
    seconds after the load was told to stop is given up and stays in doubt.
    """

    def __init__(
        self,
        traffic: Traffic,
        *,
        connections: int = 32,
        rate: float | None = None,
        insist: bool = True,
        patience: float = 15,
    ) -> None:
        self.traffic = traffic
        self.connections = connections
        self.rate = rate
        self.insist = insist
        self.patience = patience
        self.report = Report(time.monotonic())
        self._random = random.Random(traffic.random.random())
        self._authorization = b" HTTP/1.1\r\nHost: load\r\nAuthorization: Bearer %s\r\n" % (
            traffic.target.key.encode()
        )
        self._due = 0.0
        self._marked = 0
        self._stopped = False
        self._deadline = float("inf")
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    @property
    def answers(self) -> int:
        """Answers so far."""
        return self.report.answers

    def start(self) -> Self:
        """Begin to send."""
        self._thread = threading.Thread(target=self._run, name="load")
        self._thread.start()
        return self

    def stop(self) -> Report:
        """Send nothing new, wait for what is on its way, and give back what was seen.

        Raises what the load itself failed with.
        """
        assert self._thread is not None
        self._deadline = time.monotonic() + self.patience
        self._stopped = True
        self._thread.join(self.patience + 60)
        if self._thread.is_alive():
            raise RuntimeError("the load does not end")
        if self._failure is not None:
            raise self._failure
        return self.report

    def run(self, seconds: float) -> Report:
        """Send for so long."""
        self.start()
        assert self._thread is not None
        self._thread.join(seconds)
        return self.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if not self._stopped:
            self.stop()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._all())
        except BaseException as failure:  # noqa: BLE001 - raised again by `stop`
            self._failure = failure

    async def _all(self) -> None:
        asyncio.get_running_loop().set_exception_handler(self._broken)
        before = self.traffic.late_duplicates
        busy = time.thread_time()
        self.report.began = self._due = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for _ in range(self.connections):
                group.create_task(self._client())
        self.report.ended = time.monotonic()
        self.report.cpu = time.thread_time() - busy
        self.report.late_duplicates = self.traffic.late_duplicates - before

    def _broken(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What a connection stumbled over: an answer that cannot be read, or that nobody asked for."""
        self.report.fault(f"{context['message']}: {context.get('exception')!r}")

    async def _client(self) -> None:
        connection: Connection | None = None
        try:
            while not self._stopped:
                due = time.monotonic()
                if self.rate is not None:
                    due = self._due = self._due + self._random.expovariate(self.rate)
                    wait = due - time.monotonic()
                    while wait > 0.0005 and not self._stopped:
                        await asyncio.sleep(min(wait, 0.1))
                        wait = due - time.monotonic()
                    if self._stopped:
                        return
                connection = await self._perform(self.traffic.next(), due, connection)
        finally:
            if connection is not None:
                connection.close()

    async def _perform(self, step: Step, due: float, connection: Connection | None) -> Connection | None:
        """Send one request until it is answered for good; the connection, as long as it can be used."""
        report = self.report
        data, identity = self._written(step)
        doubt = again = False  # whether it may have been stored already; whether it was sent before
        while True:
            try:
                if connection is None or not connection.open:
                    connection = await connect(self.traffic.target)
                answer = await connection.ask(data)
            except Lost as lost:
                now = time.monotonic()
                if lost.sent is None:
                    report.unreachable += 1
                else:
                    doubt = True
                    report.losses.append(Loss(step.kind, lost.reason, lost.sent, now, partly=lost.partly))
                if (not step.safe and lost.sent is not None) or now > self._deadline:
                    report.given_up += 1
                    return None
                if lost.sent is None:
                    await asyncio.sleep(0.02)
                connection = None
            else:
                now = time.monotonic()
                report.answer(step.kind, answer.status, now - due, now)
                wait = self._judged(step, answer, identity, doubt=doubt, again=again)
                if wait is None or now > self._deadline:
                    return connection
                await asyncio.sleep(wait)
            again = True
            report.repeated += 1
            due = time.monotonic()

    def _written(self, step: Step) -> tuple[bytes, bytes | None]:
        """The request in bytes, one in sixteen with an id that the answer must bear."""
        self._marked += 1
        head, identity = self._authorization, None
        if self._marked % 16 == 0:
            identity = b"load-%d" % self._marked
            head = b"%sX-Request-ID: %s\r\n" % (head, identity)
        if not step.body:
            return b"%s%s\r\n" % (step.line, head), identity
        return (
            b"%s%sContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
            % (step.line, head, len(step.body), step.body),
            identity,
        )

    def _judged(
        self, step: Step, answer: Answer, identity: bytes | None, *, doubt: bool, again: bool
    ) -> float | None:
        """Look at an answer; the seconds after which to repeat the request, None where it is done."""
        head = answer.head
        told = answer.header(b"x-request-id")
        if told is None or (identity is not None and told != identity):
            self._wrong(step, answer, f"a request id, {identity!r}")
        if answer.status == 503:
            return self._refused(step, answer, doubt=doubt, again=again)
        if b"\r\ncontent-type: application/json" not in head:
            self._wrong(step, answer, "application/json")
        try:
            wrong = step.check(answer, again)
        except msgspec.DecodeError as error:
            wrong = f"a document: {error}"
        if wrong is not None:
            self._wrong(step, answer, wrong)
        return None

    def _refused(self, step: Step, answer: Answer, *, doubt: bool, again: bool) -> float | None:
        after = answer.header(b"retry-after")
        if after is None or not after.isdigit() or not 1 <= int(after) <= 60:
            self._wrong(step, answer, "Retry-After")
            after = b"1"
        try:
            problem = _problem.decode(answer.body)
        except msgspec.DecodeError as error:
            self._wrong(step, answer, f"a problem: {error}")
            return None
        if answer.header(b"content-type") != b"application/problem+json" or problem.status != 503:
            self._wrong(step, answer, "application/problem+json of status 503")
        if problem.code in _MAYBE and not step.safe:
            self.report.given_up += 1  # it may be stored, and would be a second time
            return None
        if self.insist:
            return float(after)
        if step.refused is not None and not again and not doubt and problem.code in _NO_WRITE:
            step.refused()
        return None

    def _wrong(self, step: Step, answer: Answer, what: str) -> None:
        body = answer.body[:600].decode(errors="replace")
        self.report.fault(f"{step.kind} {step.line.decode()}: expected {what}; got {answer.status} {body}")
