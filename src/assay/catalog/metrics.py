"""Metrics: from what a caller wrote to the one form that reports read.

A stored metric is `{key, name, type, event_type, property, direction, role}`. The primary metric and the
guardrails are roles, so the list and the names beside it cannot contradict each other.
"""

from collections.abc import Sequence
from typing import Any

from assay.catalog.checks import shown
from assay.catalog.inputs import ExperimentInput, MetricInput
from assay.catalog.keying import free
from assay.errors import Invalid

StoredMetric = dict[str, Any]


def settled(current: Sequence[StoredMetric], given: ExperimentInput, *, started: bool) -> list[StoredMetric]:
    """The metrics in force after `given`.

    A primary metric or guardrail that names no metric is taken as an event type, whose conversion rate
    is then added; beside a list of metrics it must be one of them by key, name or event type. Without any
    word about it, the first metric is the primary one. A metric that appears after the start is
    `exploratory`: it was not what the experiment set out to show.
    """
    known = {metric["key"] for metric in current}
    metrics = _listed(given.metrics) if given.given("metrics") else [dict(metric) for metric in current]
    closed = given.given("metrics") and bool(metrics)
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
        if metric["role"] is None:
            metric["role"] = "exploratory" if started and metric["key"] not in known else "secondary"
    if not primaries and not given.names_primary and metrics and not started:
        first = next((metric for metric in metrics if metric["role"] == "secondary"), None)
        if first is not None:
            first["role"] = "primary"
    return metrics


def primary(metrics: Sequence[StoredMetric]) -> str | None:
    """The key of the primary metric."""
    return next((metric["key"] for metric in metrics if metric["role"] == "primary"), None)


def guardrails(metrics: Sequence[StoredMetric]) -> list[str]:
    """The keys of the guardrail metrics."""
    return [metric["key"] for metric in metrics if metric["role"] == "guardrail"]


def _listed(given: Sequence[MetricInput]) -> list[StoredMetric]:
    # The same metric twice says nothing more than once.
    given = [each for at, each in enumerate(given) if each.key is not None or each not in given[:at]]
    taken: set[str] = set()
    for position, metric in enumerate(given):
        if metric.key is not None:
            if metric.key in taken:
                raise Invalid.field(f"metrics[{position}].key", f"is used twice: {metric.key}")
            taken.add(metric.key)
    metrics: list[StoredMetric] = []
    for metric in given:
        key = metric.key
        if key is None:
            key = free(metric.name or metric.source, taken.__contains__)
            taken.add(key)
        metrics.append(_stored(key, metric))
    return metrics


def _stored(key: str, metric: MetricInput) -> StoredMetric:
    return {
        "key": key,
        "name": metric.name or key,
        "type": metric.type,
        "event_type": metric.source,
        "property": metric.property_name,
        "direction": metric.direction,
        "role": metric.role,
    }


def _named(metrics: list[StoredMetric], name: str, path: str, *, closed: bool) -> StoredMetric:
    """The metric called `name` by key, name or event type; a new one if there is none, unless `closed`."""
    for field in ("key", "name", "event_type"):
        for metric in metrics:
            if metric[field] == name:
                return metric
    if closed:
        known = ", ".join(shown(metric["key"]) for metric in metrics[:10])
        raise Invalid.field(path, f"is not one of the metrics given ({known}); got {shown(name)}")
    metrics.append(_stored(name, MetricInput(event_type=name)))
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
