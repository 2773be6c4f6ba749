"""The rules of a decision, in words: what `assay.reports.decision` does, for whoever reads its verdict."""

from assay.reports.spec import ExperimentSpec
from assay.reports.wording import setting

_CORRECTIONS = {
    "holm": "Holm's method",
    "hochberg": "Hochberg's method",
    "hommel": "Hommel's method",
    "holm_sidak": "the method of Holm and Šidák",
    "bonferroni": "Bonferroni's method",
    "sidak": "Šidák's method",
    "benjamini_hochberg": "the method of Benjamini and Hochberg",
    "benjamini_yekutieli": "the method of Benjamini and Yekutieli",
}


def rules(spec: ExperimentSpec, alpha: float) -> tuple[str, ...]:
    """The rules of an experiment with this plan, in the order in which they speak."""
    said = ["Nothing is read while a check of health fails."]
    if spec.breaker is not None:
        does = "stops" if spec.breaker.action == "stop" else "pauses"
        said.append(
            f"A circuit breaker {does} the experiment once a guardrail is shown to be harmed beyond its "
            f"margin, with a false-trip rate of {setting(spec.breaker.rate)}."
        )
    said.append(_judged(spec, alpha))
    if spec.analysis.method != "bayesian" and spec.analysis.correction != "none":
        correction = spec.analysis.correction
        how = _CORRECTIONS.get(correction, f"the method {correction}")
        family = "Primary and secondary metrics of the plan are one family"
        said.append(f"{family}, corrected together by {how}.")
    guards = (
        "A treatment that is better ships if no guardrail speaks against it: one with a margin must be shown "
        "to be within it, one without must not be significantly worse."
    )
    end = "Otherwise it runs on until the planned sample or the last look, and then is inconclusive."
    return (*said, guards, "If every treatment is worse, the control stays.", end)


def _judged(spec: ExperimentSpec, alpha: float) -> str:
    level = f"at the level of {setting(alpha)}"
    match spec.analysis.method:
        case "fixed":
            return f"The primary metric is tested once, when the planned sample is in, {level}."
        case "group_sequential":
            return f"The primary metric is tested at the planned looks, all of them together {level}."
        case "always_valid":
            return f"The primary metric is tested at looks, however many, all of them together {level}."
        case "bandit":
            return _by_bandit(spec, level)
        case "bayesian":
            above, below = setting(1.0 - alpha), setting(alpha)
            return (
                "The primary metric decides once the planned sample is in, when its chance to win is at "
                f"least {above} or at most {below}."
            )


def _by_bandit(spec: ExperimentSpec, level: str) -> str:
    how = spec.analysis.bandit
    sure = "" if how is None else f"{setting(how.ship_probability)} and less than {setting(how.ship_loss)}"
    return (
        "The split follows what was seen, so arms are compared within phases, and effects judged by "
        f"always-valid sets, {level}. The variant that is most probably the best decides once its "
        f"probability and its expected loss, as a share of the control's value, are {sure}; that probability "
        "is no error rate."
    )
