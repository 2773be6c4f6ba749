"""GrowthBook's published cases, read from where the project's shared material lies."""

import json
from pathlib import Path
from typing import Any

import pytest

from assay.bucketing.conditions import compile_condition
from assay.bucketing.hashing import bucket_ranges, choose, edges, equal_weights, hash_unit, in_namespace
from assay.errors import Invalid

VECTORS = Path(__file__).resolve().parents[2].parent / "shared" / "vectors" / "growthbook.json"

# Mistakes that the SDKs answer with False for every user, and that are refused when they are written.
REFUSED = {
    "$nin - not array": "condition.num.$nin",
    "$ini - not array": "condition.num.$ini",
    "$regex invalid - pass": "condition.name.$regex",
}


@pytest.fixture(scope="module")
def vectors() -> dict[str, Any]:
    if not VECTORS.exists():
        pytest.skip(f"the shared vectors are not at {VECTORS}")
    found: dict[str, Any] = json.loads(VECTORS.read_text(encoding="utf-8"))
    return found


def test_hash__published_cases__same_number(vectors: dict[str, Any]) -> None:
    cases = vectors["hash"]
    assert len(cases) == 8
    assert [hash_unit(seed, value, version) for seed, value, version, _ in cases] == [
        expected for *_, expected in cases
    ]


def test_bucket_ranges__published_cases__same_ranges(vectors: dict[str, Any]) -> None:
    cases = vectors["getBucketRange"]
    assert len(cases) == 7
    for name, (count, coverage, weights), expected in cases:
        found = bucket_ranges(count, coverage, weights)
        assert found == tuple(pytest.approx(each, abs=1e-12) for each in expected), name


def test_choose__published_cases__same_index(vectors: dict[str, Any]) -> None:
    cases = vectors["chooseVariation"]
    assert len(cases) == 7
    for name, position, ranges, expected in cases:
        assert choose(position, edges(ranges)) == expected, name


def test_namespace__published_cases__same_answer(vectors: dict[str, Any]) -> None:
    cases = vectors["inNamespace"]
    assert len(cases) == 8
    for name, unit_id, namespace, expected in cases:
        assert in_namespace(unit_id, tuple(namespace)) is expected, name


def test_equal_weights__published_cases__same_weights(vectors: dict[str, Any]) -> None:
    cases = vectors["getEqualWeights"]
    assert len(cases) == 3
    for count, expected in cases:
        assert equal_weights(count) == pytest.approx(expected, abs=1e-8)


def test_condition__published_cases__same_answer_or_refused_as_a_mistake(vectors: dict[str, Any]) -> None:
    cases = vectors["evalCondition"]
    assert len(cases) == 124
    refused = {}
    for name, document, attributes, expected, *groups in cases:
        try:
            condition = compile_condition(document, groups=groups[0] if groups else {})
        except Invalid as error:
            refused[name] = error.errors[0].path
            continue
        assert condition(attributes) is expected, name
    assert refused == REFUSED
