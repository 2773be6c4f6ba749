"""From verdicts to what to do: the rules, in the order in which they speak, and their sentences.

The planned sample comes before the p-value: a fixed-horizon test that is read before its time errs more often
than its level says. With several treatments each is held to the level divided by their number (Bonferroni),
so that the chance of shipping any of them by luck stays at the level.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from assay.reports.arms import SHARES
from assay.reports.health import FEWEST_DAYS, FEWEST_UNITS
from assay.reports.report import Check, Comparison, Decision, Health, MetricReport, Verdict, Why
from assay.reports.spec import Direction, ExperimentSpec, Role, VariantSpec
from assay.reports.wording import change, interval, p_value

#: Converters and others that each arm must be expected to hold before a share is judged.
_FEWEST_EXPECTED = 5
#: Units an arm needs before the mean of anything is judged.
_FEWEST_FOR_MEANS = 30
_OVER = frozenset({"stopped", "archived"})


class Facts(NamedTuple):
    """What the rules read."""

    spec: ExperimentSpec
    primary: MetricReport
    metrics: Sequence[MetricReport]
    units: Mapping[int, int]
    checks: Sequence[Check]
    missing: Why | None
    narrowed: bool
    alpha: float
    #: Event types that were asked for, of which no event counts.
    silent: Sequence[str] = ()


def decide(facts: Facts) -> Decision:
    """The decision and its sentence. The first rule that applies speaks."""
    alpha = facts.alpha / max(1, len(facts.primary.comparisons))
    verdict, sentence, winner = _first(facts, alpha)
    return Decision(verdict, sentence, winner, _cautions(facts, verdict, alpha), facts.primary.metric, alpha)


def ranked(compared: Iterable[Comparison], direction: Direction) -> list[Comparison]:
    """The comparisons whose treatment is ahead, the farthest first.

    Ahead by the difference, not by the arm's own level: where arms were open at different times only the
    differences were taken among units of the same time.
    """
    ahead = [each for each in compared if each.improves(direction)]
    return sorted(ahead, key=lambda each: -abs(each.effect.estimate or 0.0))


_Answer = tuple[Verdict, str, VariantSpec | None]


def _first(facts: Facts, alpha: float) -> _Answer:
    spec, over = facts.spec, facts.spec.status in _OVER
    total = sum(facts.units.values())
    waiting = Verdict.INCONCLUSIVE if over else Verdict.KEEP_RUNNING
    if not total:
        return _nobody_yet(spec, waiting)
    ratio = next((check for check in facts.checks if check.name == "sample_ratio"), None)
    if ratio is not None and ratio.health is Health.FAILED:
        return Verdict.FIX, f"Do not read the effect yet. {ratio.sentence} Find the cause first.", None
    if facts.missing is not None:
        return Verdict.INCONCLUSIVE, facts.missing.sentence, None
    tested = [each for each in facts.primary.comparisons if each.effect.p_value is not None]
    if not tested:
        reason = next(each.effect.reason for each in facts.primary.comparisons)
        if facts.primary.silent and facts.primary.metric.event_type:
            return waiting, f"{_lead(waiting)}: {_silence(facts.primary.metric.event_type)}", None
        return waiting, f"{_lead(waiting)}: {reason.sentence if reason else ''}".strip(), None
    if spec.target_sample_size is not None and total < spec.target_sample_size and not over:
        progress = f"{total:,} of {spec.target_sample_size:,} planned {_people(spec)} are in"
        return waiting, f"Keep running: {progress}; the result is judged when all are.", None
    if all(_too_few(each, facts.primary) for each in tested):
        return waiting, f"{_lead(waiting)}: too few {_people(spec)} for the test to be trusted.", None
    return _by_test(facts, tested, alpha, waiting)


def _nobody_yet(spec: ExperimentSpec, waiting: Verdict) -> _Answer:
    if spec.status == "draft":
        return Verdict.NOT_STARTED, "The experiment has not started: start it to get a result.", None
    people = _people(spec)
    if waiting is Verdict.INCONCLUSIVE:
        return waiting, f"The experiment ended before any {people} came in.", None
    return waiting, f"No {people} yet: check that the application asks for assignments.", None


def _by_test(facts: Facts, tested: Sequence[Comparison], alpha: float, waiting: Verdict) -> _Answer:
    metric = facts.primary.metric
    found = [
        each for each in tested if (each.effect.p_value or 0.0) <= alpha and not _too_few(each, facts.primary)
    ]
    ahead = ranked(found, metric.direction)
    better = [each for each in ahead if each.treatment.is_on]
    harmless = [each for each in better if _harmed(facts, each.treatment) is None]
    if harmless:
        best = harmless[0]
        return Verdict.SHIP, f"Ship {best.treatment.name}: {_effect(facts, best)}.", best.treatment
    if better:
        name, guardrail = better[0].treatment.name, _harmed(facts, better[0].treatment)
        price = f"{_effect(facts, better[0])}, but harms the guardrail {guardrail}"
        return Verdict.ROLL_BACK, f"Do not ship {name}: {price}.", None
    if ahead:
        name = ahead[0].treatment.name
        return Verdict.INCONCLUSIVE, f"Only {name} does better, and is off: {_effect(facts, ahead[0])}.", None
    if len(found) == len(facts.primary.comparisons):
        worst = found[0]
        return Verdict.ROLL_BACK, f"Keep {worst.control.name}: {_all_worse(facts, found)}.", None
    return _nothing_found(facts, tested, waiting)


def _all_worse(facts: Facts, found: Sequence[Comparison]) -> str:
    if len(found) > 1:
        return f"every other variant does worse on {facts.primary.metric.name}"
    return f"{found[0].treatment.name} does worse, {_effect(facts, found[0])}"


def _nothing_found(facts: Facts, tested: Sequence[Comparison], waiting: Verdict) -> _Answer:
    closest = min(tested, key=lambda each: each.effect.p_value or 0.0)
    seen = (
        f"no difference in {facts.primary.metric.name} can be told from chance "
        f"({p_value(closest.effect)}, {interval(closest.effect)})"
    )
    if waiting is Verdict.INCONCLUSIVE:
        return waiting, f"The experiment has ended and {seen}.", None
    if facts.spec.target_sample_size is not None:
        return (
            Verdict.INCONCLUSIVE,
            f"With the planned sample in, {seen}: keep {closest.control.name}, or test something bolder.",
            None,
        )
    return Verdict.KEEP_RUNNING, f"Keep running: so far {seen}.", None


def _effect(facts: Facts, each: Comparison) -> str:
    verb = "raises" if (each.effect.estimate or 0.0) > 0.0 else "lowers"
    return (
        f"it {verb} {facts.primary.metric.name} by {change(each.effect)} against {each.control.name} "
        f"({interval(each.effect)}, {p_value(each.effect)})"
    )


def _harmed(facts: Facts, treatment: VariantSpec) -> str | None:
    """The first guardrail that this treatment makes significantly worse."""
    for each in facts.metrics:
        if each.metric.role is Role.GUARDRAIL:
            found = each.comparison(treatment.id)
            if found is not None and found.significant and not found.improves(each.metric.direction):
                return each.metric.name
    return None


def _rejects(each: Comparison, report: MetricReport, alpha: float) -> bool:
    """Whether the test speaks at this level, and stands on enough."""
    p = each.effect.p_value
    return p is not None and p <= alpha and not _too_few(each, report)


def _too_few(each: Comparison, report: MetricReport) -> bool:
    """Whether the normal approximation behind the test stands on too little."""
    fewest = min(each.control_tally.units, each.treatment_tally.units)
    if report.metric.type not in SHARES:
        return fewest < _FEWEST_FOR_MEANS
    units = each.control_tally.units + each.treatment_tally.units
    share = (each.control_tally.converters + each.treatment_tally.converters) / units
    return fewest * min(share, 1.0 - share) < _FEWEST_EXPECTED


def _cautions(facts: Facts, verdict: Verdict, alpha: float) -> tuple[str, ...]:
    said: list[str] = []
    if facts.narrowed:
        said.append("This looks at part of the experiment's time only.")
    own = facts.primary.metric.event_type
    said += [_silence(each) for each in facts.silent if each and each != own]
    for each in facts.primary.comparisons:
        worse = _rejects(each, facts.primary, alpha) and not each.improves(facts.primary.metric.direction)
        if worse and verdict not in (Verdict.ROLL_BACK, Verdict.FIX):
            said.append(f"{each.treatment.name} does worse than {each.control.name}: switch it off.")
    if verdict in (Verdict.SHIP, Verdict.ROLL_BACK):
        weak = {check.name for check in facts.checks if check.health is Health.WARNING}
        if "enough_units" in weak:
            said.append(f"Be careful: a variant has fewer than {FEWEST_UNITS} {_people(facts.spec)}.")
        if "enough_days" in weak:
            said.append(f"Be careful: it has run for fewer than {FEWEST_DAYS} days.")
    winner = facts.spec.variant(facts.spec.winner_id) if facts.spec.winner_id is not None else None
    if winner is not None:
        said.append(f"The experiment was stopped with {winner.name} as the winner.")
    return tuple(said)


def _silence(event_type: str) -> str:
    return f"No event of type {event_type} has arrived that counts."


def _lead(waiting: Verdict) -> str:
    return "Keep running" if waiting is Verdict.KEEP_RUNNING else "No verdict"


def _people(spec: ExperimentSpec) -> str:
    return "users" if spec.unit == "user_id" else "units"
