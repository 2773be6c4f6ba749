"""What an experiment requires of others: prerequisites that people set, and holdouts that cover it."""

from collections.abc import Iterator, Mapping, Sequence

from sqlalchemy import or_, select

from assay.bucketing.ruleset import Status
from assay.catalog.checks import shown
from assay.catalog.database import ReadTx, WriteTx
from assay.catalog.editing import LIVE, find, find_variant, targeting_changed, whole
from assay.catalog.inputs import PrerequisiteInput
from assay.catalog.tables import Experiment, Prerequisite
from assay.errors import Conflict, Invalid, NotFound

#: Experiments in one chain of prerequisites, the first and the last counted.
MAX_CHAIN = 5
#: What a holdout calls those who are kept out, and the others.
HELD_OUT, IN = "held_out", "in"


def replace(tx: ReadTx, experiment: Experiment, given: Sequence[PrerequisiteInput]) -> None:
    """Make these the prerequisites; those that stay are the same rows.

    Raises `Invalid` for one that is not there, is on another unit, or would close a circle or a chain that
    is too long.
    """
    before = {each.parent_id: each for each in experiment.prerequisites}
    rows = [each for each in experiment.prerequisites if each.holdout]
    for at, each in enumerate(given):
        path = f"prerequisites[{at}]"
        parent = _parent(tx, each, path)
        _fits(experiment, parent, path)
        if any(row.parent_id == parent.id for row in rows):
            raise Invalid.field(f"{path}.experiment", f"is {parent.key}, which is there already")
        wanted = [_variant(parent, name, f"{path}.variants[{n}]") for n, name in enumerate(each.variants)]
        row = before.get(parent.id) or Prerequisite(parent_id=parent.id, holdout=False, parent=parent)
        row.variants = list(dict.fromkeys(wanted))
        rows.append(row)
    parents = [each.parent_id for each in rows if not each.holdout]
    if parents:
        _expect_chains(tx, experiment, parents)
    experiment.prerequisites = rows


def _parent(tx: ReadTx, given: PrerequisiteInput, path: str) -> Experiment:
    name = "experiment" if given.experiment is not None else "experiment_id"
    reference = given.experiment if given.experiment is not None else given.experiment_id
    try:
        found = find(tx, reference or 0)
    except NotFound as error:
        raise Invalid.field(f"{path}.{name}", error.detail, code="unknown_experiment") from error
    if given.experiment_id is not None and given.experiment_id != found.id:
        raise Invalid.field(f"{path}.experiment_id", f"is not that of {found.key}, which is {found.id}")
    return found


def _fits(experiment: Experiment, parent: Experiment, path: str) -> None:
    if parent.id == experiment.id:
        raise Invalid.field(
            f"{path}.experiment",
            f"closes a circle: {experiment.key} → {experiment.key}",
            code="prerequisite_cycle",
        )
    if parent.unit != experiment.unit:
        raise Invalid.field(
            f"{path}.experiment",
            f"must have the unit {shown(experiment.unit)}; {parent.key} has {shown(parent.unit)}",
            code="prerequisite_unit",
        )
    if parent.status == Status.ARCHIVED:
        raise Invalid.field(f"{path}.experiment", f"is {parent.key}, which is archived and serves nobody")


def _variant(parent: Experiment, name: str, path: str) -> str:
    try:
        return find_variant(parent, name).key
    except NotFound as error:
        raise Invalid.field(path, error.detail, code="unknown_variant") from error


def _expect_chains(tx: ReadTx, experiment: Experiment, parents: Sequence[int]) -> None:
    """Refuse circles, and chains longer than `MAX_CHAIN`, through this experiment with these parents."""
    above: dict[int, list[int]] = {}
    below: dict[int, list[int]] = {}
    links = select(Prerequisite.experiment_id, Prerequisite.parent_id).where(Prerequisite.holdout.is_(False))
    for child, parent in tx.execute(links):
        if child != experiment.id:
            above.setdefault(child, []).append(parent)
            below.setdefault(parent, []).append(child)
    # A circle would have to lead through this experiment: without it, there was none before.
    longest: list[int] = []
    for at, parent in enumerate(parents):
        for chain in _chains([parent], above):
            if chain[-1] == experiment.id:
                raise Invalid.field(
                    f"prerequisites[{at}].experiment",
                    f"closes a circle: {_names(tx, [experiment.id, *chain])}",
                    code="prerequisite_cycle",
                )
            longest = max(longest, chain, key=len)
    children = max(_chains([experiment.id], below), key=len) if experiment.id is not None else [0]
    if len(children) + len(longest) > MAX_CHAIN:
        chain = [*reversed(children[1:]), experiment.id, *longest]
        raise Invalid.field(
            "prerequisites",
            f"make a chain of {len(chain)} experiments: {_names(tx, chain, experiment.key)}; at most "
            f"{MAX_CHAIN} are evaluated",
            code="prerequisite_chain",
        )


