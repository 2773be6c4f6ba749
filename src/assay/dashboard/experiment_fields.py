"""An experiment as fields of its form: read from it, written into it, and compared with what is stored.

Whatever the form does not show, or shows with fewer digits, stays as it is stored.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from assay.catalog import documents
from assay.catalog.tables import Experiment
from assay.dashboard import metric_fields, plan_fields, targeting
from assay.dashboard.metric_fields import MetricLine
from assay.dashboard.pages import Form
from assay.dashboard.plan_fields import Plan, number
from assay.dashboard.targeting import Targeting
from assay.errors import AssayError, FieldError, Invalid

_TEXTS = ("name", "key", "hypothesis", "description", "owner", "unit")
_PERCENTS = ("traffic_allocation", "significance_level", "power", "minimum_detectable_effect")
_TIMES = ("start_at", "end_at")
_NEEDED = ("traffic_allocation", "significance_level", "power")
#: Areas of several lines; in every other field a browser leaves line breaks out.
_AREAS: Final = {"hypothesis", "description", "analysis-look_dates"}
_LINE = re.compile(r"(variant|metric)s-(\d+)(?:-(.+))?")
#: A place within a field that holds JSON, and a line of one that holds several.
_RULE = re.compile(r"(condition|variants\[\d+\]\.config)\.(.+)", re.DOTALL)
_DATE = re.compile(r"analysis\.look_dates\[(\d+)\]")
_BREAKS = re.compile(r"\r\n?")
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


class Typed(NamedTuple):
    """Everything in the form, as text."""

    fields: Mapping[str, str]
    variants: Sequence[VariantLine]
    metrics: Sequence[MetricLine]
    segments: frozenset[str]
    condition: Targeting = Targeting("rows")
    plan: Plan = Plan()


NEW: Final = Typed(
    {
        **dict.fromkeys((*_TEXTS, *_TIMES), ""),
        **dict.fromkeys(("tags", "target_sample_size", "minimum_detectable_effect", "private"), ""),
        "layer-key": "",
        "layer-share": "",
        "unit": "user_id",
        "traffic_allocation": "100",
        "significance_level": "5",
        "power": "80",
        **plan_fields.NEW,
    },
    (VariantLine(name="control", share="50", control=True), VariantLine(name="treatment", share="50")),
    (metric_fields.blank("primary"),),
    frozenset(),
)


def read(form: Form, otherwise: Typed) -> Typed:
    """What was typed; a field or list that the form did not show is as in `otherwise`."""
    fields = {name: form.get(name, shown) for name, shown in otherwise.fields.items()}
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
    shown = form.has("condition-side")
    return Typed(
        fields,
        variants or otherwise.variants,
        metrics if form.has("metrics-shown") or metrics else otherwise.metrics,
        frozenset(form.all("segment")) - {""} if form.has("segment") or shown else otherwise.segments,
        targeting.read(form, "condition") if shown else otherwise.condition,
        plan_fields.read(form, otherwise.plan),
    )


def _places(form: Form, noun: str) -> Iterator[int]:
    place = 0
    while place < _MOST_LINES and form.has(f"{noun}-{place}-name"):
        yield place
        place += 1


def without_blanks(typed: Typed) -> Typed:
    """Without lines that say nothing, so that the catalog counts lines as the form does."""
    plan = typed.plan
    return typed._replace(
        metrics=[line for line in typed.metrics if not line.is_blank],
        plan=plan._replace(
            ramp=[line for line in plan.ramp if line.traffic_allocation or line.at],
            prerequisites=[line for line in plan.prerequisites if any(line)],
            activation=[line for line in plan.activation if line.property or line.value],
        ),
    )


def document(typed: Typed) -> dict[str, Any]:
    """What the form says, as the catalog reads it. Raises `Invalid` for every field that cannot."""
    wrong: list[FieldError] = []
    fields = typed.fields
    found: dict[str, Any] = {name: fields[name] for name in ("name", "hypothesis", "description", "unit")}
    found |= {"owner": fields["owner"] or None, "key": fields["key"] or None}
    found["private"] = bool(fields["private"])
    found["tags"] = plan_fields.split(fields["tags"], "tags", wrong)
    for name in _PERCENTS:
        found[name] = number(fields[name], name, 100.0, wrong)
    share = number(fields["layer-share"], "layer.share", 100.0, wrong)
    found["layer"] = {"key": fields["layer-key"], "share": share} if fields["layer-key"] else None
    target = number(fields["target_sample_size"], "target_sample_size", 1.0, wrong)
    found["target_sample_size"] = int(target) if target is not None and target == int(target) else target
    for name in _TIMES:
        found[name] = f"{fields[name]}Z" if fields[name] else None
    try:
        found["condition"] = targeting.document_of(typed.condition, "condition")
    except Invalid as error:
        wrong.extend(error.errors)
    found["variants"] = [_variant(line, f"variants[{at}]", wrong) for at, line in enumerate(typed.variants)]
    found["segments"] = sorted(int(each) for each in typed.segments if each.isascii() and each.isdigit())
    found["metrics"] = [
        metric_fields.document(line, f"metrics[{place}].", wrong) for place, line in enumerate(typed.metrics)
    ]
    found |= plan_fields.document(fields, typed.plan, wrong)
    for name in _NEEDED:
        if found[name] is None and not any(each.path == name for each in wrong):
            wrong.append(FieldError(name, "is needed"))
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
    "activation_event",
    "circuit_breaker",
    "ramp",
}


def _variant(line: VariantLine, path: str, wrong: list[FieldError]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": line.name,
        "allocation": number(line.share or "0", f"{path}.allocation", 100.0, wrong),
        "description": line.description,
        "enabled": line.enabled,
        "is_control": line.control,
    }
    if line.id.isascii() and line.id.isdigit():
        found["id"] = int(line.id)
    try:
        found["config"] = targeting.parsed(line.config, f"{path}.config") or {}
    except Invalid as error:
        wrong.extend(error.errors)
    return found


def only_changed(typed: Typed, experiment: Experiment) -> dict[str, Any]:
    """What the form says otherwise than what is stored, so that an untouched form changes nothing.

    Within what changed, each part that the form says as before is taken from what is stored: a browser and a
    field of text keep fewer digits, blanks and line breaks. Raises `Invalid` for what cannot be read.
    """
    stored: Mapping[str, Any] = {**documents.experiment(experiment)}
    stored = {**stored, "segments": [each["id"] for each in stored["segments"]]}
    shown = document(_sent(written(stored)))
    return {
        name: _kept(value, shown.get(name), stored[name])
        for name, value in document(typed).items()
        if shown.get(name) != value
    }


def _kept(said: Any, shown: Any, stored: Any) -> Any:
    """What was said, with what is stored wherever that is what was shown for it."""
    if said == shown:
        return stored
    if isinstance(said, dict) and isinstance(shown, dict) and isinstance(stored, dict):
        return {
            name: _kept(value, shown[name], stored[name]) if name in shown and name in stored else value
            for name, value in said.items()
        }
    if isinstance(said, list) and isinstance(shown, list) and len(shown) == len(stored or ()):
        return [_kept_line(each, at, shown, stored) for at, each in enumerate(said)]
    return said


def _kept_line(said: Any, place: int, shown: Sequence[Any], stored: Sequence[Any]) -> Any:
    if said in shown:
        return stored[shown.index(said)]
    name = _name(said)
    here = place if name is None and place < len(shown) else None
    twin = next((at for at, each in enumerate(shown) if name is not None and _name(each) == name), here)
    return said if twin is None else _kept(said, shown[twin], stored[twin])


def _name(line: Any) -> Any:
    """By what a line of a list is known, though something else of it changed."""
    return line.get("id") or line.get("key") or line.get("experiment") if isinstance(line, dict) else None


def _sent(typed: Typed) -> Typed:
    """The form as a browser would send it back untouched."""
    return Typed(
        {name: _clean(text, area=name in _AREAS) for name, text in typed.fields.items()},
        [_cleaned(each) for each in typed.variants],
        [
            line._replace(
                fields={name: _clean(text) for name, text in line.fields.items()},
                where=[_cleaned(each) for each in line.where],
                divided=[_cleaned(each) for each in line.divided],
                steps=[
                    step._replace(
                        event_type=_clean(step.event_type), where=[_cleaned(each) for each in step.where]
                    )
                    for step in line.steps
                ],
            )
            for line in typed.metrics
        ],
        typed.segments,
        typed.condition._replace(
            groups=[[_cleaned(row) for row in rows] for rows in typed.condition.groups],
            text=_clean(typed.condition.text, area=True),
        ),
        Plan(*([_cleaned(each) for each in lines] for lines in typed.plan)),
    )


def _cleaned(line: Any) -> Any:
    return line._replace(
        **{
            name: _clean(text, area=name in {"config", "description"})
            for name, text in line._asdict().items()
            if isinstance(text, str)
        }
    )


def _clean(text: str, *, area: bool = False) -> str:
    unified = _BREAKS.sub("\n", text)
    return (unified if area else unified.replace("\n", "")).strip()


def written(shown: Mapping[str, Any]) -> Typed:
    """The form as it shows an experiment's document."""
    judged, plan = plan_fields.written(shown)
    fields = {
        **{name: str(shown[name] or "") for name in _TEXTS},
        "tags": plan_fields.joined(shown["tags"]),
        "target_sample_size": str(shown["target_sample_size"] or ""),
        "layer-key": shown["layer"]["key"] if shown["layer"] else "",
        "layer-share": plan_fields.percent(shown["layer"]["share"]) if shown["layer"] else "",
        **{name: plan_fields.local(shown[name]) for name in _TIMES},
        **{name: plan_fields.percent(shown[name]) for name in _PERCENTS},
        "private": "1" if shown["private"] else "",
        **judged,
    }
    variants = [
        VariantLine(
            str(each["id"] or ""),
            each["name"],
            plan_fields.percent(each["allocation"]),
            each["description"],
            _json(each["config"]),
            each["enabled"],
            each["is_control"],
        )
        for each in shown["variants"]
    ]
    metrics = [metric_fields.written(each) for each in shown["metrics"]]
    chosen = frozenset(str(each) for each in shown["segments"])
    return Typed(fields, variants, metrics, chosen, targeting.written(shown["condition"]), plan)


