"""Slots of layers: taken from free ones, held while an experiment is under way, rested before the next.

A unit's slot is `hashing.place` under the layer's seed; whoever holds the slot may have the unit. Slots never
move from one experiment under way to another, so a unit is in one experiment of a layer at most, whatever
starts, ends or grows.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import select, update

from assay.bucketing.hashing import SLOTS
from assay.catalog import durations
from assay.catalog.database import ReadTx, WriteTx
from assay.catalog.documents import percent
from assay.catalog.tables import Experiment, Layer, LayerSlots
from assay.errors import Conflict, FieldError


class Stretch(NamedTuple):
    """Neighbouring slots [low, high) with the same past.

    `row` says who has them, or had them last and not long ago; None for free ones. `until` is when those that
    are resting are free.
    """

    low: int
    high: int
    row: LayerSlots | None
    until: datetime | None

    @property
    def size(self) -> int:
        """How many slots."""
        return self.high - self.low


def number(share: float) -> int:
    """How many slots a share of a layer is: as many as are needed not to fall short of it."""
    return math.ceil(share * SLOTS - 1e-9)


def held(layer: Mapping[str, Any] | None) -> int:
    """How many slots an experiment holds, by its `layer`."""
    return sum(high - low for low, high in layer["slots"]) if layer else 0


def wanted(experiment: Experiment) -> int:
    """How many slots an experiment in a layer asks for."""
    share = experiment.layer["share"] if experiment.layer else None
    return number(experiment.coverage if share is None else share)


def coverage(experiment: Experiment) -> float:
    """The share that enters of the units that an experiment may have: all, or those in its slots.

    Without a share of its own, the slots are the coverage. One that has more of them than its coverage says,
    because that was lowered, keeps them for the units it has, and lets fewer new ones in.
    """
    return coverage_in(experiment.layer, experiment.coverage)


def coverage_in(layer: Mapping[str, Any] | None, wanted: float) -> float:
    """The same for an experiment with this layer and coverage."""
    if layer is None or layer["share"] is not None:
        return wanted
    has = held(layer)
    return 1.0 if number(wanted) >= has else wanted * SLOTS / has


def settle(tx: WriteTx, experiment: Experiment, *, live: bool) -> None:
    """Take what an experiment under way lacks, give back what one that has ended holds.

    Raises `Conflict` where the layer has not enough free slots.
    """
    if experiment.layer is None:
        return
    has = held(experiment.layer)
    if live:
        more = wanted(experiment) - has
        if more > 0:
            _take(tx, experiment, more)
    elif has:
        tx.execute(
            update(LayerSlots)
            .where(LayerSlots.experiment_id == experiment.id, LayerSlots.released_at.is_(None))
            .values(released_at=tx.now)
            .execution_options(synchronize_session=False)
        )
        experiment.layer = {**experiment.layer, "slots": []}


def _take(tx: WriteTx, experiment: Experiment, more: int) -> None:
    """Those that never were in use first, then those that have rested longest, then by number."""
    layer = tx.get_one(Layer, experiment.layer_id)
    rows = list(tx.scalars(select(LayerSlots).where(LayerSlots.layer_id == layer.id)))
    stretches = occupancy(layer, rows, tx.now)
    free = [slot for each in stretches if each.row is None for slot in range(each.low, each.high)]
    if len(free) < more:
        said = _shortage(experiment, layer, stretches, more)
        share = experiment.layer is not None and experiment.layer["share"] is not None
        raise Conflict(
            f"Experiment {experiment.key} {said}. Ask for less, or stop an experiment of the layer.",
            code="layer_full",
            errors=[FieldError("layer.share" if share else "traffic_allocation", said)],
        )
    last: dict[int, datetime] = {}
    for row in rows:
        if row.released_at is not None:
            for slot in range(row.low, row.high):
                last[slot] = max(row.released_at, last.get(slot, row.released_at))
    free.sort(key=lambda slot: (slot in last, last.get(slot, tx.now), slot))
    taken = free[:more]
    for low, high in _stretches(taken):
        tx.add(
            LayerSlots(
                layer_id=layer.id,
                experiment_id=experiment.id,
                low=low,
                high=high,
                taken_at=tx.now,
                released_at=None,
            )
        )
    mine = experiment.layer or {}
    has = [slot for low, high in mine["slots"] for slot in range(low, high)]
    experiment.layer = {**mine, "slots": _stretches([*has, *taken])}


def _stretches(slots: Iterable[int]) -> list[list[int]]:
    """Slot numbers as stretches [from, to)."""
    found: list[list[int]] = []
    for slot in sorted(slots):
        if found and found[-1][1] == slot:
            found[-1][1] = slot + 1
        else:
            found.append([slot, slot + 1])
    return found


def occupancy(layer: Layer, rows: Sequence[LayerSlots], now: datetime) -> list[Stretch]:
    """All slots of a layer in order: who holds them, which rest and until when, which are free."""
    rest = timedelta(minutes=durations.minutes(layer.wash_out))
    of_slot: list[LayerSlots | None] = [None] * SLOTS
    # What is held comes last, so that it shows where somebody has made the rest longer since.
    for taken in sorted(rows, key=lambda each: (each.released_at is None, each.released_at or now, each.id)):
        if taken.released_at is None or taken.released_at + rest > now:
            of_slot[taken.low : taken.high] = [taken] * (taken.high - taken.low)
    found: list[Stretch] = []
    low = 0
    for at in range(1, SLOTS + 1):
        if at == SLOTS or of_slot[at] is not of_slot[low]:
            row = of_slot[low]
            ended = None if row is None else row.released_at
            found.append(Stretch(low, at, row, None if ended is None else ended + rest))
            low = at
    return found


def by_layer(tx: ReadTx, layers: Sequence[Layer], now: datetime) -> dict[int, list[Stretch]]:
    """The slots of each of these layers."""
    longest = now - timedelta(days=durations.LONGEST_DAYS)
    rows: dict[int, list[LayerSlots]] = {each.id: [] for each in layers}
    found = select(LayerSlots).where(
        LayerSlots.layer_id.in_(rows), LayerSlots.released_at.is_(None) | (LayerSlots.released_at > longest)
    )
    for row in tx.scalars(found.order_by(LayerSlots.id)):
        rows[row.layer_id].append(row)
    return {each.id: occupancy(each, rows[each.id], now) for each in layers}


def shortage(tx: ReadTx, experiment: Experiment, now: datetime) -> str | None:
    """What an experiment that starts now would lack of its layer, to end a sentence; None for nothing."""
    more = wanted(experiment) - held(experiment.layer) if experiment.layer else 0
    if more <= 0:
        return None
    layer = tx.get_one(Layer, experiment.layer_id)
    stretches = by_layer(tx, [layer], now)[layer.id]
    if more <= sum(each.size for each in stretches if each.row is None):
        return None
    return _shortage(experiment, layer, stretches, more)


def _shortage(experiment: Experiment, layer: Layer, stretches: Sequence[Stretch], more: int) -> str:
    free = sum(each.size for each in stretches if each.row is None)
    said = f"needs {_share(more)} {'more ' if held(experiment.layer) else ''}of layer {layer.key}"
    resting = [(each.until, each.size) for each in stretches if each.until is not None]
    later = ""
    if resting:
        first = min(resting)[0].astimezone(UTC)
        rest = _share(sum(size for _, size in resting))
        later = f"; {rest} rest, the first until {first:%-d %b %Y, %H:%M:%S} UTC"
    return f"{said}, of which {_share(free)} is free{later}"


def _share(slots: int) -> str:
    return f"{percent(slots / SLOTS):g} % ({slots:,} of {SLOTS:,} slots)"
