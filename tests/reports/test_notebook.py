"""The notebook that makes the headline again: its cells are run, by a Python that never sees this package."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assay.errors import Conflict
from assay.reports import notebook as module
from assay.reports.export import user_columns, users, written
from assay.reports.judging import look_verdicts
from assay.reports.notebook import notebook
from assay.reports.question import Question
from assay.reports.report import Report
from assay.reports.spec import (
    AnalysisSpec,
    CapSpec,
    Direction,
    ExperimentSpec,
    LookSpec,
    MetricSpec,
    MetricType,
    Role,
    SourceSpec,
)
from assay.reports.units import UnitTable
from contracts.event_store import DAY, NOW, event
from reports.world import PURCHASE, SPEC, THREE, TIME, World, phase

#: Runs the code cells of each notebook in a namespace of its own and prints what it found.
RUN = """
import json, pathlib, sys
sys.stdout.reconfigure(encoding="utf-8")
for path in sys.argv[1:]:
    made = {}
    for cell in json.loads(pathlib.Path(path).read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), path, "exec"), made)
    report, units = made["REPORT"], made["UNITS"]
    said = [each for each in report["comparisons"] if each["reason"] is None]
    found = [made["recomputed"](units, report, each) for each in said]
    print("found", json.dumps([path, len(units["phase"]), found], default=float))
