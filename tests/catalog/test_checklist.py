"""The checklist: warnings with their numbers, and nothing that stops anybody."""

import re
from datetime import timedelta
from typing import Any

import pytest

from assay.catalog import checklist, segments
from assay.catalog.checklist import Arrived
from assay.catalog.checks import parse
from assay.catalog.editing import find
from assay.errors import Unavailable
from assay.stats import Baseline, Design, power_of
from catalog.conftest import HALVES, Catalog

SOME = Arrived(20, frozenset({"eur"}), 20)
GOOD: dict[str, Any] = {
    "hypothesis": "Green sells.",
    "metrics": ["buy"],
    "minimum_detectable_effect": 0.05,
    "target_sample_size": 100_000,
    "traffic_allocation": 0.2,
    "variants": HALVES,
}


def examined(
    catalog: Catalog, experiment: int, seen: dict[str, Arrived] | None = None
) -> dict[str, checklist.Item]:
    def arrivals(event_type: str) -> Arrived:
        return SOME if seen is None else seen.get(event_type, Arrived(0, frozenset(), 0))

    with catalog.read() as tx:
        items = checklist.examine(tx, find(tx, experiment), arrivals, catalog.now)
    return {each["name"]: each for each in items}


def test_a_good_plan_has_no_warning(catalog: Catalog) -> None:
    items = examined(catalog, catalog.create(**GOOD))
    assert list(items) == ["plan", "power", "metric", "guardrails", "targeting", "layer", "first_share"]
    assert checklist.warnings(items.values()) == []


def test_the_power_is_that_of_the_statistics(catalog: Catalog) -> None:
    item = examined(catalog, catalog.create(**GOOD))["power"]
    least = item["inputs"]["least_share"]
    assert least == pytest.approx(0.112, abs=0.001)
    assert item["sentence"] == (
        "The planned 100,000 units can show a lift of 5 % with a chance of 80 %, provided that at least "
        "11.2 % of the control's units convert."
    )
    found = power_of(Baseline(least, least * (1 - least)), 0.05 * least, 100_000, Design())
    assert found == pytest.approx(0.8, abs=1e-6)
    uneven = [{"name": "control", "allocation": 0.8}, {"name": "b", "allocation": 0.2}]
    wide = examined(catalog, catalog.create(**{**GOOD, "variants": uneven}))["power"]
    assert wide["inputs"]["least_share"] > least
    money = {"metrics": [{"event_type": "buy", "type": "sum"}]}
    spread = examined(catalog, catalog.create(**{**GOOD, **money}))["power"]["inputs"]["largest_spread"]
    assert power_of(Baseline(1.0, spread**2), 0.05, 100_000, Design()) == pytest.approx(0.8, abs=1e-6)
    sequential = {"analysis": {"method": "group_sequential", "looks": 5, "planned_units": 100_000}}
    dearer = examined(catalog, catalog.create(**{**GOOD, **sequential}))["power"]["inputs"]["least_share"]
    assert least < dearer < 1.05 * least


