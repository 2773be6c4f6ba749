"""Metric definitions and metrics of experiments, through the forms: all kinds, and what is wrong."""

import re
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any

import pytest

from assay.catalog import definitions, experiments
from assay.catalog.checks import parse
from assay.catalog.database import Actor
from assay.catalog.editing import find
from assay.catalog.inputs import ExperimentCreate
from assay.catalog.measuring import DefinitionInput
from assay.dashboard import literals
from assay.dashboard.metrics import sentence_of
from assay.stores.base import utc_now
from dashboard.conftest import House

KINDS: Mapping[str, Mapping[str, Any]] = {
    "conversion": {"type": "conversion", "event_type": "signup", "window": {"delay": "1d", "duration": "7d"}},
    "count": {"type": "count", "event_type": "search", "cap": {"value": 40.0, "lower": 1.0}},
    "sum": {"type": "sum", "event_type": "session", "property": "seconds", "cap": {"percentile": 99.5}},
    "revenue": {
        "type": "revenue",
        "event_type": "purchase",
        "property": "eur",
        "description": "Money that stays.",
        "where": [
            {"property": "country", "op": "in", "value": ["DE", "AT, or so", "1", True, 2.5]},
            {"property": "test", "op": "not_exists"},
            {"property": "items", "op": "ge", "value": 2},
        ],
        "lookback": "28d",
        "complete_only": True,
        "window": {"duration": "14d"},
    },
    "mean": {"type": "mean", "event_type": "purchase", "direction": "decrease", "role": "primary"},
    "ratio": {
        "type": "ratio",
        "event_type": "order",
        "denominator": {"event_type": "visit", "where": [{"property": "bot", "op": "ne", "value": True}]},
    },
    "quantile": {
        "type": "quantile",
        "event_type": "page",
        "property": "ms",
        "quantile": 0.95,
        "level": "event",
        "direction": "decrease",
        "role": "guardrail",
        "margin": {"relative": 0.05},
    },
    "retention": {"type": "retention", "event_type": "visit", "from": "7d", "to": "14d"},
    "funnel": {
        "type": "funnel",
        "steps": [
            {"event_type": "cart"},
            {"event_type": "pay", "where": [{"property": "ok", "op": "eq", "value": True}]},
        ],
        "window": {"duration": "24h"},
    },
    "threshold": {
        "type": "threshold",
        "event_type": "visit",
        "at_least": 3.0,
        "role": "guardrail",
        "margin": {"absolute": 0.02},
    },
}


class Fields(HTMLParser):
    """What a browser would send of the forms on a page, and what stands beside the fields."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.sent: dict[str, str] = {}
        self._select, self._area, self._first = "", "", False
        self.feed(re.sub("\r\n?", "\n", page))  # as HTML says

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep what this field holds."""
        said = dict(attrs)
        name = said.get("name") or ""
        if tag == "input" and name and "disabled" not in said:
            if said.get("type") not in {"checkbox", "radio"} or "checked" in said:
                value = said.get("value") or ""
                self.sent[name] = value if said.get("type") == "hidden" else value.replace("\n", "")
        elif tag == "select":
            self._select, self._first = ("" if "disabled" in said else name), True
        elif tag == "option" and self._select and (self._first or "selected" in said):
            self.sent[self._select], self._first = said.get("value") or "", False
        elif tag == "textarea":
            self._area = name
            self.sent[name] = ""

    def handle_endtag(self, tag: str) -> None:
        """A field ends."""
        if tag == "textarea":
            self._area = ""

    def handle_data(self, data: str) -> None:
        """The text of an area."""
        if self._area:
            self.sent[self._area] += data


def form(house: House, path: str) -> dict[str, str]:
    """The form of a page as it would be sent untouched."""
    answer = house.ask("GET", path)
    assert answer.status_code == 200, answer.text
    return Fields(answer.text).sent


def beside(page: str, field: str) -> str:
    """What stands beside a field that is wrong."""
    found = re.search(rf'id="{re.escape(field)}-problem">([^<]*)', page)
    assert found, f"nothing beside {field}: " + str(re.findall(r'id="([^"]*-problem)"', page))
    return found[1]


def defined(house: House, **document: Any) -> str:
    with house.stores.database.writing(Actor("test"), utc_now()) as tx:
        return definitions.create(tx, parse(DefinitionInput, document)).key