def of(experiment: Experiment) -> Typed:
    """The form as it shows an experiment that exists."""
    shown: Mapping[str, Any] = {**documents.experiment(experiment)}
    return written({**shown, "segments": [each["id"] for each in shown["segments"]]})


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) if value else ""


def names(typed: Typed) -> set[str]:
    """The names of all fields that the form shows, and of the groups they stand in."""
    known = {
        *typed.fields,
        *("layer", "variants", "metrics", "segments"),
        *targeting.names(typed.condition, "condition"),
        *plan_fields.names(typed.plan),
    }
    for place, _ in enumerate(typed.variants):
        known |= {f"variant-{place}-{field}" for field in VariantLine._fields}
    for place, line in enumerate(typed.metrics):
        known |= set(metric_fields.names(line, f"metric-{place}-"))
    return known


def in_fields(problem: AssayError | None) -> AssayError | None:
    """With the place within a rule or a list of dates said in the message: its field is one for all of it."""
    if problem is None or not problem.errors:
        return problem
    errors = []
    for each in problem.errors:
        deeper, date = _RULE.match(each.path), _DATE.fullmatch(each.path)
        if deeper is not None:
            errors.append(FieldError(deeper[1], f"{deeper[2]} {each.message}"))
        elif date is not None:
            errors.append(FieldError("analysis.look_dates", f"line {int(date[1]) + 1} {each.message}"))
        else:
            errors.append(each)
    return Invalid(problem.detail, errors=errors)


def field_of(path: str) -> str:
    """The form's own name for a field of the catalog's."""
    name = metric_fields.field_of(path)
    found = _LINE.fullmatch(name)
    if found is None:
        return _ALIASES.get(name, name)
    noun, place, field = found.groups()
    return (
        f"{noun}-{place}-{ {'allocation': 'share', 'is_control': 'control', None: 'name'}.get(field, field) }"
    )


_ALIASES = {
    "primary_metric": "metrics",
    "guardrail_metrics": "metrics",
    "layer": "layer-key",
    "layer-id": "layer-key",
}
