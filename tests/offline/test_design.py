"""Design numbers against independent libraries and against each other."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.power import NormalIndPower

from assay import stats
from assay.errors import Invalid
from assay.offline.design import (
    Answer,
    Question,
    answer,
    document,
    past_baseline,
    rate_baseline,
    ratio_baseline,
)
from assay.offline.plans import sentence
from assay.offline.request import Request, metrics_of
from assay.stats import Baseline, Design
from live import run


def asked(
    baseline: Baseline, *, proportion: bool = False, design: Design | None = None, **more: float
) -> Answer:
    treatments = int(more.pop("treatments", 1))
    return answer(Question(baseline, proportion, design or Design(), treatments, **more))


@pytest.mark.parametrize(("alternative", "theirs"), [("two-sided", "two-sided"), ("greater", "larger")])
@pytest.mark.parametrize("ratio", [1.0, 0.25])
def test_mean__is_the_size_of_statsmodels(alternative: stats.Alternative, theirs: str, ratio: float) -> None:
    found = asked(
        Baseline(10.0, 900.0), difference=1.0, power=0.9, design=Design(alternative=alternative, ratio=ratio)
    )
    control = NormalIndPower().solve_power(1.0 / 30.0, alpha=0.05, power=0.9, ratio=ratio, alternative=theirs)
    assert found.control == math.ceil(control)
    assert found.treatment == math.ceil(control * ratio)
    assert found.units == found.control + found.treatment


def test_proportion__is_the_unpooled_formula() -> None:
    found = asked(rate_baseline(0.05), proportion=True, lift=0.1)
    assert found.control == math.ceil(stats.sample_size_proportions(0.05, 0.005, formula="unpooled"))
    assert found.power == 0.8


@pytest.mark.parametrize("test", ["fixed", "group_sequential", "always_valid"])
@pytest.mark.parametrize("proportion", [True, False])
def test_size_effect_and_power__agree(test: stats.power.Test, proportion: bool) -> None:
    baseline = rate_baseline(0.1) if proportion else Baseline(5.0, 40.0)
    design = Design(test=test, looks=5, ratio=0.5)
    size = asked(baseline, proportion=proportion, design=design, lift=0.08, power=0.85)
    assert size.units is not None
    effect = asked(baseline, proportion=proportion, design=design, units=size.units, power=0.85)
    power = asked(baseline, proportion=proportion, design=design, units=size.units, lift=0.08)
    assert effect.lift == pytest.approx(0.08, rel=1e-3)
    assert power.power == pytest.approx(0.85, abs=1e-3)
    if test != "fixed":
        assert size.usual_units is not None
        assert size.units > size.usual_units
        assert size.expected_units is not None
        assert size.expected_units < size.units


def test_several_treatments__share_alpha__and_the_control() -> None:
    one = asked(Baseline(1.0, 4.0), difference=0.1, design=Design(alpha=0.05 / 3))
    three = asked(Baseline(1.0, 4.0), difference=0.1, treatments=3)
    assert (three.control, three.treatment) == (one.control, one.treatment)
    assert three.units == 4 * (one.control or 0)


def test_days__and_the_table_by_weeks() -> None:
    found = asked(rate_baseline(0.05), proportion=True, lift=0.1, daily=4000.0)
    assert found.days == math.ceil((found.units or 0) / 4000)
    assert [row.days for row in found.table] == [7, 14, 21, 28, 42, 56]
    third = found.table[2]
    again = asked(rate_baseline(0.05), proportion=True, lift=third.lift or 0.0)
    assert again.units == pytest.approx(84_000, abs=2)
    assert f"That takes {found.days} days." in sentence(found)


def test_ratio__from_four_numbers__is_that_of_the_units() -> None:
    rng = np.random.default_rng(5)
    below = rng.poisson(4.0, 200_000) + 1.0
    above = 2.0 * below + rng.normal(0.0, 3.0, len(below))
    units = stats.Moments.from_arrays({"y": above, "d": below})
    known = stats.baseline_of(units, stats.Ratio("y", "d"))
    assert isinstance(known, Baseline)
    stated = ratio_baseline(
        (above.mean(), above.std(ddof=1)), (below.mean(), below.std(ddof=1)), np.corrcoef(above, below)[0, 1]
    )
    assert stated.mean == pytest.approx(known.mean, rel=1e-12)
    assert stated.variance == pytest.approx(known.variance, rel=1e-6)


def test_baseline_from_a_file__and_what_a_covariate_saves(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    before = rng.normal(10.0, 3.0, 5000)
    frame = pd.DataFrame(
        {"user": np.arange(5000), "before": before, "y": before + rng.normal(0.0, 3.0, 5000)}
    )
    file = tmp_path / "past.parquet"
    frame.to_parquet(file)
    plain, proportion = past_baseline(Request(str(file), "user", None, metrics_of(means=["y"])))
    assert (plain.mean, proportion) == (pytest.approx(frame["y"].mean(), rel=1e-12), False)
    assert plain.variance == pytest.approx(frame["y"].var(), rel=1e-9)
    less, _ = past_baseline(Request(str(file), "user", None, metrics_of(means=["y"]), ("before",)))
    kept = 1.0 - np.corrcoef(frame["y"], frame["before"])[0, 1] ** 2
    assert less.variance == pytest.approx(plain.variance * kept, rel=1e-3)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"lift": 0.1, "difference": 1.0}, "not both"),
        ({}, "Give the effect"),
        ({"lift": 0.0}, "cannot be detected"),
        ({"lift": 0.1, "units": 100.0, "power": 0.8}, "leave it out"),
        ({"lift": 30.0}, "no share between 0 and 1"),
        ({"lift": 0.1, "power": 0.01}, "between alpha and 1"),
        ({"units": 2.0}, "too few"),
    ],
)
def test_wrong_questions__are_one_sentence(given: dict[str, float], said: str) -> None:
    with pytest.raises(Invalid, match=said):
        asked(rate_baseline(0.05), proportion=True, **given)


def test_one_sided_away_from_the_effect__is_unreachable__with_a_reason() -> None:
    found = asked(Baseline(1.0, 1.0), difference=-0.1, design=Design(alternative="greater"))
    assert document(found)["reason"]["code"] == "unreachable"
    assert sentence(found).startswith("There is no answer.")


def test_command__prints_the_document(tmp_path: Path) -> None:
    done = run("power", "--baseline", "0.05", "--lift", "-0.1", "--one-sided", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["design"]["alternative"] == "less"
    expected = stats.sample_size_proportions(0.05, -0.005, alternative="less", formula="unpooled")
    assert found["control_units"] == math.ceil(expected)
    wrong = run("power", "--baseline", "5", "--lift", "0.1", cwd=tmp_path)
    assert (wrong.returncode, wrong.stderr) == (1, "assay: --baseline: 5 is no share between 0 and 1.\n")
