"""The payload for GrowthBook's SDKs: what is in it, what never is, and that an SDK agrees with the server."""

import json
import random
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
from growthbook import GrowthBook
from hypothesis import given
from hypothesis import strategies as st

from assay.bucketing.conditions import compile_condition
from assay.bucketing.evaluate import Reason, decide
from assay.bucketing.features import Caller, Features, Miss, Source
from assay.bucketing.payload import MOST_IDS, feature_of
from assay.bucketing.ruleset import Experiment, Layer, Members, Requirement, Segment, Status, Variant, lists

#: Users of the long comparison; the SDK takes seven minutes for 100,000 of them.
USERS = [1_000, pytest.param(50_000, marks=pytest.mark.nightly)]

CONTROL = Variant(10, "control", "Control", 0.5, is_control=True, config={"color": "grey"})
RED = Variant(11, "red", "Red one", 0.5)


def experiment(number: int = 1, **given: Any) -> Experiment:
    rule = given.pop("rule", None)
    return Experiment.compile(
        **{
            "id": number,
            "key": f"test-{number}",
            "name": "Raise the price for Bob",
            "status": Status.RUNNING,
            "variants": [CONTROL, RED],
            "rule": rule,
            "condition": compile_condition(rule) if rule else None,
            **given,
        }
    )


def segment(number: int, rule: dict[str, Any] | None = None, members: list[str] | None = None) -> Segment:
    return Segment(
        number,
        "Friends of Bob",
        compile_condition(rule) if rule else None,
        Members(members) if members is not None else None,
        rule,
    )


class Payload(NamedTuple):
    """The features of several experiments together."""

    features: dict[str, Any]
    groups: dict[str, list[str]]
    remote: dict[str, str]


def payload_of(compiled: Iterable[Experiment]) -> Payload:
    payload = Payload({}, {}, {})
    for each in compiled:
        feature = feature_of(each)
        if feature is not None and feature.definition is not None:
            payload.features[each.key] = feature.definition
            payload.features.update(feature.others)
            payload.groups.update(feature.groups)
        elif feature is not None and feature.remote is not None:
            payload.remote[each.key] = feature.remote
    return payload


def rule_of(compiled: Experiment) -> dict[str, Any]:
    found: dict[str, Any] = payload_of([compiled]).features[compiled.key]["rules"][-1]
    return found


def sdk(compiled: Iterable[Experiment], **attributes: Any) -> GrowthBook:
    payload = payload_of(compiled)
    sent = json.loads(json.dumps([payload.features, payload.groups]))
    return GrowthBook(features=sent[0], saved_groups=sent[1], attributes=attributes)


def server_value(compiled: Experiment, unit_id: str | None, user_id: str, attributes: dict[str, Any]) -> Any:
    """The value that the server gives to a unit without a record."""
    variant = decide(compiled, unit_id, user_id, attributes).variant
    return None if variant is None else variant.config or variant.name


def test_payload__running_experiment__one_rule_in_growthbook_terms() -> None:
    compiled = experiment(
        coverage=0.5, phase=3, layer=Layer.of("page", [(2000, 4000), (6000, 7000)]), rule={"age": {"$gt": 5}}
    )
    assert payload_of([compiled]).features == {
        "test-1": {
            "defaultValue": None,
            "rules": [
                {
                    "key": "test-1",
                    "seed": "test-1",
                    "hashAttribute": "id",
                    "hashVersion": 2,
                    "variations": [{"color": "grey"}, "Red one"],
                    "weights": [0.5, 0.5],
                    "coverage": 0.5,
                    "meta": [{"key": "control"}, {"key": "red"}],
                    "phase": "3",
                    "filters": [
                        {
                            "seed": "layer:page",
                            "attribute": "id",
                            "hashVersion": 2,
                            "ranges": [[0.2, 0.4], [0.6, 0.7]],
                        }
                    ],
                    "condition": {"age": {"$gt": 5}},
                }
            ],
        }
    }


@pytest.mark.parametrize("status", [each for each in Status if each is not Status.RUNNING])
def test_payload__not_running__not_in_it(status: Status) -> None:
    payload = payload_of([experiment(status=status, overrides={"qa": 1})])
    assert payload == ({}, {}, {})


def test_payload__stopped_with_a_winner__everybody_gets_its_value() -> None:
    payload = payload_of([experiment(status=Status.STOPPED, winner=1, overrides={"qa": 0})])
    assert payload.features == {"test-1": {"defaultValue": "Red one"}}


