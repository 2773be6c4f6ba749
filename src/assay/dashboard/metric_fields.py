"""What is measured, as fields of a form: read from it, and written into it.

A field is called after its place in the catalog's own document: `where[0].value` stands in `where-0-value`.
Where a form holds several metrics, each has a prefix. So an error of the catalog finds its field by itself.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from assay.catalog.measuring import USES
from assay.dashboard import literals
from assay.dashboard.calculator import read_number
from assay.dashboard.pages import Form, Problems
from assay.errors import AssayError, FieldError, Invalid

#: Types of metrics, as one chooses among them.
TYPES = (
    ("conversion", "Share of users with the event"),
    ("count", "Events per user"),
    ("sum", "Total per user"),
    ("revenue", "Revenue per user"),
    ("mean", "Average of one event"),
    ("ratio", "Ratio of two"),
    ("quantile", "Percentile"),
    ("retention", "Share of users who come back"),
    ("funnel", "Share of users who do all steps"),
    ("threshold", "Share of users who reach an amount"),
)
ROLES = (
    ("primary", "Primary"),
    ("secondary", "Secondary"),
    ("guardrail", "Guardrail"),
    ("exploratory", "Exploratory"),
)
OPERATORS = (
    ("eq", "is"),
    ("ne", "is not"),
    ("in", "is one of"),
    ("not_in", "is none of"),
    ("lt", "is less than"),
    ("le", "is at most"),
    ("gt", "is more than"),
    ("ge", "is at least"),
    ("exists", "is there"),
    ("not_exists", "is not there"),
)
FOLDS = (("", "automatically"), ("count", "how many"), ("sum", "their total"), ("any", "whether any"))
_LISTED, _BARE = {"in", "not_in"}, {"exists", "not_exists"}
_TEXTS = (
    "key",
    "name",
    "description",
    "type",
    "event_type",
    "property",
    "direction",
    "role",
    "fold",
    "quantile",
    "level",
    "from",
    "to",
    "at_least",
    "window-delay",
    "window-duration",
    "lookback",
    "cap-value",
    "cap-percentile",
    "cap-lower",
    "margin-relative",
    "margin-absolute",
    "denominator-event_type",
    "denominator-property",
    "denominator-fold",
    "definition",
    "definition_version",
)
_SWITCHES = ("zeros", "complete_only")
#: Numbers, and how many times what is stored they are in the form.
_NUMBERS = {
    "quantile": 100.0,
    "at_least": 1.0,
    "cap-value": 1.0,
    "cap-percentile": 1.0,
    "cap-lower": 1.0,
    "margin-relative": 100.0,
    "margin-absolute": 1.0,
}
_GROUPS = {
    "window": ("delay", "duration"),
    "cap": ("value", "percentile", "lower"),
    "margin": ("relative", "absolute"),
}
#: What an experiment may say otherwise of a definition that it copies, beside name, direction and role.
_OVERRIDES = ("window", "complete_only", "lookback", "cap", "margin")
_MOST = 100
_STEP = re.compile(r"\[(\d+)\]|\.")


class FilterLine(NamedTuple):
    """One test on a property, as it stands in the form."""

    property: str = ""
    op: str = "eq"
    value: str = ""


class StepLine(NamedTuple):
    """One step of a funnel."""

    event_type: str = ""
    where: Sequence[FilterLine] = ()


class MetricLine(NamedTuple):
    """A metric as it stands in a form, as text."""

    fields: Mapping[str, str]
    where: Sequence[FilterLine] = ()
    divided: Sequence[FilterLine] = ()
    steps: Sequence[StepLine] = (StepLine(), StepLine())

    @property
    def type(self) -> str:
        """The type chosen, the first one if it is none of them."""
        return self.fields["type"] if self.fields["type"] in USES else TYPES[0][0]

    @property
    def uses(self) -> frozenset[str]:
        """The fields its type reads."""
        return USES[self.type]

    @property
    def is_copy(self) -> bool:
        """Whether it is a copy of a definition."""
        return bool(self.fields["definition"])

    @property
    def is_blank(self) -> bool:
        """Whether nothing was said of it."""
        said = ("definition", "event_type", "name", "denominator-event_type")
        return not any(self.fields[name] for name in said) and not any(each.event_type for each in self.steps)

    @property
    def narrows(self) -> bool:
        """Whether it has anything in the fields that are seldom needed."""
        rare = ("lookback", "window-delay", "window-duration", "cap-value", "cap-percentile", "complete_only")
        return (bool(self.where) and not self.is_copy) or any(self.fields[name] for name in rare)


_EMPTY = {
    **dict.fromkeys((*_TEXTS, *_SWITCHES), ""),
    "type": "conversion",
    "direction": "increase",
    "level": "user",
}


def blank(role: str = "") -> MetricLine:
    """A metric nothing is known about."""
    return MetricLine({**_EMPTY, "role": role})


def read(form: Form, prefix: str = "") -> MetricLine:
    """The metric that stands under this prefix."""
    fields = {
        **{name: form.get(prefix + name, otherwise) for name, otherwise in _EMPTY.items()},
        **{name: "1" if form.has(prefix + name) else "" for name in _SWITCHES},
    }
    steps = [
        StepLine(
            form.get(f"{prefix}steps-{place}-event_type"), read_filters(form, f"{prefix}steps-{place}-where-")
        )
        for place in _places(form, f"{prefix}steps-", "-event_type")
    ]
    return MetricLine(
        fields,
        read_filters(form, f"{prefix}where-"),
        read_filters(form, f"{prefix}denominator-where-"),
        steps or blank().steps,
    )


def changed(form: Form, line: MetricLine, prefix: str = "") -> MetricLine | None:
    """The metric with a filter or step more or less, if a button asked for that; None if none did."""
    add, gone = form.get("add-line"), form.get("remove-line")
    if form.get("show-type") == prefix and form.has("show-type"):
        return line
    for name, said in (("add", add), ("remove", gone)):
        if not said.startswith(prefix) or not said:
            continue
        place = said.removeprefix(prefix)
        grown = _edited(line, place, adding=name == "add")
        if grown is not None:
            return grown
    return None


def _edited(line: MetricLine, place: str, *, adding: bool) -> MetricLine | None:
    """With a line more in the list `place` (`steps-1-where`), or without this one (`steps-1-where-0`)."""
    if not adding:
        place, _, last = place.rpartition("-")
        if not last.isdigit():
            return None
        gone = int(last)
    step = re.fullmatch(r"steps-(\d+)-where", place)
    if place == "where":
        return line._replace(where=_list(line.where, FilterLine(), gone if not adding else None))
    if place == "denominator-where":
        return line._replace(divided=_list(line.divided, FilterLine(), gone if not adding else None))
    if place == "steps":
        return line._replace(steps=_list(line.steps, StepLine(), gone if not adding else None))
    if step and int(step[1]) < len(line.steps):
        at = int(step[1])
        old = line.steps[at]
        new = old._replace(where=_list(old.where, FilterLine(), gone if not adding else None))
        return line._replace(steps=[*line.steps[:at], new, *line.steps[at + 1 :]])
    return None


def _list(lines: Sequence[Any], new: object, gone: int | None) -> list[Any]:
    if gone is None:
        return [*lines, new]
    return [each for place, each in enumerate(lines) if place != gone]


def written(metric: Mapping[str, Any]) -> MetricLine:
    """The form of a metric as the catalog's documents hold it."""
    fields = dict(_EMPTY)
    for name in _TEXTS:
        head, _, tail = name.partition("-")
        value = metric.get(head)
        if tail and value is not None:
            value = value.get(tail)
        if value is not None:
            fields[name] = _shown(name, value)
    for name in _SWITCHES:
        fields[name] = "1" if metric.get(name) else ""
    steps = [StepLine(each["event_type"], written_filters(each)) for each in metric.get("steps") or ()]
    return MetricLine(
        fields,
        written_filters(metric),
        written_filters(metric.get("denominator") or {}),
        steps or blank().steps,
    )


