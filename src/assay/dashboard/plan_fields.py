"""How an experiment is judged and let out, as fields of its form: analysis, ramp, breaker, prerequisites.

As with metrics, a field is called after its place in the catalog's own document: `analysis.floor` stands in
`analysis-floor`, `ramp[1].after` in `ramp-1-after`. So an error of the catalog finds its field by itself.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from assay.dashboard import metric_fields
from assay.dashboard.calculator import read_number
from assay.dashboard.metric_fields import FilterLine
from assay.dashboard.pages import Form
from assay.errors import FieldError, Invalid
from assay.stats.bayesian import DEFAULT_PRIOR

#: Methods as one chooses among them.
METHODS: Final = (
    ("fixed", "Fixed horizon"),
    ("group_sequential", "Group sequential"),
    ("always_valid", "Always valid"),
    ("bayesian", "Bayesian"),
    ("bandit", "Bandit"),
)
#: What each is good for, and what it costs.
ADVICE: Final[Mapping[str, str]] = {
    "fixed": "One verdict, when the planned sample is in. It needs the smallest sample; deciding at an "
    "earlier look makes chance findings likelier than the level says.",
    "group_sequential": "Verdicts at a few planned looks, and a right to stop early at each. It costs a few "
    "percent more units if it runs to its end, and far fewer where the effect is large.",
    "always_valid": "Look and stop whenever you like: the error rate holds at every moment. The price is "
    "wider intervals.",
    "bayesian": "A chance to win and an expected loss, from a normal prior with a standard deviation of "
    f"{DEFAULT_PRIOR.sd * 100:.0f} % around no lift. It promises no error rate: stopped at a daily look that "
    "shows a 95 % chance to win, it finds a winner in 40 % of tests without any effect.",
    "bandit": "Deals more new units to what does better. For choosing among offers, not for measuring by how "
    "much one is better: intervals become wider.",
}
ALTERNATIVES: Final = (
    ("two-sided", "any difference"),
    ("greater", "more than the control alone"),
    ("less", "less than the control alone"),
)
CORRECTIONS: Final = (
    ("holm", "Holm"),
    ("hochberg", "Hochberg"),
    ("hommel", "Hommel"),
    ("holm_sidak", "Holm–Šidák"),
    ("bonferroni", "Bonferroni"),
    ("sidak", "Šidák"),
    ("benjamini_hochberg", "Benjamini–Hochberg (false discovery rate)"),
    ("benjamini_yekutieli", "Benjamini–Yekutieli (false discovery rate)"),
    ("none", "none"),
)
SPENDINGS: Final = (
    ("obrien_fleming", "O’Brien–Fleming: little early, most at the end"),
    ("pocock", "Pocock: about the same at each look"),
    ("power", "Power of the share of units"),
)
SAMPLINGS: Final = (
    ("thompson", "Thompson: by the chance to be best"),
    ("top_two", "Top two: half of it for the second best"),
)
ACTIONS: Final = (("pause", "Pause: let nobody new in"), ("stop", "Stop: end the experiment"))

#: A plan for those who have none: shares in percent, each a day after the one before.
_USUAL_START, _USUAL_STEPS = "5", ("20", "50", "100")
#: Numbers of an analysis, and how many times what is stored they are in the form; whole ones have no digits.
_NUMBERS: Final = {
    "looks": 1.0,
    "planned_units": 1.0,
    "spending_power": 1.0,
    "floor": 100.0,
    "ship_probability": 100.0,
    "ship_loss": 100.0,
}
_WHOLE: Final = {"looks", "planned_units"}
#: What each method reads beside what all do.
_READ_BY: Final[Mapping[str, tuple[str, ...]]] = {
    "fixed": (),
    "group_sequential": ("looks", "look_dates", "spending", "spending_power", "planned_units"),
    "always_valid": ("planned_units",),
    "bayesian": (),
    "bandit": ("reweight_every", "floor", "sampling", "ship_probability", "ship_loss"),
}
_DEFAULTS: Final = {
    "method": "fixed",
    "alternative": "two-sided",
    "correction": "holm",
    "cuped": "1",
    "looks": "5",
    "look_dates": "",
    "spending": "obrien_fleming",
    "spending_power": "",
    "planned_units": "",
    "reweight_every": "1d",
    "floor": "5",
    "sampling": "thompson",
    "ship_probability": "95",
    "ship_loss": "1",
}
#: All fields of these parts that are no lists, as a new experiment has them.
NEW: Final[Mapping[str, str]] = {
    **{f"analysis-{name}": value for name, value in _DEFAULTS.items()},
    "activation_event-event_type": "",
    "circuit_breaker-on": "",
    "circuit_breaker-action": "pause",
    "circuit_breaker-false_trip_rate": "0.5",
}
_MOST = 100


class RampLine(NamedTuple):
    """One step of a ramp as it stands in the form."""

    traffic_allocation: str = ""
    after: str = ""
    at: str = ""


class PrerequisiteLine(NamedTuple):
    """Another experiment that must serve a unit something, as it stands in the form."""

    experiment: str = ""
    variants: str = ""


class Plan(NamedTuple):
    """The lists among these parts."""

    ramp: Sequence[RampLine] = ()
    prerequisites: Sequence[PrerequisiteLine] = ()
    activation: Sequence[FilterLine] = ()


def read(form: Form, otherwise: Plan) -> Plan:
    """The lists as they were typed; a list that the form did not show stays as it was."""
    return Plan(
        _lines(form, "ramp", RampLine, otherwise.ramp),
        _lines(form, "prerequisites", PrerequisiteLine, otherwise.prerequisites),
        metric_fields.read_filters(form, "activation_event-where-")
        if form.has("activation_event-event_type")
        else otherwise.activation,
    )


def _lines(form: Form, noun: str, line: type[Any], otherwise: Sequence[Any]) -> Sequence[Any]:
    if not form.has(f"{noun}-shown"):
        return otherwise
    found: list[Any] = []
    first = line._fields[0]
    while len(found) < _MOST and form.has(f"{noun}-{len(found)}-{first}"):
        found.append(line(*(form.get(f"{noun}-{len(found)}-{name}") for name in line._fields)))
    return found


def changed(form: Form, plan: Plan) -> Plan | None:
    """The lists with a line more or less, if a button asked for that; None if none did."""
    if form.has("show-method"):
        return plan
    if form.has("add-step"):
        return plan._replace(ramp=[*plan.ramp, RampLine(after="1d")])
    if form.has("usual-ramp"):
        return plan._replace(ramp=[RampLine(share, "1d") for share in _USUAL_STEPS])
    if form.has("add-prerequisite"):
        return plan._replace(prerequisites=[*plan.prerequisites, PrerequisiteLine()])
    place = "activation_event-where"
    if form.get("add-line") == place:
        return plan._replace(activation=[*plan.activation, FilterLine()])
    for button, name in (
        ("remove-step", "ramp"),
        ("remove-prerequisite", "prerequisites"),
        ("remove-line", "activation"),
    ):
        gone = form.get(button).removeprefix(f"{place}-" if name == "activation" else "")
        if gone.isascii() and gone.isdigit():
            lines = [line for at, line in enumerate(getattr(plan, name)) if at != int(gone)]
            return plan._replace(**{name: lines})
    return None


def begun(form: Form, fields: Mapping[str, str]) -> Mapping[str, str]:
    """The other fields after a button of these parts: a usual ramp begins with little traffic."""
    return {**fields, "traffic_allocation": _USUAL_START} if form.has("usual-ramp") else fields


def written(shown: Mapping[str, Any]) -> tuple[dict[str, str], Plan]:
    """The form of an experiment's document, in these parts."""
    analysis, breaker, activation = (
        shown["analysis"],
        shown["circuit_breaker"],
        shown["activation_event"] or {},
    )
    fields = dict(NEW)
    if analysis.get("method") == "group_sequential":
        fields["analysis-looks"] = ""  # by date, or as often as it likes
    for name, value in analysis.items():
        fields[f"analysis-{name}"] = _text(name, value)
    if breaker:
        fields |= {
            "circuit_breaker-on": "1",
            "circuit_breaker-action": breaker["action"],
            "circuit_breaker-false_trip_rate": percent(breaker["false_trip_rate"]),
        }
    fields["activation_event-event_type"] = activation.get("event_type", "")
    steps = [
        RampLine(
            percent(each["traffic_allocation"]),
            each.get("after") or "",
            local(each.get("at")),
        )
        for each in shown["ramp"] or ()
    ]
    others = [
        PrerequisiteLine(each["experiment"], joined(each["variants"])) for each in shown["prerequisites"]
    ]
    return fields, Plan(steps, others, metric_fields.written_filters(activation))


