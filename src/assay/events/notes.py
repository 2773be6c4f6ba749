"""What was refused, repeated or contradicted, counted for the ledger until somebody stores it.

Nobody relies on these counts as on events: a crash before they are stored may lose the latest.
"""

import threading
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from assay.events.event import Event

Rejections = tuple[int | None, str | None, str, int, tuple[str, ...]]
"""Refusals of one kind: experiment id, event type, code, how many, and up to five samples."""

#: Kinds of refusal (experiment, type, code) told apart; callers could make up any number of types.
_KINDS: Final = 1_000
_SAMPLES: Final = 5

_Kind = tuple[int | None, str | None, str]
_encode = msgspec.json.Encoder().encode


class Notes:
    """Counts by kind, each with its first samples; from any thread."""

    def __init__(self) -> None:
        self._counts: dict[_Kind, tuple[int, list[str]]] = {}
        self._kinds: set[_Kind] = set()
        self._guard = threading.Lock()

    def double(self, experiment_id: int | None, event: Event) -> None:
        """Count a repetition that was named at once, for the ledger of an experiment it concerns."""
        sample = _encode({"event_id": event.o or event.e, "user_id": event.u}).decode()
        self.rejected(experiment_id, event.t, "duplicate", sample)

    def mismatch(self, experiment_id: int, event_type: str, sample: str) -> None:
        """Count a report of another variant than the unit has on record."""
        self.rejected(experiment_id, event_type, "variant_mismatch", sample)

    def rejected(self, experiment_id: int | None, event_type: str | None, code: str, sample: str) -> None:
        """Count a refusal."""
        kind = (experiment_id, event_type, code)
        with self._guard:
            if kind not in self._kinds:
                if len(self._kinds) >= _KINDS:
                    kind = (experiment_id, None, code)
                else:
                    self._kinds.add(kind)
            self._add(kind, 1, (sample,))

    def take(self) -> list[Rejections]:
        """What was counted since the last call."""
        with self._guard:
            taken, self._counts = self._counts, {}
        return [(*kind, count, tuple(samples)) for kind, (count, samples) in taken.items()]

    def give_back(self, rejections: Iterable[Rejections]) -> None:
        """Counts that were taken and could not be stored."""
        with self._guard:
            for experiment_id, kind, code, count, samples in rejections:
                self._add((experiment_id, kind, code), count, samples)

    def _add(self, kind: _Kind, count: int, samples: Sequence[str]) -> None:
        before, kept = self._counts.get(kind, (0, []))
        kept.extend(samples[: _SAMPLES - len(kept)])
        self._counts[kind] = (before + count, kept)
