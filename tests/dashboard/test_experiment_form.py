"""The form of an experiment: nothing it shows or hides is lost, and what is wrong stands beside its field."""

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assay.catalog import documents, experiments, holdouts, layers, segments, templates
from assay.catalog.checks import parse
from assay.catalog.database import Actor
from assay.catalog.editing import find
from assay.catalog.inputs import ExperimentCreate
from assay.catalog.layers import LayerInput
from assay.catalog.segments import SegmentInput
from assay.dashboard import experiment_fields, plan_fields
from assay.stores.base import utc_now
from dashboard.conftest import House
from dashboard.test_metrics import Fields, form

#: What only a document can say exactly: more digits, seconds, blanks and breaks than a field keeps.
MAXIMAL: Mapping[str, Any] = {
    "key": "maximal",
    "name": " Everything <at once> ",
    "description": "\n two\r\nlines\t",
    "hypothesis": "Because.\rOr not. ",
    "owner": "checkout, team",
    "tags": ["a, b", '"quoted"', " c", "plain"],
    "start_at": "2199-01-01T09:00:30.123456Z",
    "end_at": "2199-02-01T09:00:01Z",
    "traffic_allocation": 0.0123456789012345,
    "ramp": [
        {"traffic_allocation": 0.1 / 3, "after": "90m"},
        {"traffic_allocation": 1 / 3, "at": "2199-01-03T04:05:06.7Z"},
        {"traffic_allocation": 1.0, "after": "1d"},
    ],
    "variants": [
        {
            "name": "control",
            "allocation": 1 / 3,
            "is_control": True,
            "description": "as it\nis",
            "config": {"n": 1e300, "é": [None, " x "]},
        },
        {"name": "treatment ", "allocation": 1 / 3, "enabled": False},
        {"name": "c", "key": "third", "allocation": 1 - 2 / 3},
    ],
    "condition": {"$or": [{"country": {"$in": ["DE", "1"]}}, {"age": {"$gte": 18}, "vip": True}]},
    "private": True,
    "metrics": [
        {
            "key": "buy",
            "name": "Buys ",
            "event_type": "purchase",
            "role": "primary",
            "description": "a\nb",
            "window": {"duration": "14d"},
            "where": [{"property": "eur", "op": "ge", "value": 0.1234567890123456}],
        },
        {
            "key": "errors",
            "event_type": "error",
            "type": "count",
            "direction": "decrease",
            "role": "guardrail",
            "margin": {"relative": 1 / 30},
            "cap": {"value": 123456789.123456},
        },
        {
            "key": "often",
            "type": "threshold",
            "event_type": "visit",
            "at_least": 0.1234567890123456,
            "role": "secondary",
        },
    ],
    "target_sample_size": 123_456_789,
    "significance_level": 0.1 / 3,
    "power": 0.9123456789012345,
    "minimum_detectable_effect": 0.01 / 3,
    "analysis": {
        "method": "group_sequential",
        "alternative": "greater",
        "correction": "benjamini_yekutieli",
        "cuped": False,
        "look_dates": ["2199-01-05T00:00:01Z", "2199-01-09T00:00:00.5Z"],
        "spending": "power",
        "spending_power": 1.2345678901234567,
        "planned_units": 1000,
    },
    "activation_event": {
        "event_type": "checkout opened",
        "where": [{"property": "step", "op": "in", "value": ["1", 2, True]}],
    },
    "circuit_breaker": {"action": "stop", "false_trip_rate": 0.001 / 3},
}


def furnished(house: House, document: Mapping[str, Any] = MAXIMAL, **more: Any) -> dict[str, Any]:
    """The document of a new experiment that has everything."""
    with house.stores.database.writing(Actor("test"), utc_now()) as tx:
        layer = layers.create(tx, parse(LayerInput, {"name": "Page", "key": "page"}))
        segment = segments.create(tx, parse(SegmentInput, {"name": "Adults", "rules": {"age": 18}}))
        arms = [{"name": "off", "allocation": 0.5}, {"name": "on", "allocation": 0.5}]
        experiments.create(tx, parse(ExperimentCreate, {"name": "Before", "key": "before", "variants": arms}))
        whole = {
            **document,
            "layer": {"key": layer.key, "share": 1 / 7},
            "segments": [segment.id],
            "prerequisites": [{"experiment": "before", "variants": ["on"]}],
            **more,
        }
        experiments.create(tx, parse(ExperimentCreate, whole))
    return stored(house, whole["key"])


def stored(house: House, key: str) -> dict[str, Any]:
    with house.stores.database.reading() as tx:
        return {**documents.experiment(find(tx, key))}


