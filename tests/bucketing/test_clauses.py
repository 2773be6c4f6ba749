"""Which clause of a condition decided."""

from typing import Any

import pytest

from assay.bucketing.clauses import attributes_read, deciding
from assay.bucketing.conditions import compile_condition

ADULT = {"age": {"$gte": 18, "$lt": 65}}


@pytest.mark.parametrize(
    ("document", "path", "found"),
    [
        ({"country": "DE", **ADULT}, "condition", None),
        ({"country": "US", **ADULT}, "condition.country", "DE"),
        ({"age": {"$gte": 18, "$lt": 30}}, "condition.age.$lt", 40),
        ({"age": {"$gte": 18}}, "condition.age", 40),
        ({"$and": [ADULT, {"plan.name": "free"}]}, "condition.$and[1].plan.name", "gold"),
        ({"$or": [{"country": "US"}, {"age": 40}]}, "condition.$or[1].age", 40),
        ({"$or": [{"country": "US"}, {"age": 41}]}, "condition.$or", None),
        ({"$nor": [{"country": "US"}, {"age": 40}]}, "condition.$nor[1].age", 40),
        ({"$nor": [{"country": "US"}]}, "condition.$nor", None),
        ({"$and": [ADULT, {"country": "DE"}]}, "condition.$and", None),
        ({"$not": {"country": "DE"}}, "condition.$not.country", "DE"),
        ({"$not": {"$or": [{"x": 1}, {"country": "DE"}]}}, "condition.$not.$or[1].country", "DE"),
        ({"missing": {"$exists": True}}, "condition.missing", None),
        ({}, "condition", None),
    ],
)
def test_the_clause_that_decided_is_named(document: dict[str, Any], path: str, found: Any) -> None:
    attributes = {"country": "DE", "age": 40, "plan": {"name": "gold"}}
    clause = deciding(document, attributes)
    assert (clause.path, clause.found) == (path, found)
    assert clause.holds is compile_condition(document)(attributes)


def test_attributes_that_are_read_are_named_wherever_they_stand() -> None:
    document = {"a": 1, "$or": [{"b.c": 2}, {"$not": {"d": {"$in": [3]}}}], "$nor": [{"a": 4}]}
    assert list(attributes_read(document)) == ["a", "b.c", "d", "a"]
