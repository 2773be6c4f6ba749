"""A/A experiments through the whole path: stored units and events, reports, looks and decisions.

What `tests/stats` shows of the methods as arrays is shown here of the product: whoever looks every day is
told of an effect that is not there as often as the plan says, and no more. Nightly: 1,000 experiments.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assay.eventstore.base import Position
from assay.eventstore.duckdb import DuckdbStore
from assay.reports.build import build
from assay.reports.judging import information, look_verdicts
from assay.reports.question import Question
from assay.reports.report import Report, Verdict
from assay.reports.spec import AnalysisSpec, ExperimentSpec, LookSpec
from assay.stats import peeking_error
from contracts.event_store import DAY, NOW, SECOND, event
from reports.world import SPEC, TIME, phase
from stats.simulation import at_most, band, check

UNITS, RATE = 100, 0.5
#: An effect that no look can miss.
CLEAR = 0.95
SEQUENTIAL = ("always_valid", "group_sequential")
SIZES = [pytest.param(3, 3, id="smoke"), pytest.param(1_000, 7, id="nightly", marks=pytest.mark.nightly)]
RAMPS = [pytest.param(3, id="smoke"), pytest.param(400, id="nightly", marks=pytest.mark.nightly)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DuckdbStore]:
    opened = DuckdbStore(tmp_path / "events.duckdb", memory="1GiB", threads=1)
    yield opened
    opened.close()


class Log:
    """What a log would hold, given to the store as the drain does, by portions."""

    def __init__(self, store: DuckdbStore) -> None:
        self.store = store
        self.rows = 0
        self.assigned = 0

    def come(self, units: list[tuple[int, str, int, int, int]], buyers: list[tuple[int, str, int]]) -> None:
        """Units as (experiment, unit, variant, phase, at), and events as (experiment, unit, at)."""
        lines = [[self.assigned + place, *unit] for place, unit in enumerate(units, 1)]
        self.assigned += len(lines)
        self.rows += 1
        sent = [event(unit, "purchase", at, x=experiment) for experiment, unit, at in buyers]
        self.store.append(
            Position(self.rows * 65_536, self.assigned),
            json.dumps([{"q": self.rows, "i": 0, "b": sent}]),
            json.dumps(lines),
        )


def looked(spec: ExperimentSpec, report: Report) -> ExperimentSpec:
    """The experiment after a look at this report."""
    units = sum(report.units.values())
    fraction = information(spec, units, report.end)
    assert fraction is not None
    number = len(spec.looks) + 1
    look = LookSpec(number, report.computed_at, units, fraction, look_verdicts(report))
    return replace(spec, looks=(*spec.looks, look))


@pytest.mark.parametrize(("runs", "looks"), SIZES)
def test_daily_looks_at_nothing__call_as_often_as_planned(store: DuckdbStore, runs: int, looks: int) -> None:
    rng = np.random.default_rng(20_261_121)
    log = Log(store)
    planned = {
        "always_valid": AnalysisSpec(method="always_valid", planned_units=looks * UNITS),
        "group_sequential": AnalysisSpec(method="group_sequential", looks=looks, planned_units=looks * UNITS),
    }
    specs = {
        (number, method): replace(SPEC, id=number, key=f"aa-{number}", analysis=planned[method])
        for number in range(1, runs + 2)
        for method in SEQUENTIAL
    }
    # The last one has an effect, to show that the silence of the others is no deafness.
    real = runs + 1
    naive: set[int] = set()
    for day in range(looks):
        at = NOW + day * DAY
        arms, bought = rng.random((real, UNITS)) < 0.5, rng.random((real, UNITS)) < RATE
        bought[-1] |= arms[-1] & (rng.random(UNITS) < CLEAR)
        named = [(run, nth, f"{run + 1}-{day}-{nth}") for run in range(real) for nth in range(UNITS)]
        log.come(
            [(run + 1, unit, 11 if arms[run, nth] else 10, 0, at) for run, nth, unit in named],
            [(run + 1, unit, at + SECOND) for run, nth, unit in named if bought[run, nth]],
        )
        now = TIME + timedelta(days=day, hours=1)
        for (number, method), spec in specs.items():
            report = build(store, spec, Question(), now)
            specs[number, method] = looked(spec, report)
            [comparison] = report.primary.comparisons
            if comparison.effect.significant:
                naive.add(number)
    assert real in naive
    naive.remove(real)
    called = dict.fromkeys(SEQUENTIAL, 0)
    for (number, method), spec in specs.items():
        report = build(store, spec, Question(), TIME + timedelta(days=looks))
        [comparison] = report.primary.comparisons
        assert comparison.judged is not None
        if number == real:
            assert comparison.judged.significant, method
            assert report.decision.verdict is Verdict.SHIP, method
            continue
        called[method] += bool(comparison.judged.significant)
        # The decision says what the looks say, or holds back; it never makes more of them.
        if report.decision.verdict in (Verdict.SHIP, Verdict.ROLL_BACK):
            assert comparison.judged.significant
    check(f"always-valid, {looks} daily looks", called["always_valid"] / runs, at_most(0.05, runs))
    check(f"group-sequential, {looks} daily looks", called["group_sequential"] / runs, band(0.05, runs))
    check("the fixed test at every look", len(naive) / runs, band(peeking_error(looks), runs))
    if runs >= 1_000:
        assert not band(0.05, runs).holds(len(naive) / runs)


@pytest.mark.parametrize("runs", RAMPS)
def test_ramp_over_a_drifting_baseline__stays_at_its_level(store: DuckdbStore, runs: int) -> None:
    """A/A, 90/10 and then 50/50, while the share that buys drifts from 5 to 6 %."""
    rng = np.random.default_rng(9_010)
    log = Log(store)
    told = {"ramp": 0, "flat": 0}
    for number in range(1, runs + 1):
        units: list[tuple[int, str, int, int, int]] = []
        buyers: list[tuple[int, str, int]] = []
        for stage, share, rate in ((1, 0.1, 0.05), (2, 0.5, 0.06)):
            at = NOW + stage * DAY
            treated, bought = rng.random(20_000) < share, rng.random(20_000) < rate
            names = [f"{number}-{stage}-{nth}" for nth in range(20_000)]
            units += [
                (number, name, 11 if arm else 10, stage, at) for name, arm in zip(names, treated, strict=True)
            ]
            buyers += [(number, names[nth], at + SECOND) for nth in np.flatnonzero(bought)]
        log.come(units, buyers)
        spec = replace(SPEC, id=number, key=f"ramp-{number}")
        phases: dict[str, Any] = {
            "ramp": (phase(1, 0.9, 0.1), phase(2, 0.5, 0.5)),
            # What it would be if all had been dealt the same split.
            "flat": (phase(1, 0.7, 0.3), phase(2, 0.7, 0.3)),
        }
        for name, dealt in phases.items():
            asked = replace(spec, phases=dealt)
            report = build(store, asked, Question(), TIME + timedelta(days=3))
            [comparison] = report.primary.comparisons
            assert comparison.judged is not None
            told[name] += bool(comparison.judged.significant)
        store.purge(number)
    check("stratified by phase", told["ramp"] / runs, band(0.05, runs))
    check("as if there had been no ramp", told["flat"] / runs, band(0.48, runs, slack=0.03))
    if runs >= 400:
        assert not band(0.05, runs).holds(told["flat"] / runs)
