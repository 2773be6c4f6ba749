"""How many units, and how many days: the answer changes as one types."""

import math
from typing import NamedTuple

from starlette.responses import Response

from assay.dashboard import wording
from assay.dashboard.pages import Form, Visit, render
from assay.errors import FieldError, Invalid
from assay.stats.boundaries import Spending
from assay.stats.power import Baseline, Design, days_needed, detectable, plan
from assay.stats.tails import Alternative

#: Weeks for which the smallest effect is shown.
_WEEKS = (1, 2, 4, 8)
#: More looks change the answer by less than its digits; without a number there is one a day, four weeks long.
_MOST_LOOKS = _DAILY = 28


class Answer(NamedTuple):
    """What the calculator says: units in all and in each arm, days, and the smallest effects by week.

    `sooner` are the units a sequential experiment takes on average, if the effect is as looked for.
    """

    units: int
    each: int
    arms: int
    days: int | None
    test: str
    sooner: int | None
    weeks: tuple[tuple[str, str, str], ...]


def shown(visit: Visit) -> Response:
    """The answer to what has been typed so far."""
    try:
        answer, problem = _answer(visit), ""
    except Invalid as error:
        answer, problem = None, error.errors[0].message
    return render(visit, "_calculator.html", answer=answer, problem=problem)


def read_number(text: str, path: str) -> float:
    """A number as people write it: `2.5`, `2,5`, `2.5 %`, `12 000`. Raises `Invalid`."""
    plain = (
        text.replace("%", "").replace(" ", "").replace("\u00a0", "").replace("\u202f", "").replace("_", "")
    )
    if plain.count(",") == 1 and "." not in plain and len(plain.partition(",")[2]) != 3:
        plain = plain.replace(",", ".")
    try:
        value = float(plain.replace(",", ""))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise Invalid.field(path, f"must be a number; got “{text[:40]}”" if text else "is needed")
    return value


def _answer(visit: Visit) -> Answer:
    asked = visit.query
    share = asked.get("calc-kind", "share") != "mean"
    mean = _positive(asked.get("calc-base"), "the value now")
    lift = _positive(asked.get("calc-lift"), "the smallest change worth finding") / 100.0
    if share:
        mean /= 100.0
        if mean >= 1.0:
            raise Invalid.field("base", "a share must be below 100 %")
        variance = mean * (1.0 - mean)
        after = min(mean * (1.0 + lift), 1.0)
        other = after * (1.0 - after) or variance
    else:
        variance = other = _positive(asked.get("calc-spread"), "the standard deviation") ** 2
    arms = max(
        2, sum(1 for name, _ in asked.pairs if name.startswith("variant-") and name.endswith("-share"))
    )
    level = _between(asked.get("significance_level") or "5", "the significance level", 50.0) / 100.0
    power = _between(asked.get("power") or "80", "the power", 100.0) / 100.0
    design = _design(asked, level / (arms - 1))
    baseline = Baseline(mean, variance, other)
    signed = -lift if design.alternative == "less" else lift
    found = plan(baseline, lift=signed, power=power, design=design)
    if found.control is None or found.control > 1e12:
        raise Invalid.field("lift", "no sample is large enough for that: look for a larger change")
    each = math.ceil(found.control)
    typed = asked.get("calc-daily")
    daily = _positive(typed, "new users a day") if typed else None
    weeks = []
    for number in _WEEKS if daily else ():
        units = (daily or 0.0) * 7.0 * number / arms * 2.0
        smallest = detectable(baseline, units, power=power, design=design).lift
        weeks.append(
            (
                f"{number} week{'' if number == 1 else 's'}",
                wording.count((daily or 0.0) * 7.0 * number),
                wording.percent(smallest, smallest, signed=True),
            )
        )
    days = days_needed(each * arms, daily) if daily else None
    sooner = None
    if design.test != "fixed" and found.units and found.expected_units:
        sooner = math.ceil(each * arms * found.expected_units / found.units)
    return Answer(each * arms, each, arms, days, _test(design, level), sooner, tuple(weeks))


def _design(asked: Form, alpha: float) -> Design:
    """The test that the form chooses. Bayesian results and bandits are planned as a fixed test is."""
    method, sides = asked.get("analysis-method"), asked.get("analysis-alternative")
    alternative: Alternative = "greater" if sides == "greater" else "less" if sides == "less" else "two-sided"
    if method == "always_valid":
        return Design("always_valid", alpha, alternative)
    if method != "group_sequential":
        return Design("fixed", alpha, "two-sided" if method == "bayesian" else alternative)
    dates = [each for each in asked.get("analysis-look_dates").split("\n") if each.strip()]
    text = asked.get("analysis-looks")
    looks = len(dates) or (int(text) if text.isascii() and text.isdigit() and len(text) < 5 else 0)
    how = asked.get("analysis-spending")
    spending: Spending = "pocock" if how == "pocock" else "power" if how == "power" else "obrien_fleming"
    exponent = asked.get("analysis-spending_power")
    return Design(
        "group_sequential",
        alpha,
        alternative,
        looks=min(looks, _MOST_LOOKS) or _DAILY,
        spending=spending,
        spending_power=_positive(exponent, "the exponent") if exponent and spending == "power" else 1.0,
    )


def _test(design: Design, level: float) -> str:
    sides = "two-sided" if design.alternative == "two-sided" else "one-sided"
    at = f"{sides} at {level * 100.0:g} %"
    if design.test == "always_valid":
        return f"by an always-valid test, {at}"
    return f"by a test of {design.looks} looks, {at}" if design.test == "group_sequential" else at


def _positive(text: str, name: str) -> float:
    value = read_number(text, name) if text else 0.0
    if value <= 0.0:
        message = f"Enter {name}." if not text else f"{name.capitalize()} must be above zero."
        raise Invalid(message, errors=(FieldError(name, message),))
    return value


def _between(text: str, name: str, most: float) -> float:
    value = _positive(text, name)
    if value >= most and not (most == 50.0 and value == most):
        message = f"{name.capitalize()} must lie between 0 and {most:g} %."
        raise Invalid(message, errors=(FieldError(name, message),))
    return value
