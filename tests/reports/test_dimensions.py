"""The report by attributes of users: numbers against pandas and statsmodels, and the level of its gate."""

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats as reference
from statsmodels.stats.multitest import multipletests

from assay.eventstore.columns import UnitList
from assay.reports.audience import Audience, Dimension, Value
from assay.reports.build import build, scope_of
from assay.reports.dimensions import by_dimension
from assay.reports.question import Question
from assay.reports.report import ByDimension, Gate, Health, Report, Verdict
from assay.reports.spec import AnalysisSpec, ExperimentSpec, LookSpec, MetricSpec, MetricType, Role
from assay.reports.verify import verify
from assay.reports.views.canonical import canonical
from contracts.event_store import NOW, event
from reports.world import PURCHASE, SPEC, TIME, World

REVENUE = MetricSpec("revenue", "revenue", MetricType.REVENUE, "purchase")
MEDIAN = MetricSpec("median", "median", MetricType.QUANTILE, "purchase", quantile=0.5, role=Role.EXPLORATORY)
BOTH = replace(SPEC, metrics=(PURCHASE, REVENUE))
COUNTRIES = ("de", "fr", "it", "rest", None)


def frame(units: int, seed: int, *, lift: dict[str | None, float]) -> pd.DataFrame:
    """Units with a country, an arm, and what they spent; `lift` is added to the share of buyers."""
    rng = np.random.default_rng(seed)
    country = rng.choice(np.array(COUNTRIES, object), units, p=[0.4, 0.25, 0.15, 0.1, 0.1])
    treated = rng.random(units) < 0.5
    share = 0.3 + np.where(treated, [lift.get(each, 0.0) for each in country], 0.0)
    bought = rng.random(units) < share
    return pd.DataFrame(
        {
            "unit": [f"u{n}" for n in range(units)],
            "country": country,
            "arm": np.where(treated, 11, 10),
            "bought": bought,
            "spent": np.where(bought, rng.gamma(2.0, 10.0, units).round(2), 0.0),
        }
    )


def fill(world: World, people: pd.DataFrame) -> None:
    world.feed.assign(*zip(people["unit"], people["arm"].tolist(), strict=True))
    buyers = people[people["bought"]]
    world.feed.events(
        *(event(unit, a=spent) for unit, spent in zip(buyers["unit"], buyers["spent"], strict=True))
    )


def listed(people: pd.DataFrame) -> UnitList:
    return UnitList.of(people["unit"])


def dimension(people: pd.DataFrame, column: str = "country") -> Dimension:
    """What would be read of users: `rest` stands for all rarer values."""
    values = [each for each in COUNTRIES if each not in ("rest", None)]
    return Dimension(
        "country",
        tuple(Value(f"v {each}", each, listed(people[people[column] == each])) for each in values),
        listed(people[people[column] == "rest"]),
        17,
    )


def asked(world: World, people: pd.DataFrame, spec: ExperimentSpec = BOTH) -> Report:
    question = Question(dimensions=("country",))
    return build(world.store, spec, question, TIME, Audience(None, (dimension(people),)))


def only(by: ByDimension, metric: str) -> Gate:
    [gate] = next(each for each in by.metrics if each.metric.key == metric).gates
    return gate


def parts(people: pd.DataFrame) -> list[pd.DataFrame]:
    return [
        people[people["country"].isna()] if each is None else people[people["country"] == each]
        for each in COUNTRIES
    ]


