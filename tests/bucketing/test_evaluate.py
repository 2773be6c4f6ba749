"""Who gets what and why: each reason, in its order, for new units and for those on record."""

import json
from typing import Any

import pytest
from growthbook import Experiment as SdkExperiment
from growthbook import GrowthBook
from hypothesis import given
from hypothesis import strategies as st

from assay.bucketing.conditions import compile_condition
from assay.bucketing.evaluate import Decision, Reason, evaluate, explain, required, serve
from assay.bucketing.ruleset import Experiment, Layer, Members, Requirement, Segment, Status, Variant

CONTROL = Variant(10, "control", "Control", 0.5, is_control=True, config={"color": "grey"})
RED = Variant(11, "red", "Red", 0.5, config={"color": "red"})
OFF = Variant(12, "off", "Off", 0.0, enabled=False)
GONE = Variant(13, "gone", "Gone", 0.0, removed=True)

# Where "user-1" stands under the seed "checkout", and in the layer "page".
BUCKET = 0.7893
SLOT = 9410

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
any_text = st.text(st.characters(exclude_categories=()), max_size=20)


def experiment(**given: Any) -> Experiment:
    return Experiment.compile(
        **{
            "id": 1,
            "key": "checkout",
            "name": "Checkout",
            "status": Status.RUNNING,
            "variants": [CONTROL, RED, OFF, GONE],
            **given,
        }
    )


def reason_of(compiled: Experiment, unit_id: str | None = "user-1", **attributes: Any) -> Reason:
    return evaluate(compiled, unit_id, unit_id, attributes).reason


def test_evaluate__two_users__variant_by_the_range_they_fall_in() -> None:
    assert evaluate(experiment(), "user-1", "user-1", {}) == Decision(RED, Reason.ASSIGNED, BUCKET)
    assert evaluate(experiment(), "user-3", "user-3", {}) == Decision(CONTROL, Reason.ASSIGNED, 0.4914)


@pytest.mark.parametrize("unit_id", [None, ""])
def test_evaluate__no_unit__no_unit(unit_id: str | None) -> None:
    assert evaluate(experiment(), unit_id, "user-1", {}) == Decision(None, Reason.NO_UNIT)


@pytest.mark.parametrize("status", [each for each in Status if each is not Status.RUNNING])
def test_evaluate__not_running__nobody(status: Status) -> None:
    assert evaluate(experiment(status=status), "user-1", "user-1", {}) == Decision(None, Reason.NOT_RUNNING)


def test_evaluate__segments__any_of_them_is_enough() -> None:
    compiled = experiment(
        segments=[
            Segment(1, "us", compile_condition({"country": "US"})),
            Segment(2, "friends", None, Members(["user-1"])),
        ]
    )
    assert reason_of(compiled, "user-1") is Reason.ASSIGNED
    assert reason_of(compiled, "user-2", country="US") is Reason.ASSIGNED
    assert reason_of(compiled, "user-2", country="DE") is Reason.NOT_IN_SEGMENT


def test_evaluate__segments_and_condition__both_must_hold() -> None:
    compiled = experiment(
        segments=[Segment(1, "us", compile_condition({"country": "US"}))],
        condition=compile_condition({"age": {"$gte": 18}}),
    )
    assert reason_of(compiled, country="US", age=18) is Reason.ASSIGNED
    assert reason_of(compiled, country="US", age=17) is Reason.NOT_IN_SEGMENT
    assert reason_of(compiled, country="DE", age=18) is Reason.NOT_IN_SEGMENT


def test_evaluate__unit_that_is_not_the_user__list_of_members_is_asked_for_the_user() -> None:
    compiled = experiment(unit="account_id", segments=[Segment(1, "friends", None, Members(["ann"]))])
    assert evaluate(compiled, "acme", "ann", {}).reason is Reason.ASSIGNED
    assert evaluate(compiled, "ann", "bob", {}).reason is Reason.NOT_IN_SEGMENT
    assert evaluate(compiled, "ann", None, {}).reason is Reason.NOT_IN_SEGMENT
    by_user = experiment(segments=compiled.segments)
    assert evaluate(by_user, "ann", None, {}).reason is Reason.ASSIGNED