def test_an_untouched_form_of_an_experiment_with_everything_changes_nothing(house: House) -> None:
    before = furnished(house)
    house.sign_in("editor")
    untouched = form(house, "/ui/experiments/maximal/edit")
    answer = house.ask("POST", "/ui/experiments/maximal/edit", untouched)
    assert answer.status_code == 303, answer.text
    assert stored(house, "maximal") == before


#: A field of the form, what is typed into it, and the one place of the document that may change by it.
TOUCHED: tuple[tuple[str, str, str], ...] = (
    ("variant-1-name", "blue", "variants"),
    ("metric-2-name", "Often", "metrics"),
    ("tags", 'x, "a, b", "quoted"', "tags"),
    ("analysis-correction", "holm", "analysis"),
    ("ramp-1-traffic_allocation", "50", "ramp"),
    ("circuit_breaker-action", "pause", "circuit_breaker"),
    ("activation_event-event_type", "cart", "activation_event"),
    ("prerequisites-0-variants", "off, on", "prerequisites"),
    ("layer-share", "20", "layer"),
    ("hypothesis", "Another.", "hypothesis"),
)


def test_a_change_of_one_field_leaves_every_other_as_it_is_stored(house: House) -> None:
    before = furnished(house)
    house.sign_in("editor")
    for field, text, place in TOUCHED:
        sent = {**form(house, "/ui/experiments/maximal/edit"), field: text}
        answer = house.ask("POST", "/ui/experiments/maximal/edit", sent)
        assert answer.status_code == 303, answer.text
        after = stored(house, "maximal")
        assert set(documents.difference(before, after)) <= {place}, field
        assert after["variants"][0] == before["variants"][0], "what was not touched keeps all of its digits"
        before = after
    assert [each["allocation"] for each in before["variants"]] == [1 / 3, 1 / 3, 1 - 2 / 3]
    assert before["variants"][1]["name"] == "blue"
    assert before["ramp"] == [
        {"traffic_allocation": 0.1 / 3, "after": "90m"},
        {"traffic_allocation": 0.5, "at": "2199-01-03T04:05:06.700000Z"},
        {"traffic_allocation": 1.0, "after": "1d"},
    ]
    assert before["analysis"]["look_dates"] == ["2199-01-05T00:00:01.000000Z", "2199-01-09T00:00:00.500000Z"]
    assert before["analysis"]["spending_power"] == 1.2345678901234567
    assert before["tags"] == ["x", "a, b", "quoted"]
    assert before["activation_event"]["where"] == MAXIMAL["activation_event"]["where"]
    assert before["metrics"][2]["at_least"] == 0.1234567890123456
    assert before["metrics"][0]["description"] == "a\nb"


def test_a_copy_through_the_form_has_everything_and_so_has_one_from_a_template(house: House) -> None:
    before = furnished(house)
    house.sign_in("editor")
    with house.stores.database.writing(Actor("test"), utc_now()) as tx:
        templates.create(tx, parse(templates.TemplateInput, {"experiment": "maximal", "key": "usual"}))
    own = {"id", "key", "name", "start_at", "end_at", "created_at", "version", "variants", "layer"}
    for path in ("/ui/experiments/maximal/duplicate", "/ui/experiments/new?template=usual"):
        sent = {**form(house, path), "name": "Copy", "key": "copy"}
        answer = house.ask("POST", "/ui/experiments/new", sent)
        assert answer.status_code == 303, answer.text
        copy = stored(house, "copy")
        assert copy["analysis"]["method"] == "group_sequential"
        exact = ("tags", "condition", "private", "prerequisites", "segments", "owner", "unit")
        assert {name: copy[name] for name in exact} == {
            **{name: before[name] for name in exact},
            "tags": [each.strip() for each in before["tags"]],
        }
        assert set(copy) == set(before)
        for name in set(before) - own - set(exact):
            assert (copy[name] is None) == (before[name] is None), name
        assert copy["layer"]["key"] == "page"
        assert [each["name"] for each in copy["variants"]] == ["control", "treatment", "c"]
        assert len(copy["metrics"]) == 3
        assert copy["circuit_breaker"]["action"] == "stop"
        with house.stores.database.writing(Actor("test"), utc_now()) as tx:
            experiments.remove(tx, find(tx, "copy"))