def document(fields: Mapping[str, str], plan: Plan, wrong: list[FieldError]) -> dict[str, Any]:
    """What the form says of these parts, as the catalog reads it; what cannot be read goes to `wrong`."""
    event_type = fields["activation_event-event_type"]
    where = metric_fields.filters_document(plan.activation, "activation_event.where", wrong)
    activation = {"event_type": event_type, **({"where": where} if where else {})}
    breaker = None
    if fields["circuit_breaker-on"]:
        path = "circuit_breaker.false_trip_rate"
        rate = number(fields["circuit_breaker-false_trip_rate"], path, 100.0, wrong)
        breaker = {"action": fields["circuit_breaker-action"]} | (
            {} if rate is None else {"false_trip_rate": rate}
        )
    return {
        "analysis": _analysis(fields, wrong),
        "activation_event": activation if event_type or where else None,
        "circuit_breaker": breaker,
        "ramp": _ramp(plan.ramp, wrong) or None,
        "prerequisites": [
            {
                "experiment": each.experiment,
                "variants": split(each.variants, f"prerequisites[{at}].variants", wrong),
            }
            for at, each in enumerate(plan.prerequisites)
            if any(each)
        ],
    }


def _analysis(fields: Mapping[str, str], wrong: list[FieldError]) -> dict[str, Any]:
    said = {name: fields[f"analysis-{name}"] for name in _DEFAULTS}
    method = said["method"]
    found: dict[str, Any] = {
        "method": method,
        "correction": said["correction"],
        "cuped": bool(said["cuped"]),
    }
    if method != "bayesian":
        found["alternative"] = said["alternative"]
    for name in _READ_BY.get(method, ()):
        text = said[name]
        if name == "spending_power" and said["spending"] != "power":
            continue
        if name in _NUMBERS:
            value: Any = number(text, f"analysis.{name}", _NUMBERS[name], wrong)
            value = int(value) if name in _WHOLE and value is not None and value == int(value) else value
        elif name == "look_dates":
            value = [each.strip() for each in text.replace(",", "\n").split("\n") if each.strip()] or None
        else:
            value = text or None
        if value is not None:
            found[name] = value
    if "look_dates" in found:
        found.pop("looks", None)  # dates take the place of the number, as the form says
    return found


