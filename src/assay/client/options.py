"""How a client behaves: every bound it promises, with its unit and default."""

from dataclasses import dataclass, fields
from pathlib import Path

from assay.client.evaluation import StickyBuckets


@dataclass(frozen=True, kw_only=True)
class Options:
    """The bounds and habits of a client. Times are in seconds.

    Blocking: `first_wait` is how long after its start a client may hold an evaluation because it has no
    rules yet; `assign_wait` how long `assign` waits for the server, and for as long again it then does not
    ask it. Everything else is answered from memory.

    Sending: what is recorded leaves after `flush_interval`, or when `batch` items wait, in requests of at
    most `batch` items. At most `queue` items and `queue_bytes` wait; then the oldest goes. At the end of the
    interpreter, and by `close`, up to `exit_wait` is spent on sending the rest.

    Rules: heard of by a stream unless `stream` is False; asked for every `poll` where there is none. `file`
    keeps the last payload for a start without a server. `retry` and `retry_most` are the first and the
    longest pause after a failure; each pause is drawn at random up to twice the one before. `request_wait`
    bounds one request in the background. `sticky` keeps variants of local evaluation.
    """

    first_wait: float = 0.05
    assign_wait: float = 0.5
    flush_interval: float = 1.0
    batch: int = 500
    queue: int = 10_000
    queue_bytes: int = 16 << 20
    exit_wait: float = 2.0
    stream: bool = True
    poll: float = 30.0
    file: Path | str | None = None
    retry: float = 0.2
    retry_most: float = 30.0
    request_wait: float = 10.0
    sticky: StickyBuckets | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot work, while the application starts."""
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, int | float) and not isinstance(value, bool) and not 0 <= value < 1e9:
                raise ValueError(f"{each.name} must be a number from 0 to a billion, got {value!r}")
        for name in ("batch", "queue", "queue_bytes", "poll", "retry", "retry_most", "request_wait"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)!r}")