#: What each method is asked for, and what is stored of it.
METHODS: tuple[tuple[Mapping[str, str], Mapping[str, Any]], ...] = (
    ({"analysis-method": "fixed", "analysis-floor": "30"}, {"method": "fixed", "correction": "holm"}),
    (
        {"analysis-method": "group_sequential", "analysis-looks": "4", "analysis-spending": "pocock"},
        {"method": "group_sequential", "looks": 4, "spending": "pocock"},
    ),
    (
        {
            "analysis-method": "group_sequential",
            "analysis-look_dates": "2199-01-01\n2199-01-08T12:00",
            "analysis-planned_units": "10 000",
        },
        {
            "look_dates": ["2199-01-01T00:00:00.000000Z", "2199-01-08T12:00:00.000000Z"],
            "planned_units": 10_000,
        },
    ),
    (
        {"analysis-method": "always_valid", "analysis-alternative": "less"},
        {"method": "always_valid", "alternative": "less"},
    ),
    (
        {"analysis-method": "bayesian", "analysis-alternative": "less", "analysis-cuped": ""},
        {"method": "bayesian", "alternative": "two-sided", "cuped": False},
    ),
    (
        {"analysis-method": "bandit", "analysis-reweight_every": "6h", "analysis-ship_loss": "0.5"},
        {
            "method": "bandit",
            "reweight_every": "6h",
            "floor": 0.05,
            "sampling": "thompson",
            "ship_probability": 0.95,
            "ship_loss": 0.005,
        },
    ),
)


@pytest.mark.parametrize(("typed", "wanted"), METHODS)
def test_each_method_stores_what_it_reads(
    house: House, typed: Mapping[str, str], wanted: Mapping[str, Any]
) -> None:
    house.sign_in("editor")
    sent = {**form(house, "/ui/experiments/new"), "name": "It", "metric-0-event_type": "signup", **typed}
    answer = house.ask("POST", "/ui/experiments/new", sent)
    assert answer.status_code == 303, answer.text
    analysis = stored(house, "it")["analysis"]
    assert {name: analysis[name] for name in wanted} == wanted
    untouched = form(house, "/ui/experiments/it/edit")
    assert house.ask("POST", "/ui/experiments/it/edit", untouched).status_code == 303
    assert stored(house, "it")["version"] == 1


#: What somebody types, the field that must complain, and a part of its words.
NO_TEST = {"property": "", "op": "eq", "value": ""}
FOLDS = ("analysis", "rollout", "exclusions", "advanced")


def folds(page: str) -> set[str]:
    """The folded sections that stand open."""
    return {each for each in FOLDS if f'id="{each}" data-fold open' in page}


def test_a_newcomer_sees_a_short_form_and_a_mistake_unfolds_its_section(house: House) -> None:
    house.sign_in("editor")
    page = house.ask("GET", "/ui/experiments/new").text
    assert folds(page) == set()
    assert "Fixed horizon; significance level 5 %; power 80 %; Holm correction" in page
    assert "Started by hand; no ramp; no circuit breaker" in page
    sent = {
        **form(house, "/ui/experiments/new"),
        "name": "It",
        "key": "not a key!",
        "significance_level": "x",
    }
    answer = house.ask("POST", "/ui/experiments/new", sent)
    assert folds(answer.text) == {"analysis"}, "what cannot be read is said before what the catalog refuses"
    answer = house.ask("POST", "/ui/experiments/new", {**sent, "significance_level": "5"})
    assert folds(answer.text) == {"advanced"}


def test_lines_come_and_go_without_scripts(house: House) -> None:
    house.sign_in("editor")
    sent = {**form(house, "/ui/experiments/new"), "name": "Slowly", "metric-0-event_type": "signup"}
    page = house.ask("POST", "/ui/experiments/new", {**sent, "usual-ramp": "1"}).text
    assert folds(page) == {"rollout"}
    sent = Fields(page).sent
    assert sent["traffic_allocation"] == "5"
    assert [sent[f"ramp-{at}-traffic_allocation"] for at in range(3)] == ["20", "50", "100"]
    sent = Fields(house.ask("POST", "/ui/experiments/new", {**sent, "remove-step": "1"}).text).sent
    sent = Fields(house.ask("POST", "/ui/experiments/new", {**sent, "add-step": "1"}).text).sent
    assert [sent[f"ramp-{at}-traffic_allocation"] for at in range(3)] == ["20", "100", ""]
    page = house.ask("POST", "/ui/experiments/new", {**sent, "add-prerequisite": "1"}).text
    assert folds(page) == {"exclusions"}
    page = house.ask(
        "POST", "/ui/experiments/new", {**Fields(page).sent, "add-line": "activation_event-where"}
    ).text
    assert "activation_event-where-0-property" in Fields(page).sent
    assert folds(page) == {"analysis"}
    page = house.ask(
        "POST", "/ui/experiments/new", {**Fields(page).sent, "remove-line": "activation_event-where-0"}
    ).text
    assert "activation_event-where-0-property" not in Fields(page).sent
    answer = house.ask("POST", "/ui/experiments/new", Fields(page).sent)
    assert answer.status_code == 303, answer.text
    assert stored(house, "slowly")["ramp"] == [
        {"traffic_allocation": 0.2, "after": "1d"},
        {"traffic_allocation": 1.0, "after": "1d"},
    ]
    assert stored(house, "slowly")["prerequisites"] == []


