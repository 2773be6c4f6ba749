"""Bandits: what the units so far say of each variant, and how the next ones are to be dealt.

The split depends on what was seen, so units of one variant are not like those of another: the busiest time of
each decides its plain mean (Simpson's paradox). Within a phase the split was fixed beforehand; so each arm's
mean is taken by phase and averaged with the phases' shares of all units (`assay.stats.period_posteriors`).
The probabilities to be best are exact integrals over independent normal posteriors, nothing is drawn.
Sources: Thompson (1933); Scott (2010); Russo (2020) for top-two.

The comparisons of a bandit's report are post-stratified by phase in the same way and judged by always-valid
sets (`assay.reports.judging`), which neither mind the adaptive split nor when somebody looks.
"""

from collections.abc import Sequence
from datetime import datetime

from assay.bucketing.ruleset import Status
from assay.catalog import bandits
from assay.catalog.database import Database
from assay.catalog.editing import find
from assay.catalog.lifecycle import SCHEDULE
from assay.reports.arms import NOTHING, value_of
from assay.reports.picture import analysis_of
from assay.reports.report import Bandit, BanditArm, Health, MetricReport, Report
from assay.reports.spec import Direction, ExperimentSpec, MetricType, VariantSpec
from assay.stats import Mean, Moments, Reason, bandit_weights, period_posteriors

#: Units that each variant needs before anything is learnt from it.
FEWEST_UNITS = 100


def bandit_of(spec: ExperimentSpec, primary: MetricReport) -> Bandit | None:
    """What a bandit knows; None where the experiment is none."""
    how = spec.analysis.bandit
    if how is None:
        return None
    arms = [each for each in spec.variants if each.is_on]
    if len(arms) < 2:
        return Bandit((), "A bandit needs two variants that are on.")
    value = None if primary.metric.type is MetricType.QUANTILE else value_of(primary.metric)
    if not isinstance(value, Mean):
        return Bandit((), f"{primary.metric.name} is no mean over units, which a bandit learns from.")
    periods = _periods(spec, primary, arms)
    counts = [sum(period[at].count for period in periods) for at in range(len(arms))]
    fewest = min(counts)
    if fewest < FEWEST_UNITS:
        name = arms[counts.index(fewest)].name
        return Bandit((), f"{name} has {fewest} of the {FEWEST_UNITS} units from which a bandit learns.")
    found = period_posteriors(periods, value.column, borrow=True)
    if isinstance(found, Reason):
        return Bandit((), found.sentence)
    weights = bandit_weights(
        found,
        method=how.sampling,
        floor=how.floor if how.floor * len(arms) < 1.0 else 0.0,
        lower_is_better=primary.metric.direction is Direction.DECREASE,
    )
    control = next((post.mean for arm, post in zip(arms, found, strict=True) if arm == spec.control), 0.0)
    total = sum(arm.allocation for arm in arms)
    return Bandit(
        tuple(
            BanditArm(
                arm,
                post.mean,
                post.sd,
                weights.best[at],
                weights.losses[at] / abs(control) if control else None,
                arm.allocation,
                total * weights.weights[at],
            )
            for at, (arm, post) in enumerate(zip(arms, found, strict=True))
        )
    )


def _periods(
    spec: ExperimentSpec, primary: MetricReport, arms: Sequence[VariantSpec]
) -> list[tuple[Moments, ...]]:
    """The arms' moments by phase, of phases that dealt units to all of them.

    A phase in which one has fewer than two units, as the first minutes of a new split, joins the one before.
    """
    places = [at for at, each in enumerate(spec.variants) if each in arms]
    seen = sorted({phase for arm in arms for phase in primary.tallies.get(arm.id, {})})
    periods: list[tuple[Moments, ...]] = []
    for phase in seen:
        dealt = spec.weights(phase)
        if not all(dealt[at] > 0.0 for at in places):
            continue
        own = tuple(primary.tallies.get(arm.id, {}).get(phase, NOTHING).moments for arm in arms)
        small = min(each.count for each in own) < 2
        if periods and (small or min(each.count for each in periods[-1]) < 2):
            periods[-1] = tuple(_joined(before, each) for before, each in zip(periods[-1], own, strict=True))
        else:
            periods.append(own)
    return periods


def _joined(one: Moments, other: Moments) -> Moments:
    """Moments of both; an empty arm may lack the columns of the time before."""
    if not one.count or not other.count:
        return one if one.count else other
    return one + other


def due(spec: ExperimentSpec, now: datetime) -> bool:
    """Whether the split is to be looked at again."""
    how = spec.analysis.bandit
    if how is None or spec.status != Status.RUNNING or not spec.phases:
        return False
    return now >= (how.next_at or spec.phases[-1].started_at + how.every)


def reweight(database: Database, report: Report, now: datetime) -> bool:
    """Deal the next units by what the report knows, or hold the split and say why; whether it changed.

    Nothing is done where somebody, or another process, has changed the experiment since the report.
    """
    spec, known = report.spec, report.bandit
    how = spec.analysis.bandit
    if known is None or how is None:
        return False
    reason, whole = _objection(report), sum(arm.next_share for arm in known.arms)
    with database.writing(SCHEDULE, now) as tx:
        experiment = find(tx, spec.id)
        same = spec.phases[-1].number == experiment.phase and spec.analysis == analysis_of(experiment)
        if experiment.status != Status.RUNNING or not same:
            return False
        if reason is not None:
            bandits.hold(tx, experiment, reason)
            return False
        bandits.reweight(
            tx,
            experiment,
            {arm.variant.id: arm.next_share / whole for arm in known.arms},
            {arm.variant.id: arm.probability for arm in known.arms},
            {arm.variant.id: arm.loss for arm in known.arms if arm.loss is not None},
        )
    return True


def _objection(report: Report) -> str | None:
    """Why nothing is to be learnt from this report; a mismatch of the sample ratio comes first."""
    failed = [check for check in report.checks if check.health is Health.FAILED]
    failed.sort(key=lambda check: check.name != "sample_ratio")
    if failed:
        return failed[0].sentence
    return None if report.bandit is None else report.bandit.sentence
