"""What an experiment's form refuses: beside its field, in words, and with nothing typed lost."""

from collections.abc import Mapping

from assay.catalog import experiments
from dashboard.conftest import House
from dashboard.test_experiment_form import FOLDS, NO_TEST, furnished, stored
from dashboard.test_metrics import Fields, beside, form

WRONG: tuple[tuple[Mapping[str, str], str, str], ...] = (
    ({"analysis-method": "guess"}, "analysis-method", "must be"),
    ({"analysis-method": "group_sequential", "analysis-looks": "0"}, "analysis-looks", "greater than or"),
    ({"analysis-method": "group_sequential", "analysis-looks": "many"}, "analysis-looks", "must be a number"),
    (
        {"analysis-method": "group_sequential", "analysis-look_dates": "2199-01-02\n2199-01-01"},
        "analysis-look_dates",
        "line 2 must be later",
    ),
    (
        {"analysis-method": "group_sequential", "analysis-look_dates": "soon"},
        "analysis-look_dates",
        "line 1 must be an ISO",
    ),
    (
        {"analysis-method": "bandit", "analysis-reweight_every": "5m"},
        "analysis-reweight_every",
        "at least 1h",
    ),
    ({"analysis-method": "bandit", "analysis-floor": "50"}, "analysis-floor", "must be less than 0.5"),
    ({"analysis-method": "bandit", "metric-0-event_type": ""}, "metrics", "is required of a bandit"),
    ({"significance_level": "60"}, "significance_level", "less than or equal to 0.5"),
    ({"power": ""}, "power", "is needed"),
    ({"circuit_breaker-on": "1"}, "circuit_breaker", "needs a guardrail"),
    (
        {"circuit_breaker-on": "1", "circuit_breaker-false_trip_rate": "50", "metric-0-role": "guardrail"},
        "circuit_breaker-false_trip_rate",
        "less than or equal to 0.05",
    ),
    (
        {"ramp-0-traffic_allocation": "5", "ramp-0-after": "1d", "ramp-0-at": ""},
        "ramp-0-traffic_allocation",
        "must be more than traffic_allocation",
    ),
    ({"ramp-0-traffic_allocation": "5", "ramp-0-after": "soon", "ramp-0-at": ""}, "ramp-0-after", "such as"),
    (
        {"ramp-0-traffic_allocation": "5", "ramp-0-after": "1d", "ramp-0-at": "2199-01-01T00:00"},
        "ramp-0-at",
        "both say when",
    ),
    (
        {"prerequisites-0-experiment": "nowhere", "prerequisites-0-variants": ""},
        "prerequisites-0-experiment",
        "There is no experiment",
    ),
    (
        {"prerequisites-0-experiment": "before", "prerequisites-0-variants": "on, never"},
        "prerequisites-0-variants",
        "has no variant",
    ),
    ({"activation_event-where-0-property": "a"}, "activation_event-event_type", "at least 1"),
    (
        {"activation_event-event_type": "cart", "activation_event-where-0-value": '"open'},
        "activation_event-where-0-value",
        "must end with one",
    ),
    ({"tags": ",".join(["x" * 99] * 51)}, "tags", "at most 50"),
    ({"layer-key": "nowhere"}, "layer-key", "There is no layer"),
    ({"start_at": "2199-01-02T00:00", "end_at": "2199-01-01T00:00"}, "end_at", "later than start_at"),
    ({"unit": ""}, "unit", "at least 1"),
)


def test_what_is_wrong_stands_beside_its_field_and_nothing_typed_is_lost(house: House) -> None:
    furnished(house)
    house.sign_in("editor")
    blank = form(house, "/ui/experiments/new")
    more = {f"activation_event-where-0-{name}": text for name, text in NO_TEST.items()}
    for typed, field, words in WRONG:
        rest = more if field.startswith("activation") else {}
        sent = {**blank, **rest, "name": "It", "metric-0-event_type": "signup", **typed}
        answer = house.ask("POST", "/ui/experiments/new", sent)
        assert answer.status_code == 422, (typed, answer.headers.get("location"))
        assert words in beside(answer.text, field), typed
        kept = Fields(answer.text).sent
        for name in set(typed) - {"metric-0-event_type", "layer-key", "analysis-method"}:
            assert kept[name] == typed[name], typed
        fold = next((each for each in FOLDS if f'<details class="card fold" id="{each}"' in answer.text), "")
        assert fold
    with house.stores.database.reading() as tx:
        assert experiments.page(tx, q="It")[1] == 0


JUNK = ("\x00", "9" * 40, "-1", "1e400", "💥\u202e", "', ; DROP", "[1]", '"', "NaN", "2199-13-45T99:99")


def test_rubbish_in_every_field_is_refused_in_words(house: House) -> None:
    furnished(house)
    house.sign_in("editor")
    before = stored(house, "maximal")
    for path in ("/ui/experiments/maximal/edit", "/ui/experiments/new"):
        blank = form(house, path)
        kept = {"csrf", "ticket", "version"}
        for junk in JUNK:
            sent = {name: text if name in kept else junk for name, text in blank.items()}
            answer = house.ask("POST", path, sent)
            assert answer.status_code == 422, (path, junk, answer.text[:2000])
            assert "Not saved" in answer.text
    assert stored(house, "maximal") == before


def test_rubbish_in_one_field_is_refused_in_words(house: House) -> None:
    house.sign_in("editor")
    blank = {**form(house, "/ui/experiments/new"), "name": "It", "analysis-method": "bandit"}
    buttons = ("remove-step", "remove-prerequisite", "remove-variant", "remove-metric", "remove-line", "pick")
    names = [*buttons, "add-line", "turn", "segment", "control", "show-type", *blank]
    for place, name in enumerate(each for each in names if each not in {"csrf", "ticket"}):
        junk = ("\x00", "9" * 40, "²", "[]")[place % 4]
        answer = house.ask("POST", "/ui/experiments/new", {**blank, name: junk})
        assert answer.status_code in {200, 303, 404, 422}, (name, junk)