def document(line: MetricLine, path: str, wrong: list[FieldError]) -> dict[str, Any]:
    """What the form says of a metric, as the catalog reads it; null for what it leaves open.

    What cannot be read is added to `wrong`, below `path`.
    """
    fields, uses = line.fields, line.uses

    def number(name: str) -> float | None:
        try:
            found = read_number(fields[name], path + name.replace("-", ".")) if fields[name] else None
        except Invalid as error:
            wrong.extend(error.errors)
            return None
        return None if found is None else _whole(found / _NUMBERS[name])

    def group(name: str) -> dict[str, Any] | None:
        if name == "window":
            parts: dict[str, Any] = {each: fields[f"{name}-{each}"] or None for each in _GROUPS[name]}
        else:
            parts = {each: number(f"{name}-{each}") for each in _GROUPS[name]}
        said = {each: value for each, value in parts.items() if value is not None}
        return said or None

    def filters(place: str, lines: Sequence[FilterLine]) -> list[dict[str, Any]]:
        return filters_document(lines, path + place, wrong)

    guards = fields["role"] == "guardrail"
    timed: dict[str, Any] = {
        "window": group("window") if "window" in uses else None,
        "complete_only": bool(fields["complete_only"]) or None,
        "lookback": (fields["lookback"] or None) if "lookback" in uses else None,
        "cap": group("cap") if "cap" in uses else None,
        "margin": group("margin") if guards else None,
    }
    found: dict[str, Any] = {"direction": fields["direction"], "role": fields["role"] or None}
    found["description"] = fields["description"]
    for name in ("name", "key"):
        if fields[name]:
            found[name] = fields[name]
    if line.is_copy:
        version = fields["definition_version"]
        found["definition"] = fields["definition"]
        if version.isascii() and version.isdigit():
            found["definition_version"] = int(version)
        return found | timed
    steps = line.steps if "steps" in uses else ()
    denominator: dict[str, Any] | None = None
    if "denominator" in uses:
        denominator = {
            "event_type": fields["denominator-event_type"],
            "property": fields["denominator-property"] or None,
            "fold": fields["denominator-fold"] or None,
            "where": filters("denominator.where", line.divided),
        }
    return found | {
        "type": fields["type"],
        "event_type": (fields["event_type"] or None) if not steps else None,
        "property": (fields["property"] or None) if "property" in uses else None,
        "where": filters("where", line.where) if "where" in uses else [],
        "fold": (fields["fold"] or None) if "fold" in uses else None,
        "denominator": denominator,
        "quantile": number("quantile") if "quantile" in uses else None,
        "level": (fields["level"] or None) if "level" in uses else None,
        "zeros": (bool(fields["zeros"]) or None) if "zeros" in uses else None,
        "from": (fields["from"] or None) if "from" in uses else None,
        "to": (fields["to"] or None) if "to" in uses else None,
        "steps": [
            {"event_type": each.event_type, "where": filters(f"steps[{at}].where", each.where)}
            for at, each in enumerate(steps)
            if each.event_type or each.where
        ]
        if steps
        else None,
        "at_least": number("at_least") if "at_least" in uses else None,
        **timed,
    }


