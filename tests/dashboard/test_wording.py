"""Numbers on the page: as many digits as the uncertainty supports, and never a NaN."""

import math
from datetime import UTC, datetime, timedelta

import pytest

from assay.dashboard import wording
from assay.stats import Interval


@pytest.mark.parametrize(
    ("value", "uncertainty", "shown"),
    [
        (1234.5678, 12.0, "1,235"),
        (1234.5678, 0.012, "1,234.568"),
        (0.123456, 0.0042, "0.1235"),
        (-3.21, 0.4, "−3.21"),
        (-0.001, 0.5, "0.00"),
        (12.0, None, "12.0"),
        (0.0, None, "0"),
        (None, 1.0, "–"),
        (math.nan, 1.0, "–"),
        (math.inf, None, "–"),
        (3e20, 1.0, "3e+20"),
    ],
)
def test_number(value: float | None, uncertainty: float | None, shown: str) -> None:
    assert wording.number(value, uncertainty) == shown


def test_percent_and_ranges() -> None:
    assert wording.percent(0.10641, 0.0048) == "10.64 %"
    assert wording.percent(0.08, 0.07, signed=True) == "+8.0 %"
    assert wording.lift_range(Interval(-0.0432, 0.2261)) == "−4.3 % to +22.6 %"
    assert wording.lift_range(Interval(None, 0.2)) == "unbounded to +20.0 %"
    assert wording.lift_range(None) == "no bounded interval"
    assert wording.lift(0.1064, Interval(-0.0432, 0.2261)) == "+10.6 %"
    assert wording.lift(0.63042, None) == wording.lift(0.63042, Interval(None, 2.0)) == "+63 %"
    assert wording.lift(None, None) == "–"


def test_a_sentence_below_its_verdict() -> None:
    assert wording.without("Keep running: so far it is even.", "Keep running", ["a"]) == "So far it is even."
    assert wording.without("Ship blue: it raises buys.", "Ship it", []) == "Ship blue: it raises buys."
    named = wording.without("Keep running: iOS_new does better.", "Keep running", ["old", "iOS_new"])
    assert named == "iOS_new does better."
    kept = wording.kept("by 5 % (95 % interval +1 % to +9 %, p = 0.03)")
    assert kept.replace("\N{NO-BREAK SPACE}", "_") == "by 5_% (95_% interval +1_% to +9_%, p_=_0.03)"


@pytest.mark.parametrize(
    ("p", "shown"),
    [(None, "–"), (0.0, "< 0.001"), (0.0042, "0.0042"), (0.0234, "0.023"), (0.2081, "0.21"), (1.0, "> 0.99")],
)
def test_p_value(p: float | None, shown: str) -> None:
    assert wording.p_value(p) == shown


def test_ticks() -> None:
    assert [wording.lift_tick(each) for each in (-0.05, 0.0, 0.2)] == ["−5 %", "0 %", "+20 %"]
    assert [wording.tick(each) for each in (0.25, 12000.0)] == ["0.25", "12,000"]
    assert wording.share_tick(0.075) == "7.5 %"


def test_times() -> None:
    now = datetime(2026, 11, 21, 7, 49, 53, tzinfo=UTC)
    assert wording.utc(now) == "21 Nov 2026, 07:49 UTC"
    assert wording.time_tag(now, "day") == (
        '<time datetime="2026-11-21T07:49:53Z" title="21 Nov 2026, 07:49:53 UTC" data-form="day">'
        "21 Nov 2026</time>"
    )
    assert wording.time_tag(None) == "–"
    assert [wording.ago(now - timedelta(seconds=each), now) for each in (0, 65, 7200, 90000)] == [
        "just now",
        "1 minute ago",
        "2 hours ago",
        "1 day ago",
    ]
    assert [wording.days(timedelta(hours=each)) for each in (0.5, 1, 47, 49)] == [
        "under an hour",
        "1 hour",
        "47 hours",
        "2 days",
    ]


def test_differences_of_shares_are_points_and_chances_are_never_sure() -> None:
    assert wording.points(0.0354, 0.019) == "+3.5 points"
    assert wording.points_range(Interval(-0.004, 0.073)) == "−0.4 to +7.3 points"
    shown = ["< 0.1 %", "25.0 %", "> 99.9 %", "–"]
    assert [wording.chance(share) for share in (0.0, 0.25, 0.9997, None)] == shown