def test_payload__names_that_people_gave__are_not_sent() -> None:
    compiled = experiment(segments=[segment(1, {"country": "US"}, ["ada"])])
    assert "Bob" not in json.dumps(payload_of([compiled]))


def test_payload__overrides__rules_of_their_own_before_the_experiment() -> None:
    compiled = experiment(overrides={"zoe": 1, "ada": 1, "qa": 0}, unit="account_id")
    rules = payload_of([compiled]).features["test-1"]["rules"]
    assert rules[:2] == [
        {"condition": {"account_id": {"$in": ["qa"]}}, "force": {"color": "grey"}},
        {"condition": {"account_id": {"$in": ["ada", "zoe"]}}, "force": "Red one"},
    ]
    assert rules[2]["hashAttribute"] == "account_id"


def test_payload__segments__any_of_them_and_lists_once_for_all() -> None:
    friends, adults = segment(7, None, ["bob", "ada"]), segment(8, {"user_id": {"$ne": "eve"}, "age": 18})
    both = experiment(1, segments=[friends, adults], rule={"$not": {"user_id": "mallory"}})
    one = experiment(2, segments=[friends])
    payload = payload_of([one, both])
    assert payload.groups == {"segment-7": ["ada", "bob"]}
    assert payload.features["test-1"]["rules"][0]["condition"] == {
        "$and": [
            {"$or": [{"id": {"$inGroup": "segment-7"}}, {"id": {"$ne": "eve"}, "age": 18}]},
            {"$not": {"id": "mallory"}},
        ]
    }
    assert payload.features["test-2"]["rules"][0]["condition"] == {"id": {"$inGroup": "segment-7"}}


def test_payload__user_id_and_id_in_one_rule__both_hold() -> None:
    assert rule_of(experiment(rule={"id": "a", "user_id": "b"}))["condition"] == {
        "$and": [{"id": "b"}, {"id": "a"}]
    }


def test_payload__segment_of_nobody__nobody_gets_in() -> None:
    empty = [experiment(segments=[segment(1)])]
    assert sdk(empty, id="user-1").get_feature_value("test-1", "code") == "code"


def test_payload__list_too_long_to_send__named_as_remote() -> None:
    ids = [str(number) for number in range(MOST_IDS + 1)]
    long = experiment(1, segments=[segment(3, None, ids)])
    forced = experiment(2, overrides=dict.fromkeys(ids, 0))
    assert payload_of([long, forced, experiment(3)]).remote == {
        "test-1": "segment 3 lists 10001 users; at most 10000 are sent",
        "test-2": "10001 overrides; at most 10000 are sent",
    }


def naming_lists(rule: dict[str, Any], **given: Any) -> Experiment:
    """An experiment whose condition names the list `friends-of-bob`, of segment 7."""
    groups = {"friends-of-bob": segment(7, None, ["ada", "acme-1"])}
    return experiment(
        rule=rule, condition=compile_condition(rule, groups=lists(groups)), groups=groups, **given
    )


@pytest.mark.parametrize(
    "rule",
    [
        {"user_id": {"$inGroup": "friends-of-bob"}},
        {"id": {"$notInGroup": "friends-of-bob"}},
        {"account": {"$inGroup": "friends-of-bob"}, "$not": {"id": {"$inGroup": "friends-of-bob"}}},
        {"$or": [{"accounts": {"$inGroup": "friends-of-bob"}}, {"id": {"$in": ["cyd"]}}]},
        {"accounts": {"$elemMatch": {"$inGroup": "friends-of-bob"}}},
        {"account": {"$not": {"$notInGroup": "friends-of-bob"}}},
    ],
)
def test_payload__lists_that_conditions_name__the_sdk_gives_what_the_server_gives(
    rule: dict[str, Any],
) -> None:
    compiled = naming_lists(rule)
    payload = payload_of([compiled])
    assert payload.groups == {"segment-7": ["acme-1", "ada"]}
    assert "friends" not in json.dumps(payload)
    ours = Features({"features": payload.features, "savedGroups": payload.groups})
    seen = set()
    for user in ("ada", "bob", "cyd"):
        for account in ("acme-1", "acme-2", 1, None):
            known = {"account": account, "accounts": ["x", account]}
            value = sdk([compiled], id=user, **known).get_feature_value("test-1", None)
            assert value == server_value(compiled, user, user, known), (user, account)
            assert value == ours.evaluate("test-1", Caller({"id": user, **known})).value
            seen.add(str(value))
    assert "None" in seen
    assert len(seen) > 1