def body(house: House, key: str) -> tuple[int, dict[str, Any]]:
    """The version of a definition and what it says."""
    with house.stores.database.reading() as tx:
        row = definitions.find(tx, key)
        return row.version, dict(row.body)


def test_the_form_of_each_kind_says_what_is_stored_and_stores_what_it_says(house: House) -> None:
    house.sign_in("editor")
    for kind, said in KINDS.items():
        defined(house, key=kind, name="A metric", **said)
        untouched = form(house, f"/ui/metrics/{kind}/edit")
        assert house.ask("POST", f"/ui/metrics/{kind}/edit", untouched).status_code == 303
        assert body(house, kind)[0] == 1, "an untouched form made a version"
        again = {**form(house, "/ui/metrics/new"), **untouched, "key": f"{kind}-2"}
        assert house.ask("POST", "/ui/metrics/new", again).headers["location"] == f"/ui/metrics/{kind}-2"
        assert body(house, f"{kind}-2")[1] == body(house, kind)[1]


def test_each_example_of_the_form_can_be_sent_as_it_stands(house: House) -> None:
    house.sign_in("editor")
    for kind in KINDS:
        sent = form(house, f"/ui/metrics/new?begin={kind}")
        answer = house.ask("POST", "/ui/metrics/new", sent)
        assert answer.status_code == 303, answer.text
        shown = house.ask("GET", answer.headers["location"])
        assert shown.status_code == 200
        assert body(house, answer.headers["location"].rpartition("/")[2])[1]["type"] == kind


#: A kind, what somebody types, the field that must complain, and a part of its words.
WRONG: tuple[tuple[str, Mapping[str, str], str, str], ...] = (
    ("conversion", {"window-duration": "soon"}, "window-duration", "such as 7d"),
    ("count", {"cap-value": "much"}, "cap-value", "must be a number"),
    ("count", {"cap-percentile": "99"}, "cap", "got both"),
    ("revenue", {"where-2-op": "lt", "where-2-value": "DE"}, "where-2-value", "must be a number for lt"),
    ("revenue", {"where-2-value": '"open'}, "where-2-value", "must end with one"),
    ("revenue", {"lookback": "0d"}, "lookback", "longer than nothing"),
    ("ratio", {"denominator-event_type": ""}, "denominator-event_type", "at least 1"),
    ("quantile", {"quantile": ""}, "quantile", "is required"),
    ("quantile", {"margin-absolute": "3"}, "margin", "got both"),
    ("retention", {"to": "3d"}, "to", "later than from"),
    ("funnel", {"steps-1-event_type": ""}, "steps-1-event_type", "at least 1"),
    ("threshold", {"at_least": "-1"}, "at_least", "greater than 0"),
    ("mean", {"key": "not a key!"}, "key", "letters, digits"),
)


def test_what_is_wrong_stands_beside_its_field_and_nothing_typed_is_lost(house: House) -> None:
    house.sign_in("editor")
    for kind, said in KINDS.items():
        defined(house, key=kind, name="A metric", **said)
    for kind, changed, field, words in WRONG:
        sent = {**form(house, f"/ui/metrics/{kind}/edit"), **changed}
        answer = house.ask("POST", f"/ui/metrics/{kind}/edit", sent)
        assert answer.status_code == 422, answer.text
        assert words in beside(answer.text, field)
        assert {name: Fields(answer.text).sent[name] for name in changed} == changed
        assert body(house, kind)[0] == 1


def test_versions_say_what_changed_and_experiments_keep_theirs(house: House) -> None:
    house.sign_in("editor")
    defined(house, key="money", name="Money", **KINDS["revenue"])
    draft = {"name": "Prices", "key": "prices", "metrics": [{"definition": "money"}]}
    with house.stores.database.writing(Actor("test"), utc_now()) as tx:
        experiments.create(tx, parse(ExperimentCreate, draft))
    sent = {**form(house, "/ui/metrics/money/edit"), "window-duration": "7d", "lookback": ""}
    assert house.ask("POST", "/ui/metrics/money/edit", sent).status_code == 303
    page = house.ask("GET", "/ui/metrics/money").text
    assert "Window duration" in page
    assert "<del><bdi>14d</bdi></del></td><td><ins><bdi>7d</bdi></ins>" in page
    assert "<del><bdi>28d</bdi></del></td><td><ins><bdi>nothing</bdi></ins>" in page
    assert '<a href="/ui/metrics/money?version=1">1</a>' in page, "the experiment keeps version 1"
    assert "of the 14 days after assignment" in house.ask("GET", "/ui/metrics/money?version=1").text
    assert house.ask("GET", "/ui/metrics/money?version=3").status_code == 404