def field_of(path: str) -> str:
    """The form's own name for a place in the catalog's document: `where-0-value` for `where[0].value`."""
    return _STEP.sub(lambda found: f"-{found[1]}" if found[1] else "-", path)


def beside(
    problem: AssayError | None, known: set[str], name_of: Callable[[str], str]
) -> tuple[Problems, str]:
    """Each error at its field, or at the group that the field stands in; and what finds no place, as text.

    `known` are the names that the form shows; `name_of` makes one of a place in the document.
    """
    problems, lost = Problems(), []
    for each in problem.errors if problem else ():
        name = name_of(each.path)
        while name and name not in known:
            name = name.rpartition("-")[0]
        if name:
            problems.setdefault(name, each.message)
        else:
            lost.append(f"{each.path}: {each.message}")
    if problem is not None and not problem.errors:
        lost.append(problem.detail)
    return problems, " ".join(lost)


def names(line: MetricLine, prefix: str = "") -> Iterator[str]:
    """The names of all fields that the form shows of a metric, and of the groups they stand in."""
    yield from (prefix + name for name in (*_TEXTS, *_SWITCHES, *_GROUPS, "where", "steps", "denominator"))
    lists = [("where", line.where), ("denominator-where", line.divided)]
    for at, step in enumerate(line.steps):
        yield f"{prefix}steps-{at}-event_type"
        lists.append((f"steps-{at}-where", step.where))
    for place, filters in lists:
        for at, _ in enumerate(filters):
            yield from (f"{prefix}{place}-{at}-{name}" for name in FilterLine._fields)


def filters_document(lines: Sequence[FilterLine], path: str, wrong: list[FieldError]) -> list[dict[str, Any]]:
    """The tests as the catalog reads them, without blank ones; what cannot be read goes to `wrong`."""
    found = []
    for at, each in enumerate(lines):
        try:
            if each.property or each.value:
                found.append(_filter(each, f"{path}[{at}]"))
        except Invalid as error:
            wrong.extend(error.errors)
    return found


def _filter(line: FilterLine, path: str) -> dict[str, Any]:
    found: dict[str, Any] = {"property": line.property, "op": line.op}
    if line.op in _LISTED:
        return found | {"value": literals.read_list(line.value, f"{path}.value")}
    return found if line.op in _BARE else found | {"value": literals.read(line.value, f"{path}.value")}


def written_filters(source: Mapping[str, Any]) -> list[FilterLine]:
    """The form of the tests that a document's `where` holds."""
    return [
        FilterLine(
            each["property"],
            each["op"],
            ""
            if "value" not in each
            else literals.written_list(each["value"])
            if isinstance(each["value"], list)
            else literals.written(each["value"]),
        )
        for each in source.get("where") or ()
    ]


def read_filters(form: Form, prefix: str) -> list[FilterLine]:
    """The tests on properties that stand under this prefix."""
    return [
        FilterLine(*(form.get(f"{prefix}{place}-{name}") for name in FilterLine._fields))
        for place in _places(form, prefix, "-property")
    ]


def _places(form: Form, before: str, after: str) -> Iterator[int]:
    place = 0
    while place < _MOST and form.has(f"{before}{place}{after}"):
        yield place
        place += 1


def _shown(name: str, value: Any) -> str:
    if name in _NUMBERS:
        return f"{round(value * _NUMBERS[name], 9):.12g}"
    return value if isinstance(value, str) else json.dumps(value)


def _whole(value: float) -> float:
    value = round(value, 12)
    return int(value) if value == int(value) and abs(value) < 1e15 else value
