"""What the folded sections of an experiment's form hold, in one line each, and which stand open."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from assay.dashboard import plan_fields
from assay.dashboard.experiment_fields import NEW, Typed
from assay.dashboard.pages import Form, Problems

_METHODS = dict(plan_fields.METHODS)
_CORRECTIONS = dict(plan_fields.CORRECTIONS)
#: By which their fields begin, and the buttons that stand in them.
_FIELDS: Mapping[str, tuple[str, ...]] = {
    "analysis": ("analysis", "significance_level", "power", "activation_event"),
    "rollout": ("start_at", "ramp", "circuit_breaker"),
    "exclusions": ("layer", "prerequisites"),
    "advanced": ("key", "unit", "description", "private"),
}
_BUTTONS: Mapping[str, tuple[str, ...]] = {
    "analysis": ("show-method",),
    "rollout": ("add-step", "remove-step", "usual-ramp"),
    "exclusions": ("add-prerequisite", "remove-prerequisite"),
    "advanced": (),
}


class Section(NamedTuple):
    """One section: what it holds, said in a line, and whether it is unfolded."""

    line: str
    open: bool


def of(
    typed: Typed, problems: Problems, form: Form, layers: Mapping[str, str] | None = None
) -> dict[str, Section]:
    """The sections by name; `layers` has the names of layers by their keys."""
    says = {
        "analysis": _analysis(typed),
        "rollout": _rollout(typed),
        "exclusions": _exclusions(typed, layers or {}),
        "advanced": _advanced(typed),
    }
    return {name: Section("; ".join(says[name]), _stands_open(name, problems, form)) for name in says}


def _stands_open(name: str, problems: Problems, form: Form) -> bool:
    """Whether something in it is wrong, or a button in it was just pressed."""
    wrong = any(problems[each] and each.startswith(_FIELDS[name]) for each in problems)
    pressed = any(form.has(each) for each in _BUTTONS[name])
    line = form.get("add-line") or form.get("remove-line")
    return wrong or pressed or (bool(line) and line.startswith(_FIELDS[name]))


def _analysis(typed: Typed) -> Iterator[str]:
    fields = typed.fields
    method = fields["analysis-method"]
    yield _METHODS.get(method, method)
    if method == "group_sequential":
        dates = [each for each in fields["analysis-look_dates"].split("\n") if each.strip()]
        looks = str(len(dates)) if dates else fields["analysis-looks"]
        yield f"{looks} looks" if looks else "a look each day"
    if method == "bandit":
        yield f"new shares every {fields['analysis-reweight_every']}"
    sides = "" if method == "bayesian" or fields["analysis-alternative"] == "two-sided" else ", one-sided"
    yield f"significance level {fields['significance_level']} %{sides}"
    yield f"power {fields['power']} %"
    correction = fields["analysis-correction"]
    yield (
        "no correction" if correction == "none" else f"{_CORRECTIONS.get(correction, correction)} correction"
    )
    if not fields["analysis-cuped"]:
        yield "not adjusted by the time before"
    if fields["activation_event-event_type"]:
        yield f"from the event {fields['activation_event-event_type']} on"


def _rollout(typed: Typed) -> Iterator[str]:
    fields = typed.fields
    start = fields["start_at"]
    yield f"Starts by itself on {start.replace('T', ' ')} UTC" if start else "Started by hand"
    shares = [each.traffic_allocation for each in typed.plan.ramp if each.traffic_allocation]
    yield f"traffic {' → '.join([fields['traffic_allocation'], *shares])} %" if shares else "no ramp"
    if fields["circuit_breaker-on"]:
        yield f"a circuit breaker {'stops' if fields['circuit_breaker-action'] == 'stop' else 'pauses'} it"
    else:
        yield "no circuit breaker"


def _exclusions(typed: Typed, layers: Mapping[str, str]) -> Iterator[str]:
    layer = typed.fields["layer-key"]
    yield f"In the layer {layers.get(layer, layer)}" if layer else "In no layer"
    others = [each.experiment for each in typed.plan.prerequisites if each.experiment]
    yield f"requires {', '.join(others)}" if others else "no prerequisites"


def _advanced(typed: Typed) -> Iterator[str]:
    fields = typed.fields
    yield f"Key {fields['key']}" if fields["key"] else "Key made from the name"
    yield f"unit {fields['unit'] or NEW.fields['unit']}"
    if fields["private"]:
        yield "private"