def expected(parts: Sequence[pd.DataFrame], column: str) -> pd.DataFrame:
    """By group: difference, its variance, and p; by pandas."""
    rows = []
    for part in parts:
        arms = [part[part["arm"] == arm][column].astype(float) for arm in (10, 11)]
        gap = arms[1].mean() - arms[0].mean()
        variance = sum(arm.var(ddof=1) / len(arm) for arm in arms)
        if column == "bought":
            pooled = part["bought"].mean()
            z = gap / np.sqrt(pooled * (1 - pooled) * sum(1 / len(arm) for arm in arms))
            p = 2 * reference.norm.sf(abs(z))
        else:
            p = reference.ttest_ind(arms[1], arms[0], equal_var=False).pvalue
        rows.append((gap, variance, p, arms[0].mean(), arms[1].mean(), len(arms[0]), len(arms[1])))
    return pd.DataFrame(rows, columns=["gap", "variance", "p", "control", "treatment", "n", "m"])


def test_a_planted_difference__is_found_with_the_numbers_of_pandas(world: World) -> None:
    people = frame(4_000, 3, lift={"de": 0.2, "fr": 0.01})
    fill(world, people)
    report = asked(world, people)
    [by] = report.dimensions
    wanted = {column: expected(parts(people), column) for column in ("bought", "spent")}
    family = np.concatenate([table["p"] for table in wanted.values()])
    adjusted = multipletests(family, method="fdr_bh")[1]
    ps = []
    for place, (metric, column) in enumerate((("purchase", "bought"), ("revenue", "spent"))):
        gate, table = only(by, metric), wanted[column]
        weights = 1 / table["variance"]
        common = (weights * table["gap"]).sum() / weights.sum()
        q = (weights * (table["gap"] - common) ** 2).sum()
        ps.append(reference.chi2.sf(q, 4))
        assert (gate.found.q, gate.found.df) == (pytest.approx(q, rel=1e-9), 4)
        assert gate.found.p_value == pytest.approx(ps[-1], rel=1e-9)
        tau2 = max(0.0, (q - 4) / (weights.sum() - (weights**2).sum() / weights.sum()))
        mean = (table["gap"] / (table["variance"] + tau2)).sum() / (1 / (table["variance"] + tau2)).sum()
        own = tau2 / (tau2 + table["variance"])
        shrunken = own * table["gap"] + (1 - own) * mean
        for row, each in enumerate(gate.effects):
            assert each.numbers.difference == pytest.approx(table["gap"][row], rel=1e-9)
            assert each.numbers.control == pytest.approx(table["control"][row], rel=1e-9)
            assert each.numbers.treatment == pytest.approx(table["treatment"][row], rel=1e-9)
            assert each.numbers.p_value == pytest.approx(table["p"][row], rel=1e-6)
            assert each.adjusted_p_value == pytest.approx(adjusted[5 * place + row], rel=1e-6)
            assert each.shrunken is not None
            assert each.shrunken.estimate == pytest.approx(shrunken[row], rel=1e-9)
            assert each.group.units == {10: table["n"][row], 11: table["m"][row]}
    gates = multipletests(ps, method="fdr_bh")[1]
    assert [only(by, key).adjusted_p_value for key in ("purchase", "revenue")] == pytest.approx(gates)
    purchase = only(by, "purchase")
    assert purchase.differs is True
    assert "differs by country" in purchase.sentence
    assert [each.significant for each in purchase.effects] == [True, False, False, False, False]
    assert [(each.group.kind, each.group.value) for each in purchase.effects] == [
        ("value", "de"), ("value", "fr"), ("value", "it"), ("other", None), ("none", None),
    ]  # fmt: skip
    # The whole is as it was: dimensions narrow nothing.
    whole = expected([people], "bought")
    judged = report.primary.comparisons[0].judged
    assert judged is not None
    assert judged.numbers.difference == pytest.approx(whole["gap"][0], rel=1e-9)
    plain = build(world.store, BOTH, Question(), TIME)
    assert (plain.metrics, plain.decision, plain.dimensions) == (report.metrics, report.decision, ())


def test_an_equal_effect__makes_no_winner_of_any_group(world: World) -> None:
    people = frame(4_000, 4, lift=dict.fromkeys(COUNTRIES, 0.15))
    fill(world, people)
    [by] = asked(world, people).dimensions
    gate = only(by, "purchase")
    assert [each.numbers.significant for each in gate.effects].count(True) >= 3
    assert gate.differs is False
    assert [each.significant for each in gate.effects] == [None] * 5
    assert "call no group a winner or a loser" in gate.sentence


