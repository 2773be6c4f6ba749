"""Charts are functions of their data: the same data, the same drawing, letter for letter."""

import os
import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from markupsafe import Markup

from assay.dashboard import charts, wording
from assay.dashboard.charts import Estimate, Line, Moment

GOLDEN = Path(__file__).with_name("golden")
DAY = datetime(2026, 11, 7, tzinfo=UTC)
HOSTILE = '<script>alert(1)</script> & "quotes" \u202e'


def _moments() -> list[Moment]:
    return [
        Moment(
            DAY + timedelta(days=n),
            Estimate(0.05 - 0.3 / (n + 1), -0.5 / (n + 1), 0.1 + 0.2 / (n + 1)),
            f"day {n}",
        )
        for n in range(14)
    ]


def _lines() -> list[Line]:
    days = [DAY + timedelta(days=n) for n in range(10)]
    return [
        Line("control", [(day, 100.0 + 3 * n, f"control {n}") for n, day in enumerate(days)]),
        Line(HOSTILE, [(day, None if n == 4 else 90.0 + 5 * n, HOSTILE) for n, day in enumerate(days)]),
    ]


SPAN = charts.common_span([Estimate(0.08, -0.04, 0.22), Estimate(-0.02, -0.1, 0.06)], 8.0, 272.0)
DRAWINGS = {
    "interval": charts.interval(Estimate(0.08, -0.04, 0.22), SPAN, "good", f"lift of {HOSTILE}"),
    "interval-cut": charts.interval(Estimate(0.2, -0.4, None), SPAN, "plain", "open", margin=-0.02),
    "interval-empty": charts.interval(Estimate(None, None, None), SPAN, "quiet", "nothing"),
    "interval-axis": charts.interval_axis(SPAN, wording.lift_tick),
    "over-time": charts.over_time(_moments(), wording.lift_tick, "Lift", charts.WIDE),
    "over-time-narrow": charts.over_time(_moments(), wording.lift_tick, "Lift", charts.NARROW),
    "over-time-once": charts.over_time(_moments()[:1], wording.lift_tick, "Lift", charts.WIDE),
    "lines": charts.lines(_lines(), wording.tick, "Assignments", charts.WIDE),
    "allocation": charts.allocation([("control", 0.5, True), (HOSTILE, 0.3, True), ("off", 0.1, False)]),
    "key": charts.key_mark(2),
    "slots": charts.slots(
        [
            charts.Part(0.0, 0.5, 0, fades=False, tip=f"Held: {HOSTILE}"),
            charts.Part(0.5, 0.6, 1, fades=True, tip="Washing out"),
            charts.Part(0.6, 1.0, None, fades=False, tip="Free, 40 %"),
        ],
        f"Held {HOSTILE} 50 %",
    ),
    "chances": charts.chances(0.433, 0.567, 0.0, f"In 3 days, {HOSTILE}"),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_drawing(name: str) -> None:
    """Compare with the golden file; `ASSAY_WRITE_GOLDEN=1` writes it anew."""
    file = GOLDEN / f"{name}.svg"
    drawn = f"{DRAWINGS[name]}\n"
    if os.environ.get("ASSAY_WRITE_GOLDEN"):
        file.write_text(drawn, encoding="utf-8")
    assert drawn == file.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_drawing_is_well_formed_and_holds_names_as_text(name: str) -> None:
    root = ET.fromstring(DRAWINGS[name])
    assert root.tag == "svg"
    assert not [each for each in root.iter() if each.tag == "script"]
    assert "style=" not in DRAWINGS[name]
    assert "nan" not in DRAWINGS[name].lower()


def test_nothing_to_draw_is_no_drawing() -> None:
    assert charts.over_time([], wording.lift_tick, "Lift", charts.WIDE) == Markup("")
    assert charts.lines([Line("a", [])], wording.tick, "a", charts.WIDE) == Markup("")


def test_the_scale_holds_zero_and_is_not_stretched_by_one_wild_interval() -> None:
    tame = [Estimate(0.05, 0.01, 0.09)] * 5
    span = charts.common_span([*tame, Estimate(3.0, -50.0, 60.0)], 0.0, 100.0)
    assert span.low < 0.0 < span.high < 1.0
    assert charts.common_span([Estimate(0.0, 0.0, 0.0)], 0.0, 100.0).holds(0.0)


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [(0.0, 1.0, [0.0, 0.25, 0.5, 0.75, 1.0]), (-3.0, 7.0, [-2.5, 0.0, 2.5, 5.0]), (2.0, 2.0, [2.0])],
)
def test_ticks_are_round_numbers(low: float, high: float, found: list[float]) -> None:
    assert charts.ticks(low, high, 4) == found
