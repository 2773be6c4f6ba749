"""Is there enough to judge by, and does it arrive at all?"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from assay.reports.checks.base import Finding
from assay.reports.report import Health, MetricReport
from assay.reports.spec import ExperimentSpec
from assay.reports.wording import duration

#: Below these, chance and the day of the week say more than the variants do.
FEWEST_UNITS = 100
FEWEST_DAYS = 7


def events_arrive(metrics: Sequence[MetricReport], units: Mapping[int, int]) -> Finding:
    """Whether anything at all counts for each metric."""
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


def enough_units(spec: ExperimentSpec, units: Mapping[int, int]) -> Finding:
    """Whether chance alone could decide."""
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


def enough_days(begin: datetime | None, end: datetime) -> Finding:
    """Whether every day of the week is in it."""
    days = max(0.0, (end - begin) / timedelta(days=1)) if begin else 0.0
    inputs = {"days": days, "wanted": FEWEST_DAYS}
    if days >= FEWEST_DAYS:
        return Finding(Health.OK, f"The experiment has run for at least {FEWEST_DAYS} days.", inputs)
    return Finding(
        Health.WARNING,
        f"The experiment has run for {duration(days)}: a week holds every day of the week once.",
        inputs,
    )


def planned_sample(spec: ExperimentSpec, units: Mapping[int, int]) -> Finding:
    """How far the planned sample is in."""
    total, target = sum(units.values()), spec.target_sample_size
    inputs = {"units": total, "target_sample_size": target}
    if target is None:
        return Finding(Health.OK, "No sample size was planned.", inputs)
    if total >= target:
        return Finding(Health.OK, "The planned sample has been reached.", inputs)
    return Finding(Health.WARNING, f"{total:,} of {target:,} planned units have come so far.", inputs)


def steady_split(spec: ExperimentSpec, metrics: Sequence[MetricReport]) -> Finding:
    """Whether the split between the arms changed, and what that leaves out."""
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
