"""The design numbers of an experiment to come: its size, what it can detect, its power, how long it takes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from assay.errors import Invalid
from assay.offline.request import Kind, Request
from assay.offline.source import opened
from assay.offline.units import read
from assay.stats import (
    Baseline,
    Design,
    Moments,
    Plan,
    Ratio,
    Reason,
    baseline_of,
    days_needed,
    detectable,
    plan,
    power_of,
)

#: Weeks that a table of detectable effects shows, and without a daily number, multiples of the size.
WEEKS: Final = (1, 2, 3, 4, 6, 8)
MULTIPLES: Final = (0.25, 0.5, 1.0, 2.0, 4.0)
STANDARD_POWER: Final = 0.8
_ROUNDS: Final = 60


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: two of effect (`difference` or `lift`), `units` and `power`; the third is found.

    `units` counts all arms. `treatments` share alpha evenly; `daily` is the number of units that enter a day.
    """

    baseline: Baseline
    proportion: bool
    design: Design
    treatments: int = 1
    difference: float | None = None
    lift: float | None = None
    units: float | None = None
    power: float | None = None
    daily: float | None = None


@dataclass(frozen=True, slots=True)
class Detectable:
    """A row of the table: with so many units (after so many days) this effect is found with the power."""

    units: int
    days: int | None
    difference: float
    lift: float | None


@dataclass(frozen=True, slots=True)
class Answer:
    """Whole units by arm, the effect, the power, and days; `reason` says why there is none.

    `found` names what was solved for. `expected_units` is where a sequential test stops on average when the
    effect is as planned. `usual_units` is the size that the fixed test needs for the same.
    """

    question: Question
    found: str
    control: int | None
    treatment: int | None
    units: int | None
    difference: float | None
    lift: float | None
    power: float | None
    expected_units: int | None
    days: int | None
    expected_days: int | None
    usual_units: int | None
    table: tuple[Detectable, ...] = ()
    table_power: float = STANDARD_POWER
    reason: Reason | None = None


def answer(question: Question) -> Answer:
    """Solve for what is missing; raises `Invalid` when too little or too much is given."""
    _check(question)
    asked = replace(
        question, design=question.design._replace(alpha=question.design.alpha / question.treatments)
    )
    effect = _effect(asked)
    if asked.units is None:
        return _sized(question, asked, effect)
    pair = asked.units * _pair_share(asked)
    if effect is None:
        found = _detectable(asked, pair)
        return _answer(question, asked, "effect", found, found.power)
    power = power_of(_baseline(asked, effect), effect, pair, asked.design)
    found = Plan(asked.design, None, None, pair, effect, _lift(asked, effect), power, None)
    control = pair / (1.0 + asked.design.ratio)
    found = found._replace(control=control, treatment=pair - control)
    return _answer(question, asked, "power", found, power)


def past_baseline(request: Request) -> tuple[Baseline, bool]:
    """The baseline that a file of past units gives by its one metric, and whether it is a proportion."""
    with opened(request.path, request.form, request.memory) as source:
        found = read(source, request)
    [metric] = request.metrics
    if metric.kind is Kind.QUANTILE:
        raise Invalid("A quantile cannot be planned from a file; plan for the mean of the column.")
    moments = next(iter(found.whole[metric.name].values())).moments
    value = Ratio("y", "d") if metric.kind is Kind.RATIO else "y"
    baseline = baseline_of(moments, value, found.covariates)
    if isinstance(baseline, Reason):
        raise Invalid(f"{found.name}: {metric.name} gives no baseline. {baseline.sentence}")
    if baseline.variance <= 0.0:
        raise Invalid(f"{found.name}: {metric.name} gives no baseline. {Reason.ZERO_VARIANCE.sentence}")
    return baseline, metric.kind is Kind.CONVERSION and not found.covariates


