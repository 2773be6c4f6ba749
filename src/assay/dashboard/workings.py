"""What a number of the scorecard is made of: each step, its formula, and the numbers as they were used."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

from assay.dashboard import wording
from assay.reports.report import Comparison, Judgement
from assay.stats import Effect, Interval, Verdict

_METHODS = {
    "pooled_z": "Pooled two-proportion z test; intervals by the score method, which agree with the test",
    "mean": "Welch’s t test of two means; lift by Fieller",
    "ratio": "Delta-method test of two ratios; lift by Fieller",
    "quantile": "Normal test of two quantiles, their errors from the order statistics around them",
    "mean_adjusted": "Welch’s t test of means adjusted by what came before (CUPED); lift by Fieller",
    "ratio_adjusted": "Delta-method test of ratios adjusted by what came before (CUPED); lift by Fieller",
    "group_sequential": "Group-sequential z test; intervals are those repeated at every look",
    "always_valid": "Always-valid test: a confidence sequence that may be read at any time",
    "normal_posterior": "Normal posterior under a flat prior on each arm; intervals are credible",
}
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_INTERVALS = {"score_uncorrected": "score method", "fieller": "Fieller’s method"}
_COVARIATES = {
    "before_any": "whether there were events before",
    "before_early": "the earlier half of the time before",
    "before_late": "the later half of the time before",
}


class Step(NamedTuple):
    """One step of a computation: what it is called, how it is done, and what came out."""

    name: str
    formula: str
    result: str


def method_of(name: str) -> str:
    """A method in words."""
    kind, adjusted, _ = name.partition("_adjusted")  # what follows says how the slopes were fitted
    return _METHODS.get(f"{kind}{adjusted}") or wording.words(name)


def numbers_of(each: Comparison) -> Verdict:
    """The numbers by the experiment's own method; those of the plain test where the family was not judged."""
    return each.judged.numbers if each.judged is not None else _plain(each.effect)


def steps(each: Comparison, *, share: bool) -> list[Step]:
    """The way from the arms to the verdict."""
    return list(_steps(each, share=share))


def _steps(each: Comparison, *, share: bool) -> Iterator[Step]:
    found, judged = numbers_of(each), each.judged
    if found.difference is None or found.control is None or found.treatment is None:
        return
    exact, gap = (_percent_exact, _points_exact) if share else (_exact, _exact)
    adjusted = "adjusted values: " if judged is not None and judged.covariates else ""
    yield Step(
        "Difference", f"{adjusted}{exact(found.treatment)} − {exact(found.control)}", gap(found.difference)
    )
    if found.standard_error is not None:
        about = "of the posterior" if found.chance_to_win is not None else "from the spread of both arms"
        yield Step("Standard error of the difference", about, gap(found.standard_error))
    if found.chance_to_win is None and found.standard_error:
        yield Step("Test statistic", _reference(each), _exact(found.difference / found.standard_error))
    if found.p_value is not None:
        sides = "two-sided" if found.alternative == "two-sided" else f"one-sided, {found.alternative}"
        yield Step("p-value", sides, _p_exact(found.p_value, found.log10_p_value))
    if judged is not None:
        yield from _corrected(judged)
    level = f"{100.0 * (1.0 - found.alpha):.4g} %"
    if found.interval is not None:
        about = (
            f"limit {found.limit:.4f} standard errors" if found.limit is not None else "by the same method"
        )
        kind = "credible interval" if found.chance_to_win is not None else "interval"
        yield Step(f"{level} {kind} of the difference", about, _ends(found.interval, gap))
    if found.lift is not None:
        yield Step("Lift", f"{gap(found.difference)} ÷ |{exact(found.control)}|", _percent_exact(found.lift))
    if found.lift_interval is not None:
        yield Step(
            f"{level} interval of the lift", _lift_by(each), _ends(found.lift_interval, _percent_exact)
        )
    yield from _chances(found)
    if judged is not None:
        yield from _reduced(judged, gap)
        yield from _held(judged, gap)


def _reference(each: Comparison) -> str:
    found = numbers_of(each)
    contrast = each.judged.contrast if each.judged is not None else None
    df = contrast.df if contrast is not None and found.method == contrast.method else None
    divided = "difference ÷ its standard error"
    return f"{divided}: z" if df is None else f"{divided}: t with {df:,.1f} degrees of freedom"


