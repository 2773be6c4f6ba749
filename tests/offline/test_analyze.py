"""Analysing files: numbers against independent libraries, and a sentence for every file that is no good."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
import tea_tasting as tt
from scipy import stats as scipy_stats
from statsmodels.stats.proportion import proportions_ztest

from assay import stats
from assay.errors import Invalid
from assay.offline.document import document
from assay.offline.report import Analysis, analyze
from assay.offline.request import (
    Judging,
    Request,
    fractions_of,
    metrics_of,
    shares_of,
    with_aggregates,
    with_directions,
    with_limits,
)
from live import run


def units(count: int = 3000, seed: int = 7) -> pd.DataFrame:
    """One row for each unit: revenue that follows earlier revenue, a conversion, sessions, a country."""
    rng = np.random.default_rng(seed)
    before = rng.gamma(2.0, 10.0, count)
    arm = rng.choice(["control", "new"], count)
    effect = np.where(arm == "new", 3.0, 0.0)
    return pd.DataFrame(
        {
            "user": [f"u{number}" for number in range(count)],
            "arm": arm,
            "before": before,
            "revenue": before + rng.normal(0.0, 5.0, count) + effect,
            "bought": rng.random(count) < np.where(arm == "new", 0.14, 0.1),
            "sessions": rng.poisson(3.0, count) + 1,
            "country": rng.choice(["DE", "FR", "IT"], count),
            "latency": rng.lognormal(0.0, 1.0, count),
        }
    )


def saved(frame: pd.DataFrame, folder: Path, kind: str) -> Path:
    file = folder / f"data.{kind}"
    if kind == "csv":
        frame.to_csv(file, index=False)
    elif kind == "parquet":
        frame.to_parquet(file)
    else:
        frame.to_json(file, orient="records", lines=True, double_precision=15)
    return file


def asked(file: Path | str, *, covariates: Sequence[str] = (), **more: Any) -> Request:
    metrics = metrics_of(
        **{
            key: more.pop(key)
            for key in ("means", "conversions", "counts", "ratios", "quantiles")
            if key in more
        }
    )
    metrics, of_covariates = with_aggregates(metrics, covariates, more.pop("aggregates", ()))
    metrics = with_limits(metrics, more.pop("caps", ()), more.pop("winsorised", ()))
    metrics = with_directions(metrics, more.pop("lower", ()))
    return Request(
        str(file),
        more.pop("unit", "user"),
        more.pop("variant", "arm"),
        metrics,
        tuple(covariates),
        of_covariates,
        **more,
    )


def arms(frame: pd.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray]:
    return (
        frame.loc[frame["arm"] == "control", column].to_numpy(dtype=float),
        frame.loc[frame["arm"] == "new", column].to_numpy(dtype=float),
    )


def only(analysis: Analysis) -> Any:
    [result] = analysis.metrics
    [comparison] = result.comparisons
    return comparison


def finding(analysis: Analysis, name: str) -> Any:
    return next(each for each in analysis.findings if each.name == name)


@pytest.mark.parametrize("kind", ["csv", "parquet", "ndjson"])
def test_mean__is_welchs_test__in_every_format(tmp_path: Path, kind: str) -> None:
    frame = units()
    found = only(analyze(asked(saved(frame, tmp_path, kind), means=["revenue"]))).judged.verdict
    control, new = arms(frame, "revenue")
    reference = scipy_stats.ttest_ind(new, control, equal_var=False)
    assert found.difference == pytest.approx(new.mean() - control.mean(), rel=1e-9)
    assert found.p_value == pytest.approx(reference.pvalue, rel=1e-7)
    assert tuple(found.interval) == pytest.approx(tuple(reference.confidence_interval(0.95)), rel=1e-8)
    ours = stats.compare(stats.Moments.from_arrays({"y": control}), stats.Moments.from_arrays({"y": new}))
    assert tuple(found.lift_interval) == pytest.approx(tuple(ours.lift.interval or ()), rel=1e-9)


def test_mean__far_from_zero__keeps_its_digits(tmp_path: Path) -> None:
    frame = units()
    frame["revenue"] = 1e11 + (frame["revenue"] * 1e3).round() / 1e3
    found = only(analyze(asked(saved(frame, tmp_path, "parquet"), means=["revenue"]))).judged.verdict
    control, new = (stats.Moments.from_arrays({"y": arm}) for arm in arms(frame, "revenue"))
    reference = stats.compare(control, new)
    assert found.difference == pytest.approx(reference.estimate, rel=1e-9)
    assert found.p_value == pytest.approx(reference.p_value, rel=1e-9)


def test_conversion__is_the_pooled_z_test(tmp_path: Path) -> None:
    frame = units()
    analysis = analyze(asked(saved(frame, tmp_path, "parquet"), conversions=["bought"]))
    found = only(analysis).judged.verdict
    control, new = arms(frame, "bought")
    z, p_value = proportions_ztest([new.sum(), control.sum()], [len(new), len(control)])
    assert found.p_value == pytest.approx(p_value, rel=1e-9)
    assert found.difference / found.standard_error == pytest.approx(z, rel=1e-9)
    assert [arm.successes for arm in analysis.metrics[0].arms] == [control.sum(), new.sum()]


def test_covariate__is_tea_tastings_cuped_up_to_its_degrees_of_freedom(tmp_path: Path) -> None:
    frame = units(20_000)
    comparison = only(
        analyze(asked(saved(frame, tmp_path, "parquet"), means=["revenue"], covariates=["before"]))
    )
    theirs = tt.Experiment({"revenue": tt.Mean("revenue", "before")}, variant="arm").analyze(
        frame, control="control"
    )["revenue"]
    found = comparison.judged.verdict
    # Their coefficient ignores the arms, ours does not: the difference is of the order 1/n.
    assert found.difference == pytest.approx(theirs.effect_size, rel=1e-3)
    assert found.standard_error == pytest.approx(
        (theirs.effect_size_ci_upper - theirs.effect_size_ci_lower) / 2 / 1.96, rel=2e-3
    )
    assert comparison.variance_reduction == pytest.approx(0.888, abs=0.01)
    plain = scipy_stats.ttest_ind(*reversed(arms(frame, "revenue")), equal_var=False)
    assert comparison.unadjusted.p_value == pytest.approx(plain.pvalue, rel=1e-6)


def test_covariate_with_gaps__keeps_all_units__and_adjusts_by_an_indicator(tmp_path: Path) -> None:
    frame = units()
    frame.loc[frame.index % 7 == 0, "before"] = np.nan
    analysis = analyze(asked(saved(frame, tmp_path, "csv"), means=["revenue"], covariates=["before"]))
    frame["gap"] = frame["before"].isna().astype(float)
    frame["filled"] = frame["before"].fillna(0.0)
    fit = smf.ols("revenue ~ C(arm) + filled + gap", frame).fit()
    found = only(analysis).judged.verdict
    assert found.difference == pytest.approx(fit.params["C(arm)[T.new]"], rel=2e-3)
    assert sum(analysis.units.values()) == len(frame)
    assert "no before" in finding(analysis, "covariate_gaps").sentence


def test_ratio__is_the_delta_method_of_tea_tasting(tmp_path: Path) -> None:
    frame = units()
    found = only(analyze(asked(saved(frame, tmp_path, "csv"), ratios=["revenue/sessions"]))).judged.verdict
    theirs = tt.Experiment({"it": tt.RatioOfMeans("revenue", "sessions")}, variant="arm").analyze(
        frame, control="control"
    )["it"]
    assert found.difference == pytest.approx(theirs.effect_size, rel=1e-9)
    assert found.p_value == pytest.approx(theirs.pvalue, rel=1e-6)


@pytest.mark.parametrize("rows", [1, 3])
def test_quantile__is_that_of_the_rows__with_units_as_clusters(tmp_path: Path, rows: int) -> None:
    frame = pd.concat([units(seed=seed).assign(arm=units().arm) for seed in range(rows)])
    found = only(analyze(asked(saved(frame, tmp_path, "parquet"), quantiles=["0.9:latency"]))).judged.verdict
    sides = []
    for name in ("control", "new"):
        mine = frame[frame["arm"] == name]
        labels = None if rows == 1 else mine["user"].to_numpy()
        sides.append(stats.quantile_of_values(mine["latency"].to_numpy(), 0.9, units=labels))
    reference = stats.infer(stats.quantile_contrast(sides[0], sides[1]))
    assert found.treatment == np.quantile(arms(frame, "latency")[1], 0.9, method="inverted_cdf")
    assert found.standard_error == pytest.approx(reference.standard_error, rel=1e-9)
    assert found.p_value == pytest.approx(reference.p_value, rel=1e-9)


@pytest.mark.parametrize("how", ["sum", "mean", "count", "any", "max"])
def test_rows_of_a_unit__are_taken_together_as_asked(tmp_path: Path, how: str) -> None:
    frame = pd.concat([units(seed=seed).assign(arm=units().arm) for seed in range(4)])
    frame.loc[frame["latency"] < 0.7, "latency"] = np.nan
    found = only(
        analyze(asked(saved(frame, tmp_path, "parquet"), means=["latency"], aggregates=[f"latency={how}"]))
    ).judged.verdict
    grouped = frame.groupby(["user", "arm"])["latency"]
    folded = (
        grouped.apply(lambda x: float((x.fillna(0) != 0).any())) if how == "any" else grouped.agg(how)
    ).reset_index()
    control, new = arms(folded, "latency")
    reference = scipy_stats.ttest_ind(new[~np.isnan(new)], control[~np.isnan(control)], equal_var=False)
    assert found.p_value == pytest.approx(reference.pvalue, rel=1e-7)


def test_count__counts_filled_rows(tmp_path: Path) -> None:
    frame = pd.concat([units(seed=seed).assign(arm=units().arm) for seed in range(3)])
    frame.loc[frame["country"] == "DE", "country"] = None
    analysis = analyze(asked(saved(frame, tmp_path, "csv"), counts=["country", "*"]))
    filled, every = (result.arms[0].value for result in analysis.metrics)
    mine = frame[frame["arm"] == "control"]
    assert filled == pytest.approx(mine["country"].notna().sum() / mine["user"].nunique())
    assert every == 3.0


@pytest.mark.parametrize(
    ("limits", "low", "high"),
    [
        ({"caps": ["latency=2.5"]}, None, 2.5),
        ({"caps": ["latency=99%"]}, None, "q99"),
        ({"winsorised": ["latency=2%"]}, "w2", "w98"),
    ],
)
def test_limits__come_from_all_arms_together(
    tmp_path: Path, limits: dict[str, list[str]], low: Any, high: Any
) -> None:
    frame = units()
    values = frame["latency"].to_numpy()
    cut = stats.winsorise(values, 0.02, 0.02)
    known = {"q99": stats.pooled_cap(arms(frame, "latency"), 0.99), "w2": cut.low, "w98": cut.high}
    analysis = analyze(asked(saved(frame, tmp_path, "parquet"), means=["latency"], **limits))
    [result] = analysis.metrics
    assert (result.tail.low, result.tail.high) == (known.get(low, low), known.get(high, high))
    frame["latency"] = np.clip(values, result.tail.low, result.tail.high)
    control, new = arms(frame, "latency")
    assert only(analysis).judged.verdict.difference == pytest.approx(new.mean() - control.mean(), rel=1e-9)


def test_units_in_two_variants__are_counted_named_and_left_out(tmp_path: Path) -> None:
    frame = units(1000)
    twice = frame.head(3).assign(arm=["new" if arm == "control" else "control" for arm in frame.head(3).arm])
    analysis = analyze(asked(saved(pd.concat([frame, twice]), tmp_path, "csv"), means=["revenue"]))
    found = finding(analysis, "one_variant")
    assert (found.state, found.inputs["units"], found.inputs["examples"]) == (
        "warning",
        3,
        ["u0", "u1", "u2"],
    )
    control, new = arms(frame.iloc[3:], "revenue")
    assert analysis.units == {"control": len(control), "new": len(new)}
    assert only(analysis).judged.verdict.difference == pytest.approx(new.mean() - control.mean(), rel=1e-9)


def test_rows_without_a_unit__and_units_without_a_value__are_told(tmp_path: Path) -> None:
    frame = units(1000)
    frame.loc[:9, "user"] = None
    frame.loc[20:24, "revenue"] = np.nan
    file = saved(frame, tmp_path, "parquet")
    zero, out = (analyze(asked(file, means=["revenue"], missing=how)) for how in ("zero", "exclude"))
    assert finding(zero, "complete_rows").inputs == {"rows": 1000, "left_out": 10}
    assert "5 units have no value of revenue and count as 0" in finding(zero, "values").sentence
    assert "left out of this metric" in finding(out, "values").sentence
    assert sum(arm.units for arm in zero.metrics[0].arms) == 990
    assert sum(arm.units for arm in out.metrics[0].arms) == 985


def test_several_treatments__are_corrected_together(tmp_path: Path) -> None:
    frame = units(4000)
    rng = np.random.default_rng(3)
    frame["arm"] = rng.choice(["control", "b", "c"], len(frame))
    frame["revenue"] += np.where(frame["arm"] == "b", 3.0, 0.0)
    analysis = analyze(asked(saved(frame, tmp_path, "csv"), means=["revenue"]))
    moments = {
        name: stats.Moments.from_arrays({"y": frame.loc[frame["arm"] == name, "revenue"].to_numpy()})
        for name in ("control", "b", "c")
    }
    family = stats.family({name: stats.contrast(moments["control"], moments[name]) for name in ("b", "c")})
    for each in analysis.metrics[0].comparisons:
        member = family[each.treatment]
        assert each.judged.adjusted_p_value == pytest.approx(member.adjusted_p_value, rel=1e-6)
        assert each.judged.verdict.significant is member.rejected
        assert tuple(each.judged.verdict.interval or ()) == pytest.approx(
            tuple(member.effect.interval or ()), rel=1e-8
        )


def test_segments__stand_behind_the_gate(tmp_path: Path) -> None:
    frame = units(6000)
    file = saved(frame, tmp_path, "parquet")
    [same] = analyze(asked(file, means=["revenue"], segments=("country",))).metrics[0].segments
    assert not same.differ
    frame["revenue"] += np.where((frame["arm"] == "new") & (frame["country"] == "DE"), 9.0, 0.0)
    [other] = (
        analyze(asked(saved(frame, tmp_path, "parquet"), means=["revenue"], segments=("country",)))
        .metrics[0]
        .segments
    )
    assert other.differ
    assert [effect.segment for effect in other.effects] == ["DE", "FR", "IT"]
    for effect in other.effects:
        control, new = arms(frame[frame["country"] == effect.segment], "revenue")
        assert effect.verdict.difference == pytest.approx(new.mean() - control.mean(), rel=1e-9)


def test_where__chooses_rows(tmp_path: Path) -> None:
    frame = units()
    analysis = analyze(
        asked(saved(frame, tmp_path, "parquet"), means=["revenue"], where="country = 'DE' AND sessions > 2")
    )
    control, new = arms(frame[(frame["country"] == "DE") & (frame["sessions"] > 2)], "revenue")
    assert analysis.units == {"control": len(control), "new": len(new)}
    assert only(analysis).judged.verdict.difference == pytest.approx(new.mean() - control.mean(), rel=1e-9)


@pytest.mark.parametrize(
    "where",
    [
        "country IN (SELECT country FROM read_csv('/etc/passwd'))",
        "1 = 1) UNION SELECT 1 FROM (SELECT 1",
        "1 = 1; DROP TABLE staged",
        "exists(SELECT 1)",
        "(select count(*) from read_text('/etc/hostname')) > 0",
        "$secret = 1",
        "nothing = 1",
        "getenv('HOME') = 'x' AND",
    ],
)
def test_where__can_be_nothing_but_a_condition(tmp_path: Path, where: str) -> None:
    file = saved(units(50), tmp_path, "csv")
    with pytest.raises(Invalid, match=r"^--where: "):
        analyze(asked(file, means=["revenue"], where=where))


def test_where__does_not_load_or_reach_other_files(tmp_path: Path) -> None:
    from assay.offline.source import opened

    file = saved(units(50), tmp_path, "csv")
    other = tmp_path / "other.csv"
    other.write_text("a\n1\n")
    with opened(str(file), None, "256MB") as source:
        for statement in (
            f"SELECT * FROM read_csv('{other}')",
            f"COPY (SELECT 1) TO '{tmp_path}/out.csv'",
            "LOAD httpfs",
            "SET enable_external_access = true",
            f"ATTACH '{tmp_path}/x.db'",
        ):
            with pytest.raises(Invalid):
                source.ask(statement)
    assert not (tmp_path / "out.csv").exists()


def test_sequential_methods__are_those_of_stats(tmp_path: Path) -> None:
    frame = units()
    file = saved(frame, tmp_path, "parquet")
    control, new = (stats.Moments.from_arrays({"y": arm}) for arm in arms(frame, "revenue"))
    given = stats.contrast(control, new)
    open_ended = only(analyze(asked(file, means=["revenue"], judging=Judging("always-valid", planned=6000))))
    reference = stats.always_valid(given, planned=6000)
    assert open_ended.judged.verdict.p_value == pytest.approx(reference.p_value, rel=1e-6)
    judging = Judging("group-sequential", planned=6000, earlier=fractions_of("--looks", "0.25"))
    look = only(analyze(asked(file, means=["revenue"], judging=judging))).judged.verdict
    expected = stats.group_sequential(given, [0.25, 0.5])
    assert (look.fraction, look.limit, look.significant) == (0.5, expected.limit, expected.crossed)
    assert tuple(look.interval) == pytest.approx(tuple(expected.interval or ()), rel=1e-9)


def test_bayesian__is_the_posterior_of_stats__and_has_no_p_value(tmp_path: Path) -> None:
    frame = units()
    found = only(
        analyze(asked(saved(frame, tmp_path, "csv"), means=["revenue"], judging=Judging("bayesian")))
    ).judged.verdict
    control, new = (stats.Moments.from_arrays({"y": arm}) for arm in arms(frame, "revenue"))
    reference = stats.bayes(stats.contrast(control, new))
    assert found.chance_to_win == pytest.approx(reference.chance_to_win, rel=1e-9)
    assert found.lift == pytest.approx(reference.mean, rel=1e-9)
    assert found.p_value is None


def test_one_sided__asks_for_better__on_the_metrics_own_terms(tmp_path: Path) -> None:
    frame = units()
    file = saved(frame, tmp_path, "csv")
    judging = Judging(one_sided=True)
    more = only(analyze(asked(file, means=["revenue"], judging=judging))).judged.verdict
    less = only(analyze(asked(file, means=["revenue"], judging=judging, lower=["revenue"]))).judged.verdict
    assert (more.alternative, less.alternative) == ("greater", "less")
    assert more.p_value + less.p_value == pytest.approx(1.0)
    assert more.interval.high is None


def test_sample_ratio__fails_loudly__unless_the_split_was_meant(tmp_path: Path) -> None:
    frame = units(4000)
    frame = frame[(frame["arm"] == "control") | (frame.index % 5 > 0)]
    file = saved(frame, tmp_path, "csv")
    lost = analyze(asked(file, means=["revenue"]))
    assert not lost.healthy
    assert document(lost)["headline"].startswith(
        "Do not act on this yet, a health check failed (sample_ratio)"
    )
    meant = analyze(asked(file, means=["revenue"], expected=shares_of("--expected", "control=5,new=4")))
    assert meant.healthy


def test_unbalanced_covariate__fails_the_check(tmp_path: Path) -> None:
    frame = units()
    frame["before"] += np.where(frame["arm"] == "new", 4.0, 0.0)
    analysis = analyze(asked(saved(frame, tmp_path, "csv"), means=["revenue"], covariates=["before"]))
    assert finding(analysis, "balance").state == "failed"


def test_pattern__reads_all_files(tmp_path: Path) -> None:
    frame = units()
    frame[:1000].to_parquet(tmp_path / "part-1.parquet")
    frame[1000:].to_parquet(tmp_path / "part-2.parquet")
    analysis = analyze(asked(f"{tmp_path}/part-*.parquet", means=["revenue"]))
    assert analysis.rows == 3000


RUBBISH: dict[str, tuple[bytes, str]] = {
    "empty.csv": (b"", "empty.csv is empty"),
    "binary.csv": (bytes(range(128, 256)), "not UTF-8"),
    "words.csv": (b"user,arm,revenue\nu1,control,ten\nu2,new,3\n", "'revenue' holds 'ten' where a number"),
    "infinite.csv": (b"user,arm,revenue\nu1,control,inf\nu2,new,3\n", "'revenue' holds 'inf'"),
    "header.csv": (b"user,arm,revenue\n", "holds no variant at all"),
    "one.csv": (b"user,arm,revenue\nu1,control,1\n", "holds only 'control'"),
    "names.csv": (b"user,arm,revenu\nu1,control,1\n", "no column 'revenue'. Did you mean 'revenu'?"),
    "twice.csv": (b"user,user,arm,revenue\nu1,u1,control,1\n", "column 'user' occurs twice"),
    "control.csv": (b"user,arm,revenue\nu1,x,1\nu2,y,2\n", "say which variant of control.csv is the control"),
    "ragged.csv": (b"user,arm,revenue\nu1,control,1\nu2,new,3,4,5\n", "line 3"),
    "latin.csv": (b"user,arm,revenue\nu1,control,\xff\nu2,new,3\n", "line 2: Invalid unicode"),
    "huge.csv": (b"user,arm,revenue\nu1,control,1e308\nu2,control,-1e308\nu3,new,1\nu4,new,2\n", "too large"),
    "fake.parquet": (b"PAR1 this is no parquet file", "fake.parquet cannot be read"),
    "broken.ndjson": (b'{"user": "u1", "arm": \n', "broken.ndjson cannot be read"),
    "nested.ndjson": (
        b'{"user": "u1", "arm": "control", "revenue": [1]}\n',
        "nested.ndjson holds",
    ),
    "what.xlsx": (b"PK", "the suffix tells no format"),
}


@pytest.mark.parametrize("name", RUBBISH)
def test_rubbish__is_one_sentence(tmp_path: Path, name: str) -> None:
    content, sentence = RUBBISH[name]
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(Invalid) as raised:
        analyze(asked(file, means=["revenue"]))
    assert sentence in raised.value.detail
    assert "\n" not in raised.value.detail


def test_rubbish__missing_files_and_directories__are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.csv", tmp_path, "https://example.com/x.csv"):
        with pytest.raises(Invalid, match=r"no such file|is a directory|only local files"):
            analyze(asked(path, means=["revenue"]))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([1.0, 1.0, 1.0, 1.0], "zero_variance"),
        ([None, None, None, None], "zero_variance"),
        ([1.0, 2.0, 3.0, None], None),
    ],
)
def test_document__has_null_and_a_reason_where_there_is_no_number(
    tmp_path: Path, values: list[float | None], reason: str | None
) -> None:
    frame = pd.DataFrame(
        {"user": list("abcd"), "arm": ["control", "control", "new", "new"], "revenue": values}
    )
    frame["revenue"] = frame["revenue"].astype(float)
    for kind in ("csv", "parquet"):
        made = document(
            analyze(asked(saved(frame, tmp_path, kind), means=["revenue"], quantiles=["0.5:revenue"]))
        )
        json.dumps(made, allow_nan=False)
        [found] = made["metrics"][0]["comparisons"]
        assert (found["reason"] or {}).get("code") == reason
        assert (found["p_value"] is None) is (reason is not None)
        [other] = made["metrics"][1]["comparisons"]
        assert other["p_value"] is None
        assert other["reason"]["code"] in {"quantile_too_extreme", "no_data"}


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The National Supported Work trial, one row for each person."""
    data = pytest.importorskip("causaldata").nsw_mixtape.load_pandas().data
    data["person"] = [f"person-{number}" for number in range(len(data))]
    data["group"] = data["treat"].map({0: "control", 1: "training"})
    file = tmp_path_factory.mktemp("trial") / "nsw.csv"
    data.to_csv(file, index=False)
    return file