@pytest.mark.parametrize(
    ("document", "attributes", "expected"),
    [
        ({"id": "ann"}, {}, Reason.ASSIGNED),
        ({"user_id": "ann"}, {}, Reason.ASSIGNED),
        ({"account_id": "acme"}, {}, Reason.ASSIGNED),
        ({"id": "ann"}, {"id": "other"}, Reason.NOT_IN_SEGMENT),
        ({"account_id": "own"}, {"account_id": "own"}, Reason.ASSIGNED),
    ],
)
def test_evaluate__condition_on_ids__added_where_absent(
    document: dict[str, Any], attributes: dict[str, Any], expected: Reason
) -> None:
    compiled = experiment(unit="account_id", condition=compile_condition(document))
    assert evaluate(compiled, "acme", "ann", attributes).reason is expected


def test_evaluate__condition__attributes_of_the_caller_stay_as_they_are() -> None:
    attributes = {"country": "US"}
    evaluate(experiment(condition=compile_condition({"country": "US"})), "u", "u", attributes)
    assert attributes == {"country": "US"}


def test_evaluate__layer__only_the_slots_of_this_experiment() -> None:
    assert reason_of(experiment(layer=Layer.of("page", [(SLOT, 10_000)]))) is Reason.ASSIGNED
    assert (
        reason_of(experiment(layer=Layer.of("page", [(0, SLOT), (SLOT + 1, 10_000)])))
        is Reason.LAYER_EXCLUDED
    )


def test_evaluate__outside_coverage_or_in_a_free_share__not_in_traffic_with_the_bucket() -> None:
    for compiled in (
        experiment(coverage=0.0),
        experiment(variants=[Variant(1, "a", "A", 0.0), Variant(2, "b", "B", 0.0)]),
        experiment(variants=[]),
    ):
        assert evaluate(compiled, "user-1", "user-1", {}) == Decision(None, Reason.NOT_IN_TRAFFIC, BUCKET)


def test_evaluate__everything_against_the_unit__the_first_obstacle_is_named() -> None:
    obstacles: dict[str, Any] = {
        "condition": compile_condition({"country": "US"}),
        "layer": Layer.of("page", []),
        "coverage": 0.0,
    }
    assert reason_of(experiment(status=Status.PAUSED, **obstacles), None) is Reason.NO_UNIT
    assert reason_of(experiment(status=Status.PAUSED, **obstacles)) is Reason.NOT_RUNNING
    assert reason_of(experiment(**obstacles)) is Reason.NOT_IN_SEGMENT
    del obstacles["condition"]
    assert reason_of(experiment(**obstacles)) is Reason.LAYER_EXCLUDED
    del obstacles["layer"]
    assert reason_of(experiment(**obstacles)) is Reason.NOT_IN_TRAFFIC


def test_evaluate__many_users__same_variant_as_the_sdk_evaluating_locally() -> None:
    compiled = experiment(
        variants=[Variant(at, str(at), str(at), share) for at, share in enumerate((0.2, 0.3, 0.5))],
        coverage=0.8,
        condition=compile_condition({"number": {"$gt": 10}}),
        layer=Layer.of("page", [(1000, 4000), (5000, 9000)]),
    )
    sdk = GrowthBook(attributes={})
    local = SdkExperiment(
        key="checkout",
        variations=[0, 1, 2],
        seed="checkout",
        hashVersion=2,
        weights=[0.2, 0.3, 0.5],
        coverage=0.8,
        condition={"number": {"$gt": 10}},
        filters=[
            {
                "seed": "layer:page",
                "attribute": "id",
                "hashVersion": 2,
                "ranges": [(0.1, 0.4), (0.5, 0.9)],
            }
        ],
    )
    found: set[int | None] = set()
    for number in range(500):
        unit_id = f"user-{number}"
        sdk.set_attributes({"id": unit_id, "number": number})
        result = sdk.run(local)
        expected = result.variationId if result.inExperiment else None
        variant = evaluate(compiled, unit_id, unit_id, {"number": number}).variant
        assert (variant.id if variant else None) == expected
        found.add(expected)
    sdk.destroy()
    assert found == {0, 1, 2, None}