def test_payload__list_of_a_segments_rule__is_sent_with_it() -> None:
    rule = {"id": {"$notInGroup": "staff"}, "country": "DE"}
    groups = {"staff": segment(9, None, ["ada"])}
    compiled = experiment(
        segments=[Segment(8, "s", compile_condition(rule, groups=lists(groups)), None, rule, groups=groups)]
    )
    assert payload_of([compiled]).groups == {"segment-9": ["ada"]}
    assert rule_of(compiled)["condition"] == {"id": {"$notInGroup": "segment-9"}, "country": "DE"}
    for user in ("ada", "bob"):
        value = sdk([compiled], id=user, country="DE").get_feature_value("test-1", None)
        assert value == server_value(compiled, user, user, {"country": "DE"})
        assert (value is None) is (user == "ada")


def test_payload__list_that_may_not_be_sent__the_server_evaluates_what_names_it() -> None:
    rule = {"id": {"$inGroup": "vip"}}
    long = segment(7, None, [str(number) for number in range(MOST_IDS + 1)])
    hidden = Segment(8, "s", None, Members(["ada"]), private=True)
    experiments = [
        experiment(1, rule=rule, groups={"vip": long}),
        experiment(2, rule=rule, groups={"vip": hidden}),
        experiment(3, segments=[Segment(9, "s", None, None, rule, groups={"vip": hidden})]),
    ]
    payload = payload_of(experiments)
    assert (payload.features, payload.groups) == ({}, {})
    assert payload.remote == {
        "test-1": "segment 7 lists 10001 users; at most 10000 are sent",
        "test-2": "segment 8 is private",
        "test-3": "segment 8 is private",
    }


def test_payload__shares_that_no_sdk_would_compute__as_ranges() -> None:
    half = [Variant(10, "a", "a", 0.5), Variant(11, "b", "b", 0.2)]
    assert rule_of(experiment(variants=half))["ranges"] == [[0.0, 0.5], [0.5, 0.7]]
    assert "ranges" not in rule_of(experiment())


def test_payload__variant_switched_off__its_place_is_kept_with_the_value_of_the_control() -> None:
    off = [CONTROL, Variant(11, "red", "Red", 0.25, enabled=False), Variant(12, "blue", "Blue", 0.25)]
    rule = rule_of(experiment(variants=off))
    assert rule["variations"] == [{"color": "grey"}, {"color": "grey"}, "Blue"]
    assert rule["weights"] == [pytest.approx(2 / 3), 0.0, pytest.approx(1 / 3)]


def test_payload__one_variant__an_sdk_runs_it() -> None:
    alone = [experiment(variants=[Variant(1, "control", "Control", 1.0)], coverage=0.5)]
    found = {sdk(alone, id=f"u{number}").get_feature_value("test-1", "code") for number in range(50)}
    assert found == {"Control", "code"}


conditions = st.sampled_from(
    [
        None,
        {"country": "US"},
        {"country": {"$in": ["US", "DE"]}, "age": {"$gte": 18}},
        {"$or": [{"age": {"$lt": 18}}, {"tags": {"$elemMatch": {"$eq": "beta"}}}]},
        {"user_id": {"$regex": "1$"}},
        {"version": {"$vgt": "1.2.0"}},
        {"$not": {"email": {"$exists": True}}},
    ]
)
people = st.fixed_dictionaries(
    {},
    optional={
        "country": st.sampled_from(["US", "DE", "FR"]),
        "age": st.integers(0, 99),
        "tags": st.lists(st.sampled_from(["beta", "gamma"]), max_size=2),
        "version": st.sampled_from(["1.2.0", "1.10.0", "0.9"]),
        "email": st.just("x@example.com"),
        "account_id": st.integers(0, 50).map(lambda number: f"acme-{number}"),
    },
)
ids = st.integers(0, 400).map(lambda number: f"user-{number}")


@st.composite
def arms(draw: st.DrawFn) -> list[Variant]:
    shares = draw(st.lists(st.integers(0, 10), min_size=1, max_size=5))
    whole = max(sum(shares), 1) if draw(st.booleans()) else 50
    return [
        Variant(
            number,
            f"v{number}",
            f"V{number}",
            share / whole,
            enabled=draw(st.integers(0, 5)) > 0,
            config={"n": number} if draw(st.booleans()) else {},
        )
        for number, share in enumerate(shares)
    ]


