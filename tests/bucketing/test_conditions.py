"""What conditions mean beyond the published cases, what is refused, and that nothing makes one raise."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.bucketing.conditions import MAX_DEPTH, MAX_PARTS, MAX_PATTERNS, compile_condition
from assay.bucketing.ruleset import Members
from assay.errors import Invalid

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab.$0", max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
_attribute = st.sampled_from(["a", "b", "a.b", "a.0", "a.length", ""])
_operators = st.one_of(
    st.tuples(st.sampled_from(["$eq", "$ne"]), json_values),
    st.tuples(
        st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), st.integers() | st.floats() | st.text(max_size=5)
    ),
    st.tuples(
        st.sampled_from(["$veq", "$vne", "$vgt", "$vlt", "$vgte", "$vlte"]),
        st.integers() | st.text("v0123.-+a", max_size=8),
    ),
    st.tuples(
        st.sampled_from(["$in", "$nin", "$ini", "$nini", "$all", "$alli"]), st.lists(st.text(max_size=3))
    ),
    st.tuples(st.sampled_from(["$in", "$nin", "$ini", "$nini"]), st.lists(json_values, max_size=3)),
    st.tuples(
        st.sampled_from(["$regex", "$regexi", "$notRegex"]), st.sampled_from(["^a", "b$", "[0-9]+", "(a|b)*"])
    ),
    st.tuples(st.just("$exists"), st.booleans()),
    st.tuples(st.just("$type"), st.sampled_from(["string", "number", "boolean", "array", "object", "null"])),
    st.tuples(st.sampled_from(["$inGroup", "$notInGroup"]), st.sampled_from(["vip", "unknown"])),
).map(lambda pair: dict([pair]))
_values = st.recursive(
    st.text(max_size=3) | st.integers() | st.none() | _operators,
    lambda inner: st.tuples(st.sampled_from(["$not", "$size"]), inner).map(lambda pair: dict([pair])),
    max_leaves=3,
)
documents = st.recursive(
    st.dictionaries(_attribute, _values, max_size=3),
    lambda inner: (
        st.tuples(st.sampled_from(["$and", "$or", "$nor"]), st.lists(inner, max_size=3)).map(
            lambda pair: dict([pair])
        )
        | inner.map(lambda each: {"$not": each})
        | inner.map(lambda each: {"a": {"$elemMatch": each}})
    ),
    max_leaves=6,
)


def holds(document: dict[str, Any], attributes: dict[str, Any]) -> bool:
    return compile_condition(document)(attributes)


@given(documents, st.dictionaries(st.sampled_from(["a", "b", "c"]), json_values))
def test_condition__any_document_any_attributes__true_or_false(
    document: dict[str, Any], attributes: dict[str, Any]
) -> None:
    try:
        condition = compile_condition(document, groups={"vip": ["x", 1]})
    except Invalid as refusal:
        assert refusal.errors[0].path.startswith("condition.")  # noqa: PT017 - some documents mix names
        return
    assert condition(attributes) in (True, False)
    negated = compile_condition({"$not": document}, groups={"vip": ["x", 1]})
    assert negated(attributes) is not condition(attributes)


@given(json_values)
def test_compile__any_json__a_condition_or_a_named_refusal(document: Any) -> None:
    try:
        condition = compile_condition(document, "rules")
    except Invalid as refusal:
        assert refusal.errors[0].path.startswith("rules")  # noqa: PT017 - either outcome is right
    else:
        assert condition({}) in (True, False)


@pytest.mark.parametrize(
    ("document", "attributes", "expected"),
    [
        ({"age": "30"}, {"age": 30}, False),
        ({"premium": 1}, {"premium": True}, False),
        ({"premium": True}, {"premium": 1}, False),
        ({"count": 1}, {"count": 1.0}, True),
        ({"who": {"a": 1, "b": [2]}}, {"who": {"b": [2], "a": 1}}, True),
        ({"who": {"a": None}}, {"who": {"b": None}}, False),
        ({"who": {}}, {"who": {}}, True),
        ({"who": {}}, {}, False),
    ],
)
def test_equality__values_of_json__type_and_value(
    document: dict[str, Any], attributes: dict[str, Any], expected: bool
) -> None:
    assert holds(document, attributes) is expected


@pytest.mark.parametrize("sign", ["$gt", "$gte", "$lt", "$lte"])
@pytest.mark.parametrize(
    "found", [None, True, False, [], {}, "", "ten", "1_0", "0x10", "infinity", "9" * 200]
)
def test_order__value_that_is_no_number__neither_above_nor_below(sign: str, found: Any) -> None:
    assert holds({"age": {sign: 5}}, {"age": found}) is False


@pytest.mark.parametrize("sign", ["$gt", "$gte", "$lt", "$lte"])
def test_order__absent_attribute__neither_above_nor_below(sign: str) -> None:
    assert holds({"age": {sign: 18}}, {}) is False


@pytest.mark.parametrize(
    ("wanted", "found", "expected"),
    [
        ("9", 10, True),
        (9, "10", True),
        ("9", "10", False),
        (9, " 1e1 ", True),
        ("x", 10, False),
        (10**400, 5, False),
    ],
)
def test_order__texts_and_numbers__two_texts_as_texts_else_as_numbers(
    wanted: Any, found: Any, expected: bool
) -> None:
    assert holds({"n": {"$gt": wanted}}, {"n": found}) is expected


@pytest.mark.parametrize(
    ("document", "attributes", "expected"),
    [
        ({"pets.1.name": "Rex"}, {"pets": [{"name": "Tom"}, {"name": "Rex"}]}, True),
        ({"pets.2.name": "Rex"}, {"pets": [{"name": "Tom"}, {"name": "Rex"}]}, False),
        ({"pets.length": 2}, {"pets": [1, 2]}, True),
        ({"pets.x": None}, {"pets": [1, 2]}, True),
        ({"a.b": 1}, {"a.b": 1}, False),
        ({"": 1}, {"": 1}, True),
        ({"$plan": {"$eq": "pro"}}, {"$plan": "pro"}, True),
    ],
)
def test_path__objects_and_lists__the_value_below(
    document: dict[str, Any], attributes: dict[str, Any], expected: bool
) -> None:
    assert holds(document, attributes) is expected


@pytest.mark.parametrize(
    ("document", "attributes", "expected"),
    [
        ({"x": {"$in": [True]}}, {"x": 1}, False),
        ({"x": {"$in": [1]}}, {"x": True}, False),
        ({"x": {"$in": [1]}}, {"x": 1.0}, True),
        ({"x": {"$in": [None]}}, {}, True),
        ({"x": {"$in": [{"a": 1}]}}, {"x": {"a": 1}}, True),
        ({"x": {"$ini": ["É"]}}, {"x": ["é"]}, True),
        ({"x": {"$nin": ["a"]}}, {}, True),
        ({"x": {"$nini": ["A"]}}, {"x": "a"}, False),
        ({"x": {"$alli": [1, "A"]}}, {"x": [1, "a"]}, True),
        ({"x": {"$alli": ["A", "B"]}}, {"x": ["a"]}, False),
        ({"x": {"$all": [{"$gt": 3}, {"$lt": 0}]}}, {"x": [4, -1]}, True),
    ],
)
def test_lists__values_of_json__member_by_type_and_value(
    document: dict[str, Any], attributes: dict[str, Any], expected: bool
) -> None:
    assert holds(document, attributes) is expected


@pytest.mark.parametrize(
    ("document", "attributes", "expected"),
    [
        ({"x": {"$elemMatch": {"$lt": 5}}}, {"x": [0]}, True),
        ({"x": {"$elemMatch": {"$or": [{"a": 1}, {"b": 2}]}}}, {"x": [7, {"b": 2}]}, True),
        ({"x": {"$elemMatch": {"$not": {"$gt": 5}}}}, {"x": [6, 5]}, True),
        ({"x": {"$elemMatch": {"a": 1}}}, {"x": {"a": 1}}, False),
        ({"x": {"$size": 3}}, {"x": "abc"}, False),
        ({"x": {"$type": "number"}}, {"x": True}, False),
        ({"x": {"$type": "boolean"}}, {"x": True}, True),
        ({"x": {"$type": "null"}}, {}, True),
        ({"x": {"$exists": False}}, {"x": None}, True),
        ({"x": {"$regex": "^4"}}, {"x": 42.0}, True),
        ({"x": {"$regex": "2$"}}, {"x": 42.0}, True),
        ({"x": {"$regex": "true"}}, {"x": True}, False),
        ({"x": {"$notRegex": "a"}}, {}, True),
        ({"x": {"$notRegexi": "A"}}, {"x": "a"}, False),
        ({"x": {"$regex": "1"}}, {"x": 10**5000}, False),
        ({"x": {"$vlt": "1.0.0"}}, {}, True),
        ({"x": {"$veq": 2}}, {"x": "2"}, True),
        ({"x": {"$vlt": "1.0.0"}}, {"x": "1.0.0-rc.1"}, True),
        ({"x": {"$vgt": "1.9.0"}}, {"x": "v1.10.0+build.7"}, True),
        ({"x": {"$vgt": "1.0.0"}}, {"x": 10**5000}, False),
        ({"$nor": []}, {}, False),
        ({"$and": []}, {}, True),
    ],
)
def test_operators__the_less_usual_uses__by_value(
    document: dict[str, Any], attributes: dict[str, Any], expected: bool
) -> None:
    assert holds(document, attributes) is expected


@pytest.mark.parametrize("count", [2, Members.SMALL + 2])
def test_group__list_of_a_segment__has_texts_alone(count: int) -> None:
    groups = {"vip": Members(["ann", "7", *map(str, range(100, 98 + count))])}
    inside = compile_condition({"ids": {"$inGroup": "vip"}}, groups=groups)
    outside = compile_condition({"ids": {"$notInGroup": "vip"}}, groups=groups)
    asked: list[Any] = ["ann", "7", ["x", "ann"], 7, True, None, ["x"], {}, [["ann"], {}]]
    assert [inside({"ids": each}) for each in asked] == [True, True, True, *[False] * 6]
    assert [outside({"ids": each}) for each in asked] == [False, False, False, *[True] * 6]


def test_group__attribute_that_is_a_list__any_element_counts() -> None:
    groups = {"vip": ["ann", 7]}
    inside = compile_condition({"ids": {"$inGroup": "vip"}}, groups=groups)
    outside = compile_condition({"ids": {"$notInGroup": "vip"}}, groups=groups)
    assert [inside({"ids": each}) for each in (["x", 7], ["x"], "ann", None)] == [True, False, True, False]
    assert [outside({"ids": each}) for each in (["x", 7], ["x"], "ann", None)] == [False, True, False, True]


@pytest.mark.parametrize(
    ("document", "path", "message"),
    [
        (
            {"$or": [{}, {"age": {"$gt": [1]}}]},
            "condition.$or[1].age.$gt",
            "a number or a text; got a list of 1",
        ),
        ({"age": {"$gt": None}}, "condition.age.$gt", "must be a number or a text; got null"),
        ({"age": {"$gt": True}}, "condition.age.$gt", "must be a number or a text; got true"),
        ({"age": {"$gte": 1, "$max": 2}}, "condition.age.$max", "is not an operator; there are $eq, $ne"),
        ({"age": {"$or": [1]}}, "condition.age.$or", "is not an operator"),
        ({"$gt": 5}, "condition.$gt", "belongs below the name of an attribute; got 5"),
        ({"$size": 5}, "condition.$size", "belongs below the name of an attribute"),
        ({"$adn": [{"a": 1}]}, "condition.$adn", "here may stand $and, $or, $nor, $not and names"),
        ({"$or": {"a": 1}}, "condition.$or", "must be a list of conditions; got an object"),
        ({"$and": ["a"]}, "condition.$and[0]", 'must be an object; got "a"'),
        ({"$not": 1.5}, "condition.$not", "must be an object; got 1.5"),
        ({"a": {"$in": "US"}}, "condition.a.$in", 'must be a list; got "US"'),
        ({"a": {"$ini": "US"}}, "condition.a.$ini", 'must be a list; got "US"'),
        ({"a": {"$all": "US"}}, "condition.a.$all", "must be a list"),
        ({"a": {"$alli": "US"}}, "condition.a.$alli", "must be a list"),
        ({"a": {"$alli": [{"$x": 1}]}}, "condition.a.$alli[0].$x", "is not an operator"),
        ({"a": {"$exists": "yes"}}, "condition.a.$exists", "must be true or false"),
        ({"a": {"$type": "text"}}, "condition.a.$type", "must be one of string, number, boolean"),
        ({"a": {"$type": []}}, "condition.a.$type", "got a list of 0"),
        ({"a": {"$vgt": []}}, "condition.a.$vgt", "must be a version such as 1.2.3"),
        ({"a": {"$regex": 5}}, "condition.a.$regex", "must be a regular expression; got 5"),
        (
            {"a": {"$regex": "(?=x)"}},
            "condition.a.$regex",
            "is not a usable regular expression: invalid perl operator",
        ),
        ({"a": {"$elemMatch": 5}}, "condition.a.$elemMatch", "must be an object"),
        ({"a": {"$inGroup": 5}}, "condition.a.$inGroup", "must be the name of a group"),
        ({"a": {"$size": "2"}}, "condition.a.$size", 'must be a number, or an object of operators; got "2"'),
        ({"a": {"$size": {"b": 2}}}, "condition.a.$size", "must be a number, or an object of operators"),
        ({"a": {"$gt": 5, "b": 6}}, "condition.a", "mixes operators with other names; got an object"),
        ({"a": {"$in": "x" * 100}}, "condition.a.$in", f'got "{"x" * 60}…"'),
        ({"a": {"$in": 10**5000}}, "condition.a.$in", "got a number of many digits"),
    ],
)
def test_compile__mistake__names_place_value_and_what_would_be_right(
    document: dict[str, Any], path: str, message: str
) -> None:
    with pytest.raises(Invalid) as refusal:
        compile_condition(document)
    assert [each.path for each in refusal.value.errors] == [path]
    assert message in refusal.value.errors[0].message


def nested(levels: int) -> dict[str, Any]:
    document: dict[str, Any] = {"a": 1}
    for _ in range(levels):
        document = {"$not": document}
    return document


def test_compile__as_deep_as_allowed__holds_or_not() -> None:
    assert holds(nested(MAX_DEPTH), {"a": 1}) is True
    with pytest.raises(Invalid, match=f"nest {MAX_DEPTH} levels"):
        compile_condition(nested(MAX_DEPTH + 1))


def test_compile__value_nested_beyond_the_stack__refused() -> None:
    value: Any = 1
    for _ in range(5_000):
        value = [value]
    for document in ({"a": value}, {"a": {"$eq": value}}, {"a": {"$in": value}}):
        with pytest.raises(Invalid, match=f"nest {MAX_DEPTH} levels"):
            compile_condition(document)
    assert holds({"a": [[1]]}, {"a": value}) is False


def test_compile__too_many_parts__refused() -> None:
    compile_condition({"$or": [{"a": 1}] * (MAX_PARTS // 2 - 1)})
    with pytest.raises(Invalid, match=f"{MAX_PARTS} parts"):
        compile_condition({"$or": [{"a": 1}] * MAX_PARTS})


def test_condition__document_changed_afterwards__does_not_change_it() -> None:
    document: dict[str, Any] = {"country": {"$in": ["US"]}, "tags": ["a"]}
    condition = compile_condition(document)
    document["country"]["$in"].append("DE")
    document["tags"].append("b")
    assert condition({"country": "DE", "tags": ["a"]}) is False
    assert condition({"country": "US", "tags": ["a"]}) is True


def test_patterns__as_many_as_there_may_be__and_no_more() -> None:
    parts = [{"a": {operator: "x"}} for operator in ("$regex", "$regexi", "$notRegex", "$notRegexi") * 13]
    compile_condition({"$or": parts[:MAX_PATTERNS]})
    with pytest.raises(Invalid, match=f"{MAX_PATTERNS} regular expressions") as caught:
        compile_condition({"$or": parts})
    assert caught.value.errors[0].path == "condition.$or[50].a.$notRegex"


def test_patterns__one_evaluation_spends_no_more_than_it_may__the_next_begins_anew() -> None:
    # Too many states to remember: each text of this length takes a sixth of a second.
    condition = compile_condition({"tags": {"$elemMatch": {"$regex": ".*(a|b).{400}$"}}})
    long = "c" * 3_500
    ends = "a" + "c" * 400
    assert condition({"tags": [long, ends]}) is False
    assert condition({"tags": [ends, long]}) is True
    assert condition({"tags": [long] * 10_000}) is False
    honest = {
        "$or": [{"agent": {"$regex": f"(Chrome|Firefox|Safari)/{each}[.][0-9]+"}} for each in range(50)]
    }
    assert compile_condition(honest)({"agent": "x" * 1_000 + " Firefox/49.1"}) is True