def test_what_is_fixed_since_the_start_is_shown_as_such_and_stays(house: House) -> None:
    before = furnished(house, {**MAXIMAL, "start_at": None, "prerequisites": []}, status="running")
    house.sign_in("editor")
    page = house.ask("GET", "/ui/experiments/maximal/edit").text
    assert page.count("readonly") == 3, "start, key and unit"
    assert '<select id="layer-key" name="layer-key" disabled' in page
    assert "kept in the history as a deviation" in page
    sent = {**form(house, "/ui/experiments/maximal/edit"), "owner": "somebody"}
    assert "layer-key" not in sent
    assert house.ask("POST", "/ui/experiments/maximal/edit", sent).status_code == 303
    after = stored(house, "maximal")
    assert documents.difference(before, after) == {"owner": {"from": "checkout, team", "to": "somebody"}}
    sent = {**form(house, "/ui/experiments/maximal/edit"), "key": "other"}
    refused = house.ask("POST", "/ui/experiments/maximal/edit", sent)
    assert refused.status_code == 409
    assert "its key decides who gets what and can no longer change" in refused.text


def test_an_experiment_says_which_holdouts_keep_units_out_of_it(house: House) -> None:
    with house.stores.database.writing(Actor("test"), utc_now() - timedelta(minutes=1)) as tx:
        all_new = {"name": "First <half>", "key": "half", "share": 0.05, "status": "running"}
        holdouts.create(tx, parse(holdouts.HoldoutInput, all_new))
    house.sign_in("editor")
    assert "will keep its units out of it once it starts" in house.ask("GET", "/ui/experiments/new").text
    furnished(house, {**MAXIMAL, "start_at": None}, status="running")
    page = house.ask("GET", "/ui/experiments/maximal/edit").text
    assert "First &lt;half&gt;</bdi></a> keeps its units out of this experiment" in page


def test_the_start_says_what_is_worth_a_look_before(house: House) -> None:
    furnished(house, {**MAXIMAL, "start_at": None, "prerequisites": []})
    house.sign_in("editor")
    page = house.ask("GET", "/ui/experiments/maximal/do/start").text
    assert "No event of type checkout opened, purchase, error or visit has arrived in the last" in page
    assert "Its verdict changes at looks alone" in page
    assert "the ramp opens 3.333 %, 33.33 %, 100 %" in page
    assert "The circuit breaker stops it" in page
    start = form(house, "/ui/experiments/maximal/do/start")
    assert house.ask("POST", "/ui/experiments/maximal/do/start", start).status_code == 303
    assert stored(house, "maximal")["status"] == "running"


def test_the_calculator_plans_the_test_that_is_chosen(house: House) -> None:
    house.sign_in("viewer")
    asked = "/ui/calculator?calc-base=10&calc-lift=10&variant-0-share=50&variant-1-share=50&layer-share=20"
    sizes = {}
    for name, more in (
        ("fixed", ""),
        ("one-sided", "&analysis-alternative=less"),
        ("looks", "&analysis-method=group_sequential&analysis-looks=5"),
        ("always", "&analysis-method=always_valid"),
    ):
        page = house.ask("GET", asked + more).text
        sizes[name] = int(re.search(r"<strong>([\d,]+)</strong> users", page)[1].replace(",", ""))  # type: ignore[index]
        assert "in each of 2 variants" in page
    assert sizes["one-sided"] < sizes["fixed"] < sizes["looks"] < 1.05 * sizes["fixed"] < sizes["always"]
    assert "Enter the value now" in house.ask("GET", "/ui/calculator?analysis-looks=x").text


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)
WORDS = st.lists(TEXT.map(str.strip).filter(bool), max_size=4)


@settings(deadline=None)
@given(words=WORDS)
def test_words_with_commas_and_quotes_come_back(words: list[str]) -> None:
    words = [each.replace("\n", "").replace("\r", "").strip() for each in words]
    words = [each for each in words if each]
    assert plan_fields.split(plan_fields.joined(words), "", []) == words