@st.composite
def experiments(draw: st.DrawFn) -> Experiment:
    variants = draw(arms())
    cuts = sorted(draw(st.sets(st.integers(0, 10_000), max_size=6)))
    attached = [
        segment(
            draw(st.integers(1, 5)) * 10 + at, draw(conditions), draw(st.none() | st.lists(ids, max_size=5))
        )
        for at in range(draw(st.integers(0, 2)))
    ]
    return experiment(
        draw(st.integers(1, 1000)),
        variants=variants,
        unit=draw(st.sampled_from(["user_id", "user_id", "account_id"])),
        coverage=draw(st.sampled_from([0.0, 0.1, 0.5, 1.0])),
        rule=draw(conditions),
        segments=attached,
        layer=draw(st.none() | st.just(Layer.of("page", zip(cuts[::2], cuts[1::2], strict=False)))),
        overrides=draw(st.dictionaries(ids, st.integers(0, len(variants) - 1), max_size=3)),
    )


@given(compiled=experiments(), user_id=ids, attributes=people)
def test_payload__any_experiment_and_user__the_sdk_gives_what_the_server_gives(
    compiled: Experiment, user_id: str, attributes: dict[str, Any]
) -> None:
    unit_id = user_id if compiled.unit == "user_id" else attributes.get("account_id")
    client = sdk([compiled], id=user_id, **attributes)
    found = client.get_feature_value(compiled.key, None)
    assert found == server_value(compiled, unit_id, user_id, attributes)


@st.composite
def families(draw: st.DrawFn) -> list[Experiment]:
    """Experiments of which later ones require earlier ones, by prerequisite or as holdouts, in any state."""
    unit = draw(st.sampled_from(["user_id", "account_id"]))
    family: list[Experiment] = []
    for number in range(1, draw(st.integers(2, 4)) + 1):
        requires = []
        for parent in draw(st.lists(st.sampled_from(family), max_size=2, unique_by=id)) if family else []:
            some = draw(st.lists(st.sampled_from([each.id for each in parent.variants]), max_size=2))
            requires.append(Requirement(parent, frozenset(some), draw(st.booleans())))
        variants = draw(arms())
        if draw(st.booleans()):  # values need not tell variants apart
            variants = [replace(each, config={"same": True}) for each in variants]
        status = draw(st.sampled_from([Status.RUNNING, Status.RUNNING, Status.STOPPED, Status.PAUSED]))
        # Who is forced in an experiment that does not run is no SDK's business.
        forced = draw(st.dictionaries(ids, st.integers(0, len(variants) - 1), max_size=2))
        family.append(
            experiment(
                number,
                key=f"e{number}",
                variants=variants,
                unit=unit,
                status=status,
                winner=draw(st.none() | st.integers(0, len(variants) - 1)),
                coverage=draw(st.sampled_from([0.3, 1.0])),
                rule=draw(conditions),
                overrides=forced if status is Status.RUNNING else {},
                requires=requires,
            )
        )
    return family


@given(family=families(), user_id=ids, attributes=people)
def test_payload__prerequisites_and_holdouts__the_sdk_gives_what_the_server_gives(
    family: list[Experiment], user_id: str, attributes: dict[str, Any]
) -> None:
    client = sdk(family, id=user_id, **attributes)
    payload = payload_of(family)
    ours = Features({"features": payload.features, "savedGroups": payload.groups})
    for compiled in family:
        unit_id = user_id if compiled.unit == "user_id" else attributes.get("account_id")
        if unit_id is None and compiled.status is Status.STOPPED:
            continue  # an SDK that is told of a winner gives it to those without a unit, too
        found = client.get_feature_value(compiled.key, None)
        assert found == server_value(compiled, unit_id, user_id, attributes), compiled.key
        assert ours.evaluate(compiled.key, Caller({**attributes, "id": user_id})).value == found


def test_payload__what_is_required__features_of_their_own_that_say_the_variant() -> None:
    held_out, others = Variant(1, "held_out", "held_out", 0.1), Variant(2, "in", "in", 0.9)
    holdout = experiment(1, key="h", variants=[held_out, others])
    parent = experiment(2, key="p", overrides={"qa": 1}, rule={"country": "US"})
    child = experiment(
        3,
        requires=[
            Requirement(holdout, frozenset([2]), holdout=True),
            Requirement(parent, frozenset(), holdout=False),
        ],
    )
    payload = payload_of([child])
    assert list(payload.features) == ["test-3", "variant:h", "variant:p"]
    assert rule_of(child)["parentConditions"] == [
        {"id": "variant:h", "condition": {"value": {"$in": ["in"]}}},
        {"id": "variant:p", "condition": {"value": {"$ne": None}}},
    ]
    forced, rule = payload.features["variant:p"]["rules"]
    assert (forced["force"], rule["variations"], rule["key"]) == ("red", ["control", "red"], "p")
    won = experiment(4, status=Status.STOPPED, winner=1, requires=child.requires)
    assert payload_of([won]).features["test-4"] == {
        "defaultValue": None,
        "rules": [
            {
                "parentConditions": [{"id": "variant:h", "condition": {"value": {"$in": ["in"]}}}],
                "force": "Red one",
            }
        ],
    }


