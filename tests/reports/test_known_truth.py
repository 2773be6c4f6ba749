"""Every kind of metric on one simulated experiment, against pandas and statsmodels that know nothing of ours.

Half of the units came under a split of 80/20, half under 50/50, over a baseline that drifted in between; all
have a past. Read as one stretch and as a ramp, plainly and adjusted for the past.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats as reference

from assay.eventstore.base import Position
from assay.eventstore.duckdb import DuckdbStore
from assay.reports.report import Comparison, Judgement, Report
from assay.reports.spec import AnalysisSpec, CapSpec, FilterSpec, MetricSpec, MetricType, Role, SourceSpec
from contracts.event_store import DAY, NOW, event
from reports.world import SPEC, World, phase

HOUR = DAY // 24
BEGIN = NOW - 20 * DAY
LOOKBACK = 10 * DAY
RAMP = (phase(1, 0.8, 0.2), phase(2, 0.5, 0.5))
FLAT = (phase(1, 0.5, 0.5), phase(2, 0.5, 0.5))
GERMAN = (FilterSpec("country", "eq", ("de",)),)
UNITS = 1000


class Truth:
    """Who came, and what they did: drawn once, kept as frames."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        number = np.arange(2 * UNITS)
        stretch = 1 + (number >= UNITS)
        treated = rng.random(2 * UNITS) < np.where(stretch == 1, 0.2, 0.5)
        self.units = pd.DataFrame(
            {
                "unit": [f"u{n}" for n in number],
                "arm": np.where(treated, 11, 10),
                "phase": stretch,
                "assigned": BEGIN + np.where(stretch == 1, 0, 5 * DAY) + rng.integers(0, 4 * DAY, 2 * UNITS),
            }
        ).set_index("unit")
        keen = rng.gamma(2.0, 1.0, 2 * UNITS) * np.where(stretch == 1, 1.0, 1.3)
        rows: list[tuple[str, str, int, float, int, str]] = []
        for unit, arm, at, own in zip(
            self.units.index, self.units["arm"], self.units["assigned"], keen, strict=True
        ):
            lift = 1.25 if arm == 11 else 1.0
            for begin, end, rate in ((-LOOKBACK, 0, own), (0, 8 * DAY, own * lift)):
                for kind, often in (("view", 2.0), ("purchase", 0.6)):
                    for _ in range(rng.poisson(often * rate)):
                        when = at + int(rng.integers(begin, end))
                        items = int(rng.integers(1, 6))
                        amount = round(float(rng.gamma(2.0, 10.0)) * lift, 2)
                        rows.append((unit, kind, when, amount, items, "de" if rng.random() < 0.6 else "fr"))
        names = ["unit", "kind", "at", "amount", "items", "country"]
        self.events = pd.DataFrame(rows, columns=names)
        assigned = self.events["unit"].map(self.units["assigned"])
        self.events["since"] = self.events["at"] - assigned

    def fill(self, world: World) -> None:
        """Put all of it into the store."""
        rows = [
            [seq, 1, str(row.Index), int(row.arm), int(row.phase), int(row.assigned)]
            for seq, row in enumerate(self.units.itertuples(), 1)
        ]
        world.store.append(Position(-1, len(rows)), assignments=json.dumps(rows))
        world.feed.assigned = len(rows)
        lines = [
            event(
                row.unit,
                row.kind,
                int(row.at),
                v=row.amount,
                a=row.amount,
                p=f'{{"items": {row.items}, "country": "{row.country}"}}',
            )
            for row in self.events.itertuples()
        ]
        for start in range(0, len(lines), 5000):
            world.feed.events(*lines[start : start + 5000])

    def of(self, kind: str, low: float = 0, high: float = np.inf) -> pd.DataFrame:
        """Events of a kind between two times after the assignment."""
        some = self.events
        return some[(some["kind"] == kind) & (some["since"] >= low) & (some["since"] < high)]

    def per_unit(self, some: pd.Series) -> pd.Series:
        """A number for each unit, 0 for those without."""
        return some.reindex(self.units.index).fillna(0.0).astype(float)

    def count(self, some: pd.DataFrame) -> pd.Series:
        return self.per_unit(some.groupby("unit").size())

    def sum(self, some: pd.DataFrame, column: str = "amount") -> pd.Series:
        return self.per_unit(some.groupby("unit")[column].sum())