@pytest.mark.parametrize(
    ("fields", "name", "field", "words"),
    [
        ({"metrics": []}, "plan", "primary_metric", "No primary metric"),
        ({"metrics": []}, "metric", "metrics", "nothing will be measured"),
        ({"hypothesis": ""}, "plan", "hypothesis", "Write down a hypothesis"),
        ({"target_sample_size": None}, "power", "target_sample_size", "There is no planned sample, so"),
        (
            {"significance_level": 0.5, "power": 0.5},
            "power",
            "power",
            "A power of 50 % is what chance alone gives at a significance level of 50 %",
        ),
        (
            {"minimum_detectable_effect": None},
            "power",
            "minimum_detectable_effect",
            "There is no smallest lift worth finding, so",
        ),
        (
            {"target_sample_size": None, "minimum_detectable_effect": None},
            "power",
            "target_sample_size",
            "There is no planned sample and no smallest lift worth finding, so",
        ),
        (
            {"target_sample_size": 1000},
            "power",
            "target_sample_size",
            "% of the control's units convert. That is",
        ),
        (
            {"target_sample_size": 1},
            "power",
            "target_sample_size",
            "The planned 1 unit can show a lift of 5 %",
        ),
        ({"variants": [{"name": "control", "allocation": 1}]}, "power", "variants", "nothing to compare"),
        (
            {"metrics": [{"event_type": "buy", "type": "sum"}], "target_sample_size": 1000},
            "power",
            "target_sample_size",
            "the standard deviation over units",
        ),
        (
            {"metrics": ["buy", "pay", "see"], "guardrail_metrics": ["pay", "see"]},
            "guardrails",
            "metrics",
            "pay and see have no margin",
        ),
        ({"traffic_allocation": 0.0}, "targeting", "traffic_allocation", "nobody can enter"),
        ({"traffic_allocation": 1.0}, "first_share", "traffic_allocation", "50 % of the eligible units"),
    ],
)
def test_warnings(catalog: Catalog, fields: dict[str, Any], name: str, field: str, words: str) -> None:
    item = examined(catalog, catalog.create(**{**GOOD, **fields}))[name]
    assert (item["ok"], item["field"]) == (False, field)
    assert words in item["sentence"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"minimum_detectable_effect": 10}, "a lift of 1,000 % with a chance of 80 %"),
        ({"minimum_detectable_effect": 1.005}, "a lift of 100.5 % with"),
        ({"minimum_detectable_effect": 0.000533}, "a lift of 0.0533 % with"),
        ({"power": 0.9999}, "with a chance of 99.99 %, provided"),
        ({"power": 0.95}, "with a chance of 95 %, provided"),
        (
            {
                "metrics": [{"event_type": "buy", "type": "sum"}],
                "minimum_detectable_effect": 500,
                "target_sample_size": 100_000,
            },
            "at most 28,200 times the mean.",
        ),
    ],
)
def test_numbers_of_a_plan_are_written_out(catalog: Catalog, fields: dict[str, Any], words: str) -> None:
    assert words in examined(catalog, catalog.create(**{**GOOD, **fields}))["power"]["sentence"]


def test_sentences_are_for_people_who_do_not_know_the_fields(catalog: Catalog) -> None:
    with catalog.write() as tx:
        segments.create(tx, parse(segments.SegmentInput, {"name": "Staff", "key": "our_staff"}))
    passed = (catalog.now - timedelta(hours=1)).isoformat()
    poor = {
        "traffic_allocation": 0.4,
        "target_sample_size": 1,
        "condition": {"id": {"$notInGroup": "our_staff"}},
        "guardrail_metrics": ["buy"],
        "ramp": [{"traffic_allocation": 1.0, "at": passed}],
    }
    found = [
        examined(catalog, catalog.create(**GOOD)),
        examined(catalog, catalog.create(**{**GOOD, **poor}), {}),
    ]
    found.append(examined(catalog, catalog.create(name="Bare")))
    for item in (each for items in found for each in items.values()):
        assert not re.search(r"\w_\w|\$|`|\d%|\[\d", item["sentence"]), item["sentence"]
        assert not re.search(r"\b1 units\b", item["sentence"]), item["sentence"]
        assert (item["field"] is None) == bool(item["ok"])


def test_metrics_without_events_properties_or_amounts(catalog: Catalog) -> None:
    metrics = [
        {"event_type": "buy", "type": "sum", "property": "usd"},
        {"event_type": "pay", "type": "revenue"},
        {"name": "steps", "type": "funnel", "steps": ["seen", "buy"]},
        {"event_type": "buy", "type": "ratio", "denominator": {"event_type": "visit", "property": "n"}},
    ]
    experiment = catalog.create(**{**GOOD, "metrics": metrics})
    bare = Arrived(3, frozenset({"usd"}), 0)
    item = examined(catalog, experiment, {"buy": bare, "pay": bare, "visit": bare})["metric"]
    assert item["ok"] is False
    assert item["inputs"] == {
        "event_types": ["buy", "pay", "seen", "visit"],
        "days": 7,
        "without_events": ["seen"],
        "without_property": ["visit.n"],
        "without_amount": ["pay"],
    }
    assert item["sentence"] == (
        "No event of type seen has arrived in the last 7 days. The latest events of type visit have no "
        "property n. The latest events of type pay carry no amount to add up. Check what the application "
        "sends."
    )