def test_two_who_edit_at_once_are_told(house: House) -> None:
    house.sign_in("editor")
    defined(house, key="money", name="Money", **KINDS["revenue"])
    mine, theirs = form(house, "/ui/metrics/money/edit"), form(house, "/ui/metrics/money/edit")
    assert house.ask("POST", "/ui/metrics/money/edit", {**theirs, "name": "Income"}).status_code == 303
    late = house.ask("POST", "/ui/metrics/money/edit", {**mine, "name": "Takings"})
    assert late.status_code == 412
    assert body(house, "money")[1]["name"] == "Income"


def test_a_metric_in_use_is_archived_and_restored_and_an_unused_one_goes(house: House) -> None:
    house.sign_in("editor")
    defined(house, key="money", name="Money", **KINDS["revenue"])
    draft = {"name": "Prices", "key": "prices", "metrics": [{"definition": "money"}]}
    with house.stores.database.writing(Actor("test"), utc_now()) as tx:
        experiments.create(tx, parse(ExperimentCreate, draft))
    token = {"csrf": house.token("/ui/metrics/money/do/delete")}
    assert house.ask("POST", "/ui/metrics/money/do/delete", token).headers["location"] == "/ui/metrics/money"
    assert "Archived" in house.ask("GET", "/ui/metrics/money").text
    assert "Money" not in house.ask("GET", "/ui/metrics").text
    assert "Money" in house.ask("GET", "/ui/metrics?archived=1").text
    assert house.ask("POST", "/ui/metrics/money/do/restore", token).status_code == 303
    assert "Money" in house.ask("GET", "/ui/metrics").text
    defined(house, key="spare", name="Spare", event_type="x")
    assert house.ask("POST", "/ui/metrics/spare/do/delete", token).headers["location"] == "/ui/metrics"
    assert house.ask("GET", "/ui/metrics/spare").status_code == 404
    assert house.ask("POST", "/ui/metrics/money/do/nothing", token).status_code == 404


def test_an_experiment_takes_metrics_from_the_library_and_says_what_it_has_otherwise(house: House) -> None:
    house.sign_in("editor")
    defined(house, key="money", name="Money", **KINDS["revenue"])
    defined(house, key="slow", name="Slow pages", **KINDS["quantile"])
    sent = {**form(house, "/ui/experiments/new"), "name": "Prices"}
    for key in ("money", "slow"):
        answer = house.ask("POST", "/ui/experiments/new", {**sent, "pick": key, "add-definition": "1"})
        assert answer.status_code == 200
        sent = Fields(answer.text).sent
    assert sent["metric-1-role"] == "guardrail"
    sent |= {"metric-0-window-duration": "7d", "metric-0-lookback": "", "metric-1-margin-relative": "2"}
    answer = house.ask("POST", "/ui/experiments/new", sent)
    assert answer.status_code == 303, answer.text
    with house.stores.database.reading() as tx:
        money, slow = find(tx, "prices").metrics
    assert (money["definition"], money["definition_version"], money["role"]) == ("money", 1, "primary")
    assert (money["window"], money["lookback"]) == ({"duration": "7d"}, None)
    assert money["where"] == KINDS["revenue"]["where"]
    assert (slow["role"], slow["margin"]) == ("guardrail", {"relative": 0.02})
    untouched = form(house, "/ui/experiments/prices/edit")
    assert house.ask("POST", "/ui/experiments/prices/edit", untouched).status_code == 303
    with house.stores.database.reading() as tx:
        assert find(tx, "prices").version == 1


