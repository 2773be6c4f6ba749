"""The form of an experiment, made anew, changed, or copied; each error stands beside its field."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from starlette.responses import Response

from assay.bucketing.ruleset import Status
from assay.catalog import documents, experiments, segments
from assay.catalog.checks import parse
from assay.catalog.editing import find
from assay.catalog.inputs import ExperimentCreate, ExperimentEdit
from assay.catalog.tables import Experiment
from assay.dashboard.calculator import read_number
from assay.dashboard.pages import Form, Problems, Visit, go, link, render
from assay.dashboard.segments import rule_of
from assay.errors import AssayError, FieldError, Invalid

_TEXTS = ("name", "key", "hypothesis", "description", "owner", "tags", "unit")
_PERCENTS = ("traffic_allocation", "significance_level", "power", "minimum_detectable_effect")
_TYPES = (
    ("conversion", "Share of users with the event"),
    ("count", "Events per user"),
    ("sum", "Total per user"),
    ("revenue", "Revenue per user"),
    ("mean", "Average of one event"),
)
_ROLES = (
    ("primary", "Primary"),
    ("secondary", "Secondary"),
    ("guardrail", "Guardrail"),
    ("exploratory", "Exploratory"),
)
_PLACE = re.compile(r"(variants|metrics)\[(\d+)\](?:\.(\w+))?")
#: A place within a field that holds JSON.
_RULE = re.compile(r"(?:condition|variants\[\d+\]\.config)\.(.+)", re.DOTALL)
_MOST_LINES = 100


class VariantLine(NamedTuple):
    """One variant as it stands in the form."""

    id: str = ""
    name: str = ""
    share: str = ""
    description: str = ""
    config: str = ""
    enabled: bool = True
    control: bool = False


class MetricLine(NamedTuple):
    """One metric as it stands in the form; `simple` is false for one that has more than the form can show."""

    key: str = ""
    name: str = ""
    event: str = ""
    type: str = "conversion"
    direction: str = "increase"
    role: str = "secondary"
    simple: bool = True


class Typed(NamedTuple):
    """Everything in the form, as text."""

    fields: Mapping[str, str]
    variants: Sequence[VariantLine]
    metrics: Sequence[MetricLine]
    segments: frozenset[str]


_NEW = Typed(
    {
        **dict.fromkeys((*_TEXTS, "condition", "target_sample_size", "minimum_detectable_effect"), ""),
        "start_at": "",
        "end_at": "",
        "unit": "user_id",
        "traffic_allocation": "100",
        "significance_level": "5",
        "power": "80",
    },
    (VariantLine(name="control", share="50", control=True), VariantLine(name="treatment", share="50")),
    (MetricLine(role="primary"),),
    frozenset(),
)


def create(visit: Visit) -> Response:
    """A new experiment, as a draft."""
    if visit.method == "GET":
        return _page(visit, _NEW, None)
    typed = _read(visit.form)
    changed = _lines_changed(visit.form, typed)
    if changed is not None:
        return _page(visit, changed, None)
    ticket = visit.form.get("ticket")
    made = visit.tickets.get(ticket)
    if made is not None:
        return go(visit, link("experiments", made))  # the second click of two
    try:
        given = parse(ExperimentCreate, _document(typed, ()))
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
    changed = _lines_changed(visit.form, typed)
    if changed is not None:
        return _page(visit, changed, experiment)
    version = visit.form.get("version")
    try:
        document = _document(typed, experiment.metrics)
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
    problems = Problems()
    for each in problem.errors if problem else ():
        head, deeper = _field_of(each.path), _RULE.match(each.path)
        problems.setdefault(head, f"{deeper[1]} {each.message}" if deeper else each.message)
    shown = {*typed.fields, "variants", "metrics", "segments"}
    for place, _ in enumerate(typed.variants):
        shown |= {f"variant-{place}-{field}" for field in VariantLine._fields}
    for place, _ in enumerate(typed.metrics):
        shown |= {f"metric-{place}-{field}" for field in MetricLine._fields}
    lost = [f"{name}: {message}" for name, message in problems.items() if name not in shown]
    with visit.parts.database.reading() as tx:
        available, _ = segments.page(tx, limit=200)
    return render(
        visit,
        "experiment_form.html",
        status=problem.status if problem else 200,
        typed=typed,
        fields=typed.fields,
        experiment=experiment,
        started=experiment is not None and experiment.started_at is not None,
        problems=problems,
        problem="" if problem is None else " ".join(lost) if problem.errors else problem.detail,
        failed=problem is not None,
        segments=available,
        types=_TYPES,
        roles=_ROLES,
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
    metrics = [
        MetricLine(
            form.get(f"metric-{place}-key"),
            form.get(f"metric-{place}-name"),
            form.get(f"metric-{place}-event"),
            form.get(f"metric-{place}-type") or "conversion",
            form.get(f"metric-{place}-direction") or "increase",
            form.get(f"metric-{place}-role") or "secondary",
            not form.has(f"metric-{place}-rich"),
        )
        for place in _places(form, "metric")
    ]
    return Typed(fields, variants, metrics, frozenset(form.all("segment")))


def _places(form: Form, noun: str) -> Iterator[int]:
    place = 0
    while place < _MOST_LINES and form.has(f"{noun}-{place}-name"):
        yield place
        place += 1


def _lines_changed(form: Form, typed: Typed) -> Typed | None:
    """The form with a line more or less, if that is what was asked for."""
    if form.has("add-variant"):
        return typed._replace(variants=[*typed.variants, VariantLine(share="0")])
    if form.has("add-metric"):
        return typed._replace(metrics=[*typed.metrics, MetricLine()])
    for noun in ("variant", "metric"):
        gone = form.get(f"remove-{noun}")
        if gone.isdigit():
            lines = [line for place, line in enumerate(getattr(typed, f"{noun}s")) if place != int(gone)]
            return typed._replace(variants=lines) if noun == "variant" else typed._replace(metrics=lines)
    return None


def _document(typed: Typed, stored: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
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
    target = numeric("target_sample_size", fields["target_sample_size"], 1.0)
    found["target_sample_size"] = int(target) if target is not None and target == int(target) else target
    for name in ("start_at", "end_at"):
        found[name] = f"{fields[name]}Z" if fields[name] else None
    try:
        found["condition"] = rule_of(fields["condition"], "condition")
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
            variant["config"] = rule_of(line.config, f"{path}.config") or {}
        except Invalid as error:
            wrong.extend(error.errors)
        found["variants"].append(variant)
    found["segments"] = sorted(int(each) for each in typed.segments if each.isdigit())
    found["metrics"] = [_metric(line, stored) for line in typed.metrics if line.event or line.name]
    for name in ("traffic_allocation", "significance_level", "power"):
        if found[name] is None:
            wrong.extend([] if any(each.path == name for each in wrong) else [FieldError(name, "is needed")])
    if wrong:
        raise Invalid(f"{wrong[0].path}: {wrong[0].message}", errors=wrong)
    return {name: value for name, value in found.items() if value is not None or name in _ERASABLE}


_ERASABLE = {"owner", "condition", "target_sample_size", "minimum_detectable_effect", "start_at", "end_at"}


def _metric(line: MetricLine, stored: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A metric as typed, over what was stored of it where it has more than the form shows."""
    before = next((each for each in stored if line.key and each["key"] == line.key), None)
    if before is not None and not line.simple:
        return {**before, "name": line.name or before["name"], "direction": line.direction, "role": line.role}
    metric: dict[str, Any] = {"event_type": line.event, "type": line.type}
    metric |= {"direction": line.direction, "role": line.role}
    if line.name:
        metric["name"] = line.name
    if line.key:
        metric["key"] = line.key
    if before is not None and before.get("property"):
        metric["property"] = before["property"]
    return metric