@pytest.mark.parametrize(
    ("status", "given", "recorded", "variant", "reason"),
    [
        # On record: kept while running and while paused, whatever evaluation would say now.
        (Status.RUNNING, {"coverage": 0.0}, 11, RED, Reason.ASSIGNED),
        (Status.PAUSED, {}, 11, RED, Reason.ASSIGNED),
        (Status.PAUSED, {}, None, None, Reason.NOT_RUNNING),
        (Status.DRAFT, {}, 11, None, Reason.NOT_RUNNING),
        (Status.STOPPED, {}, 11, None, Reason.NOT_RUNNING),
        (Status.ARCHIVED, {}, 11, None, Reason.NOT_RUNNING),
        # On record, but switched off, removed or unknown: the control.
        (Status.RUNNING, {}, 12, CONTROL, Reason.VARIANT_DISABLED),
        (Status.PAUSED, {}, 13, CONTROL, Reason.VARIANT_DISABLED),
        (Status.RUNNING, {}, 99, CONTROL, Reason.VARIANT_DISABLED),
        # Forced for this unit: before, during and while paused, over what is on record.
        (Status.DRAFT, {"overrides": {"user-1": 1}}, None, RED, Reason.OVERRIDE),
        (Status.RUNNING, {"overrides": {"user-1": 1}}, 10, RED, Reason.OVERRIDE),
        (Status.PAUSED, {"overrides": {"user-1": 1}}, None, RED, Reason.OVERRIDE),
        (Status.STOPPED, {"overrides": {"user-1": 1}}, None, None, Reason.NOT_RUNNING),
        (Status.ARCHIVED, {"overrides": {"user-1": 1}}, None, None, Reason.NOT_RUNNING),
        (Status.PAUSED, {"overrides": {"user-2": 1}}, None, None, Reason.NOT_RUNNING),
        # A winner, once stopped, is for everybody.
        (Status.STOPPED, {"winner": 1}, None, RED, Reason.ROLLED_OUT),
        (Status.STOPPED, {"winner": 1, "overrides": {"user-1": 0}}, 10, RED, Reason.ROLLED_OUT),
        (Status.RUNNING, {"winner": 1}, 10, CONTROL, Reason.ASSIGNED),
        (Status.ARCHIVED, {"winner": 1}, 10, None, Reason.NOT_RUNNING),
        (Status.RUNNING, {"variants": []}, 10, None, Reason.NOT_RUNNING),
    ],
)
def test_serve__status_record_override_winner__by_value(
    status: Status, given: dict[str, Any], recorded: int | None, variant: Variant | None, reason: Reason
) -> None:
    assert serve(experiment(status=status, **given), "user-1", recorded) == Decision(variant, reason)


def test_serve__running_without_a_record__evaluation_decides() -> None:
    assert serve(experiment(), "user-1", None) is None


conditions = st.sampled_from(
    [
        {"a": 1},
        {"a.b": {"$gt": 1}},
        {"a": {"$elemMatch": {"b": 1}}},
        {"a": {"$regex": "x+"}},
        {"a": {"$vgt": "1"}},
    ]
)


@given(
    status=st.sampled_from(Status),
    unit=st.sampled_from(["user_id", "account_id"]),
    unit_id=st.none() | any_text,
    user_id=st.none() | any_text,
    attributes=st.dictionaries(st.sampled_from(["a", "id", "user_id", "account_id"]), json_values),
    document=conditions,
    recorded=st.none() | st.integers(),
    coverage=st.floats(),
    winner=st.none() | st.integers(-2, 5),
)
def test_evaluate_serve_explain__anything__an_answer_that_hangs_together(
    status: Status,
    unit: str,
    unit_id: str | None,
    user_id: str | None,
    attributes: dict[str, Any],
    document: dict[str, Any],
    recorded: int | None,
    coverage: float,
    winner: int | None,
) -> None:
    compiled = experiment(
        status=status,
        unit=unit,
        coverage=coverage,
        winner=winner,
        segments=[Segment(1, "s", compile_condition(document), Members(["x"]))],
        condition=compile_condition({"$not": document}),
        layer=Layer.of("page", [(0, 5000)]),
    )
    fresh = evaluate(compiled, unit_id, user_id, attributes)
    assert (fresh.variant is not None) is (fresh.reason is Reason.ASSIGNED)
    settled = serve(compiled, unit_id or "", recorded)
    if settled is not None:
        assert (settled.variant is None) is (settled.reason is Reason.NOT_RUNNING)
    explained = explain(
        compiled, unit_id, user_id, attributes, {} if recorded is None else {compiled.id: recorded}
    ).decision
    assert explained == (settled if unit_id and settled is not None else fresh)


