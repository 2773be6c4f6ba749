"""How an experiment is found and changed: version, phase and audit entry follow by themselves."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from sqlalchemy import select
from sqlalchemy.orm import selectinload
from sqlalchemy.orm.interfaces import ORMOption

from assay.bucketing.ruleset import Status
from assay.catalog import documents, phases, slots
from assay.catalog.checks import shown, storable
from assay.catalog.database import ReadTx, WriteTx
from assay.catalog.tables import Experiment, Variant
from assay.errors import Conflict, Invalid, NotFound, Stale

#: States in which units are, or may again be, let in.
LIVE = frozenset({Status.RUNNING, Status.PAUSED})


def whole() -> tuple[ORMOption, ...]:
    """Load an experiment with everything its document shows."""
    return (
        selectinload(Experiment.variants),
        selectinload(Experiment.tags),
        selectinload(Experiment.segments),
        selectinload(Experiment.definitions),
        selectinload(Experiment.prerequisites),
    )


def find(tx: ReadTx, reference: int | str) -> Experiment:
    """The experiment with this id or key; all digits are an id. Raises `NotFound`."""
    number = as_id(reference)
    condition = Experiment.key == str(reference) if number is None else Experiment.id == number
    found = None
    if number is not None or storable(str(reference)):
        found = tx.scalar(select(Experiment).where(condition).options(*whole()))
    if found is None:
        raise NotFound(f"There is no experiment {shown(reference)}.", code="unknown_experiment")
    return found


def find_variant(experiment: Experiment, reference: int | str) -> Variant:
    """The variant with this id, key or name, among those not removed. Raises `NotFound`."""
    present = [each for each in experiment.variants if not each.removed]
    number = as_id(reference)
    for each in present:
        if each.id == number:
            return each
    for field in ("key", "name"):
        for each in present:
            if getattr(each, field) == reference:
                return each
    raise NotFound(f"Experiment {experiment.key} has no variant {shown(reference)}.", code="unknown_variant")


def as_id(reference: int | str) -> int | None:
    """The number that a reference is, if it is one a database can hold."""
    if isinstance(reference, int):
        number = reference
    elif reference.isascii() and reference.isdigit() and len(reference) < 20:
        number = int(reference)
    else:
        return None
    return number if 0 < number < 2**63 else None


def expect_version(current: int, expected: frozenset[int] | None) -> None:
    """Refuse a change that was made looking at another version than the current one."""
    if expected is not None and current not in expected:
        wanted = ", ".join(str(each) for each in sorted(expected)) or "none"
        raise Stale(f"The current version is {current}, not {wanted}: read it again and repeat the change.")


def state_forbids(experiment: Experiment, what: str) -> Conflict:
    """The error for a change that the experiment's state does not allow."""
    return Conflict(
        f"Experiment {experiment.key} is {experiment.status}: {what}.", code=f"experiment_{experiment.status}"
    )


@contextmanager
def changing(tx: WriteTx, experiment: Experiment, action: str, reason: str | None = None) -> Iterator[None]:
    """Change an experiment inside this block; what follows from the change follows by itself.

    Nothing changed: nothing is written. An experiment under way takes the slots of its layer that it lacks,
    and one that has ended gives them back. Where the split of a started experiment changed, a new phase
    begins; the assignments already made stay.
    """
    before, split, admitted = documents.experiment(experiment), phases.split(experiment), admits(experiment)
    yield
    slots.settle(tx, experiment, live=experiment.status in LIVE)
    tx.flush()
    tx.refresh(experiment, ["variants", "tags", "segments", "prerequisites"])
    changes = documents.difference(before, documents.experiment(experiment))
    if not changes:
        return
    other_split = phases.split(experiment) != split
    _expect_changeable(experiment, Status(before["status"]), changes, other_split=other_split)
    if experiment.holdout is not None:
        _expect_holdout(experiment, started=before["status"] != Status.DRAFT and other_split)
    if other_split and before["status"] in LIVE and experiment.status in LIVE:
        if admitted and not admits(experiment):
            raise Conflict(
                f"Experiment {experiment.key} is {experiment.status}: at least one variant with an "
                "allocation must stay enabled. Pause the experiment to let nobody new in, or stop it.",
                code="no_variant",
            )
        phases.open_next(tx, experiment)
    experiment.version += 1
    experiment.updated_at = tx.now
    tx.record(
        action, "experiment", experiment.id, experiment_id=experiment.id, changes=changes, reason=reason
    )


def admits(experiment: Experiment) -> bool:
    """Whether a variant is there that a new unit could get."""
    return any(each.enabled and each.allocation > 0 for each in experiment.variants if not each.removed)


def targeting_changed(tx: WriteTx, experiment: Experiment) -> None:
    """Something the experiment refers to now means other units: a started one begins a new phase."""
    if experiment.status in LIVE:
        phases.open_next(tx, experiment)
    experiment.version += 1
    experiment.updated_at = tx.now


def _expect_holdout(experiment: Experiment, *, started: bool) -> None:
    """A holdout decides by its share alone, which SDKs and the server agree on, and units rely on."""
    present = [each for each in experiment.variants if not each.removed]
    targeted = experiment.condition or experiment.segments or experiment.layer or experiment.prerequisites
    if started:
        raise state_forbids(experiment, "the share of a holdout can no longer change")
    if (
        targeted
        or experiment.coverage != 1
        or experiment.ramp
        or experiment.breaker
        or [each.key for each in present] != ["held_out", "in"]
        or not all(each.enabled for each in present)
    ):
        raise Invalid.field(
            "holdout",
            f"{experiment.key} is a holdout: it has the variants held_out and in, all of the traffic, and no "
            "condition, segment, layer, prerequisite, ramp or circuit "
            "breaker",
            code="holdout_fixed",
        )


def _expect_changeable(
    experiment: Experiment, status: Status, changes: Mapping[str, object], *, other_split: bool
) -> None:
    """What may change in which state. Raising here undoes the whole transaction."""
    if status == Status.ARCHIVED:
        raise state_forbids(experiment, "it can no longer change")
    if status == Status.DRAFT:
        return
    reopened = status == Status.STOPPED and experiment.status in LIVE
    if other_split and status not in LIVE and not reopened:
        raise state_forbids(experiment, "its variants, allocation and targeting can no longer change")
    for name in ("key", "unit"):
        if name in changes:
            raise state_forbids(experiment, f"its {name} decides who gets what and can no longer change")


def complete_split(experiment: Experiment) -> None:
    """Refuse to start an experiment whose variants do not share out all of the traffic."""
    total = sum(each.allocation for each in experiment.variants if not each.removed)
    if abs(total - 1) > 1e-6:
        raise Invalid.field(
            "variants",
            f"allocations must sum to 1 (100 %) when the experiment starts; "
            f"they sum to {total:g} ({documents.percent(total):g} %)",
            code="allocation_sum",
        )
    if not admits(experiment):
        raise Invalid.field(
            "variants", "at least one variant with an allocation must be enabled", code="no_variant"
        )
