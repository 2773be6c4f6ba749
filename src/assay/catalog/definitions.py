"""Metric definitions: written once, in versions, for any number of experiments.

An experiment holds a copy of a definition and the number of its version, so changing the definition changes
no experiment. A version that an experiment ever had stays readable: a definition that is used is put away
rather than deleted.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import delete, func, or_, select

from assay.catalog import documents, keying
from assay.catalog.checks import expect_storable, parse, shown, storable
from assay.catalog.database import ReadTx, WriteTx
from assay.catalog.editing import LIVE, as_id, expect_version
from assay.catalog.measuring import USES, DefinitionEdit, DefinitionInput
from assay.catalog.metrics import StoredMetric
from assay.catalog.tables import Experiment, ExperimentDefinition, MetricDefinition, MetricVersion, Template
from assay.errors import Conflict, Invalid, NotFound

#: Fields of an answer that are changed by other calls, if at all.
_READ_ONLY = ("id", "archived", "created_at", "updated_at", "updated_by", "experiments")
_SPELLINGS = {"event": "event_type"}


def find(tx: ReadTx, reference: int | str) -> MetricDefinition:
    """The definition with this id or key; all digits are an id. Raises `NotFound`."""
    number = as_id(reference)
    condition = MetricDefinition.key == str(reference) if number is None else MetricDefinition.id == number
    found = None
    if number is not None or storable(str(reference)):
        found = tx.scalar(select(MetricDefinition).where(condition))
    if found is None:
        raise NotFound(f"There is no metric definition {shown(reference)}.", code="unknown_definition")
    return found


def version_of(tx: ReadTx, definition: MetricDefinition, number: int) -> MetricVersion:
    """What the definition said in its version `number`. Raises `NotFound`."""
    found = tx.get(MetricVersion, (definition.id, number)) if 0 < number <= definition.version else None
    if found is None:
        raise NotFound(
            f"The metric definition {definition.key} has versions 1 to {definition.version}; got {number}.",
            code="unknown_version",
        )
    return found


def versions(tx: ReadTx, definition: MetricDefinition) -> list[MetricVersion]:
    """All versions, the newest first."""
    rows = select(MetricVersion).where(MetricVersion.definition_id == definition.id)
    return list(tx.scalars(rows.order_by(MetricVersion.version.desc())))


def users(tx: ReadTx, definitions: Sequence[MetricDefinition]) -> dict[int, list[int]]:
    """The ids of the experiments that hold a copy of each definition."""
    links: dict[int, list[int]] = {each.id: [] for each in definitions}
    rows = select(ExperimentDefinition).where(ExperimentDefinition.definition_id.in_(links))
    for link in tx.scalars(rows.order_by(ExperimentDefinition.experiment_id)):
        links[link.definition_id].append(link.experiment_id)
    return links


def document(tx: ReadTx, definition: MetricDefinition) -> documents.DefinitionDocument:
    """A definition as the API answers it."""
    return documents.definition(definition, users(tx, [definition])[definition.id])


def page(
    tx: ReadTx, *, q: str | None = None, archived: bool = False, skip: int = 0, limit: int = 100
) -> tuple[list[MetricDefinition], int]:
    """Definitions by key whose key or name contains `q`, and how many match: archived ones, or the others."""
    expect_storable("q", q)
    put_away = MetricDefinition.archived_at.is_not(None)
    rows = select(MetricDefinition).where(put_away if archived else ~put_away)
    if q:
        fields = (MetricDefinition.key, MetricDefinition.name)
        rows = rows.where(or_(*(field.icontains(q, autoescape=True) for field in fields)))
    total = tx.scalar(select(func.count()).select_from(rows.subquery())) or 0
    return list(tx.scalars(rows.order_by(MetricDefinition.key).offset(skip).limit(limit))), total


def create(tx: WriteTx, given: DefinitionInput) -> MetricDefinition:
    """A new definition, in its first version. Raises `Conflict` for a key that is taken."""
    key = keying.settled(tx, MetricDefinition.key, "metric", given.key, given.name or "")
    body = _body(given, key)
    row = MetricDefinition(
        key=key,
        name=body["name"],
        body=body,
        version=1,
        created_at=tx.now,
        updated_at=tx.now,
        updated_by=tx.actor.name,
    )
    tx.add(row)
    tx.flush()
    _keep(tx, row)
    changes = documents.difference({}, {"key": key, **body})
    tx.record("metric.create", "metric", row.id, changes=changes)
    return row


def edit(
    tx: WriteTx,
    definition: MetricDefinition,
    given: object,
    *,
    expected: frozenset[int] | None = None,
) -> None:
    """Change what is given, in a new version; experiments keep the one they have.

    `expected` are the versions the caller may have been looking at. Raises `Stale` for another one.
    """
    checked = parse(DefinitionEdit, given)
    expect_version(definition.version, expected)
    if checked.version is not None:
        expect_version(definition.version, frozenset({checked.version}))
    if definition.archived_at is not None:
        raise Conflict(
            f"The metric definition {definition.key} is archived: restore it to change it.",
            code="definition_archived",
        )
    _refuse_read_only(tx, definition, checked)
    before = {"key": definition.key, **definition.body}
    written = {} if not isinstance(given, Mapping) else dict(given)
    _rename(tx, definition, written.pop("key", definition.key))
    body = _changed(definition, written)
    changes = documents.difference(before, {"key": definition.key, **body})
    if not changes:
        return
    definition.body, definition.name = body, body["name"]
    definition.version += 1
    definition.updated_at, definition.updated_by = tx.now, tx.actor.name
    _keep(tx, definition)
    tx.record("metric.edit", "metric", definition.id, changes=changes)


def put_away(tx: WriteTx, definition: MetricDefinition) -> None:
    """Archive: experiments that hold a copy keep it, no other may take one."""
    if definition.archived_at is None:
        definition.archived_at = tx.now
        tx.record(
            "metric.archive", "metric", definition.id, changes={"archived": {"from": False, "to": True}}
        )


def restore(tx: WriteTx, definition: MetricDefinition) -> None:
    """Take an archived definition out again."""
    if definition.archived_at is not None:
        definition.archived_at = None
        tx.record(
            "metric.restore", "metric", definition.id, changes={"archived": {"from": True, "to": False}}
        )


def remove(tx: WriteTx, definition: MetricDefinition) -> str:
    """Delete a definition that nothing refers to; archive one that something does.

    Returns `deleted` or `archived`. Raises `Conflict` while a running experiment uses it.
    """
    held = select(ExperimentDefinition.experiment_id).where(
        ExperimentDefinition.definition_id == definition.id
    )
    holders = list(tx.execute(select(Experiment.key, Experiment.status).where(Experiment.id.in_(held))))
    live = [each.key for each in holders if each.status in LIVE]
    if live:
        raise Conflict(
            f"The metric definition {definition.key} is used by {', '.join(live[:5])}, still under way: "
            "archive it, so that no other experiment takes it.",
            code="definition_in_use",
        )
    if holders or _in_a_template(tx, definition.key):
        put_away(tx, definition)
        return "archived"
    changes = documents.difference({"key": definition.key, **definition.body}, {})
    tx.record("metric.delete", "metric", definition.id, changes=changes)
    tx.execute(delete(MetricDefinition).where(MetricDefinition.id == definition.id))
    return "deleted"


def look_up(tx: ReadTx, key: str, version: int | None, path: str) -> StoredMetric:
    """The body of a definition for an experiment to copy; `metrics.LookUp`. Raises `Invalid` below `path`."""
    try:
        definition = find(tx, key)
    except NotFound as error:
        raise Invalid.field(f"{path}.definition", error.detail, code="unknown_definition") from error
    if version is None and definition.archived_at is not None:
        raise Invalid.field(
            f"{path}.definition", f"{key} is archived; restore it to use it again", code="definition_archived"
        )
    try:
        found = version_of(tx, definition, version or definition.version)
    except NotFound as error:
        raise Invalid.field(f"{path}.definition_version", error.detail, code="unknown_version") from error
    return {**found.body, "definition_version": found.version}


def named(tx: ReadTx, metrics: Iterable[StoredMetric]) -> list[MetricDefinition]:
    """The definitions that these metrics are copies of."""
    keys = {metric["definition"] for metric in metrics if "definition" in metric}
    if not keys:
        return []
    rows = select(MetricDefinition).where(MetricDefinition.key.in_(keys))
    return list(tx.scalars(rows.order_by(MetricDefinition.id)))


def _body(given: DefinitionInput, key: str) -> StoredMetric:
    body = given.normal(key)
    del body["key"]
    return body


def _keep(tx: WriteTx, row: MetricDefinition) -> None:
    tx.add(
        MetricVersion(
            definition_id=row.id,
            version=row.version,
            body=row.body,
            changed_at=tx.now,
            changed_by=tx.actor.name,
        )
    )


def _changed(definition: MetricDefinition, written: Mapping[str, Any]) -> StoredMetric:
    """The body after what was written; what another type does not read goes with the type."""
    said = {_SPELLINGS.get(name, name): value for name, value in written.items() if name not in _OUTSIDE}
    kept = dict(definition.body)
    kind = said.get("type", kept["type"])
    if kind != kept["type"]:
        foreign = set().union(*USES.values()) - USES[kind]
        kept = {name: value for name, value in kept.items() if name not in foreign}
    if "steps" in said and "event_type" not in said:
        kept.pop("event_type", None)  # that of a funnel follows from its steps
    merged = {name: value for name, value in {**kept, **said}.items() if value is not None}
    return _body(parse(DefinitionInput, {**merged, "key": definition.key}), definition.key)


_OUTSIDE = {"version", *_READ_ONLY}


def _refuse_read_only(tx: ReadTx, definition: MetricDefinition, given: DefinitionEdit) -> None:
    current: Mapping[str, Any] = {**document(tx, definition)}
    for name in _READ_ONLY:
        if given.given(name) and getattr(given, name) != current[name]:
            raise Invalid.field(
                name,
                f"cannot be changed here; it is {shown(current[name])}, got {shown(getattr(given, name))}",
            )


def _rename(tx: WriteTx, definition: MetricDefinition, key: object) -> None:
    if key == definition.key:
        return
    if not isinstance(key, str):
        raise Invalid.field("key", f"must be a string; got {shown(key)}")
    if users(tx, [definition])[definition.id] or _in_a_template(tx, definition.key):
        raise Conflict(
            f"Experiments refer to the metric definition {definition.key} by its key, which can no longer "
            "change.",
            code="definition_in_use",
        )
    keying.refuse_taken(tx, MetricDefinition.key, "metric", key)
    definition.key = key


def _in_a_template(tx: ReadTx, key: str) -> bool:
    listed = [each for body in tx.scalars(select(Template.body)) for each in body.get("metrics", ())]
    return any(isinstance(each, dict) and each.get("definition") == key for each in listed)
