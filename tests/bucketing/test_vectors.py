"""GrowthBook's published cases, read from where the project's shared material lies."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from assay.bucketing.conditions import compile_condition
from assay.bucketing.features import Caller, Evaluated, Features
from assay.bucketing.hashing import bucket_ranges, choose, edges, equal_weights, hash_unit, in_namespace
from assay.errors import Invalid

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "vectors" / "growthbook.json"
VECTORS = Path(os.environ.get("ASSAY_GROWTHBOOK_VECTORS") or SHARED)


@pytest.fixture(scope="module")
def vectors() -> dict[str, Any]:
    if not VECTORS.exists():
        pytest.skip(f"the shared vectors are not at {VECTORS}")
    found: dict[str, Any] = json.loads(VECTORS.read_text(encoding="utf-8"))
    return found


def test_hash__published_cases__same_number(vectors: dict[str, Any]) -> None:
    cases = vectors["hash"]
    assert cases
    assert [hash_unit(seed, value, version) for seed, value, version, _ in cases] == [
        expected for *_, expected in cases
    ]


def test_bucket_ranges__published_cases__same_ranges(vectors: dict[str, Any]) -> None:
    cases = vectors["getBucketRange"]
    assert cases
    for name, (count, coverage, weights), expected in cases:
        found = bucket_ranges(count, coverage, weights)
        assert found == tuple(pytest.approx(each, abs=1e-12) for each in expected), name


def test_choose__published_cases__same_index(vectors: dict[str, Any]) -> None:
    cases = vectors["chooseVariation"]
    assert cases
    for name, position, ranges, expected in cases:
        assert choose(position, edges(ranges)) == expected, name


def test_namespace__published_cases__same_answer(vectors: dict[str, Any]) -> None:
    cases = vectors["inNamespace"]
    assert cases
    for name, unit_id, namespace, expected in cases:
        assert in_namespace(unit_id, tuple(namespace)) is expected, name


def test_equal_weights__published_cases__same_weights(vectors: dict[str, Any]) -> None:
    cases = vectors["getEqualWeights"]
    assert cases
    for count, expected in cases:
        assert equal_weights(count) == pytest.approx(expected, abs=1e-8)


def test_condition__published_cases__same_answer_or_refused_as_a_mistake(vectors: dict[str, Any]) -> None:
    cases = vectors["evalCondition"]
    assert cases
    for name, document, attributes, expected, *groups in cases:
        try:
            condition = compile_condition(document, groups=groups[0] if groups else {})
        except Invalid:
            # A mistake, which the SDKs answer with False for every user, is refused when it is written.
            found = False
        else:
            found = condition(attributes)
        assert found is expected, name


def caller_of(context: dict[str, Any], **more: Any) -> Caller:
    return Caller(
        attributes=context.get("attributes", {}),
        forced=context.get("forcedVariations", {}),
        enabled=context.get("enabled", True),
        qa=context.get("qaMode", False),
        url=context.get("url", ""),
        **more,
    )


def shown(found: Evaluated) -> dict[str, Any]:
    value = found.value
    return {
        "value": value,
        "on": bool(value) or isinstance(value, (list, dict)),
        "off": not (bool(value) or isinstance(value, (list, dict))),
        "source": str(found.source),
        "ruleId": found.rule_id,
    }


def ran(found: Evaluated) -> dict[str, Any]:
    run = found.ran
    assert run is not None
    shown = {
        "key": run.variant,
        "value": run.value,
        "variationId": run.at,
        "inExperiment": run.inside,
        "hashUsed": run.hashed,
        "hashAttribute": run.attribute,
        "hashValue": run.unit_id,
        "stickyBucketUsed": run.sticky,
    }
    return shown if run.bucket is None else {**shown, "bucket": run.bucket}


def test_features__published_cases__same_value_source_and_experiment(vectors: dict[str, Any]) -> None:
    cases = vectors["feature"]
    assert cases
    for name, context, key, expected in cases:
        found = Features(context).evaluate(key, caller_of(context))
        assert shown(found) == {label: expected[label] for label in shown(found)}, name
        if "experimentResult" in expected:
            result = {
                label: each
                for label, each in expected["experimentResult"].items()
                if label not in {"featureId", "leafId", "variationWeights", "banditVersion", "name"}
            }
            assert ran(found) == {**result, "hashValue": str(result["hashValue"])}, name


def test_experiments__published_cases__same_variation(vectors: dict[str, Any]) -> None:
    cases = vectors["run"]
    assert cases
    for name, context, experiment, value, inside, hashed in cases:
        found = Features(context).run(experiment, caller_of(context))
        assert (found.value, found.inside, found.hashed) == (value, inside, hashed), name


def test_sticky_buckets__published_cases__same_result_and_same_store(vectors: dict[str, Any]) -> None:
    cases = vectors["stickyBucket"]
    assert cases
    for name, context, documents, key, expected, after in cases:
        store = {
            (each["attributeName"], each["attributeValue"]): dict(each["assignments"]) for each in documents
        }
        caller = caller_of(context, sticky=lambda *of, store=store: store.get(of, {}))
        found = Features(context).evaluate(key, caller)
        if expected is None:
            assert found.ran is None or not found.ran.inside, name
        else:
            wanted = {label: each for label, each in expected.items() if label != "featureId"}
            assert ran(found) == wanted, name
        if found.ran is not None and found.ran.keep is not None:
            kept = found.ran.keep
            store.setdefault((kept.attribute, kept.value), {})[kept.experiment] = kept.variant
        stored = {
            f"{attribute}||{value}": {
                "attributeName": attribute,
                "attributeValue": value,
                "assignments": assignments,
            }
            for (attribute, value), assignments in store.items()
        }
        assert {name: stored[name] for name in after} == after, name