def rate_baseline(rate: float) -> Baseline:
    """The baseline of a share of units."""
    if not 0.0 < rate < 1.0:
        raise Invalid.field("--baseline", f"{rate:g} is no share between 0 and 1.")
    return Baseline(rate, rate * (1.0 - rate))


def ratio_baseline(
    numerator: tuple[float, float], denominator: tuple[float, float], correlation: float
) -> Baseline:
    """The baseline of a ratio of totals from (mean, standard deviation) of both, over units."""
    if denominator[0] == 0.0:
        raise Invalid.field("--denominator-mean", "0 cannot be divided by.")
    pairs = {
        ("y", "y"): numerator[1] ** 2,
        ("d", "d"): denominator[1] ** 2,
        ("y", "d"): correlation * numerator[1] * denominator[1],
    }
    # The number of units cancels; large enough that its rounding does not show.
    moments = Moments.from_centred(10**9, {"y": numerator[0], "d": denominator[0]}, pairs)
    found = baseline_of(moments, Ratio("y", "d"))
    if isinstance(found, Reason):
        raise Invalid(f"These numbers give no baseline. {found.sentence}")
    return found


def _check(question: Question) -> None:
    if question.difference is not None and question.lift is not None:
        raise Invalid.field("--lift", "give either --lift or --difference, not both.")
    effect = question.difference if question.lift is None else question.lift
    if effect is None and question.units is None:
        raise Invalid("Give the effect to detect (--lift or --difference), or the --units there will be.")
    if effect is not None and (effect == 0.0 or not math.isfinite(effect)):
        raise Invalid.field("--lift", f"an effect of {effect:g} cannot be detected.")
    if question.lift is not None and question.baseline.mean == 0.0:
        raise Invalid.field("--lift", "a lift needs a baseline other than 0; give --difference.")
    if effect is not None and question.units is not None and question.power is not None:
        raise Invalid.field("--power", "with an effect and --units the power is what is found; leave it out.")
    if question.units is not None and question.units <= 0.0:
        raise Invalid.field("--units", f"{question.units:g} is no number of units.")
    if question.power is not None and not question.design.alpha < question.power < 1.0:
        raise Invalid.field("--power", f"{question.power:g} does not lie between alpha and 1.")
    if question.baseline.variance <= 0.0:
        raise Invalid.field("--sd", "the standard deviation must be above 0.")


def _effect(question: Question) -> float | None:
    if question.lift is not None:
        return question.lift * abs(question.baseline.mean)
    return question.difference


def _lift(question: Question, difference: float) -> float | None:
    return difference / abs(question.baseline.mean) if question.baseline.mean else None


def _baseline(question: Question, difference: float) -> Baseline:
    """A rate that changes has another variance; other metrics keep theirs."""
    if not question.proportion:
        return question.baseline
    rate = question.baseline.mean + difference
    if not 0.0 < rate < 1.0:
        raise Invalid(
            f"A baseline of {question.baseline.mean:g} changed by {difference:g} is {rate:g}, which is no "
            "share between 0 and 1."
        )
    return question.baseline._replace(treatment_variance=rate * (1.0 - rate))


def _pair_share(question: Question) -> float:
    """The share of all units that a control and one treatment have."""
    ratio = question.design.ratio
    return (1.0 + ratio) / (1.0 + question.treatments * ratio)


def _sized(question: Question, asked: Question, effect: float | None) -> Answer:
    size = effect or 0.0
    power = STANDARD_POWER if asked.power is None else asked.power
    found = plan(_baseline(asked, size), difference=size, power=power, design=asked.design)
    return _answer(question, asked, "units", found, power)