def false_alarms(world: World, runs: int, *, lift: float) -> int:
    """How often a gate speaks of groups that were drawn by lot: they differ by chance alone."""
    people = frame(2_000, 5, lift=dict.fromkeys(COUNTRIES, lift))
    fill(world, people)
    scope, rng, alarms = scope_of(BOTH, Question()), np.random.default_rng(6), 0
    for _ in range(runs):
        drawn = dimension(people.assign(drawn=rng.permutation(people["country"].to_numpy())), "drawn")
        found = by_dimension(world.store, BOTH, scope, BOTH.metrics, drawn, until=NOW, alpha=0.05)
        alarms += any(gate.differs for metric in found.metrics for gate in metric.gates)
    return alarms


def within_band(alarms: int, runs: int) -> bool:
    """Whether a level of 5 % is not refuted: two metrics that are nearly one take a little less."""
    low, high = reference.binom.ppf([0.0005], runs, 0.025)[0], reference.binom.ppf([0.9995], runs, 0.05)[0]
    return bool(low <= alarms <= high)


def test_the_gate__speaks_of_groups_by_lot_as_often_as_its_level_says(world: World) -> None:
    assert within_band(false_alarms(world, 60, lift=0.1), 60)


@pytest.mark.nightly
def test_the_gate__keeps_its_level_over_many_draws(world: World) -> None:
    assert within_band(false_alarms(world, 1_000, lift=0.1), 1_000)


def test_small_groups__are_shown_and_not_weighed(world: World) -> None:
    people = frame(1_200, 8, lift={"de": 0.3})
    # Only 60 are left in one group, and one has nobody who bought.
    drop = people.index[people["country"] == "fr"][60:]
    people = people.drop(drop)
    people.loc[people["country"] == "it", "bought"] = False
    fill(world, people)
    [by] = asked(world, people, replace(BOTH, metrics=(PURCHASE,))).dimensions
    gate = only(by, "purchase")
    few = {each.group.value if each.group.kind == "value" else each.group.kind: each for each in gate.effects}
    assert {name for name, each in few.items() if each.too_few} == {"fr", "it", "other", "none"}
    assert (gate.found.reason, gate.differs) == ("one_segment", None)
    assert "nothing can be said of differences" in gate.sentence
    french = expected([people[people["country"] == "fr"]], "bought")
    assert few["fr"].numbers.difference == pytest.approx(french["gap"][0], rel=1e-9)
    assert (few["fr"].significant, few["fr"].adjusted_p_value, few["fr"].shrunken) == (None, None, None)


def test_a_leak_in_one_group__is_said_of_that_group(world: World) -> None:
    people = frame(4_000, 9, lift={})
    gone = people.index[(people["country"] == "de") & (people["arm"] == 11)][:200]
    people = people.drop(gone)
    fill(world, people)
    [by] = asked(world, people).dimensions
    assert [each.value for each in by.groups if each.sample_ratio and each.sample_ratio.mismatch] == ["de"]
    [said] = [each for each in by.sentences if "dealt" in each]
    assert "the group 'de'" in said
    german = by.groups[0]
    assert german.sample_ratio is not None
    n, m = german.units[10], german.units[11]
    assert german.sample_ratio.p_value == pytest.approx(reference.chisquare([n, m]).pvalue, rel=1e-9)


def test_units_that_are_no_users__are_told_to_have_no_attributes(world: World) -> None:
    people = frame(400, 10, lift={})
    world.feed.assign(*zip(people["unit"], people["arm"].tolist(), strict=True))
    nothing = Audience(None, (Dimension("country", (), UnitList.of([]), 0),))
    spec = replace(BOTH, unit="device_id")
    [by] = build(world.store, spec, Question(dimensions=("country",)), TIME, nothing).dimensions
    assert [(group.kind, group.total) for group in by.groups] == [("none", 400)]
    assert by.sentences == (
        "Attributes are of users only, and the units of this experiment are device_id: none has any.",
    )


