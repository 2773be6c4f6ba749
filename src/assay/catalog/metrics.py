"""Metrics of an experiment: from what a caller wrote to the one form that reports read.

A stored metric is `{key, name, type, event_type, property, direction, role}` and what else its type reads.
The primary metric and the guardrails are roles, so the list and the names beside it cannot contradict each
other. A copy of a metric definition says so in `definition` and `definition_version`. Once a plan was frozen,
a metric that is not in it as it is now has `registered: false`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from assay.catalog.checks import parse, shown
from assay.catalog.inputs import ExperimentInput
from assay.catalog.keying import free
from assay.catalog.measuring import MetricInput
from assay.errors import Invalid

StoredMetric = dict[str, Any]
#: The body of a definition: by its key, version (None: the newest) and the path to name where there is none.
#: It holds the number of the version as `definition_version`.
LookUp = Callable[[str, int | None, str], StoredMetric]

#: What a copy of a definition may say otherwise.
_OVERRIDES = (
    "name",
    "description",
    "direction",
    "role",
    "window",
    "complete_only",
    "lookback",
    "cap",
    "margin",
)
#: Fields of the input that do not say what is measured, or are spelled otherwise where it is stored.
_ASIDE = {"key", "definition", "definition_version", "newest_version", "registered", "event"}
_STORED_AS = {"property_name": "property", "from_": "from", "event": "event_type"}
#: What may change without another thing being measured.
_WORDS = {"name", "description", "role", "definition", "definition_version", "registered"}


def settled(
    current: Sequence[StoredMetric],
    given: ExperimentInput,
    look_up: LookUp,
    *,
    started: bool,
    plan: Sequence[StoredMetric] | None = None,
) -> list[StoredMetric]:
    """The metrics in force after `given`; `plan` are those of the frozen plan, if there is one.

    A primary metric or guardrail that names no metric is taken as an event type, whose conversion rate
    is then added; beside a list of metrics it must be one of them by key, name or event type. Without any
    word about it, the first metric is the primary one. A metric that appears or measures something else after
    the start is `exploratory`, unless it is to decide or to guard: the experiment did not set out to show it.
    """
    planned = {metric["key"]: metric for metric in (current if plan is None else plan)}
    listed = given.given("metrics")
    kept = _kept(given.metrics) if listed else []
    metrics = _listed(kept, look_up) if listed else [dict(metric) for metric in current]
    if started and listed:
        _keep_roles(metrics, current)
    closed = listed and bool(metrics)
    if given.names_primary:
        for metric in metrics:
            if metric["role"] == "primary":
                metric["role"] = None
        if given.primary is not None:
            _named(metrics, given.primary, given.primary_field, closed=closed)["role"] = "primary"
    if given.given("guardrail_metrics"):
        _guard(metrics, given.guardrail_metrics, closed=closed)
    primaries = [metric["key"] for metric in metrics if metric["role"] == "primary"]
    if len(primaries) > 1:
        raise Invalid.field("metrics", f"only one metric can be the primary one; got {', '.join(primaries)}")
    for metric in metrics:
        if started and not _same_measure(metric, planned.get(metric["key"])):
            late = metric["role"] in (None, "secondary") if plan is not None else metric["role"] is None
            metric["role"] = "exploratory" if late else metric["role"]
        metric["role"] = metric["role"] or "secondary"
    if not primaries and not given.names_primary and metrics and not started:
        first = next((metric for metric in metrics if metric["role"] == "secondary"), None)
        if first is not None:
            first["role"] = "primary"
    _settle_margins(metrics, kept)
    return [_labelled(metric, planned) for metric in metrics] if plan is not None else metrics


def primary(metrics: Sequence[StoredMetric]) -> str | None:
    """The key of the primary metric."""
    return next((metric["key"] for metric in metrics if metric["role"] == "primary"), None)


def guardrails(metrics: Sequence[StoredMetric]) -> list[str]:
    """The keys of the guardrail metrics."""
    return [metric["key"] for metric in metrics if metric["role"] == "guardrail"]


def measure(metric: Mapping[str, Any]) -> StoredMetric:
    """What of a metric decides which number it is, without what it is called and used for."""
    return {name: value for name, value in metric.items() if name not in _WORDS and value is not None}


def _same_measure(metric: StoredMetric, planned: StoredMetric | None) -> bool:
    return planned is not None and measure(metric) == measure(planned)


def _labelled(metric: StoredMetric, planned: Mapping[str, StoredMetric]) -> StoredMetric:
    before = planned.get(metric["key"])
    metric.pop("registered", None)
    if before is not None and _same_measure(metric, before) and metric["role"] == before["role"]:
        return metric
    return {**metric, "registered": False}


def _kept(given: Sequence[MetricInput]) -> list[tuple[int, MetricInput]]:
    """With their places: the same metric twice says nothing more than once."""
    return [(at, each) for at, each in enumerate(given) if each.key is not None or each not in given[:at]]


def _listed(kept: Sequence[tuple[int, MetricInput]], look_up: LookUp) -> list[StoredMetric]:
    taken: set[str] = set()
    for at, metric in kept:
        if metric.key is not None:
            if metric.key in taken:
                raise Invalid.field(f"metrics[{at}].key", f"is used twice: {metric.key}")
            taken.add(metric.key)
    metrics: list[StoredMetric] = []
    for at, metric in kept:
        key = metric.key
        if key is None:
            key = free(metric.definition or metric.name or metric.source, taken.__contains__)
            taken.add(key)
        if metric.definition is None:
            metrics.append(metric.normal(key))
        else:
            metrics.append(_copied(metric, metric.definition, key, look_up, f"metrics[{at}]"))
    return metrics


def _keep_roles(metrics: Sequence[StoredMetric], current: Sequence[StoredMetric]) -> None:
    """Of a started experiment, a metric about whose role nothing is said keeps the one it has."""
    before = {metric["key"]: metric["role"] for metric in current}
    decided = any(metric["role"] == "primary" for metric in metrics)
    for metric in metrics:
        if metric["role"] is None:
            role = before.get(metric["key"])
            metric["role"] = None if role == "primary" and decided else role


def _copied(given: MetricInput, definition: str, key: str, look_up: LookUp, path: str) -> StoredMetric:
    """A copy of a definition, with what the experiment has otherwise."""
    body = look_up(definition, given.definition_version, path)
    version = body.pop("definition_version")
    said = given.normal(key)
    for field in sorted(given.model_fields_set - _ASIDE | (given.model_fields_set & {"event"})):
        name = _STORED_AS.get(field, field)
        if name not in _OVERRIDES and said.get(name) != body.get(name):
            raise Invalid.field(
                f"{path}.{name}",
                f"belongs to the definition {definition}, whose version {version} says "
                f"{shown(body.get(name))}; got {shown(said.get(name))}: change the definition, or describe "
                "the metric here without one",
            )
    other = {name: said.get(name) for name in _OVERRIDES if given.given(name)}
    if other.get("role", "") is None:
        del other["role"]
    if other.get("role", "guardrail") != "guardrail" and "margin" not in other:
        body.pop("margin", None)
    whole = {name: value for name, value in {**body, **other, "key": key}.items() if value is not None}
    metric = parse(MetricInput, whole, path).normal(key)
    # What the experiment has none of must not come back from the definition when the copy is sent back.
    missing = {name: None for name in other if name not in metric and name in body}
    return {**metric, **missing, "definition": definition, "definition_version": version}


def _named(metrics: list[StoredMetric], name: str, path: str, *, closed: bool) -> StoredMetric:
    """The metric called `name` by key, name or event type; a new one if there is none, unless `closed`."""
    for field in ("key", "name", "event_type"):
        for metric in metrics:
            if metric[field] == name:
                return metric
    if closed:
        known = ", ".join(shown(metric["key"]) for metric in metrics[:10])
        raise Invalid.field(path, f"is not one of the metrics given ({known}); got {shown(name)}")
    metrics.append(MetricInput(event_type=name).normal(name))
    return metrics[-1]


def _guard(metrics: list[StoredMetric], names: Sequence[str], *, closed: bool) -> None:
    for metric in metrics:
        if metric["role"] == "guardrail":
            metric["role"] = None
    for position, name in enumerate(names):
        path = f"guardrail_metrics[{position}]"
        metric = _named(metrics, name, path, closed=closed)
        if metric["role"] == "primary":
            raise Invalid.field(path, f"{name} is the primary metric already")
        metric["role"] = "guardrail"


def _settle_margins(metrics: Sequence[StoredMetric], kept: Sequence[tuple[int, MetricInput]]) -> None:
    """A margin that was written for a metric that is no guardrail is refused; one left over goes."""
    written = {metric["key"]: at for metric, (at, each) in zip(metrics, kept, strict=False) if each.margin}
    for metric in metrics:
        if metric.get("margin") is not None and metric["role"] != "guardrail":
            if metric["key"] in written:
                raise Invalid.field(
                    f"metrics[{written[metric['key']]}].margin",
                    f"is read of guardrails; the role of {metric['key']} is {metric['role']}",
                )
            del metric["margin"]