def _detectable(question: Question, pair: float) -> Plan:
    """The smallest effect; a rate's variance depends on the effect, so it is approached in rounds."""
    sign = -1.0 if question.design.alternative == "less" else 1.0
    power = STANDARD_POWER if question.power is None else question.power
    found = detectable(question.baseline, pair, power=power, design=question.design)
    if question.proportion:
        for _ in range(_ROUNDS):
            size = found.difference or 0.0
            rate = question.baseline.mean + sign * size
            if not 0.0 < rate < 1.0:
                raise Invalid(
                    f"{pair:,.0f} units are too few: no rate between 0 and 1 differs enough from "
                    f"{question.baseline.mean:g} to be detected."
                )
            found = detectable(_baseline(question, sign * size), pair, power=power, design=question.design)
            if abs((found.difference or 0.0) - size) <= 1e-13:
                break
    difference = sign * (found.difference or 0.0)
    return found._replace(difference=difference, lift=_lift(question, difference), power=power)


def _answer(question: Question, asked: Question, solved: str, found: Plan, power: float) -> Answer:
    if found.units is None or found.control is None or found.treatment is None:
        return Answer(
            question,
            solved,
            None,
            None,
            None,
            found.difference,
            found.lift,
            power,
            None,
            None,
            None,
            None,
            reason=found.reason,
        )
    whole = 1.0 / _pair_share(asked)
    shown = STANDARD_POWER if solved == "power" else power
    control, treatment = math.ceil(found.control - 1e-9), math.ceil(found.treatment - 1e-9)
    units = control + asked.treatments * treatment if solved == "units" else round(asked.units or 0.0)
    average = None if found.expected_units is None else math.ceil(found.expected_units * whole)
    usual = None
    if solved == "units" and asked.design.test != "fixed" and found.difference is not None:
        fixed = asked.design._replace(test="fixed")
        single = plan(
            _baseline(asked, found.difference), difference=found.difference, power=power, design=fixed
        )
        usual = None if single.units is None else math.ceil(single.units * whole)
    return Answer(
        question,
        solved,
        control,
        treatment,
        units,
        found.difference,
        found.lift,
        power,
        average,
        _days(units, asked.daily),
        None if average is None else _days(average, asked.daily),
        usual,
        tuple(_table(asked, units, shown)),
        shown,
    )


def _days(units: float, daily: float | None) -> int | None:
    return None if daily is None else days_needed(units, daily)


def _table(question: Question, units: int, power: float) -> Sequence[Detectable]:
    """What could be detected with other sizes; sizes that can show nothing are left out."""
    sizes: list[tuple[int | None, float]]
    if question.daily is not None:
        sizes = [(7 * weeks, 7 * weeks * question.daily) for weeks in WEEKS]
    else:
        sizes = [(None, units * multiple) for multiple in MULTIPLES]
    rows = []
    for days, size in sizes:
        pair = size * _pair_share(question)
        try:
            found = _detectable(replace(question, power=power), pair)
        except Invalid:  # so few units that no rate would do
            continue
        if found.difference is not None:
            rows.append(Detectable(math.floor(size), days, found.difference, found.lift))
    return rows


def document(found: Answer) -> dict[str, Any]:
    """The answer as a document for programs."""
    question, design = found.question, found.question.design
    return {
        "schema_version": 1,
        "found": found.found,
        "baseline": {
            "mean": question.baseline.mean,
            "variance": question.baseline.variance,
            "proportion": question.proportion,
        },
        "design": {
            "test": design.test,
            "alpha": design.alpha,
            "alternative": design.alternative,
            "ratio": design.ratio,
            "looks": None if design.test == "fixed" else design.looks,
            "treatments": question.treatments,
        },
        "units": found.units,
        "control_units": found.control,
        "treatment_units": found.treatment,
        "difference": found.difference,
        "lift": found.lift,
        "power": found.power,
        "expected_units": found.expected_units,
        "fixed_units": found.usual_units,
        "daily": question.daily,
        "days": found.days,
        "expected_days": found.expected_days,
        "detectable_power": found.table_power,
        "detectable": [
            {"units": row.units, "days": row.days, "difference": row.difference, "lift": row.lift}
            for row in found.table
        ],
        "reason": None
        if found.reason is None
        else {"code": found.reason.value, "sentence": found.reason.sentence},
    }
