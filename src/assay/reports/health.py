"""Health: can these numbers be trusted?

Each check declares the evidence it needs and is given nothing else. All checks are made, whatever the others
find, and one that breaks says so in its own place: none can hide another, nor the report.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from assay.reports.report import Check, Health, MetricReport
from assay.reports.spec import ExperimentSpec
from assay.reports.wording import duration
from assay.stats import SampleRatio

#: Below these, chance and the day of the week say more than the variants do.
FEWEST_UNITS = 100
FEWEST_DAYS = 7


class Evidence(NamedTuple):
    """All that checks may ask for, each part under the name by which they ask."""

    spec: ExperimentSpec
    units: Mapping[int, int]
    metrics: Sequence[MetricReport]
    sample_ratio: SampleRatio | None
    begin: datetime | None
    end: datetime
    assigned_ratio: SampleRatio | None = None
    """That of all assigned units, where only those with the activation event are analysed."""


class Finding(NamedTuple):
    """What one check found, and the numbers it rests on."""

    health: Health
    sentence: str
    inputs: Mapping[str, object]


class HealthCheck(NamedTuple):
    """A check: its name, the evidence it declares, and the judgement, called with exactly that evidence."""

    name: str
    needs: tuple[str, ...]
    judge: Callable[..., Finding]


def examine(evidence: Evidence, checks: Sequence[HealthCheck] | None = None) -> tuple[Check, ...]:
    """Make every check."""
    return tuple(_made(check, evidence) for check in (CHECKS if checks is None else checks))


def _made(check: HealthCheck, evidence: Evidence) -> Check:
    try:
        found = check.judge(**{name: getattr(evidence, name) for name in check.needs})
    except Exception as problem:  # noqa: BLE001 a broken check must not take the others with it
        sentence = f"This check could not be made ({type(problem).__name__})."
        return Check(check.name, Health.UNKNOWN, sentence, {})
    return Check(check.name, found.health, found.sentence, found.inputs)


def _sample_ratio(sample_ratio: SampleRatio | None) -> Finding:
    if sample_ratio is None or (sample_ratio.statistic is None and not sample_ratio.stray):
        return Finding(Health.OK, "There is no split to check yet.", {})
    inputs = {
        "counts": list(sample_ratio.counts),
        "expected": list(sample_ratio.expected),
        "p_value": sample_ratio.p_value,
        "threshold": sample_ratio.threshold,
    }
    if sample_ratio.stray:
        return Finding(
            Health.FAILED,
            f"{sample_ratio.stray:,} units are in a variant that was dealt none when they came: "
            "assignment or logging is broken.",
            inputs,
        )
    if sample_ratio.mismatch:
        return Finding(
            Health.FAILED,
            "The variants do not hold the shares of units that they were dealt "
            f"(p = {sample_ratio.p_value:.2g}): units may be lost, counted twice or given another variant "
            "on the way.",
            inputs,
        )
    return Finding(Health.OK, "The variants hold the shares of units that they were dealt.", inputs)


def _assigned_ratio(assigned_ratio: SampleRatio | None) -> Finding:
    if assigned_ratio is None:
        return Finding(Health.OK, "All assigned units are analysed.", {})
    found = _sample_ratio(assigned_ratio)
    return found._replace(sentence=f"Of all units that were assigned: {found.sentence}")


def _events_arrive(metrics: Sequence[MetricReport], units: Mapping[int, int]) -> Finding:
    silent = [
        each.metric.name for each in metrics if not any(arm.tally.events for arm in each.arms) and each.arms
    ]
    inputs = {"metrics_without_events": silent}
    if not silent or not sum(units.values()):
        return Finding(Health.OK, "Every metric has events, or nobody to have them yet.", inputs)
    names = ", ".join(silent)
    return Finding(
        Health.WARNING,
        f"No event counts for {names}: compare the event types that are sent with those of the metrics.",
        inputs,
    )


def _enough_units(spec: ExperimentSpec, units: Mapping[int, int]) -> Finding:
    counts = [units.get(each.id, 0) for each in spec.variants if not each.removed]
    fewest = min(counts, default=0)
    inputs = {"fewest_units": fewest, "wanted": FEWEST_UNITS}
    if fewest >= FEWEST_UNITS:
        return Finding(Health.OK, f"Every variant has at least {FEWEST_UNITS} units.", inputs)
    return Finding(
        Health.WARNING,
        f"The smallest variant has {fewest:,} units: below {FEWEST_UNITS}, chance decides easily.",
        inputs,
    )


def _enough_days(begin: datetime | None, end: datetime) -> Finding:
    days = max(0.0, (end - begin) / timedelta(days=1)) if begin else 0.0
    inputs = {"days": days, "wanted": FEWEST_DAYS}
    if days >= FEWEST_DAYS:
        return Finding(Health.OK, f"The experiment has run for at least {FEWEST_DAYS} days.", inputs)
    return Finding(
        Health.WARNING,
        f"The experiment has run for {duration(days)}: a week holds every day of the week once.",
        inputs,
    )


def _planned_sample(spec: ExperimentSpec, units: Mapping[int, int]) -> Finding:
    total, target = sum(units.values()), spec.target_sample_size
    inputs = {"units": total, "target_sample_size": target}
    if target is None:
        return Finding(Health.OK, "No sample size was planned.", inputs)
    if total >= target:
        return Finding(Health.OK, "The planned sample has been reached.", inputs)
    return Finding(Health.WARNING, f"{total:,} of {target:,} planned units have come so far.", inputs)


def _steady_split(spec: ExperimentSpec, metrics: Sequence[MetricReport]) -> Finding:
    left_out = max((each.left_out for metric in metrics for each in metric.comparisons), default=0)
    strata = max((each.strata for metric in metrics for each in metric.comparisons), default=0)
    inputs = {"phases": len(spec.phases), "strata": strata, "left_out": left_out}
    if left_out:
        return Finding(
            Health.WARNING,
            f"{left_out:,} units came while one of the compared variants was closed; they are left out of "
            "the comparison, since nobody of their time stands against them.",
            inputs,
        )
    if strata > 1:
        return Finding(
            Health.OK,
            f"The split changed; effects are averaged over {strata} stretches of equal split.",
            inputs,
        )
    return Finding(Health.OK, "The split between the compared variants did not change.", inputs)


CHECKS: tuple[HealthCheck, ...] = (
    HealthCheck("sample_ratio", ("sample_ratio",), _sample_ratio),
    HealthCheck("sample_ratio_assigned", ("assigned_ratio",), _assigned_ratio),
    HealthCheck("events_arrive", ("metrics", "units"), _events_arrive),
    HealthCheck("steady_split", ("spec", "metrics"), _steady_split),
    HealthCheck("planned_sample", ("spec", "units"), _planned_sample),
    HealthCheck("enough_units", ("spec", "units"), _enough_units),
    HealthCheck("enough_days", ("begin", "end"), _enough_days),
)
