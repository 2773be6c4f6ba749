"""The shapes that clients expect, by field, by type and by value."""

import json
import math
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from assay.reports.report import Report
from assay.reports.spec import Direction, ExperimentSpec, MetricSpec, MetricType, Role
from assay.reports.views.canonical import canonical
from assay.reports.views.common import conventional, names, value_of_converters, winner
from assay.reports.views.results import results, sample_ratio, summary
from assay.reports.views.verdicts import stats, winners
from contracts.event_store import DAY, HOUR, NOW, event
from reports.world import CONTROL, PURCHASE, SPEC, THREE, TIME, World, phase

VIEWS = (results, summary, winners, stats, canonical)
DOCUMENTS = Path(__file__).parents[2].parent / "shared" / "seeds"
REVENUE = MetricSpec("revenue", "revenue", MetricType.REVENUE, "purchase", role=Role.PRIMARY)


def strict(document: Any) -> Any:
    """The document after a journey through JSON, which NaN and infinity would not survive."""
    encoded = msgspec.json.encode(document)
    return json.loads(encoded, parse_constant=lambda name: pytest.fail(f"{name} in a document"))


def finite(value: Any) -> None:
    if isinstance(value, float):
        assert math.isfinite(value)
    elif isinstance(value, dict):
        for each in value.values():
            finite(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            finite(each)


def lacking(shown: Any, found: Any, path: str = "") -> list[str]:
    """What a document shows and ours has not, or has as something else; keys that are data are skipped."""
    if isinstance(shown, dict) and isinstance(found, dict):
        if path.rsplit(".", 1)[-1] in {"events_by_type", "event_counts"} or any(
            key.isdigit() for key in shown
        ):
            return []
        if path.endswith("variant_stats"):
            return lacking(next(iter(shown.values())), next(iter(found.values())), f"{path}.*")
        missing = [f"{path}.{name}" for name in shown if name not in found]
        return missing + [
            each
            for name in shown
            if name in found
            for each in lacking(shown[name], found[name], f"{path}.{name}")
        ]
    if isinstance(shown, list) and isinstance(found, list):
        return lacking(shown[0], found[0], f"{path}[0]") if shown and found else []
    if shown is None or found is None or path.endswith("_id"):
        return []
    numbers = (int, float)
    if isinstance(shown, bool) or isinstance(found, bool):
        alike = isinstance(shown, bool) and isinstance(found, bool)
    elif isinstance(shown, numbers):
        alike = isinstance(found, numbers)
    else:
        alike = type(shown) is type(found)
    return [] if alike else [f"{path}: {found!r} is not like {shown!r}"]


def shown_answers() -> dict[str, Any]:
    """The answers that the reference documents show for results and stats, by the name of our view."""
    found: dict[str, Any] = {}
    for path in sorted(DOCUMENTS.glob("*.txt")):
        for block in re.findall(r"^```json\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL):
            try:
                document = json.loads(block.replace("[...]", "[]"))
            except ValueError:
                continue
            for name, sign in (("results", "srm"), ("summary", "variant_stats"), ("stats", "effect_size")):
                if isinstance(document, dict) and sign in document:
                    found[name] = document
    return found


def full(world: World) -> Report:
    """Two arms with a clear difference, clicks besides, over two days."""
    world.units(10, 500, at=NOW - 2 * DAY)
    world.units(11, 500, at=NOW - 2 * DAY)
    world.events(10, 50, at=NOW - DAY, a=10.0)
    world.events(11, 80, at=NOW, a=10.0)
    world.events(11, 20, at=NOW - DAY, a=2.5)
    world.events(10, 100, "click")
    return world.report(group_by="day")


@pytest.mark.skipif(not DOCUMENTS.is_dir(), reason="the reference documents are not beside the project")
@pytest.mark.parametrize("name", ["results", "summary", "stats"])
def test_views__have_the_fields_that_the_documents_show(world: World, name: str) -> None:
    shown = shown_answers()[name]
    report = full(world)
    assert (
        lacking(shown, strict({"results": results, "summary": summary, "stats": stats}[name](report))) == []
    )


def test_results__by_value(world: World) -> None:
    found = strict(results(full(world)))
    control, blue = found["variants"]
    assert (control["assigned_count"], control["event_count"]) == (500, 150)
    assert control["events_by_type"] == {"click": 100, "purchase": 50}
    assert (control["conversion_rate"], control["primary_conversion_rate"]) == (0.1, 0.1)
    assert (blue["primary_event_count"], blue["primary_unique_users"]) == (100, 80)
    assert blue["primary_events_per_assigned_user"] == 0.2
    assert found["summary"]["total_assigned"] == 1000
    assert found["summary"]["total_events"] == 250
    assert found["conversion_event_type"] == "purchase"
    comparison = found["comparison"]
    assert comparison == found["comparisons"][0]
    pooled = 130 / 1000
    z = 0.06 / math.sqrt(pooled * (1 - pooled) * 2 / 500)
    assert comparison["z_score"] == pytest.approx(z)
    assert comparison["p_value"] == pytest.approx(math.erfc(z / math.sqrt(2)))
    assert comparison["lift_percentage"] == pytest.approx(60.0)
    reach = 1.959963984540054 * math.sqrt(0.1 * 0.9 / 500 + 0.16 * 0.84 / 500)
    interval = comparison["conversion_rate_diff_ci_95"]
    assert interval["diff_low"] == pytest.approx(0.06 - reach)
    assert interval["diff_high"] == pytest.approx(0.06 + reach)
    assert (comparison["method"], comparison["interval_method"]) == ("pooled_two_proportion_z", "unpooled")
    assert found["srm"]["expected_split_percent"] == {"10": 50.0, "11": 50.0}
    assert (found["srm"]["chi_square"], found["srm"]["p_value"], found["srm"]["flagged"]) == (0.0, 1.0, False)
    assert found["recommendation"].startswith("Ship blue")


def test_results__hold_the_summary(world: World) -> None:
    report = full(world)
    whole, flat = results(report), summary(report)
    assert {name: whole[name] for name in flat} == flat
    assert flat["variant_stats"]["blue"] == {
        "variant_id": 11,
        "total_assigned_users": 500,
        "conversion_rate": 0.16,
        "conversion_count": 80,
        "event_counts": {"purchase": 100},
        "metrics": {"total_revenue": 850.0},
        "traffic_allocation": 50.0,
    }
    assert flat["global_conversion_rate"] == 0.13
    assert flat["total_users_in_experiment"] == 1000
    assert flat["experiment_days_running"] == 20
    assert (flat["total_variants"], flat["total_events"]) == (2, 250)


def test_timeseries__divides_by_who_was_assigned_so_far(world: World) -> None:
    world.units(10, 4, at=NOW - DAY)
    world.units(10, 4, at=NOW, prefix="late")
    world.units(11, 2, at=NOW - DAY)
    world.events(10, 2, at=NOW - DAY + HOUR)
    world.events(10, 3, at=NOW + HOUR)
    first, second = results(world.report(aggregation="day"))["timeseries"]
    assert first["bucket"] == "2026-09-20T00:00:00.000000Z"
    assert (first["group_by"], first["metric"]) == ("day", "purchase")
    assert first["variants"][0] == {
        "variant_id": 10,
        "variant_name": "control",
        "assigned": 4,
        "newly_assigned": 4,
        "events": 2,
        "conversions": 2,
        "conversion_rate": 0.5,
        "cumulative_conversions": 2,
        "cumulative_conversion_rate": 0.5,
    }
    assert second["variants"][0]["assigned"] == 8
    assert second["variants"][0]["conversion_rate"] == 3 / 8
    assert second["variants"][0]["cumulative_conversion_rate"] == 3 / 8
    assert second["variants"][1]["cumulative_conversion_rate"] == 0.0
    only = results(world.report(group_by="day", variant_id="11"))["timeseries"]
    assert [[each["variant_id"] for each in bucket["variants"]] for bucket in only] == [[11], [11]]
    assert results(world.report())["timeseries"] == []


def test_event_type__narrows_what_is_counted(world: World) -> None:
    full(world)
    found = results(world.report(event_type="click"))
    assert [each["events_by_type"] for each in found["variants"]] == [{"click": 100}, {}]
    assert [each["unique_users_with_events"] for each in found["variants"]] == [100, 0]
    assert [each["conversion_rate"] for each in found["variants"]] == [0.2, 0.0]
    both = results(world.report(event_type="click", primary_event_type="purchase"))
    assert both["variants"][0]["event_count"] == 100
    assert both["variants"][0]["primary_event_count"] == 50
    assert both["comparison"]["metric"] == "purchase"


def test_revenue__is_that_of_the_declared_metric(world: World) -> None:
    full(world)
    world.events(10, 1, "refund", a=-3.0)
    plain = summary(world.report())
    declared = summary(world.report(replace(SPEC, metrics=(REVENUE,))))
    assert plain["variant_stats"]["control"]["metrics"]["total_revenue"] == 500.0
    assert declared["variant_stats"]["control"]["metrics"]["total_revenue"] == 500.0


def test_winners__by_value(world: World) -> None:
    full(world)
    report = world.report(confidence_level=0.9, significance_threshold=0.05)
    found = strict(winners(report))
    control, blue = found["variants"]
    assert (found["winner"], found["winner_variant_id"]) == ("blue", 11)
    assert (blue["total_users"], blue["conversions"], blue["conversion_rate"]) == (500, 80, 16.0)
    reach = 100 * 1.6448536269514722 * math.sqrt(0.16 * 0.84 / 500)
    assert blue["confidence_interval"]["lower"] == pytest.approx(16.0 - reach)
    assert blue["confidence_interval"]["upper"] == pytest.approx(16.0 + reach)
    assert blue["relative_uplift"] == pytest.approx(60.0)
    assert blue["is_significant"] is True
    assert (control["is_control"], control["p_value"], control["is_significant"]) == (True, None, False)
    assert control["relative_uplift"] is None
    assert winners(world.report(significance_threshold=0.001))["winner"] is None


def test_stats__by_value(world: World) -> None:
    found = strict(stats(full(world)))
    control, blue = found["variants"]
    assert (found["winner"], found["statistical_significance"], found["control_variant"]) == (
        "blue",
        True,
        "control",
    )
    assert found["effect_size"] == pytest.approx(0.6)
    assert (found["sample_size_per_variant"], found["total_conversions"]) == (500, 130)
    assert found["confidence_level"] == 0.95
    assert (control["mean_value"], control["std_dev"]) == (10.0, 0.0)
    # 20 converters spent 12.5, 60 spent 10.
    assert blue["mean_value"] == pytest.approx(850 / 80)
    assert blue["std_dev"] == pytest.approx(math.sqrt((20 * (12.5 - 10.625) ** 2 + 60 * 0.625**2) / 79))
    reach = 1.959963984540054 * math.sqrt(0.16 * 0.84 / 500)
    assert blue["confidence_interval"] == pytest.approx([0.16 - reach, 0.16 + reach])


def test_values__count_one_where_no_event_has_any(world: World) -> None:
    world.units(10, 5)
    world.events(10, 2)
    world.events(10, 1)
    world.units(11, 5)
    world.events(11, 1)
    control, blue = world.report().conversion.arms
    assert value_of_converters(control.tally) == (1.5, pytest.approx(math.sqrt(0.5)))
    assert value_of_converters(blue.tally) == (1.0, None)
    assert value_of_converters(world.report(primary_event_type="none").conversion.arms[0].tally) == (
        None,
        None,
    )


def test_all_worse__the_control_wins(world: World) -> None:
    for variant, units, converters in ((10, 400, 160), (11, 300, 60), (12, 300, 30)):
        world.units(variant, units)
        world.events(variant, converters)
    report = world.report(THREE)
    assert stats(report)["winner"] == "control"
    assert stats(report)["effect_size"] == pytest.approx(-0.75)
    less = replace(THREE, metrics=(replace(PURCHASE, direction=Direction.DECREASE),))
    assert winners(world.report(less))["winner"] == "green"


def test_ramp__views_are_stratified_too(world: World) -> None:
    spec = replace(SPEC, phases=(phase(1, 0.9, 0.1), phase(2, 0.5, 0.5)))
    for number, variant, units, converters in (
        (1, 10, 900, 45),
        (1, 11, 100, 5),
        (2, 10, 500, 100),
        (2, 11, 500, 100),
    ):
        world.units(variant, units, phase=number, prefix=f"p{number}-")
        world.events(variant, converters, prefix=f"p{number}-")
    report = world.report(spec)
    found = results(report)["comparison"]
    assert found["method"] == "post_stratified_t"
    assert found["p_value"] == report.conversion.comparisons[0].effect.p_value
    # The rates as the 1,000 and the 1,000 units of the two stretches would have had them.
    assert (found["value_control"], found["value_treatment"]) == pytest.approx((0.125, 0.125))
    assert found["note"].startswith("The split changed on 2026-09-03: the arms are compared within 2 ")
    assert results(report)["note"] == stats(report)["note"] == winners(report)["note"] == found["note"]
    assert found["conversion_rate_diff"] == pytest.approx(0.0)
    assert found["significant"] is False


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"start_date": "2030-01-01"},
        {"end_date": "2001-01-01"},
        {"event_type": "never"},
        {"primary_event_type": "never"},
        {"variant_id": "404"},
        {"variant_id": "10"},
        {"group_by": "month", "last_day": "1"},
        {"metrics": "never"},
    ],
)
@pytest.mark.parametrize("size", [0, 1, 2, 60])
def test_anything_left_out__gives_zeros_nulls_and_a_reason(
    world: World, asked: dict[str, str], size: int
) -> None:
    world.units(10, size)
    world.units(11, size // 2)
    world.events(11, size // 4)
    for spec in (
        SPEC,
        replace(SPEC, metrics=()),
        replace(SPEC, metrics=(REVENUE,)),
        replace(SPEC, variants=()),
    ):
        report = world.report(spec, **asked)
        for view in VIEWS:
            document = view(report)
            finite(document)
            strict(document)


def test_empty__says_why(world: World) -> None:
    world.units(10, 100)
    world.units(11, 100)
    world.events(11, 30)
    before = results(world.report(end_date="2001-01-01"))
    assert before["summary"]["total_assigned"] == 0
    assert before["comparison"]["reason"] == "no_data"
    assert before["comparison"]["p_value"] is None
    assert before["srm"]["p_value"] is None
    assert before["srm"]["reason"] == "no_data"
    assert before["srm"]["expected_split_percent"] == {"10": 50.0, "11": 50.0}
    assert before["srm"]["observed_split_percent"] == {"10": 0.0, "11": 0.0}
    assert before["summary"]["date_range"]["end"] == "2001-01-01T23:59:59.999999Z"
    silent = results(world.report(event_type="never"))
    assert silent["comparison"]["reason"] == silent["reason"] == "no_events"
    assert "No event of type never has arrived" in silent["recommendation"]
    assert silent["comparison"]["lift_percentage"] is None
    unknown = results(world.report(variant_id="404"))
    assert (unknown["variants"], unknown["comparison"]["reason"]) == ([], "no_such_variant")
    assert stats(world.report(end_date="2001-01-01"))["reason"] == "no_data"
    assert winners(world.report(end_date="2001-01-01"))["variants"][0]["confidence_interval"]["lower"] is None


def test_one_sided_counts__have_intervals_that_hold(world: World) -> None:
    world.units(10, 50)
    world.units(11, 50)
    world.events(11, 10)
    found = strict(winners(world.report()))
    low, high = (found["variants"][0]["confidence_interval"][end] for end in ("lower", "upper"))
    assert (low, found["variants"][0]["interval_method"]) == (0.0, "wilson")
    assert 0.0 < high < 10.0
    assert found["variants"][1]["reason"] == "baseline_zero"
    assert found["variants"][1]["relative_uplift"] is None
    assert results(world.report())["comparison"]["interval_method"] == "newcombe"


def test_steady_split__has_no_note(world: World) -> None:
    report = full(world)
    found = results(report)["comparison"]
    assert (found["value_control"], found["value_treatment"], found["note"]) == (0.1, 0.16, None)
    assert stats(report)["note"] is None


def test_silence__is_told_from_sameness(world: World) -> None:
    world.units(10, 20)
    world.units(11, 20)
    assert stats(world.report())["reason"] == "no_events"
    [silent] = canonical(world.report(metrics="never"))["metrics"][0]["comparisons"]
    assert (silent["reason"], silent["sentence"]) == (
        "no_events",
        "No event of this type has arrived that counts.",
    )
    world.events(10, 20)
    world.events(11, 20)
    assert stats(world.report())["reason"] == "zero_variance"
    assert results(world.report(start_date="2030-01-01"))["reason"] == "outside_window"


def test_date_range__lies_within_what_counts(world: World) -> None:
    def span(spec: ExperimentSpec = SPEC, **asked: str) -> tuple[str, str]:
        found = results(world.report(spec, **asked))["summary"]["date_range"]
        return found["start"], found["end"]

    now, start = "2026-09-21T14:13:20.000000Z", "2026-09-01T00:00:00.000000Z"
    world.units(10, 1)
    assert span() == (start, now)
    assert span(start_date="2026-09-05") == ("2026-09-05T00:00:00.000000Z", now)
    assert span(start_date="2026-08-05") == (start, now)
    assert span(start_date="2030-01-01") == (now, now)
    ended = replace(SPEC, status="stopped", ended_at=TIME - timedelta(days=1))
    assert span(ended, end_date="2030-01-01") == (start, "2026-09-20T14:13:20.000000Z")
    world.units(10, 1, at=NOW - 30 * DAY, prefix="imported")
    assert span(end_date="2026-08-25") == ("2026-08-22T14:00:00.000000Z", "2026-08-25T23:59:59.999999Z")
    assert summary(world.report())["experiment_days_running"] == 30


def test_buckets__hold_every_variant_and_begin_with_the_window(world: World) -> None:
    for days in range(4):
        world.units(10, 2, at=NOW - days * DAY - HOUR, prefix=f"d{days}-")
        world.events(10, 2, at=NOW - days * DAY, prefix=f"d{days}-")
    whole = results(world.report(group_by="day"))["timeseries"]
    assert [bucket["bucket"][:10] for bucket in whole] == [f"2026-09-{day}" for day in (18, 19, 20, 21)]
    assert [[arm["variant_id"] for arm in bucket["variants"]] for bucket in whole] == [[10, 11]] * 4
    assert [bucket["variants"][1]["assigned"] for bucket in whole] == [0] * 4
    assert [bucket["partial"] for bucket in whole] == [False, False, False, True]
    part = results(world.report(group_by="day", last_day="2"))["timeseries"]
    assert [bucket["bucket"][:10] for bucket in part] == [f"2026-09-{day}" for day in (19, 20, 21)]
    assert [bucket["partial"] for bucket in part] == [True, False, True]
    assert [bucket["variants"][0]["assigned"] for bucket in part] == [4, 6, 8]
    assert [bucket["variants"][0]["events"] for bucket in part] == [2, 2, 2]


def test_amounts_of_other_events__are_no_revenue(world: World) -> None:
    full(world)
    world.events(11, 30, "scroll", a=1000.0)
    shown = summary(world.report())["variant_stats"]
    assert [arm["metrics"]["total_revenue"] for arm in shown.values()] == [500.0, 850.0]


def test_same_names__are_told_apart_by_key() -> None:
    twin = replace(CONTROL, id=20, key="twin")
    other = replace(CONTROL, id=21, key="other", name="other")
    assert names((CONTROL, twin, other)) == {10: "control", 20: "twin", 21: "other"}


def test_phases__lead_the_expected_split(world: World) -> None:
    spec = replace(SPEC, phases=(phase(1, 0.9, 0.1), phase(2, 0.5, 0.5)))
    world.units(10, 90, phase=1, prefix="a")
    world.units(11, 10, phase=1, prefix="a")
    world.units(10, 50, phase=2)
    world.units(11, 50, phase=2)
    found = sample_ratio(world.report(spec))
    assert found["expected_split_percent"] == {"10": 70.0, "11": 30.0}
    assert found["observed_split_percent"] == {"10": 70.0, "11": 30.0}
    assert found["flagged"] is False


def test_canonical__names_every_number(world: World) -> None:
    full(world)
    spec: ExperimentSpec = replace(SPEC, metrics=(PURCHASE, replace(REVENUE, role=Role.SECONDARY)))
    found = strict(canonical(world.report(spec, end_date=(TIME + timedelta(days=1)).date().isoformat())))
    assert [metric["key"] for metric in found["metrics"]] == ["purchase", "revenue"]
    [comparison] = found["metrics"][1]["comparisons"]
    assert comparison["difference"] == pytest.approx(0.7)
    assert comparison["lift"]["value"] == pytest.approx(0.7)
    assert comparison["interval"]["low"] < 0.7 < comparison["interval"]["high"]
    assert found["metrics"][1]["variants"][0]["total"] == 500.0
    assert found["decision"]["verdict"] == "ship"
    assert found["decision"]["winner"] == "blue"
    assert {check["check"] for check in found["health"]} >= {"sample_ratio", "events_arrive"}
    assert found["headline"].startswith("Ship blue")


def test_conventional__agrees_with_the_winner(world: World) -> None:
    report = full(world)
    said = [conventional(each, 0.05, 0.05) for each in report.conversion.comparisons]
    chosen = winner(report, said)
    assert chosen is not None
    assert chosen.key == "blue"
    assert winner(report, []) is None
    world.feed.events(*(event(f"u10-{n}") for n in range(82)))
    assert stats(world.report())["winner"] is None