TRUTH = Truth(20_26)


def metric(kind: MetricType, event_type: str = "purchase", **more: Any) -> MetricSpec:
    return MetricSpec("m", "m", kind, event_type, role=Role.PRIMARY, lookback=LOOKBACK, **more)


def steps_done(low: float, high: float) -> pd.Series:
    """Whether a unit viewed and then bought."""
    first = TRUTH.of("view", low, high).groupby("unit")["at"].min()
    bought = TRUTH.of("purchase", low, high)
    after = bought[bought["at"] > bought["unit"].map(first)]
    return (TRUTH.count(after) > 0).astype(float)


def capped() -> tuple[pd.Series, float]:
    spent = TRUTH.sum(TRUTH.of("purchase"))
    high = float(np.quantile(spent[TRUTH.count(TRUTH.of("purchase")) > 0], 0.9, method="inverted_cdf"))
    return spent.clip(upper=high), high


def halves(column: str | None, high: float = np.inf) -> list[pd.Series]:
    """An amount in the earlier and in the later half of the past, and whether there was any event."""
    parts = [TRUTH.of("purchase", low, end) for low, end in ((-LOOKBACK, -LOOKBACK / 2), (-LOOKBACK / 2, 0))]
    amounts = [TRUTH.count(part) if column is None else TRUTH.sum(part, column) for part in parts]
    some = (TRUTH.count(TRUTH.of("purchase", -LOOKBACK, 0)) > 0).astype(float)
    return [some, *(each.clip(upper=high) for each in amounts)]