def test_an_empty_experiment_and_a_quantile__have_reasons(world: World) -> None:
    people = frame(0, 1, lift={})
    spec = replace(BOTH, metrics=(PURCHASE, MEDIAN))
    [by] = asked(world, people, spec).dimensions
    assert (by.groups, by.metrics[0].gates) == ((), ())
    people = frame(300, 1, lift={})
    fill(world, people)
    [by] = asked(world, people, spec).dimensions
    assert by.metrics[1].sentence is not None
    assert "segment=" in by.metrics[1].sentence


def test_groups__are_computed_again_from_the_report_itself(world: World) -> None:
    people = frame(2_000, 12, lift={"de": 0.2})
    fill(world, people)
    report = asked(world, people, replace(BOTH, metrics=(PURCHASE, REVENUE, MEDIAN)))
    document = json.loads(json.dumps(canonical(report)))
    told = verify(document)
    assert (told.mismatches, told.left_out) == ((), ())
    effect = document["dimensions"][0]["metrics"][1]["comparisons"][0]["effects"][2]
    effect["shrunken"]["estimate"] += 0.001
    document["dimensions"][0]["groups"][1]["srm"]["p_value"] += 0.001
    assert [each.path.rpartition(".")[2] for each in verify(document).mismatches] == ["p_value", "estimate"]


def test_a_posterior__names_groups_by_their_chance_to_win(world: World) -> None:
    people = frame(4_000, 3, lift={"de": 0.2})
    fill(world, people)
    spec = replace(BOTH, analysis=AnalysisSpec(method="bayesian"))
    [by] = asked(world, people, spec).dimensions
    gate = only(by, "purchase")
    assert gate.differs is True
    assert gate.effects[0].significant is True
    assert gate.effects[0].numbers.chance_to_win == pytest.approx(1.0, abs=1e-6)
    assert gate.effects[0].adjusted_p_value is None


def test_a_segment__is_the_report_on_its_units_and_decides_nothing(world: World) -> None:
    people = frame(4_000, 3, lift={"de": 0.25})
    fill(world, people)
    german = people[people["country"] == "de"]
    spec = replace(
        BOTH,
        target_sample_size=4_000,
        analysis=AnalysisSpec(method="group_sequential", looks=2),
        looks=(LookSpec(1, TIME, 2_000, 0.5, ()),),
    )
    question = Question(segment="german")
    report = build(world.store, spec, question, TIME, Audience(listed(german)))
    assert report.units == {arm: int((german["arm"] == arm).sum()) for arm in (10, 11)}
    judged = report.primary.comparisons[0].judged
    assert judged is not None
    table = expected([german], "bought")
    assert judged.numbers.difference == pytest.approx(table["gap"][0], rel=1e-9)
    assert (judged.significant, judged.look, judged.numbers.limit) == (True, None, None)
    assert report.decision.verdict is Verdict.KEEP_RUNNING
    assert "looks at the segment german alone, and the whole experiment decides" in report.decision.text
    assert question.is_narrowed
    document = canonical(report)
    assert document["segment"] == "german"
    shown = document["metrics"][0]["comparisons"][0]
    assert shown["p_value"] == judged.numbers.p_value
    ratio = next(check for check in report.checks if check.name == "sample_ratio")
    assert ratio.health is Health.OK
    assert ratio.inputs["counts"] == list(report.units.values())
    again = verify(json.loads(json.dumps(document)))
    assert (again.mismatches, again.left_out) == ((), ())
    empty = build(world.store, spec, question, TIME, Audience(UnitList.of([])))
    assert empty.total_units == 0