def test_a_store_that_is_away_is_no_wall(catalog: Catalog) -> None:
    def away(_event_type: str) -> Arrived:
        raise Unavailable("The disk is full.")

    experiment = catalog.create(**GOOD)
    with catalog.read() as tx:
        item = next(
            each
            for each in checklist.examine(tx, find(tx, experiment), away, catalog.now)
            if each["name"] == "metric"
        )
    assert (item["ok"], "The disk is full." in item["sentence"]) == (None, True)


def test_segments_that_hold_nobody(catalog: Catalog) -> None:
    with catalog.write() as tx:
        empty = segments.create(tx, parse(segments.SegmentInput, {"name": "beta"})).id
        ruled = segments.create(tx, parse(segments.SegmentInput, {"name": "us", "rules": {"c": "US"}})).id
    alone = examined(catalog, catalog.create(**{**GOOD, "segments": [empty]}))["targeting"]
    assert (alone["ok"], alone["sentence"]) == (False, "Nobody is in the segment beta, so nobody can enter.")
    assert examined(catalog, catalog.create(**{**GOOD, "segments": [empty, ruled]}))["targeting"]["ok"]


def test_a_list_that_nobody_is_on(catalog: Catalog) -> None:
    with catalog.write() as tx:
        segments.create(tx, parse(segments.SegmentInput, {"name": "staff"}))
    experiment = catalog.create(**{**GOOD, "condition": {"id": {"$notInGroup": "staff"}}})
    item = examined(catalog, experiment)["targeting"]
    assert (item["ok"], item["inputs"]["empty_lists"]) == (False, ["staff"])
    with catalog.write() as tx:
        segments.add_members(tx, segments.find(tx, "staff"), ["ann"])
    assert examined(catalog, experiment)["targeting"]["ok"]


def test_a_step_whose_time_has_passed_opens_at_once(catalog: Catalog) -> None:
    def at(hours: float) -> str:
        return (catalog.now + timedelta(hours=hours)).isoformat()

    def ramp(*steps: dict[str, Any]) -> checklist.Item:
        shares = [{"traffic_allocation": 0.3 + number / 10, **step} for number, step in enumerate(steps)]
        return examined(catalog, catalog.create(**{**GOOD, "ramp": shares}))["ramp"]

    assert ramp({"after": "1d"}, {"at": at(25)})["ok"]
    passed = ramp({"at": at(-1)}, {"after": "2h"}, {"at": at(1)}, {"at": at(3)})
    assert (passed["ok"], passed["field"], passed["inputs"]["at_once"]) == (False, "ramp[0]", [0, 2])
    opened = "Steps 1 (to 30 % of the traffic) and 3 (to 50 % of the traffic) of the ramp open at once,"
    assert passed["sentence"].startswith(opened)


def test_experiments_that_share_units(catalog: Catalog) -> None:
    catalog.layer(key="l")
    catalog.running(**{**GOOD, "key": "first", "layer": {"key": "l", "share": 0.5}})
    same = examined(catalog, catalog.create(**GOOD))["layer"]
    assert (same["ok"], same["inputs"]["same_metric"]) == (False, ["first"])
    apart = {"layer": {"key": "l", "share": 0.5}}
    assert examined(catalog, catalog.create(**{**GOOD, **apart}))["layer"]["ok"]
    large = {"layer": {"key": "l", "share": 0.6}}
    item = examined(catalog, catalog.create(**{**GOOD, **large}))["layer"]
    lacking = (
        "it needs 60 % (6,000 of 10,000 slots) of layer l, of which 50 % (5,000 of 10,000 slots) is free"
    )
    assert (item["ok"], item["sentence"]) == (False, f"It cannot start as it is: {lacking}.")
    assert examined(catalog, catalog.create(**{**GOOD, "metrics": ["other"]}))["layer"]["ok"]
    assert examined(catalog, catalog.create(**{**GOOD, "unit": "account_id"}))["layer"]["ok"]