def test_explain__new_unit__a_receipt_of_every_step() -> None:
    us, grown = {"country": "US"}, {"age": {"$gte": 18}}
    compiled = experiment(
        segments=[
            Segment(1, "us", compile_condition(us), rule=us),
            Segment(2, "friends", None, Members(["user-1"])),
        ],
        condition=compile_condition(grown),
        rule=grown,
        layer=Layer.of("page", [(0, 10_000)]),
        coverage=1.0,
        phase=2,
        version=9,
    )
    document = explain(compiled, "user-1", "user-1", {"country": "DE", "age": 30}).as_document()
    assert json.loads(json.dumps(document)) == {
        "experiment_id": 1,
        "experiment_key": "checkout",
        "status": "running",
        "version": 9,
        "phase": 2,
        "user_id": "user-1",
        "unit": "user_id",
        "unit_id": "user-1",
        "attributes": {"id": "user-1", "user_id": "user-1", "country": "DE", "age": 30},
        "hash": {"version": 2, "seed": "checkout", "input": "checkoutuser-1", "bucket": BUCKET},
        "coverage": 1.0,
        "ranges": [
            {"variant_id": 10, "variant": "Control", "enabled": True, "from": 0.0, "to": 0.5},
            {"variant_id": 11, "variant": "Red", "enabled": True, "from": 0.5, "to": 1.0},
            {"variant_id": 12, "variant": "Off", "enabled": False, "from": 1.0, "to": 1.0},
            {"variant_id": 13, "variant": "Gone", "enabled": False, "from": 1.0, "to": 1.0},
        ],
        "layer": {
            "key": "page",
            "seed": "layer:page",
            "input": "layer:pageuser-1",
            "slot": SLOT,
            "slots": [[0, 10_000]],
            "inside": True,
        },
        "segments": [
            {
                "id": 1,
                "name": "us",
                "member": False,
                "rule": False,
                "clause": {"path": "rules.country", "wanted": "US", "found": "DE", "holds": False},
                "matched": False,
            },
            {"id": 2, "name": "friends", "member": True, "rule": False, "clause": None, "matched": True},
        ],
        "condition": True,
        "condition_clause": {
            "path": "condition.age",
            "wanted": {"$gte": 18},
            "found": 30,
            "holds": True,
        },
        "attributes_used": {"age": 30, "country": "DE"},
        "refused_rules": [],
        "prerequisites": [],
        "holdouts": [],
        "assigned_variant_id": None,
        "assigned": True,
        "variant_id": 11,
        "variant": "Red",
        "reason": "assigned",
    }


def test_explain__record_and_no_unit__what_decided_instead() -> None:
    kept = explain(experiment(), "user-1", "user-1", {}, {1: 12}).as_document()
    assert (kept["reason"], kept["variant_id"], kept["assigned_variant_id"]) == ("variant_disabled", 10, 12)
    assert (kept["layer"], kept["condition"], kept["segments"]) == (None, None, [])
    nobody = explain(experiment(unit="account_id"), None, "user-1", {}).as_document()
    assert (nobody["reason"], nobody["assigned"], nobody["variant_id"]) == ("no_unit", False, None)
    assert nobody["hash"] == {"version": 2, "seed": "checkout", "input": None, "bucket": None}
    assert nobody["attributes"] == {"id": "user-1", "user_id": "user-1", "account_id": None}


def test_explain__experiments_that_many_require__each_is_told_of_once() -> None:
    layers: list[list[Experiment]] = [[]]
    for level in range(5):
        parents = [Requirement(each, frozenset(), holdout=False) for each in layers[-1]]
        layers.append(
            [experiment(id=level * 10 + at + 1, key=f"e{level}-{at}", requires=parents) for at in range(8)]
        )
    top = layers[-1][0]
    assert required(top) == {level * 10 + at + 1 for level in range(4) for at in range(8)}
    told = explain(top, "user-1", "user-1", {}).as_document()["prerequisites"]
    found: list[dict[str, Any]] = []
    while told:
        found += told
        told = [below for each in told for below in each["prerequisites"]]
    # Of 4,680 paths, one for each pair of experiments of which one requires the other.
    assert len(found) == 8 + 3 * 64
    first = [each["experiment_key"] for each in found if not each["repeated"]]
    assert len(first) == len(set(first)) == 32
    assert all(each["met"] and each["variant"] for each in found)
    assert all(
        bool(each["prerequisites"]) is not (each["repeated"] or each["experiment_key"][:2] == "e0")
        for each in found
    )