def _chains(chain: list[int], links: Mapping[int, list[int]]) -> Iterator[list[int]]:
    """This chain and all that go on from its end; none is followed far beyond what is allowed."""
    yield chain
    if len(chain) <= MAX_CHAIN + 1:
        for each in links.get(chain[-1], ()):
            yield from _chains([*chain, each], links)


def _names(tx: ReadTx, chain: Sequence[int | None], new: str = "") -> str:
    keys = {each.id: each.key for each in tx.execute(select(Experiment.id, Experiment.key))}
    return " → ".join(keys[each] if each is not None else new for each in chain)


def expect_unit(tx: ReadTx, experiment: Experiment) -> None:
    """Refuse a unit other than that of the experiments required, or that require this one."""
    linked = select(Experiment).join(
        Prerequisite,
        or_(
            (Prerequisite.parent_id == Experiment.id) & (Prerequisite.experiment_id == experiment.id),
            (Prerequisite.experiment_id == Experiment.id) & (Prerequisite.parent_id == experiment.id),
        ),
    )
    other = tx.scalar(linked.where(Experiment.unit != experiment.unit).limit(1))
    if other is not None:
        raise Invalid.field(
            "unit",
            f"must be that of {other.key}, {shown(other.unit)}, which is or has a prerequisite of "
            f"{experiment.key}; got {shown(experiment.unit)}",
            code="prerequisite_unit",
        )


def expect_unneeded(tx: ReadTx, experiment: Experiment) -> None:
    """Refuse to delete what an experiment still to come or under way requires. Raises `Conflict`."""
    users = tx.scalars(
        select(Experiment.key)
        .join(Prerequisite, Prerequisite.experiment_id == Experiment.id)
        .where(
            Prerequisite.parent_id == experiment.id,
            Prerequisite.holdout.is_(False),
            Experiment.status.in_([Status.DRAFT, *LIVE]),
        )
        .order_by(Experiment.id)
        .limit(5)
    )
    names = ", ".join(users)
    if names:
        raise Conflict(
            f"Experiment {experiment.key} is a prerequisite of {names}: take it out there first, or nobody "
            "could enter.",
            code="prerequisite_in_use",
        )


def begin(tx: WriteTx, experiment: Experiment) -> None:
    """An experiment starts: the holdouts in force from now on keep their units out of it.

    A holdout that starts covers what starts after it; one for certain experiments must come before them.
    """
    if experiment.holdout is not None:
        named = experiment.holdout.get("experiments") or []
        begun = select(Experiment.key).where(Experiment.id.in_(named), Experiment.status != Status.DRAFT)
        names = ", ".join(tx.scalars(begun.order_by(Experiment.id)))
        if names:
            raise Conflict(
                f"Holdout {experiment.key} is to keep units out of {names}, which has started: units are in "
                "it. Take it out of the holdout's experiments.",
                code="holdout_too_late",
            )
        return
    covering = [
        each
        for each in tx.scalars(
            select(Experiment)
            .where(
                Experiment.holdout.is_not(None),
                Experiment.status.in_(LIVE),
                Experiment.unit == experiment.unit,
            )
            .order_by(Experiment.id)
        )
        if covers(each, experiment)
    ]
    have = {each.parent_id for each in experiment.prerequisites}
    experiment.prerequisites.extend(
        Prerequisite(parent_id=each.id, holdout=True, variants=[IN], parent=each)
        for each in covering
        if each.id not in have
    )


def covers(holdout: Experiment, experiment: Experiment) -> bool:
    """Whether a holdout means this experiment: all of its unit, those of a layer, or those it names."""
    scope = holdout.holdout or {}
    named = scope.get("experiments")
    if scope.get("layer_id") is not None:
        return bool(scope["layer_id"] == experiment.layer_id)
    return named is None or experiment.id in named


def end(tx: WriteTx, holdout: Experiment) -> None:
    """A holdout ends: experiments under way let its units in, in a phase of their own."""
    covered = (
        select(Experiment)
        .join(Prerequisite, Prerequisite.experiment_id == Experiment.id)
        .where(Prerequisite.parent_id == holdout.id, Prerequisite.holdout.is_(True))
        .order_by(Experiment.id)
    )
    for each in list(tx.scalars(covered.options(*whole()))):
        before = _keys(each)
        each.prerequisites = [row for row in each.prerequisites if row.parent_id != holdout.id]
        tx.flush()
        targeting_changed(tx, each)
        tx.record(
            "holdout.end",
            "experiment",
            holdout.id,
            experiment_id=each.id,
            changes={"holdouts": {"from": before, "to": _keys(each)}},
        )


def _keys(experiment: Experiment) -> list[str]:
    return [each.parent.key for each in experiment.prerequisites if each.holdout]
