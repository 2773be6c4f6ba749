"""What a load has seen: latencies without losing their tail, answers by status, second by second."""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Self

from benchmarks.table import number

_BITS = 6
_HALF = 1 << _BITS
#: 64 steps to each doubling, up to 2³⁶ µs (19 hours): no value is off by more than 1.6 %.
_SIZE = _HALF * (37 - _BITS)


class Histogram:
    """Durations in microseconds, in steps that grow with the value."""

    __slots__ = ("count", "counts", "largest")

    def __init__(self) -> None:
        self.counts = [0] * _SIZE
        self.count = 0
        self.largest = 0

    def add(self, value: int) -> None:
        """Count one duration."""
        self.count += 1
        if value > self.largest:  # noqa: PLR1730 - max() costs as much as all the rest
            self.largest = value
        shift = value.bit_length() - _BITS - 1
        self.counts[value if shift < 0 else min((shift << _BITS) + (value >> shift), _SIZE - 1)] += 1

    def __iadd__(self, other: Self) -> Self:
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.count += other.count
        self.largest = max(self.largest, other.largest)
        return self

    def percentile(self, share: float) -> float:
        """Milliseconds that this share (0..1) of the durations stays within; NaN where there is none."""
        if not self.count:
            return math.nan
        left = math.ceil(share * self.count)
        for index, count in enumerate(self.counts):
            left -= count
            if left <= 0:
                shift = max((index >> _BITS) - 1, 0)
                top = ((index - (shift << _BITS)) + 1 << shift) - 1
                return min(top, self.largest) / 1e3
        raise AssertionError("the counts do not add up")


class Window:
    """One second: when its answers came, counted by status, and the latency of those that were no refusal."""

    __slots__ = ("latency", "statuses")

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.latency = Histogram()


class Loss:
    """A request that got no answer: when it was sent (monotonic; None: never), when that was known."""

    __slots__ = ("kind", "known", "partly", "reason", "sent")

    def __init__(self, kind: str, reason: str, sent: float | None, known: float, *, partly: bool) -> None:
        self.kind, self.reason, self.sent, self.known, self.partly = kind, reason, sent, known, partly

    def __repr__(self) -> str:
        return f"Loss({self.kind}, {self.reason}, sent={self.sent}, known={self.known}, partly={self.partly})"


class Report:
    """Everything one stretch of load has seen. Times are monotonic seconds, latencies milliseconds."""

    def __init__(self, began: float) -> None:
        self.began = began
        self.ended = began
        self.by_kind: dict[str, Histogram] = {}
        self.statuses: Counter[tuple[str, int]] = Counter()
        self.windows: list[Window] = []
        self.losses: list[Loss] = []
        self.unreachable = 0
        """Attempts to connect that failed."""
        self.wrong = 0
        self.samples: list[str] = []
        """The first of the wrong answers, with what was wrong with them."""
        self.repeated = 0
        """Requests sent again because no answer came, or a 503."""
        self.given_up = 0
        self.late_duplicates = 0
        """Repetitions that were taken as new: only what is read back later tells that they count once."""
        self.cpu = 0.0
        """Processor seconds the load itself took."""

    def answer(self, kind: str, status: int, latency: float, now: float) -> None:
        """Count an answer."""
        self.statuses[kind, status] += 1
        second = int(now - self.began)
        windows = self.windows
        while len(windows) <= second:
            windows.append(Window())
        window = windows[second]
        window.statuses[status] += 1
        if status < 500:
            value = max(int(latency * 1e6), 0)  # sent before it was due, and answered by then
            window.latency.add(value)
            histogram = self.by_kind.get(kind)
            if histogram is None:
                histogram = self.by_kind[kind] = Histogram()
            histogram.add(value)

    def fault(self, what: str) -> None:
        """Count a wrong answer."""
        self.wrong += 1
        if len(self.samples) < 20:
            self.samples.append(what)

    @property
    def seconds(self) -> float:
        """How long it took."""
        return max(self.ended - self.began, 1e-9)

    @property
    def answers(self) -> int:
        """Answers of any status."""
        return self.statuses.total()

    @property
    def rate(self) -> float:
        """Answers a second that were no refusal."""
        return (self.answers - self.count(503)) / self.seconds

    def count(self, status: int) -> int:
        """Answers with this status."""
        return sum(count for (_, each), count in self.statuses.items() if each == status)

    def latency(self, kind: str | None = None, *, windows: slice | None = None) -> Histogram:
        """The latencies of one kind, of some seconds, or of everything."""
        parts: Iterable[Histogram]
        if windows is not None:
            parts = [window.latency for window in self.windows[windows]]
        elif kind is not None:
            parts = [self.by_kind[kind]] if kind in self.by_kind else []
        else:
            parts = self.by_kind.values()
        whole = Histogram()
        for part in parts:
            whole += part
        return whole

    def text(self) -> str:
        """A table: a line for each kind of request."""
        lines = ["| request | answers | p50 ms | p99 ms | p99.9 ms | max ms | statuses |"]
        lines.append("| --- | ---: | ---: | ---: | ---: | ---: | --- |")
        for kind, found in (("all", self.latency()), *sorted(self.by_kind.items())):
            statuses = Counter[int]()
            for (each, status), count in self.statuses.items():
                if kind in {"all", each}:
                    statuses[status] += count
            shown = ", ".join(f"{status}: {count:,}" for status, count in sorted(statuses.items()))
            ranks = " | ".join(number(found.percentile(share)) for share in (0.5, 0.99, 0.999))
            lines.append(
                f"| {kind} | {statuses.total():,} | {ranks} | {number(found.largest / 1e3)} | {shown} |"
            )
        lines.append(
            f"\n{number(self.rate)} answers/s for {self.seconds:.1f} s, the load took "
            f"{self.cpu / self.seconds:.0%} of a core; wrong {self.wrong}, lost {len(self.losses)}, "
            f"repeated {self.repeated}, given up {self.given_up}, "
            f"duplicates taken as new {self.late_duplicates}"
        )
        return "\n".join([*lines, *self.samples])