def test_published_trial__by_the_command__gives_the_published_result(trial: Path) -> None:
    command = ("analyze", trial, "--unit", "person", "--variant", "group", "--metric", "re78")
    split = ("--expected", "control=260,training=185")
    done = run(*command, *split, "--json", cwd=trial.parent)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["units"] == {"control": 260, "training": 185}
    [comparison] = found["metrics"][0]["comparisons"]
    assert comparison["difference"] == pytest.approx(1794.34, abs=0.005)
    assert comparison["standard_error"] == pytest.approx(670.997, abs=0.0005)
    assert comparison["p_value"] == pytest.approx(0.00789, abs=0.000005)
    shown = run(*command, *split, cwd=trial.parent)
    assert shown.stdout.startswith("training raised re78 (better): +39.4 % relative, +1,794.34")
    unhealthy = run(*command, cwd=trial.parent)
    assert unhealthy.returncode == 3
    assert unhealthy.stdout.startswith("Do not act on this yet")


def test_published_trial__adjusted_for_earlier_earnings__is_ancova(trial: Path) -> None:
    request = asked(trial, unit="person", variant="group", means=["re78"], covariates=["re74", "re75"])
    comparison = only(analyze(request))
    fit = smf.ols("re78 ~ treat + re74 + re75", pd.read_csv(trial)).fit(cov_type="HC2")
    assert comparison.judged.verdict.difference == pytest.approx(fit.params["treat"], rel=1e-3)
    assert comparison.judged.verdict.standard_error == pytest.approx(fit.bse["treat"], rel=0.01)
    assert comparison.unadjusted.difference == pytest.approx(1794.34, abs=0.005)


def test_command__wrong_words__are_one_sentence(trial: Path) -> None:
    command = ("analyze", trial, "--unit", "person", "--variant", "group")
    for flags, sentence in (
        ((), "Name at least one metric"),
        (("--metric", "re78", "--method", "magic"), "--method: 'magic' is not one of fixed"),
        (("--metric", "re78", "--method", "always-valid"), "--planned: the method always-valid needs"),
        (("--ratio", "re78"), "--ratio: 're78' is not NUMERATOR/DENOMINATOR"),
        (
            ("--metric", "re78", "--cap", "re78=9", "--winsorise", "re78=1%"),
            "--winsorise: 're78' has a limit",
        ),
        (("--quantile", "2:re78"), "--quantile: '2:re78' is not LEVEL:COLUMN"),
    ):
        done = run(*command, *flags, cwd=trial.parent)
        assert done.returncode == 1
        assert done.stderr.startswith(f"assay: {sentence}")
        assert "Traceback" not in done.stderr