def test_payload__what_is_required_cannot_be_sent_or_serves_nobody__nothing_of_it_is_told() -> None:
    secret = experiment(1, key="secret", private=True)
    draft = experiment(2, key="draft", status=Status.DRAFT)
    by_secret = experiment(3, requires=[Requirement(secret, frozenset(), holdout=False)])
    below = experiment(4, requires=[Requirement(by_secret, frozenset(), holdout=False)])
    by_draft = experiment(5, requires=[Requirement(draft, frozenset(), holdout=False)], overrides={"qa": 0})
    payload = payload_of([by_secret, below, by_draft])
    assert payload.remote == {
        "test-3": "experiment 1, which it requires, is private",
        "test-4": "experiment 3, which it requires: experiment 1, which it requires, is private",
    }
    forced = {"condition": {"id": {"$in": ["qa"]}}, "force": {"color": "grey"}}
    assert payload.features == {"test-5": {"defaultValue": None, "rules": [forced]}}


MISSED = {
    Reason.NO_UNIT: Miss.NO_UNIT,
    Reason.NOT_IN_SEGMENT: Miss.CONDITION,
    Reason.LAYER_EXCLUDED: Miss.NAMESPACE,
    Reason.NOT_IN_TRAFFIC: Miss.COVERAGE,
}


@given(compiled=experiments(), user_id=ids, attributes=people)
def test_payload__any_experiment_and_user__our_own_evaluation_says_what_the_server_says_and_why(
    compiled: Experiment, user_id: str, attributes: dict[str, Any]
) -> None:
    unit_id = user_id if compiled.unit == "user_id" else attributes.get("account_id")
    payload = payload_of([compiled])
    features = Features({"features": payload.features, "savedGroups": payload.groups})
    found = features.evaluate(compiled.key, Caller({**attributes, "id": user_id}))
    assert features.problems == {}
    decision = decide(compiled, unit_id, user_id, attributes)
    assert found.value == server_value(compiled, unit_id, user_id, attributes)
    if decision.variant is None:
        assert (found.source, found.miss) == (Source.DEFAULT, MISSED[decision.reason])
    elif decision.reason is Reason.OVERRIDE:
        assert found.source is Source.FORCE
    else:
        assert found.ran is not None
        assert (found.ran.variant, found.ran.bucket) == (decision.variant.key, decision.bucket)


@pytest.mark.parametrize("users", USERS)
def test_payload__many_users_and_50_experiments__the_sdk_gives_what_the_server_gives(users: int) -> None:
    chance = random.Random(20260711)
    compiled = []
    for number in range(1, 51):
        count = chance.randint(1, 4)
        low = chance.randrange(7000)
        compiled.append(
            experiment(
                number,
                variants=[
                    Variant(at, f"v{at}", f"V{at}", 1 / count, enabled=at == 0 or chance.random() < 0.9)
                    for at in range(count)
                ],
                coverage=chance.choice([0.2, 0.5, 1.0]),
                rule=chance.choice([None, None, {"country": "US"}, {"age": {"$gt": 30}}]),
                layer=chance.choice([None, Layer.of("page", [(low, low + 1000), (low + 1500, low + 3000)])]),
                overrides={f"user-{chance.randrange(users)}": 0 for _ in range(20)},
                segments=chance.choice(
                    [
                        [],
                        [
                            segment(
                                1,
                                {"country": "DE"},
                                [f"user-{each}" for each in range(0, users, users // 50)],
                            )
                        ],
                    ]
                ),
            )
        )
    client = sdk(compiled)
    payload = payload_of(compiled)
    features = Features({"features": payload.features, "savedGroups": payload.groups})
    in_some = 0
    for user in range(users):
        user_id = f"user-{user}"
        attributes = {"country": chance.choice(["US", "DE", "FR"]), "age": chance.randint(10, 80)}
        client.set_attributes({"id": user_id, **attributes})
        caller = Caller({"id": user_id, **attributes})
        for each in compiled:
            found = client.get_feature_value(each.key, None)
            assert features.evaluate(each.key, caller).value == found
            assert found == server_value(each, user_id, user_id, attributes), (each.key, user_id, attributes)
            in_some += found is not None
    assert 5 < in_some / users < 45  # neither nobody nor everybody, else nothing is compared
