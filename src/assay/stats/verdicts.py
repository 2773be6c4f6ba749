"""From contrasts to verdicts, by whichever method was chosen, alone or as a family, in one shape for all.

Everything that judges comparisons (the reports of stored experiments, the analysis of a file) goes through
`judge` and `judge_family`, so that equal numbers get equal verdicts wherever they come from.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from assay.stats.bayesian import bayes
from assay.stats.boundaries import Spending
from assay.stats.contrast import Contrast
from assay.stats.effect import Effect, infer
from assay.stats.groupseq import group_sequential
from assay.stats.multiplicity import Corrected, Correction, correct
from assay.stats.proportions import Count, two_proportions
from assay.stats.reasons import Reason
from assay.stats.sequential import SequentialEffect, always_valid
from assay.stats.tails import Alternative, Interval

Method = Literal["fixed", "group_sequential", "always_valid", "bayesian"]


@dataclass(frozen=True, slots=True)
class Rules:
    """How comparisons are judged.

    `fraction` is the information that is in, as a share of what was planned; the sequential methods need it.
    `earlier` are the fractions of the looks before this one, and `final` says that this is the last; they
    belong to a group-sequential test, as do `spending` and `spending_power`. `members` is the size of the
    family as declared; by default it is the number of comparisons that can be tested.
    """

    method: Method = "fixed"
    alpha: float = 0.05
    correction: Correction = "holm"
    fraction: float | None = None
    earlier: tuple[float, ...] = ()
    final: bool = False
    spending: Spending = "obrien_fleming"
    spending_power: float = 1.0
    members: int | None = None


class Case(NamedTuple):
    """One comparison to be judged.

    `counts` (control, treatment) are there for shares without covariates, whose fixed test is the pooled one;
    `previous_p` is the always-valid p-value of the last look. `fraction` is the information of this
    comparison alone, where it is not that of the rules.
    """

    contrast: Contrast
    alternative: Alternative = "two-sided"
    lower_is_better: bool = False
    counts: tuple[Count, Count] | None = None
    previous_p: float = 1.0
    fraction: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a comparison says: treatment minus control, absolute and relative to the control.

    Under the Bayesian method `difference` and `lift` are posterior means, the intervals are credible, and
    there is no p-value; `chance_to_win` and the losses belong to the lift. `significant` is `None` where no
    test could be made, and `reason` says why; `lift_reason` says why the lift or its interval is missing.
    `limit` is the multiple of the standard error that a sequential interval was made with; `fraction` and
    `last` belong to a group-sequential look.
    """

    method: str
    alternative: Alternative
    alpha: float
    control: float | None
    treatment: float | None
    difference: float | None
    standard_error: float | None
    interval: Interval | None
    lift: float | None
    lift_interval: Interval | None
    lift_reason: Reason | None
    p_value: float | None = None
    log10_p_value: float | None = None
    significant: bool | None = None
    reason: Reason | None = None
    chance_to_win: float | None = None
    loss_if_shipped: float | None = None
    loss_if_kept: float | None = None
    fraction: float | None = None
    limit: float | None = None
    last: bool | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict within its family; `adjusted_p_value` is there where a correction was made."""

    verdict: Verdict
    adjusted_p_value: float | None = None


def judge(case: Case, rules: Rules, alpha: float | None = None) -> Verdict:
    """The verdict on one comparison, at the level of the rules or another one.

    Raises `ValueError` where a sequential method is not told what information is in.
    """
    level = rules.alpha if alpha is None else alpha
    return _METHODS[rules.method](case, rules, level)


def judge_family(cases: Sequence[Case], rules: Rules) -> tuple[Judged, ...]:
    """All comparisons together, with decisions and intervals at the level that the correction leaves each.

    Group-sequential looks share alpha evenly (Bonferroni): a limit, not a p-value, decides them. A posterior
    is no error rate and is not corrected.
    """
    first = [judge(case, rules) for case in cases]
    members = rules.members or sum(verdict.reason is None for verdict in first)
    if rules.method == "bayesian" or rules.correction == "none" or members < 2:
        return tuple(Judged(verdict) for verdict in first)
    if rules.method == "group_sequential":
        return tuple(Judged(judge(case, rules, rules.alpha / members)) for case in cases)
    found = correct([each.p_value for each in first], method=rules.correction, alpha=rules.alpha)
    return tuple(
        _matched(case, verdict, rules, found, at)
        for at, (case, verdict) in enumerate(zip(cases, first, strict=True))
    )


def _matched(case: Case, verdict: Verdict, rules: Rules, found: Corrected, at: int) -> Judged:
    level, rejected = found.alphas[at], found.rejected[at]
    if level is None:
        return Judged(verdict)
    wider = replace(judge(case, rules, level), significant=rejected)
    return Judged(_ended_at_zero(wider) if rejected else wider, found.p_values[at])


def _ended_at_zero(verdict: Verdict) -> Verdict:
    """Step-wise corrections reject more than equally wide intervals show: a rejection ends them at zero."""
    up = (verdict.difference or 0.0) > 0.0

    def cut(interval: Interval | None) -> Interval | None:
        if interval is None:
            return None
        low, high = interval
        if up:
            return Interval(None if low is None else max(low, 0.0), high)
        return Interval(low, None if high is None else min(high, 0.0))

    return replace(verdict, interval=cut(verdict.interval), lift_interval=cut(verdict.lift_interval))


def _fixed(case: Case, _rules: Rules, alpha: float) -> Verdict:
    if case.counts is not None and min(arm.units for arm in case.counts) > 1:
        return tested(two_proportions(*case.counts, alpha=alpha, alternative=case.alternative))
    return tested(infer(case.contrast, alpha=alpha, alternative=case.alternative))


def _always_valid(case: Case, rules: Rules, alpha: float) -> Verdict:
    given = case.contrast
    found = always_valid(
        given,
        planned=given.units / (case.fraction or _fraction(rules)) or 1.0,
        alpha=alpha,
        alternative=case.alternative,
        previous_p=case.previous_p,
    )
    return replace(tested(found), limit=found.critical)


def tested(found: Effect | SequentialEffect) -> Verdict:
    """An effect in the shape of a verdict."""
    return Verdict(
        found.method,
        found.alternative,
        found.alpha,
        found.control,
        found.treatment,
        found.estimate,
        found.standard_error,
        found.interval,
        found.lift.value,
        found.lift.interval,
        found.lift.reason,
        found.p_value,
        found.log10_p_value,
        found.significant,
        found.reason,
    )


def _group_sequential(case: Case, rules: Rules, alpha: float) -> Verdict:
    fraction = _fraction(rules)
    found = group_sequential(
        case.contrast,
        (*(each for each in rules.earlier if each < fraction), fraction),
        alpha=alpha,
        alternative=case.alternative,
        spending=rules.spending,
        power=rules.spending_power,
        final=rules.final,
    )
    return Verdict(
        found.method,
        case.alternative,
        alpha,
        found.control,
        found.treatment,
        found.estimate,
        found.standard_error,
        found.interval,
        found.lift.value,
        found.lift.interval,
        found.lift.reason,
        found.p_value,
        None,
        found.crossed,
        found.reason,
        fraction=fraction,
        limit=found.limit,
        last=found.last,
    )


def _bayesian(case: Case, _rules: Rules, alpha: float) -> Verdict:
    level, lower, given = 1.0 - alpha, case.lower_is_better, case.contrast
    relative = bayes(given, level=level, lower_is_better=lower)
    absolute = bayes(given, scale="absolute", level=level, lower_is_better=lower)
    shown = relative if relative.reason is None else absolute
    return Verdict(
        "normal_posterior",
        "two-sided",
        alpha,
        given.control_shown,
        given.treatment_shown,
        absolute.mean,
        absolute.sd,
        absolute.interval,
        relative.mean,
        relative.interval,
        relative.reason,
        reason=given.reason or shown.reason,
        chance_to_win=shown.chance_to_win,
        loss_if_shipped=shown.loss_treatment if shown is relative else None,
        loss_if_kept=shown.loss_control if shown is relative else None,
    )


def _fraction(rules: Rules) -> float:
    if rules.fraction is None or rules.fraction <= 0.0:
        raise ValueError(f"{rules.method} needs a positive share of the planned units, got {rules.fraction}")
    return rules.fraction


_METHODS: dict[Method, Callable[[Case, Rules, float], Verdict]] = {
    "fixed": _fixed,
    "always_valid": _always_valid,
    "group_sequential": _group_sequential,
    "bayesian": _bayesian,
}