def test_metrics_of_an_experiment_alone_have_every_kind_and_their_errors_their_place(house: House) -> None:
    house.sign_in("editor")
    metrics = [{"key": kind, "name": kind, **said} for kind, said in KINDS.items()]
    with house.stores.database.writing(Actor("test"), utc_now()) as tx:
        experiments.create(tx, parse(ExperimentCreate, {"name": "All", "key": "all", "metrics": metrics}))
        before = find(tx, "all").metrics
    untouched = form(house, "/ui/experiments/all/edit")
    assert house.ask("POST", "/ui/experiments/all/edit", untouched).status_code == 303
    with house.stores.database.reading() as tx:
        assert (find(tx, "all").version, find(tx, "all").metrics) == (1, before)
    wrong = {
        "metric-3-where-2-value": "many",
        "metric-8-steps-1-event_type": "",
        "metric-6-margin-relative": "x",
    }
    answer = house.ask("POST", "/ui/experiments/all/edit", {**untouched, **wrong})
    assert "must be a number" in beside(answer.text, "metric-6-margin-relative")
    del wrong["metric-6-margin-relative"]
    answer = house.ask("POST", "/ui/experiments/all/edit", {**untouched, **wrong})
    assert "must be a number for ge" in beside(answer.text, "metric-3-where-2-value")
    assert beside(answer.text, "metric-8-steps-1-event_type")


def test_lines_come_and_go_without_scripts(house: House) -> None:
    house.sign_in("editor")
    sent = form(house, "/ui/metrics/new?begin=funnel")
    for button, value in (
        ("add-line", "steps"),
        ("add-line", "steps-3-where"),
        ("add-line", "steps-3-where"),
    ):
        sent = Fields(house.ask("POST", "/ui/metrics/new", {**sent, button: value}).text).sent
    sent |= {"steps-3-event_type": "thank", "steps-3-where-1-property": "ok", "steps-3-where-1-value": "true"}
    for value in ("steps-3-where-0", "steps-0"):
        sent = Fields(house.ask("POST", "/ui/metrics/new", {**sent, "remove-line": value}).text).sent
    assert [sent[f"steps-{place}-event_type"] for place in range(3)] == ["checkout", "pay", "thank"]
    assert (sent["steps-2-where-0-property"], sent["steps-2-where-0-value"]) == ("ok", "true")
    odd = {**sent, "type": "no such", "show-type": ""}
    assert house.ask("POST", "/ui/metrics/new", odd).status_code == 200


def test_readers_see_metrics_and_no_way_to_change_them(house: House) -> None:
    defined(house, key="money", name="<script>money</script>", **KINDS["revenue"])
    house.sign_in("viewer")
    for path in ("/ui/metrics", "/ui/metrics/money"):
        page = house.ask("GET", path).text
        assert "&lt;script&gt;money" in page
        assert "<script>money" not in page
        assert not re.search(r">(Edit|New metric|Archive …|Delete …|Duplicate)<", page)
    for path in ("new", "money/edit", "money/do/archive"):
        assert house.ask("GET", f"/ui/metrics/{path}").status_code == 403


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (
            "revenue",
            (
                "Total of the property “eur” of “purchase” events where “country” is one of "
                'DE, "AT, or so", "1", true, 2.5 and “test” is not there and “items” is at least 2 '
                "per unit, in money"
            ),
        ),
        (
            "ratio",
            (
                "The number of “order” events, divided by the number of “visit” events "
                "where “bot” is not true, over all units"
            ),
        ),
        ("quantile", "The 95th percentile of the property “ms” over all “page” events"),
        (
            "retention",
            "Share of units with one of the “visit” events from 7 days and before 14 days after assignment",
        ),
        ("funnel", "Share of units that do “cart”, then “pay” where “ok” is true, in this order"),
        ("threshold", "Share of units with at least 3 of the “visit” events"),
    ],
)
def test_a_definition_is_said_in_words(kind: str, sentence: str) -> None:
    given = parse(DefinitionInput, {"name": "it", **KINDS[kind]})
    assert sentence_of("it", given.normal("it")) == sentence


@pytest.mark.parametrize(
    "value",
    ["DE", "18", 18, -2.5, 1e300, True, "true", "", " a ", 'say "x"', "a, b", "07", "\n", '"', "ä\u202e"],
)
def test_every_value_can_be_typed(value: literals.Literal) -> None:
    again = literals.read(literals.written(value), "x")
    assert (again, type(again)) == (value, type(value))
    assert literals.read_list(literals.written_list([value, "b", value]), "x") == [value, "b", value]