assert not {"assay", "duckdb", "statsmodels", "pandas"} & {name.split(".")[0] for name in sys.modules}
"""


def ran(folder: Path, notebooks: Mapping[str, bytes]) -> dict[str, tuple[int, list[dict[str, Any]]]]:
    for name, document in notebooks.items():
        (folder / f"{name}.ipynb").write_bytes(document)
    made = subprocess.run(
        [sys.executable, "-I", "-c", RUN, *(f"{name}.ipynb" for name in notebooks)],
        cwd=folder,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )
    assert made.returncode == 0, made.stderr
    lines = [
        json.loads(line.removeprefix("found "))
        for line in made.stdout.splitlines()
        if line.startswith("found ")
    ]
    return {path.removesuffix(".ipynb"): (units, found) for path, units, found in lines}


REVENUE = MetricSpec(
    "revenue", "revenue", MetricType.REVENUE, "purchase", role=Role.PRIMARY, lookback=4 * DAY
)
PER_VIEW = MetricSpec(
    "per view",
    "per view",
    MetricType.RATIO,
    "purchase",
    role=Role.PRIMARY,
    fold="sum",
    denominator=SourceSpec("view"),
    lookback=3 * DAY,
)
MEAN = MetricSpec("basket", "basket", MetricType.MEAN, "purchase", role=Role.PRIMARY)
KINDS = ("purchase", "view")
RAMP = (phase(1, 0.9, 0.1), phase(2, 0.5, 0.5), phase(3, 1.0, 0.0))
LOOKING_BACK = replace(PURCHASE, lookback=4 * DAY)


def planned(metric: MetricSpec, spec: ExperimentSpec = SPEC, **analysis: Any) -> ExperimentSpec:
    return replace(spec, metrics=(metric,), analysis=AnalysisSpec(**analysis), target_sample_size=2000)


CASES: dict[str, ExperimentSpec] = {
    "conversion": planned(PURCHASE),
    "conversion one-sided": planned(PURCHASE, alternative="less"),
    "conversion with its past": planned(LOOKING_BACK),
    "conversion in a ramp": replace(planned(PURCHASE), phases=RAMP),
    "revenue with its past": planned(REVENUE),
    "revenue in a ramp with its past": replace(planned(REVENUE), phases=RAMP),
    "revenue alone": planned(REVENUE, cuped=False),
    "capped at a percentile": planned(replace(REVENUE, cap=CapSpec(0.9, 0.05, is_quantile=True))),
    "whole windows only": planned(replace(REVENUE, closes=3 * DAY, complete_only=True)),
    "ratio": planned(PER_VIEW),
    "ratio in a ramp": replace(planned(PER_VIEW), phases=RAMP),
    "mean": planned(MEAN),
    "falling": planned(replace(REVENUE, direction=Direction.DECREASE), method="bayesian"),
    "too rare for a lift": planned(replace(PURCHASE, key="rare", event_type="rare"), method="bayesian"),
    "always valid": planned(REVENUE, method="always_valid"),
    "always valid one-sided": planned(PURCHASE, method="always_valid", alternative="greater"),
    "bandit in a ramp": replace(planned(REVENUE, method="bandit"), phases=RAMP),
    "group sequential": planned(REVENUE, method="group_sequential", looks=4),
    "without a plan": replace(planned(PURCHASE, method="group_sequential"), target_sample_size=None),
}


def fill(world: World) -> None:
    """Some hundred units of three arms in three phases, most with a past, some without events."""
    rng = np.random.default_rng(20_261_121)
    for number, sizes in ((1, (180, 60, 50)), (2, (120, 130, 90)), (3, (30, 0, 20))):
        for arm, size in zip((10, 11, 12), sizes, strict=True):
            prefix = f"p{number}-"
            at = NOW - (5 - number) * DAY
            world.units(arm, size, phase=number, at=at, prefix=prefix)
            sent = []
            for nth in range(size):
                name, wealth = f"{prefix}{arm}-{nth}", float(rng.gamma(2.0 + number))
                past = [
                    (kind, when) for kind in ("purchase", "view") for when in (1, 3) if rng.random() < 0.5
                ]
                own = [("view", 0)] * int(rng.integers(1, 4)) + [("purchase", 0)] * int(rng.integers(0, 3))
                for kind, days in (*past, *own):
                    amount = wealth * rng.lognormal() * (1.3 if arm == 11 and not days else 1.0)
                    given = {} if rng.random() < 0.1 else {"a": float(amount)}
                    when = at - days * DAY + DAY // 2 if days else at + int(rng.integers(1, DAY))
                    sent.append(event(name, kind, when, **given))
                if number == 1 and nth < {10: 2, 11: 8}.get(arm, 0):
                    sent.append(event(name, "rare", at + 1))
            world.feed.events(*sent)


def told(report: Report) -> list[dict[str, Any]]:
    return [
        {
            "difference": each.judged.numbers.difference,
            "standard_error": each.judged.numbers.standard_error,
            "interval": each.judged.numbers.interval,
            "p_value": each.judged.numbers.p_value,
        }
        for each in report.primary.comparisons
        if each.judged is not None
    ]


def test_cells__say_what_the_report_says(world: World, tmp_path: Path) -> None:
    fill(world)
    two = replace(
        THREE,
        phases=tuple(
            replace(each, allocations=(*each.allocations, (12, 0.3)))
            for each in (phase(1, 0.5, 0.2), RAMP[1])
        ),
    )
    cases = {**CASES, "three arms": planned(REVENUE, two), "three arms, shares": planned(PURCHASE, two)}
    first = world.answer(CASES["always valid"], Question())
    looks = (LookSpec(1, TIME, 500, 0.3, look_verdicts(first)),)
    cases["after a look"] = replace(CASES["always valid"], looks=looks)
    notebooks = {name: notebook(world.store, spec, Question(), TIME) for name, spec in cases.items()}
    made = ran(tmp_path, notebooks)
    assert set(made) == set(cases)
    assert made["without a plan"][1] == []
    # Every notebook has held what it found against what it was told; that is the report.
    for name in (
        "conversion in a ramp",
        "revenue in a ramp with its past",
        "three arms",
        "after a look",
        "bandit in a ramp",
        "too rare for a lift",
    ):
        (units, found), spec = made[name], cases[name]
        report = world.answer(spec, Question())
        of = report.primary
        assert units == sum(each.units for by in of.tallies.values() for each in by.values()), name
        for one, other in zip(told(report), found, strict=True):
            size = one["standard_error"]
            assert other["difference"] == pytest.approx(one["difference"], rel=1e-9, abs=1e-9 * size), name
            assert other["standard_error"] == pytest.approx(size, rel=1e-9), name
            for end, own in zip(one["interval"], other["interval"], strict=True):
                assert own == (None if end is None else pytest.approx(end, rel=1e-9, abs=1e-9 * size)), name
            if spec.analysis.method in ("fixed", "always_valid", "bandit"):
                assert other["p_value"] == pytest.approx(one["p_value"], rel=1e-9), name
    assert made["revenue in a ramp with its past"] != made["revenue with its past"]


def test_notebook__is_nbformat_four_and_stops_where_the_rows_differ(world: World, tmp_path: Path) -> None:
    fill(world)
    document = json.loads(notebook(world.store, CASES["revenue with its past"], Question(), TIME))
    assert (document["nbformat"], document["nbformat_minor"]) == (4, 5)
    cells = document["cells"]
    assert len({cell["id"] for cell in cells}) == len(cells)
    for cell in cells:
        code = {"execution_count": None, "outputs": []} if cell["cell_type"] == "code" else {}
        assert cell == {**cell, "metadata": {}, **code}
        assert isinstance(cell["source"], list)
    assert cells[0]["source"][0] == "# Colours: revenue\n"
    assert all("assay" not in "".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    rows = next(cell for cell in cells if "".join(cell["source"]).startswith("TEXT = "))
    head, first, *rest = "".join(rows["source"]).split("\\n")
    *others, last = first.removesuffix("\\r").split(",")
    rows["source"] = ["\\n".join([head, ",".join([*others, str(float(last) + 1.0)]), *rest])]
    (tmp_path / "other.ipynb").write_text(json.dumps(document), encoding="utf-8")
    made = subprocess.run(
        [sys.executable, "-I", "-c", RUN, "other.ipynb"], cwd=tmp_path, capture_output=True, text=True
    )
    assert "AssertionError: difference: the report says" in made.stderr


def test_many_units__come_from_a_file_beside_it(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(world)
    monkeypatch.setattr(module, "EMBEDDED", 100)
    spec = CASES["ratio"]
    document = notebook(world.store, spec, Question(), TIME)
    assert b"put a viewer key here" in document
    assert b"u10-" not in document
    report = world.answer(spec, Question())
    table = UnitTable.of(report, report.metrics)
    file = b"".join(written(user_columns(table), users(report, table, world.store), "csv"))
    (tmp_path / "colours-users.csv").write_bytes(file)
    units, _ = ran(tmp_path, {"large": document})["large"]
    assert units == sum(report.units.values()) == len(file.splitlines()) - 1


def test_nothing_to_make_again__is_said(world: World, tmp_path: Path) -> None:
    assert ran(tmp_path, {"empty": notebook(world.store, SPEC, Question(), TIME)}) == {"empty": (0, [])}
    quantile = MetricSpec("p90", "p90", MetricType.QUANTILE, "purchase", role=Role.PRIMARY, quantile=0.9)
    with pytest.raises(Conflict, match="is a quantile"):
        notebook(world.store, replace(SPEC, metrics=(quantile,)), Question(), TIME)
