"""The form of an experiment, made anew, changed, or copied; each error stands beside its field."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from starlette.responses import Response

from assay.bucketing.ruleset import Status
from assay.catalog import definitions, documents, experiments, layers, segments
from assay.catalog.checks import parse
from assay.catalog.database import ReadTx
from assay.catalog.editing import find
from assay.catalog.inputs import ExperimentCreate, ExperimentEdit
from assay.catalog.tables import Experiment
from assay.dashboard import metric_fields, targeting
from assay.dashboard.calculator import read_number
from assay.dashboard.metric_fields import MetricLine
from assay.dashboard.metrics import sentence_of
from assay.dashboard.pages import Form, Visit, go, link, render
from assay.dashboard.targeting import Targeting
from assay.errors import AssayError, FieldError, Invalid, NotFound

_TEXTS = ("name", "key", "hypothesis", "description", "owner", "tags", "unit")
_PERCENTS = ("traffic_allocation", "significance_level", "power", "minimum_detectable_effect")
_PLACE = re.compile(r"(variant|metric)s-(\d+)(?:-(.+))?")
#: A place within a field that holds JSON.
_RULE = re.compile(r"(condition|variants\[\d+\]\.config)\.(.+)", re.DOTALL)
_MOST_LINES = 100
_MOST_DEFINITIONS = 500


class VariantLine(NamedTuple):
    """One variant as it stands in the form."""

    id: str = ""
    name: str = ""
    share: str = ""
    description: str = ""
    config: str = ""
    enabled: bool = True
    control: bool = False


class Copied(NamedTuple):
    """What a metric is a copy of: the definition in the version chosen, and the versions there are."""

    name: str
    sentence: str
    versions: Sequence[tuple[str, str]]


class Typed(NamedTuple):
    """Everything in the form, as text."""

    fields: Mapping[str, str]
    variants: Sequence[VariantLine]
    metrics: Sequence[MetricLine]
    segments: frozenset[str]
    condition: Targeting = Targeting("rows")


_NEW = Typed(
    {
        **dict.fromkeys((*_TEXTS, "target_sample_size", "minimum_detectable_effect"), ""),
        "start_at": "",
        "end_at": "",
        "layer-key": "",
        "layer-share": "",
        "unit": "user_id",
        "traffic_allocation": "100",
        "significance_level": "5",
        "power": "80",
    },
    (VariantLine(name="control", share="50", control=True), VariantLine(name="treatment", share="50")),
    (metric_fields.blank("primary"),),
    frozenset(),
)


def create(visit: Visit) -> Response:
    """A new experiment, as a draft."""
    if visit.method == "GET":
        return _page(visit, _NEW, None)
    typed = _read(visit.form)
    changed = _lines_changed(visit, typed)
    if changed is not None:
        return _page(visit, changed, None)
    ticket = visit.form.get("ticket")
    made = visit.tickets.get(ticket)
    if made is not None:
        return go(visit, link("experiments", made))  # the second click of two
    typed = _without_blanks(typed)
    try:
        given = parse(ExperimentCreate, _document(typed))
        with visit.parts.database.writing(visit.actor, visit.now) as tx:
            key = experiments.create(tx, given, status=Status.DRAFT).key
    except AssayError as error:
        return _page(visit, typed, None, error)
    visit.tickets.put(ticket, key)
    return go(visit, link("experiments", key))


def duplicate(visit: Visit) -> Response:
    """The form of a new experiment, filled in from another."""
    with visit.parts.database.reading() as tx:
        typed = _written(find(tx, visit.place["key"]))
    name = f"{typed.fields['name'][:193]} (copy)"
    fields = {**typed.fields, "name": name, "key": "", "start_at": "", "end_at": ""}
    lines = [each._replace(id="") for each in typed.variants]
    return _page(visit, typed._replace(fields=fields, variants=lines), None)


def edit(visit: Visit) -> Response:
    """A change of an experiment."""
    with visit.parts.database.reading() as tx:
        experiment = find(tx, visit.place["key"])
    if visit.method == "GET":
        return _page(visit, _written(experiment), experiment)
    typed = _read(visit.form)
    changed = _lines_changed(visit, typed)
    if changed is not None:
        return _page(visit, changed, experiment)
    typed = _without_blanks(typed)
    version = visit.form.get("version")
    try:
        document = _document(typed)
        given = parse(ExperimentEdit, _only_changed(document, experiment))
        with visit.parts.database.writing(visit.actor, visit.now) as write:
            row = find(write, str(experiment.id))
            expected = frozenset({int(version)}) if version.isdigit() else None
            experiments.edit(write, row, given, expected=expected)
            key = row.key
    except AssayError as error:
        return _page(visit, typed, experiment, error)
    return go(visit, link("experiments", key))


def _page(
    visit: Visit, typed: Typed, experiment: Experiment | None, problem: AssayError | None = None
) -> Response:
    known = {
        *typed.fields,
        "layer",
        "variants",
        "metrics",
        "segments",
        *targeting.names(typed.condition, "condition"),
    }
    for place, _ in enumerate(typed.variants):
        known |= {f"variant-{place}-{field}" for field in VariantLine._fields}
    for place, line in enumerate(typed.metrics):
        known |= set(metric_fields.names(line, f"metric-{place}-"))
    problems, lost = metric_fields.beside(_in_the_rule(problem), known, _field_of)
    counted: dict[str, Any] = {"found": None, "preview_problem": ""}
    if visit.form.get("count-users"):
        counted = targeting.count(visit, typed.condition, "condition")
    with visit.parts.database.reading() as tx:
        available, _ = segments.page(tx, limit=200)
        exclusive, _ = layers.page(tx, limit=_MOST_DEFINITIONS)
        library, _ = definitions.page(tx, limit=_MOST_DEFINITIONS)
        copied = [_copied(tx, line) for line in typed.metrics]
    return render(
        visit,
        "experiment_form.html",
        status=problem.status if problem else 200,
        typed=typed,
        fields=typed.fields,
        experiment=experiment,
        started=experiment is not None and experiment.started_at is not None,
        problems=problems,
        problem=lost,
        failed=problem is not None,
        segments=available,
        rule_operators=targeting.OPERATORS,
        turn_failed=visit.form.get("turn") == "condition"
        and visit.form.get("condition-side") == typed.condition.side,
        action=link("experiments", experiment.key, "edit") if experiment else link("experiments", "new"),
        **counted,
        library=library,
        layers=exclusive,
        copied=copied,
        types=metric_fields.TYPES,
        roles=metric_fields.ROLES,
        operators=metric_fields.OPERATORS,
        folds=metric_fields.FOLDS,
        ticket=visit.form.get("ticket"),
        split=[(each.name, _share(each.share), each.enabled) for each in typed.variants],
    )


def _share(text: str) -> float:
    try:
        return max(0.0, read_number(text, "") / 100.0) if text else 0.0
    except Invalid:
        return 0.0


def _read(form: Form) -> Typed:
    fields = {name: form.get(name, otherwise) for name, otherwise in _NEW.fields.items()}
    control = form.get("control")
    variants = [
        VariantLine(
            form.get(f"variant-{place}-id"),
            form.get(f"variant-{place}-name"),
            form.get(f"variant-{place}-share"),
            form.get(f"variant-{place}-description"),
            form.get(f"variant-{place}-config"),
            form.has(f"variant-{place}-enabled"),
            control == str(place),
        )
        for place in _places(form, "variant")
    ]
    metrics = [metric_fields.read(form, f"metric-{place}-") for place in _places(form, "metric")]
    condition = targeting.read(form, "condition")
    return Typed(fields, variants, metrics, frozenset(form.all("segment")), condition)


def _places(form: Form, noun: str) -> Iterator[int]:
    place = 0
    while place < _MOST_LINES and form.has(f"{noun}-{place}-name"):
        yield place
        place += 1


def _without_blanks(typed: Typed) -> Typed:
    return typed._replace(metrics=[line for line in typed.metrics if not line.is_blank])


def _lines_changed(visit: Visit, typed: Typed) -> Typed | None:
    """The form with a line more or less, if that is what was asked for."""
    form = visit.form
    if form.has("add-variant"):
        return typed._replace(variants=[*typed.variants, VariantLine(share="0")])
    if form.has("add-metric"):
        return typed._replace(metrics=[*typed.metrics, metric_fields.blank("secondary")])
    if form.has("add-definition"):
        return _taken(visit, typed)
    for noun in ("variant", "metric"):
        gone = form.get(f"remove-{noun}")
        if gone.isdigit():
            lines = [line for place, line in enumerate(getattr(typed, f"{noun}s")) if place != int(gone)]
            return typed._replace(variants=lines) if noun == "variant" else typed._replace(metrics=lines)
    condition = targeting.changed(form, typed.condition, "condition")
    if condition is not None:
        return typed._replace(condition=condition)
    for place, line in enumerate(typed.metrics):
        changed = metric_fields.changed(form, line, f"metric-{place}-")
        if changed is not None:
            return typed._replace(metrics=[*typed.metrics[:place], changed, *typed.metrics[place + 1 :]])
    return None


def _taken(visit: Visit, typed: Typed) -> Typed:
    """The form with a copy of the chosen definition, in the place of a metric nothing was said of."""
    chosen = visit.form.get("pick")
    if not chosen:
        return typed
    with visit.parts.database.reading() as tx:
        row = definitions.find(tx, chosen)
    copy = metric_fields.written(
        {**row.body, "definition": row.key, "definition_version": row.version, "key": None}
    )
    kept = [line for line in typed.metrics if not line.is_blank]
    decided = any(line.fields["role"] == "primary" for line in kept)
    role = copy.fields["role"] or ("secondary" if decided else "primary")
    return typed._replace(metrics=[*kept, copy._replace(fields={**copy.fields, "role": role})])


def _copied(tx: ReadTx, line: MetricLine) -> Copied | None:
    """What a line is a copy of; None for one of its own, or where the definition is gone."""
    if not line.is_copy:
        return None
    try:
        row = definitions.find(tx, line.fields["definition"])
        text = line.fields["definition_version"]
        at = int(text) if text.isascii() and text.isdigit() else row.version
        body = definitions.version_of(tx, row, at).body
    except NotFound:
        return None
    numbers = range(row.version, 0, -1)
    versions = [(str(each), f"{each}, the newest" if each == row.version else str(each)) for each in numbers]
    return Copied(row.name, sentence_of(row.key, body), versions)


def _document(typed: Typed) -> dict[str, Any]:
    """What the form says, as the catalog reads it. Raises `Invalid` for every field that cannot."""
    wrong: list[FieldError] = []

    def numeric(name: str, text: str, scale: float) -> float | None:
        try:
            return round(read_number(text, name) / scale, 12) if text else None
        except Invalid as error:
            wrong.extend(error.errors)
            return None

    fields = typed.fields
    found: dict[str, Any] = {name: fields[name] for name in ("name", "hypothesis", "description", "unit")}
    found |= {"owner": fields["owner"] or None, "key": fields["key"] or None}
    found["tags"] = [tag.strip() for tag in fields["tags"].split(",") if tag.strip()]
    for name in _PERCENTS:
        found[name] = numeric(name, fields[name], 100.0)
    share = numeric("layer.share", fields["layer-share"], 100.0)
    found["layer"] = {"key": fields["layer-key"], "share": share} if fields["layer-key"] else None
    target = numeric("target_sample_size", fields["target_sample_size"], 1.0)
    found["target_sample_size"] = int(target) if target is not None and target == int(target) else target
    for name in ("start_at", "end_at"):
        found[name] = f"{fields[name]}Z" if fields[name] else None
    try:
        found["condition"] = targeting.document_of(typed.condition, "condition")
    except Invalid as error:
        wrong.extend(error.errors)
    found["variants"] = []
    for place, line in enumerate(typed.variants):
        path = f"variants[{place}]"
        variant: dict[str, Any] = {
            "name": line.name,
            "allocation": numeric(f"{path}.allocation", line.share or "0", 100.0),
            "description": line.description,
            "enabled": line.enabled,
            "is_control": line.control,
        }
        if line.id.isdigit():
            variant["id"] = int(line.id)
        try:
            variant["config"] = targeting.parsed(line.config, f"{path}.config") or {}
        except Invalid as error:
            wrong.extend(error.errors)
        found["variants"].append(variant)
    found["segments"] = sorted(int(each) for each in typed.segments if each.isdigit())
    found["metrics"] = [
        metric_fields.document(line, f"metrics[{place}].", wrong) for place, line in enumerate(typed.metrics)
    ]
    for name in ("traffic_allocation", "significance_level", "power"):
        if found[name] is None:
            wrong.extend([] if any(each.path == name for each in wrong) else [FieldError(name, "is needed")])
    if wrong:
        raise Invalid(f"{wrong[0].path}: {wrong[0].message}", errors=wrong)
    return {name: value for name, value in found.items() if value is not None or name in _ERASABLE}


_ERASABLE = {
    "layer",
    "owner",
    "condition",
    "target_sample_size",
    "minimum_detectable_effect",
    "start_at",
    "end_at",
}


def _only_changed(document: dict[str, Any], experiment: Experiment) -> dict[str, Any]:
    """Without what stays as it is, so that saving an untouched form changes nothing and is never refused."""
    same = _document(_written(experiment))
    return {name: value for name, value in document.items() if same.get(name) != value}


def _written(experiment: Experiment) -> Typed:
    """The form as it shows an experiment that exists."""
    shown = documents.experiment(experiment)
    fields = {
        **{name: str(shown[name] or "") for name in _TEXTS if name != "tags"},  # type: ignore[literal-required]
        "tags": ", ".join(shown["tags"]),
        "target_sample_size": str(shown["target_sample_size"] or ""),
        "layer-key": shown["layer"]["key"] if shown["layer"] else "",
        "layer-share": _percent(shown["layer"]["share"]) if shown["layer"] else "",
        "start_at": _local(experiment.start_at),
        "end_at": _local(experiment.end_at),
        "traffic_allocation": _percent(experiment.coverage),
        "significance_level": _percent(experiment.significance_level),
        "power": _percent(experiment.power),
        "minimum_detectable_effect": _percent(experiment.minimum_detectable_effect),
    }
    variants = [
        VariantLine(
            str(each["id"]),
            each["name"],
            _percent(each["allocation"]),
            each["description"],
            _json(each["config"]),
            each["enabled"],
            each["is_control"],
        )
        for each in shown["variants"]
    ]
    metrics = [metric_fields.written(each) for each in experiment.metrics]
    chosen = frozenset(str(each["id"]) for each in shown["segments"])
    return Typed(fields, variants, metrics, chosen, targeting.written(shown["condition"]))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) if value else ""


def _percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{round(fraction * 100.0, 9):.12g}"


def _local(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M}"


def _in_the_rule(problem: AssayError | None) -> AssayError | None:
    """With the place within a rule said in the message: its field is one for all of it."""
    if problem is None or not problem.errors:
        return problem
    errors = []
    for each in problem.errors:
        deeper = _RULE.match(each.path)
        if deeper is None:
            errors.append(each)
        else:
            errors.append(FieldError(deeper[1], f"{deeper[2]} {each.message}"))
    return Invalid(problem.detail, errors=errors)


def _field_of(path: str) -> str:
    """The form's own name for a field of the catalog's."""
    name = metric_fields.field_of(path)
    found = _PLACE.fullmatch(name)
    if found is None:
        return {"primary_metric": "metrics"}.get(name, name)
    noun, place, field = found.groups()
    return (
        f"{noun}-{place}-{ {'allocation': 'share', 'is_control': 'control', None: 'name'}.get(field, field) }"
    )
