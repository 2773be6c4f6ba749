"""Which clause of a condition decided."""

from typing import Any

import pytest

from assay.bucketing.clauses import attributes_read, deciding, groups_read, naming
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


def test_lists_are_found_wherever_a_condition_may_name_them_and_nowhere_else() -> None:
    named = {"$inGroup": "a"}
    document = {
        "id": named,
        "$or": [{"x": {"$not": {"$notInGroup": "b"}}}, {"$not": {"y": named}}],
        "tags": {"$elemMatch": {"$inGroup": "c"}},
        "pets": {"$elemMatch": {"name": {"$inGroup": "d"}}},
        "both": {"$elemMatch": {"$or": [{"name": {"$inGroup": "e"}}]}},
        "all": {"$all": [{"$inGroup": "f"}, "g"]},
        # Values to be equal to, whatever they look like.
        "same": {"$eq": named},
        "among": {"$in": [named]},
        "nested": {"z": named},
    }
    compile_condition(document)
    assert groups_read(document, "rules") == [
        ("a", "rules.id.$inGroup"),
        ("b", "rules.$or[0].x.$not.$notInGroup"),
        ("a", "rules.$or[1].$not.y.$inGroup"),
        ("c", "rules.tags.$elemMatch.$inGroup"),
        ("d", "rules.pets.$elemMatch.name.$inGroup"),
        ("e", "rules.both.$elemMatch.$or[0].name.$inGroup"),
        ("f", "rules.all.$all[0].$inGroup"),
    ]
    called = naming(document, lambda key, _: key.upper())
    assert [key for key, _ in groups_read(called)] == ["A", "B", "A", "C", "D", "E", "F"]
    assert (called["same"], called["among"], called["nested"]) == (
        {"$eq": named},
        {"$in": [named]},
        {"z": named},
    )
    assert naming(document, lambda key, _: key) == document


def test_the_clause_that_decided_is_looked_for_with_the_lists() -> None:
    document = {"country": "DE", "id": {"$notInGroup": "staff"}}
    clause = deciding(document, {"country": "DE", "id": "ann"}, groups={"staff": ["ann"]})
    assert (clause.path, clause.wanted, clause.found, clause.holds) == (
        "condition.id",
        {"$notInGroup": "staff"},
        "ann",
        False,
    )