def _ramp(lines: Sequence[RampLine], wrong: list[FieldError]) -> list[dict[str, Any]]:
    found = []
    for at, line in enumerate(lines):
        if not line.traffic_allocation and not line.at:
            continue
        path = f"ramp[{at}]"
        share = number(line.traffic_allocation, f"{path}.traffic_allocation", 100.0, wrong)
        if not line.traffic_allocation:
            wrong.append(FieldError(f"{path}.traffic_allocation", "is needed"))
        step: dict[str, Any] = {"traffic_allocation": share}
        if line.after and line.at:
            wrong.append(FieldError(f"{path}.at", "and “after” both say when; leave one of them empty"))
        found.append(step | ({"at": f"{line.at}Z"} if line.at else {"after": line.after}))
    return found


def names(plan: Plan) -> Iterable[str]:
    """The names of all fields that the form shows of these parts, and of the groups they stand in."""
    yield from NEW
    yield from ("analysis", "activation_event", "activation_event-where", "circuit_breaker")
    yield from ("ramp", "prerequisites")
    for noun, line, number_of_lines in (
        ("ramp", RampLine, len(plan.ramp)),
        ("prerequisites", PrerequisiteLine, len(plan.prerequisites)),
        ("activation_event-where", FilterLine, len(plan.activation)),
    ):
        for at in range(number_of_lines):
            yield from (f"{noun}-{at}-{name}" for name in line._fields)


def number(text: str, path: str, scale: float, wrong: list[FieldError]) -> float | None:
    """The number typed, over `scale`; None for none, and for what goes to `wrong`."""
    try:
        return round(read_number(text, path) / scale, 12) if text else None
    except Invalid as error:
        wrong.extend(error.errors)
        return None


def split(text: str, path: str, wrong: list[FieldError]) -> list[str]:
    """Words with commas between them; one with a comma in it stands in double quotes."""
    try:
        return [each.strip() for each in next(csv.reader([text], skipinitialspace=True), []) if each.strip()]
    except csv.Error:
        wrong.append(FieldError(path, "must be words with commas between them"))
        return []


def joined(words: Sequence[str]) -> str:
    """The words as `split` takes them."""
    quoted = ('"' + each.replace('"', '""') + '"' if set(each) & {",", '"'} else each for each in words)
    return ", ".join(quoted)


def percent(fraction: float | None) -> str:
    """A fraction in percent, without the digits that multiplying adds."""
    return "" if fraction is None else f"{round(fraction * 100.0, 9):.12g}"


def local(text: str | None) -> str:
    """A document's time as a browser's field of date and time holds it, in UTC."""
    return f"{datetime.fromisoformat(text).astimezone(UTC):%Y-%m-%dT%H:%M}" if text else ""


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "1" if value else ""
    if isinstance(value, list):
        return "\n".join(local(each) for each in value)
    if name in _NUMBERS:
        return f"{round(value * _NUMBERS[name], 9):.12g}"
    return str(value)
