"""More experiments of a kind: duplicates, and templates that a new one begins with."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self

from pydantic import Field, model_validator
from sqlalchemy import func, select

from assay.catalog import documents, experiments, keying
from assay.catalog.checks import Input, KeyText, Name, Prose, parse, refuse, shown, storable
from assay.catalog.database import ReadTx, WriteTx
from assay.catalog.editing import as_id, find
from assay.catalog.inputs import ExperimentCreate
from assay.catalog.tables import Experiment, Template
from assay.errors import FieldError, Invalid, NotFound

#: What belongs to one experiment alone.
_OWN = ("key", "status", "start_at", "end_at")
#: Fields of a document that a new experiment begins with.
_BEGINNING = (
    "description",
    "hypothesis",
    "owner",
    "tags",
    "traffic_allocation",
    "ramp",
    "condition",
    "private",
    "unit",
    "target_sample_size",
    "significance_level",
    "power",
    "minimum_detectable_effect",
    "analysis",
    "activation_event",
    "circuit_breaker",
)
_VARIANT = ("key", "name", "description", "allocation", "enabled", "is_control", "config")
_LONGEST_NAME = 200


class DuplicateInput(Input):
    """What the copy of an experiment is called."""

    name: Name | None = Field(default=None, description="By default that of the original, with (copy).")
    key: KeyText | None = Field(default=None, description="By default made from the name.")


class NewExperiment(ExperimentCreate):
    """A new experiment, perhaps beginning with a template."""

    template: int | Name | None = Field(
        default=None,
        description="Id or key of a template: its fields hold where none is given here, its name, too.",
    )


class TemplateInput(Input):
    """A new template: from an experiment as it is, or from what one would be made with."""

    key: KeyText | None = Field(default=None, description="By default made from the name.")
    name: Name | None = Field(default=None, description="By default that of the experiment.")
    description: Prose = ""
    experiment: int | Name | None = Field(default=None, description="Id or key of the experiment to copy.")
    body: dict[str, Any] | None = Field(default=None, description="The fields of a new experiment.")

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if (self.experiment is None) == (self.body is None):
            both = "got both" if self.body is not None else "got neither"
            raise refuse(f"or body must say what experiments begin with; {both}", "experiment")
        if self.body is not None and self.name is None and self.key is None:
            raise refuse("is required", "name")
        return self


def beginning(experiment: Experiment) -> dict[str, Any]:
    """What a caller would write to get another experiment like this one, but for its name."""
    document: Mapping[str, Any] = {**documents.experiment(experiment)}
    return {
        **{name: document[name] for name in _BEGINNING},
        "layer": _layer(experiment),
        "prerequisites": documents.prerequisites(experiment, of_holdouts=False),
        "segments": [each["id"] for each in document["segments"]],
        "variants": [{name: each[name] for name in _VARIANT} for each in document["variants"]],
        "metrics": [
            {name: value for name, value in each.items() if name not in ("registered", "newest_version")}
            for each in document["metrics"]
        ],
        **({} if document["primary_metric"] else {"primary_metric": None}),
    }


def _layer(experiment: Experiment) -> dict[str, Any] | None:
    """What it wants of a layer: the slots that it holds are its own."""
    return experiment.layer and {name: experiment.layer[name] for name in ("key", "share")}


def duplicate(tx: WriteTx, experiment: Experiment, given: DuplicateInput) -> Experiment:
    """A draft with everything that the experiment has but its history, plans and forced variants."""
    suffix = " (copy)"
    name = given.name or experiment.name[: _LONGEST_NAME - len(suffix)] + suffix
    body = {**_whole_split(beginning(experiment)), "name": name}
    if given.key is not None:
        body["key"] = given.key
    return experiments.create(tx, parse(ExperimentCreate, body))


def _whole_split(body: dict[str, Any]) -> dict[str, Any]:
    """The body with shares that sum to 1: what a removed variant left free is shared out in proportion."""
    shares = [each["allocation"] for each in body["variants"]]
    total = sum(shares)
    if abs(total - 1) <= 1e-6:
        return body
    equal = 1 / len(shares)
    arms = [
        {**each, "allocation": each["allocation"] / total if total else equal} for each in body["variants"]
    ]
    return {**body, "variants": arms}


def find_template(tx: ReadTx, reference: int | str) -> Template:
    """The template with this id or key; all digits are an id. Raises `NotFound`."""
    number = as_id(reference)
    condition = Template.key == str(reference) if number is None else Template.id == number
    found = None
    if number is not None or storable(str(reference)):
        found = tx.scalar(select(Template).where(condition))
    if found is None:
        raise NotFound(f"There is no template {shown(reference)}.", code="unknown_template")
    return found


def drafted(tx: ReadTx, row: Template, now: datetime) -> Experiment:
    """The draft that a template makes, in the one form of everything it says; it is not in the database.

    Raises `Invalid` where the template refers to something that has gone.
    """
    return experiments.described(tx, parse(ExperimentCreate, {"name": row.name, **row.body}), now)


def page(tx: ReadTx, *, skip: int = 0, limit: int = 100) -> tuple[list[Template], int]:
    """Templates by key, and how many there are."""
    total = tx.scalar(select(func.count()).select_from(Template)) or 0
    return list(tx.scalars(select(Template).order_by(Template.key).offset(skip).limit(limit))), total


def create(tx: WriteTx, given: TemplateInput) -> Template:
    """A new template. Raises `Invalid` for a body that no experiment could be made with."""
    if given.experiment is not None:
        experiment = find(tx, given.experiment)
        name, body = given.name or experiment.name, _whole_split(beginning(experiment))
    else:
        name, body = given.name or given.key or "", dict(given.body or {})
    _try(tx, name, body)
    row = Template(
        key=keying.settled(tx, Template.key, "template", given.key, name),
        name=name,
        description=given.description,
        body=body,
        created_at=tx.now,
        created_by=tx.actor.name,
    )
    tx.add(row)
    tx.flush()
    changes = documents.difference({}, {"key": row.key, "name": row.name, "body": body})
    tx.record("template.create", "template", row.id, changes=changes)
    return row


def remove(tx: WriteTx, row: Template) -> None:
    """Delete a template; experiments that began with it stay as they are."""
    changes = documents.difference({"key": row.key, "name": row.name, "body": row.body}, {})
    tx.record("template.delete", "template", row.id, changes=changes)
    tx.delete(row)


def filled(tx: ReadTx, document: object) -> object:
    """What a caller wrote, over the template that it names; unchanged if it names none.

    Raises `Invalid` for a template that is not there.
    """
    if not isinstance(document, Mapping) or "template" not in document:
        return document
    written = dict(document)
    reference = written.pop("template")
    if isinstance(reference, bool) or not isinstance(reference, str | int):
        raise Invalid.field("template", f"must be the key or id of a template; got {shown(reference)}")
    try:
        row = find_template(tx, reference)
    except NotFound as error:
        raise Invalid.field("template", error.detail, code="unknown_template") from error
    kept = dict(row.body)
    for spellings in _SPELLINGS:
        if spellings & written.keys():
            kept = {name: value for name, value in kept.items() if name not in spellings}
    if "metrics" in written:
        # Names beside the template's own list mean nothing beside another one.
        kept = {name: value for name, value in kept.items() if name not in _NAMES_OF_METRICS}
    return {"name": row.name, **kept, **written}


_SPELLINGS = ({"primary_metric", "primary_metric_name"},)
_NAMES_OF_METRICS = {"primary_metric", "primary_metric_name", "guardrail_metrics"}


def _try(tx: WriteTx, name: str, body: dict[str, Any]) -> None:
    """Refuse a body that would be refused when an experiment is made with it."""
    for field in _OWN:
        if field in body:
            raise Invalid.field(f"body.{field}", "belongs to one experiment and not to a template")
    if "template" in body:
        raise Invalid.field("body.template", "a template cannot begin with another")
    given = parse(ExperimentCreate, {"name": name, **body}, "body")
    try:
        experiments.described(tx, given, tx.now)
    except Invalid as error:
        errors = [FieldError(f"body.{each.path}", each.message) for each in error.errors]
        raise Invalid(f"body.{error.detail}", code=error.code, errors=errors) from error