#: With as many digits as a field shows.
SHARES = st.integers(1, 999_999).map(lambda millionths: millionths / 1e6)
ANALYSES = st.one_of(
    st.builds(dict, method=st.sampled_from(["fixed", "always_valid"]), cuped=st.booleans()),
    st.builds(
        dict,
        method=st.just("group_sequential"),
        looks=st.none() | st.integers(1, 1000),
        spending=st.sampled_from(["obrien_fleming", "pocock", None]),
        planned_units=st.none() | st.integers(1, 10**15),
    ),
    st.builds(
        dict,
        method=st.just("bandit"),
        floor=SHARES.map(lambda share: share * 0.3),
        reweight_every=st.sampled_from(["1h", "36h", "7d"]),
        ship_loss=SHARES,
    ),
)


@settings(
    max_examples=25,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    analysis=ANALYSES,
    level=SHARES.map(lambda share: share * 0.5),
    power=SHARES,
    tags=WORDS.map(lambda words: list(dict.fromkeys(words))),
    traffic=SHARES.map(lambda share: share * 0.5),
    steps=st.lists(st.integers(501, 1000), max_size=3, unique=True).map(sorted),
)
def test_the_form_can_say_all_of_an_experiment(
    house: House,
    analysis: dict[str, Any],
    level: float,
    power: float,
    tags: list[str],
    traffic: float,
    steps: list[int],
) -> None:
    body = {
        "name": "It",
        "analysis": analysis,
        "significance_level": level,
        "power": power,
        "tags": tags,
        "traffic_allocation": traffic,
        "ramp": [{"traffic_allocation": each / 1000, "after": "1d"} for each in steps] or None,
        "metrics": ["signup"],
    }
    with house.stores.database.reading() as tx:
        row = experiments.described(tx, parse(ExperimentCreate, body), utc_now())
        said = experiment_fields.document(experiment_fields.of(row))
        again = experiments.described(tx, parse(ExperimentCreate, said), utc_now())
    names = ("analysis", "ramp", "tags", "significance_level", "power", "traffic_allocation", "metrics")
    one, other = ({name: documents.experiment(each)[name] for name in names} for each in (row, again))
    assert rounded(one) == rounded(other)


def rounded(value: Any) -> Any:
    """A document with numbers as exact as a field shows them."""
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return round(value, 9) if isinstance(value, float) else value


def test_a_draft_says_how_it_is_set_up_and_what_is_worth_a_look(house: House) -> None:
    furnished(house, {**MAXIMAL, "start_at": None, "prerequisites": []})
    house.sign_in("viewer")
    page = house.ask("GET", "/ui/experiments/maximal").text
    assert "No event of type checkout opened, purchase, error or visit has arrived in the last" in page
    assert "Group sequential" in page
    assert "from the event checkout opened on" in page
    assert "→ 3.333" in page
    assert "a circuit breaker stops it" in page
    assert "Buys </bdi> (primary)" in page


def test_a_variants_description_is_a_field(house: House) -> None:
    furnished(house, {**MAXIMAL, "start_at": None})
    house.sign_in("editor")
    sent = form(house, "/ui/experiments/maximal/edit")
    answer = house.ask("POST", "/ui/experiments/maximal/edit", {**sent, "variant-1-description": "New\nlook"})
    assert answer.status_code == 303
    first, second = stored(house, "maximal")["variants"][:2]
    assert (first["description"], second["description"]) == ("as it\nis", "New\nlook")


def test_the_form_of_a_holdout_shows_nothing_that_a_holdout_must_not_have(house: House) -> None:
    with house.stores.database.writing(Actor("test"), utc_now()) as tx:
        given = {"name": "Half", "key": "half", "share": 0.05, "metrics": ["purchase"]}
        holdouts.create(tx, parse(holdouts.HoldoutInput, given))
    house.sign_in("editor")
    before = stored(house, "half")
    sent = form(house, "/ui/experiments/half/edit")
    assert sent["variant-0-share"] == "5", "the calculator needs the split"
    absent = {"variant-0-name", "traffic_allocation", "segment", "ramp-shown", "layer-key"}
    assert not absent & set(sent)
    assert house.ask("POST", "/ui/experiments/half/edit", {**sent, "power": "90"}).status_code == 303
    after = stored(house, "half")
    assert after["power"] == 0.9
    assert {**after, "power": 0.8, "version": before["version"]} == before
    assert "/duplicate" not in house.ask("GET", "/ui/experiments/half").text
