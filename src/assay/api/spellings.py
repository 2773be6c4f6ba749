"""The names under which clients of the short prefixes look for what an answer holds."""

from collections.abc import Mapping
from typing import Any

from assay.catalog.documents import ExperimentDocument, VariantDocument


def experiment(document: ExperimentDocument, *, short: bool) -> Mapping[str, Any]:
    """An experiment; under the short prefixes its fields also carry their older names."""
    if not short:
        return document
    return {
        **document,
        "experiment_id": document["id"],
        "start_time": document["started_at"],
        "end_time": document["ended_at"],
        "primary_metric_name": document["primary_metric"],
        "variants": [variant(each, short=True) for each in document["variants"]],
    }


def variant(document: VariantDocument, *, short: bool) -> Mapping[str, Any]:
    """A variant, likewise."""
    if not short:
        return document
    return {
        **document,
        "variant_id": document["id"],
        "variant_name": document["name"],
        "traffic_allocation_percent": document["allocation_percent"],
        "traffic_percentage": document["allocation_percent"],
        "configuration_json": document["config"],
    }
