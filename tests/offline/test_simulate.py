"""Simulated experiments: nominal rates where they are promised, and the damage where they are not."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from assay import stats
from assay.errors import Invalid
from assay.offline.request import Request, metrics_of
from assay.offline.simulate import Population, RuleResult, Trial, check, imagined, populations, simulate
from live import run


def near(rate: float, nominal: float, runs: int) -> bool:
    """Within four standard errors of the simulation."""
    return abs(rate - nominal) <= 4.0 * math.sqrt(nominal * (1.0 - nominal) / runs)


def by_rule(population: Population, trial: Trial, jobs: int = 1) -> dict[str, RuleResult]:
    return {each.rule: each for each in simulate(population, trial, jobs=jobs)}


@pytest.mark.parametrize(
    "population", [imagined(0.05, None, None, 56_000), imagined(None, 10.0, 30.0, 56_000)]
)
def test_drawn_units__keep_the_promised_rates__and_peeking_does_not(population: Population) -> None:
    trial = Trial(runs=2000, lift=0.05)
    found = by_rule(population, trial)
    peeking = stats.peeking_error(28)
    assert near(found["fixed"].false_positives.rate, 0.05, trial.runs)
    assert near(found["group-sequential"].false_positives.rate, 0.05, trial.runs)
    assert near(found["peeking"].false_positives.rate, peeking, trial.runs)
    assert found["always-valid"].false_positives.rate < 0.03
    for rule, least in (("fixed", 0.95), ("group-sequential", 0.95), ("always-valid", 0.97)):
        coverage = found[rule].coverage
        assert coverage is not None
        assert coverage.rate > least - 4.0 * math.sqrt(least * (1.0 - least) / trial.runs)
    assert found["fixed"].used == 1.0


def test_power__is_that_of_the_design() -> None:
    trial = Trial(runs=2000, lift=0.1, looks=5)
    found = by_rule(imagined(None, 10.0, 30.0, 30_000), trial)
    baseline = stats.Baseline(10.0, 900.0)
    for rule, test in (("fixed", "fixed"), ("group-sequential", "group_sequential")):
        design = stats.Design(test=test, looks=5)  # type: ignore[arg-type]
        assert near(found[rule].power.rate, stats.power_of(baseline, 1.0, 30_000, design), trial.runs)
    assert found["group-sequential"].used < 1.0


def test_one_sided_and_uneven__keep_the_level() -> None:
    trial = Trial(runs=2000, looks=4, share=0.2, alternative="greater")
    found = by_rule(imagined(0.2, None, None, 20_000), trial)
    assert near(found["fixed"].false_positives.rate, 0.05, trial.runs)
    assert near(found["group-sequential"].false_positives.rate, 0.05, trial.runs)


def test_real_units__are_dealt_anew(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    frame = pd.DataFrame(
        {
            "user": np.arange(3000),
            "spent": rng.lognormal(0.0, 1.0, 3000),
            "bought": (rng.random(3000) < 0.3).astype(int),
        }
    )
    file = tmp_path / "units.parquet"
    frame.to_parquet(file)
    found = populations(Request(str(file), "user", None, metrics_of(means=["spent"], conversions=["bought"])))
    assert found["spent"].mean == pytest.approx(frame["spent"].mean())
    assert found["bought"].binary
    trial = Trial(runs=600, looks=4, lift=0.2)
    for population in found.values():
        rates = by_rule(population, trial)
        assert near(rates["fixed"].false_positives.rate, 0.05, trial.runs)
        coverage = rates["fixed"].coverage
        assert coverage is not None
        assert near(coverage.rate, 0.95, trial.runs)
    values = frame["bought"].to_numpy(dtype=float)
    baseline = stats.Baseline(values.mean(), values.var(), 1.2 * values.mean() * (1.0 - 1.2 * values.mean()))
    wanted = stats.power_of(baseline, 0.2 * values.mean(), 3000)
    assert near(by_rule(found["bought"], trial)["fixed"].power.rate, wanted, trial.runs)


def test_a_seed_gives_the_same_numbers__in_one_process_or_two() -> None:
    values = np.random.default_rng(1).gamma(2.0, 1.0, 30_000)
    population = Population(float(values.mean()), values=values, units=len(values))
    trial = Trial(runs=200, looks=2, seed=9)
    assert simulate(population, trial, jobs=2) == simulate(population, trial, jobs=1)
    other = simulate(imagined(0.1, None, None, 2000), Trial(runs=300, looks=3, seed=1))
    assert other != simulate(imagined(0.1, None, None, 2000), Trial(runs=300, looks=3, seed=2))


@pytest.mark.parametrize(
    ("population", "trial", "said"),
    [
        (imagined(0.5, None, None, 1000), Trial(lift=2.0, looks=2), "no share between 0 and 1"),
        (imagined(0.5, None, None, 100), Trial(), "28 looks need at least 560 units"),
        (imagined(None, 0.0, 1.0, 1000), Trial(looks=2), "a lift needs a mean other than 0"),
        (imagined(0.5, None, None, 1000), Trial(looks=2, share=1.0), "--share: 1 does not lie"),
    ],
)
def test_what_cannot_be_simulated__is_one_sentence(population: Population, trial: Trial, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        check(population, trial)


def test_command__prints_the_document(tmp_path: Path) -> None:
    command = ("simulate", "--baseline", "0.1", "--units", "2000", "--looks", "5", "--runs", "400", "--json")
    done = run(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    [metric] = json.loads(done.stdout)["metrics"]
    rates = {rule["rule"]: rule["false_positive_rate"] for rule in metric["rules"]}
    assert set(rates) == {"fixed", "peeking", "group-sequential", "always-valid", "chance-to-win"}
    assert rates["peeking"] > rates["fixed"]
    assert run(*command, cwd=tmp_path).stdout == done.stdout
    wrong = run("simulate", "--units", "2000", cwd=tmp_path)
    assert (wrong.returncode, wrong.stderr) == (
        1,
        "assay: Give a file, or --baseline for a rate, or --mean with --sd.\n",
    )


def test_stored_experiment__is_dealt_anew(tmp_path: Path) -> None:
    made = run("demo", "--users", "1000", "--no-serve", "--data", "data", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    stored_at = ("--experiment", "demo-checkout", "--data", "data", "--looks", "5", "--runs", "100", "--json")
    found = [run("simulate", *stored_at, *more, cwd=tmp_path) for more in ((), ("--seed", "2"))]
    signup, revenue, *_ = json.loads(found[0].stdout)["metrics"]
    assert (signup["name"], revenue["name"]) == ("signup", "revenue")
    assert (signup["units"], signup["real_units"], signup["runs"]) == (1000, True, 100)
    assert 0.05 < signup["mean"] < 0.2
    rates = {each["rule"]: each["false_positive_rate"] for each in signup["rules"]}
    assert rates["peeking"] >= rates["fixed"]
    assert near(rates["fixed"], 0.05, 100)
    assert json.loads(found[1].stdout)["metrics"][0]["rules"] != signup["rules"]
    for wrong, sentence in (
        (("--experiment", "nowhere", "--data", "data"), "nowhere"),
        (("--experiment", "demo-checkout", "--data", "other"), "There is no data directory at other"),
        (("--experiment", "demo-checkout", "--baseline", "0.1"), "leave out --baseline"),
        (("x.csv", "--experiment", "demo-checkout"), "leave out the file"),
    ):
        refused = run("simulate", *wrong, cwd=tmp_path)
        assert refused.returncode == 1
        assert sentence in refused.stderr