def _lift_by(each: Comparison) -> str:
    if numbers_of(each).chance_to_win is not None:
        return "of the posterior"
    method = str(each.effect.lift.method)
    return _INTERVALS.get(method, f"{wording.words(method).lower()} method")


def _corrected(judged: Judgement) -> Iterator[Step]:
    if judged.adjusted_p_value is not None:
        yield Step(
            "Corrected p-value",
            f"within the family of {judged.members} comparisons",
            _p_exact(judged.adjusted_p_value, None),
        )
    look = judged.look
    if look is not None and look.z is not None and look.limit is not None:
        verdict = "crossed" if look.crossed else "not crossed"
        yield Step(
            f"Look {judged.look_number}",
            f"|z| = {abs(look.z):.4f} against the limit {look.limit:.4f}",
            verdict,
        )


def _chances(found: Verdict) -> Iterator[Step]:
    if found.chance_to_win is not None:
        yield Step(
            "Chance to win", "of the posterior, on the better side", _percent_exact(found.chance_to_win)
        )
    if found.loss_if_shipped is not None:
        yield Step(
            "Expected loss if shipped",
            "lift lost on average if it is worse",
            _percent_exact(found.loss_if_shipped),
        )
    if found.loss_if_kept is not None:
        yield Step(
            "Expected loss if kept",
            "lift missed on average if it is better",
            _percent_exact(found.loss_if_kept),
        )


def _reduced(judged: Judgement, exact: Callable[[float], str]) -> Iterator[Step]:
    """What the covariates did, beside the numbers without them."""
    if judged.variance_reduction is not None:
        names = ", ".join(_COVARIATES.get(each, each) for each in judged.covariates) or "covariates"
        yield Step("Variance reduction", f"by {names}", _percent_exact(judged.variance_reduction))
    plain = judged.unadjusted
    if plain is None or plain.difference is None:
        return
    lift = "" if plain.lift is None else f", lift {_percent_exact(plain.lift)}"
    p = "" if plain.p_value is None else f", p-value {_p_exact(plain.p_value, plain.log10_p_value)}"
    yield Step("Without covariates", "the same comparison, unadjusted", f"{exact(plain.difference)}{lift}{p}")


def _held(judged: Judgement, exact: Callable[[float], str]) -> Iterator[Step]:
    """The test of a guardrail against its margin."""
    found = judged.margin
    if found is None:
        return
    size = _percent_exact(found.margin) if found.relative else exact(found.margin)
    if found.null is not None:
        yield Step("Margin", f"{size}{' of the control' if found.relative else ''}", exact(found.null))
    if found.interval is not None:
        level = f"{100.0 * (1.0 - found.alpha):.4g} %"
        yield Step(f"One-sided {level} interval", "on the side where harm lies", _ends(found.interval, exact))
    if found.p_value is not None:
        verdict = "within the margin" if found.passed else "not shown to be within"
        yield Step(
            "Non-inferiority",
            f"p-value of a harm as large as the margin: {_p_exact(found.p_value, found.log10_p_value)}",
            verdict,
        )


def _plain(effect: Effect) -> Verdict:
    return Verdict(
        effect.method,
        effect.alternative,
        effect.alpha,
        effect.control,
        effect.treatment,
        effect.estimate,
        effect.standard_error,
        effect.interval,
        effect.lift.value,
        effect.lift.interval,
        effect.lift.reason,
        effect.p_value,
        effect.log10_p_value,
        effect.significant,
        effect.reason,
    )


def _p_exact(p: float, log10: float | None) -> str:
    """Six digits; what is tiny by its power of ten."""
    if p >= 1e-4:
        return f"{p:.6g}"
    if log10 is None:
        log10 = math.log10(p) if p > 0.0 else -308.0
    power = math.floor(log10)
    return f"{10.0 ** (log10 - power):.4f} × 10{str(power).translate(_RAISED)}"


def _exact(value: float) -> str:
    return f"{value:,.6g}".replace("-", "−") if math.isfinite(value) else wording.MISSING


def _percent_exact(value: float) -> str:
    return f"{value * 100.0:.4f} %".replace("-", "−")


def _points_exact(value: float) -> str:
    return f"{value * 100.0:.4f} points".replace("-", "−")


def _ends(ends: Interval, show: Callable[[float], str]) -> str:
    low = "unbounded" if ends.low is None else show(ends.low)
    high = "unbounded" if ends.high is None else show(ends.high)
    return f"{low} to {high}"