def _only_changed(document: dict[str, Any], experiment: Experiment) -> dict[str, Any]:
    """Without what stays as it is, so that saving an untouched form changes nothing and is never refused."""
    same = _document(_written(experiment), experiment.metrics)
    return {name: value for name, value in document.items() if same.get(name) != value}


def _written(experiment: Experiment) -> Typed:
    """The form as it shows an experiment that exists."""
    shown = documents.experiment(experiment)
    fields = {
        **{name: str(shown[name] or "") for name in _TEXTS if name != "tags"},  # type: ignore[literal-required]
        "tags": ", ".join(shown["tags"]),
        "condition": _json(shown["condition"]),
        "target_sample_size": str(shown["target_sample_size"] or ""),
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
    metrics = [
        MetricLine(
            each["key"],
            each["name"],
            each.get("event_type") or "",
            each["type"],
            each["direction"],
            each["role"],
            simple=_is_simple(each),
        )
        for each in experiment.metrics
    ]
    chosen = frozenset(str(each["id"]) for each in shown["segments"])
    return Typed(fields, variants, metrics, chosen)


def _is_simple(metric: Mapping[str, Any]) -> bool:
    known = {"key", "name", "event_type", "type", "direction", "role", "property"}
    said = {name for name, value in metric.items() if value not in (None, [], {}, "")}
    return said <= known and metric["type"] in {name for name, _ in _TYPES}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) if value else ""


def _percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{round(fraction * 100.0, 9):.12g}"


def _local(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M}"


def _field_of(path: str) -> str:
    """The form's own name for a field of the catalog's."""
    found = _PLACE.match(path)
    if found is None:
        head = path.partition(".")[0].partition("[")[0]
        return {"primary_metric": "metrics"}.get(head, head)
    noun, place, field = found[1][:-1], found[2], found[3]
    names = {"allocation": "share", "event_type": "event", "is_control": "control", None: "name"}
    return f"{noun}-{place}-{names.get(field, field)}"