MEANS: list[tuple[str, MetricSpec, pd.Series, list[pd.Series]]] = [
    (
        "conversion",
        metric(MetricType.CONVERSION, closes=2 * DAY),
        (TRUTH.count(TRUTH.of("purchase", 0, 2 * DAY)) > 0).astype(float),
        [(TRUTH.count(TRUTH.of("purchase", -LOOKBACK, 0)) > 0).astype(float)],
    ),
    ("count", metric(MetricType.COUNT), TRUTH.count(TRUTH.of("purchase")), halves(None)),
    ("revenue", metric(MetricType.REVENUE), TRUTH.sum(TRUTH.of("purchase")), halves("amount")),
    ("sum", metric(MetricType.SUM, prop="items"), TRUTH.sum(TRUTH.of("purchase"), "items"), halves("items")),
    (
        "capped",
        metric(MetricType.REVENUE, cap=CapSpec(0.9, is_quantile=True)),
        capped()[0],
        halves("amount", capped()[1]),
    ),
    (
        "retention",
        metric(MetricType.RETENTION, "view", opens=4 * DAY, closes=6 * DAY),
        (TRUTH.count(TRUTH.of("view", 4 * DAY, 6 * DAY)) > 0).astype(float),
        [(TRUTH.count(TRUTH.of("view", -LOOKBACK, 0)) > 0).astype(float)],
    ),
    (
        "threshold",
        metric(MetricType.THRESHOLD, fold="sum", at_least=30.0),
        (TRUTH.sum(TRUTH.of("purchase")) >= 30.0).astype(float),
        [(TRUTH.sum(TRUTH.of("purchase", -LOOKBACK, 0)) >= 30.0).astype(float)],
    ),
    (
        "funnel",
        metric(MetricType.FUNNEL, steps=(SourceSpec("view"), SourceSpec("purchase")), closes=3 * DAY),
        steps_done(0, 3 * DAY),
        [steps_done(-LOOKBACK, 0)],
    ),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    store = DuckdbStore(tmp_path_factory.mktemp("truth") / "events.duckdb", memory="256MiB", threads=1)
    filled = World(store)
    TRUTH.fill(filled)
    yield filled
    store.close()


def judged(report: Report) -> tuple[Comparison, Judgement]:
    [found] = report.primary.comparisons
    assert found.judged is not None
    return found, found.judged


def asked(world: World, wanted: MetricSpec, phases: Any = FLAT, **analysis: Any) -> Report:
    spec = replace(SPEC, metrics=(wanted,), phases=phases, analysis=AnalysisSpec(**analysis))
    return world.report(spec)


def cells() -> list[tuple[float, list[pd.Index]]]:
    """The weight of each stretch, and who is in its control and its treatment."""
    units = TRUTH.units
    return [
        (
            float((units["phase"] == number).mean()),
            [units.index[(units["phase"] == number) & (units["arm"] == arm)] for arm in (10, 11)],
        )
        for number in (1, 2)
    ]


@pytest.mark.parametrize(("name", "wanted", "y", "past"), MEANS, ids=[each[0] for each in MEANS])
def test_mean__value_difference_and_adjustment(
    world: World, name: str, wanted: MetricSpec, y: pd.Series, past: list[pd.Series]
) -> None:
    report = asked(world, wanted)
    comparison, found = judged(report)
    arm = TRUTH.units["arm"]
    low, high = y[arm == 10], y[arm == 11]
    assert [each.value for each in report.primary.arms] == pytest.approx([low.mean(), high.mean()], rel=1e-9)
    plain = reference.ttest_ind(high, low, equal_var=False)
    assert comparison.effect.estimate == pytest.approx(high.mean() - low.mean(), rel=1e-9)
    assert found.unadjusted is not None
    if name in ("conversion", "retention", "threshold", "funnel"):
        share = y.mean()
        z = (high.mean() - low.mean()) / np.sqrt(share * (1 - share) * (1 / len(low) + 1 / len(high)))
        assert found.unadjusted.p_value == pytest.approx(2 * reference.norm.sf(abs(z)), rel=1e-6)
    else:
        assert found.unadjusted.p_value == pytest.approx(plain.pvalue, rel=1e-6)
    # ANCOVA by least squares has the same coefficient; the variance is each arm's own.
    design = sm.add_constant(pd.concat([(arm == 11).astype(float), *past], axis=1).to_numpy())
    fitted = sm.OLS(y.to_numpy(), design).fit()
    assert found.numbers.difference == pytest.approx(fitted.params[1], rel=1e-8)
    rest = y - sum(theta * x for theta, x in zip(fitted.params[2:], past, strict=True))
    error = np.sqrt(rest[arm == 10].var() / len(low) + rest[arm == 11].var() / len(high))
    assert found.numbers.standard_error == pytest.approx(error, rel=1e-8)
    assert found.variance_reduction == pytest.approx(
        1 - error**2 / (low.var() / len(low) + high.var() / len(high)), rel=1e-6
    )
    assert found.variance_reduction > 0.0
    assert found.numbers.control == pytest.approx(
        low.mean()
        - sum(t * (x[arm == 10].mean() - x.mean()) for t, x in zip(fitted.params[2:], past, strict=True)),
        rel=1e-8,
    )


@pytest.mark.parametrize(("name", "wanted", "y", "past"), MEANS[:3], ids=[each[0] for each in MEANS[:3]])
def test_mean_in_a_ramp__is_adjusted_within_the_stretches(
    world: World, name: str, wanted: MetricSpec, y: pd.Series, past: list[pd.Series]
) -> None:
    comparison, found = judged(asked(world, wanted, RAMP))
    assert comparison.strata == 2
    plain = sum(weight * (y[high].mean() - y[low].mean()) for weight, (low, high) in cells())
    assert found.unadjusted is not None
    assert found.unadjusted.difference == pytest.approx(plain, rel=1e-9)
    # Coefficients from what varies within the four cells.
    cell = TRUTH.units.groupby(["arm", "phase"]).ngroup()
    within = pd.concat([y, *past], axis=1).groupby(cell).transform(lambda column: column - column.mean())
    theta = np.linalg.lstsq(within.iloc[:, 1:].to_numpy(), within.iloc[:, 0].to_numpy(), rcond=None)[0]
    rest = y - sum(t * x for t, x in zip(theta, past, strict=True))
    adjusted = sum(weight * (rest[high].mean() - rest[low].mean()) for weight, (low, high) in cells())
    variance = sum(weight**2 * sum(rest[who].var() / len(who) for who in arms) for weight, arms in cells())
    assert found.numbers.difference == pytest.approx(adjusted, rel=1e-8)
    assert found.numbers.standard_error == pytest.approx(np.sqrt(variance), rel=1e-8)


@pytest.mark.parametrize("kind", [MetricType.RATIO, MetricType.MEAN])
def test_ratio__by_linearised_values(world: World, kind: MetricType) -> None:
    wanted = (
        metric(kind, fold="sum", denominator=SourceSpec("view"))
        if kind is MetricType.RATIO
        else metric(kind, prop="items")
    )
    _, found = judged(asked(world, wanted))
    arm = TRUTH.units["arm"]

    def parts(low: float, high: float) -> tuple[pd.Series, pd.Series]:
        bought = TRUTH.of("purchase", low, high)
        if kind is MetricType.RATIO:
            return TRUTH.sum(bought), TRUTH.count(TRUTH.of("view", low, high))
        return TRUTH.sum(bought, "items"), TRUTH.count(bought)

    def linear(above: pd.Series, below: pd.Series) -> tuple[pd.Series, pd.Series]:
        """Ratio of each arm and the units' influence on it."""
        ratio = above.groupby(arm).sum() / below.groupby(arm).sum()
        return ratio, (above - arm.map(ratio) * below) / arm.map(below.groupby(arm).mean())

    ratio, influence = linear(*parts(0, np.inf))
    spread = influence.groupby(arm).var() / arm.value_counts()
    assert found.unadjusted is not None
    assert found.unadjusted.difference == pytest.approx(ratio[11] - ratio[10], rel=1e-9)
    assert found.unadjusted.standard_error == pytest.approx(np.sqrt(spread.sum()), rel=1e-8)
    before, past = linear(*parts(-LOOKBACK, 0))
    theta = (influence * past).sum() / (past * past).sum()
    assert found.numbers.difference == pytest.approx(
        ratio[11] - ratio[10] - theta * (before[11] - before[10]), rel=1e-8
    )
    rest = influence - theta * past
    own = rest.groupby(arm).var() / arm.value_counts()
    assert found.numbers.standard_error == pytest.approx(np.sqrt(own.sum()), rel=1e-8)


def test_quantile_of_units__value_and_noise(world: World) -> None:
    wanted = replace(metric(MetricType.QUANTILE, quantile=0.75, zeros=True), lookback=None)
    report = asked(world, wanted)
    _, found = judged(report)
    spent, arm = TRUTH.sum(TRUTH.of("purchase")), TRUTH.units["arm"]
    q, z, expected = 0.75, reference.norm.ppf(0.975), []
    for each in (10, 11):
        own = spent[arm == each].to_numpy()
        reach = z * np.sqrt(q * (1 - q) / len(own))
        value, below, above = (
            np.quantile(own, at, method="inverted_cdf") for at in (q, q - reach, q + reach)
        )
        expected.append((value, (above - below) / (2 * z) * np.sqrt((len(own) - 1) / len(own))))
    assert [each.value for each in report.primary.arms] == pytest.approx([each[0] for each in expected])
    errors = [each.interval.standard_error for each in report.primary.arms]
    assert errors == pytest.approx([each[1] for each in expected], rel=1e-9)
    assert found.numbers.difference == pytest.approx(expected[1][0] - expected[0][0])
    assert found.numbers.standard_error == pytest.approx(np.hypot(*(each[1] for each in expected)), rel=1e-9)


def test_quantile_of_events__counts_a_unit_as_one_cluster__and_strata_apart(world: World) -> None:
    wanted = replace(metric(MetricType.QUANTILE, quantile=0.5, by_event=True), lookback=None)
    whole, ramp = asked(world, wanted), asked(world, wanted, RAMP)
    bought = TRUTH.of("purchase")
    arm, stretch = bought["unit"].map(TRUTH.units["arm"]), bought["unit"].map(TRUTH.units["phase"])

    def median(which: pd.Series) -> tuple[float, float]:
        some, z, q = bought[which], reference.norm.ppf(0.975), 0.5
        n = len(some)
        reach = z * np.sqrt(q * (1 - q) / n)
        value, low, high = (
            float(np.quantile(some["amount"], at, method="inverted_cdf")) for at in (q, q - reach, q + reach)
        )
        below = (some["amount"] <= value).groupby(some["unit"]).sum()
        own = some.groupby("unit").size()
        share = below.sum() / own.sum()
        influence = (below - share * own) / own.mean()
        clustered = influence.var() / len(own) / (q * (1 - q) / n)
        return value, ((high - low) / (2 * z)) ** 2 * (n - 1) / n * clustered

    overall = [median(arm == each) for each in (10, 11)]
    for report in (whole, ramp):
        assert [each.value for each in report.primary.arms] == pytest.approx([each[0] for each in overall])
    _, found = judged(whole)
    assert found.numbers.difference == pytest.approx(overall[1][0] - overall[0][0])
    assert found.numbers.standard_error == pytest.approx(np.sqrt(overall[0][1] + overall[1][1]), rel=1e-8)
    comparison, stratified = judged(ramp)
    pairs = [[median((arm == each) & (stretch == number)) for each in (10, 11)] for number in (1, 2)]
    weights = [weight for weight, _ in cells()]
    gap = sum(w * (high[0] - low[0]) for w, (low, high) in zip(weights, pairs, strict=True))
    variance = sum(w**2 * (high[1] + low[1]) for w, (low, high) in zip(weights, pairs, strict=True))
    assert comparison.strata == 2
    assert stratified.numbers.difference == pytest.approx(gap)
    assert stratified.numbers.standard_error == pytest.approx(np.sqrt(variance), rel=1e-8)


def test_activation__looks_at_those_who_viewed__from_then_on(world: World) -> None:
    wanted = replace(metric(MetricType.REVENUE), lookback=None)
    german = SourceSpec("view", GERMAN)
    spec = replace(SPEC, metrics=(wanted,), phases=RAMP, activation=german)
    report = world.report(spec)
    views = TRUTH.of("view")
    first = views[views["country"] == "de"].groupby("unit")["at"].min()
    assert report.total_units == len(first)
    bought = TRUTH.of("purchase")
    after = bought[bought["at"] >= bought["unit"].map(first)]
    arm = TRUTH.units["arm"][first.index]
    spent = after.groupby("unit")["amount"].sum().reindex(first.index).fillna(0.0)
    expected = [spent[arm == each].mean() for each in (10, 11)]
    assert [each.value for each in report.primary.arms] == pytest.approx(expected, rel=1e-9)
    assert report.assigned_ratio is not None
    assert sum(report.assigned_ratio.counts) == 2 * UNITS
    assert report.sample_ratio is not None
    assert sum(report.sample_ratio.counts) == len(first)


def test_plain_analysis__asks_nothing_of_the_past(world: World) -> None:
    _, found = judged(asked(world, metric(MetricType.REVENUE), cuped=False))
    assert (found.covariates, found.unadjusted, found.variance_reduction) == ((), None, None)
