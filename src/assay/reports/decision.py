"""From verdicts to what to do: the rules, in the order in which they speak, and their sentences.

What the experiment's own method says of the primary metric decides (`assay.reports.judging`). The planned
sample comes before the p-value: a fixed-horizon test that is read before its time errs more often than its
level says. A sequential method speaks at its looks.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from assay.reports.arms import SHARES
from assay.reports.checks.sample import FEWEST_DAYS, FEWEST_UNITS
from assay.reports.forecast import at_stop, outlooks, progress
from assay.reports.guardrails import Guard, guarded
from assay.reports.judging import planned_units
from assay.reports.report import (
    Bandit,
    Check,
    Comparison,
    Decision,
    Health,
    Judgement,
    MetricReport,
    NextLook,
    Verdict,
    Why,
)
from assay.reports.rules import rules
from assay.reports.spec import BanditSpec, Direction, ExperimentSpec, MetricType, Role, VariantSpec
from assay.reports.wording import chance, change, interval, p_value, percent, setting

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
    begin: datetime | None
    end: datetime
    next_look: NextLook | None
    #: Event types that were asked for, of which no event counts.
    silent: Sequence[str] = ()
    #: The segment that alone is looked at.
    segment: str | None = None
    #: What a bandit knows of its variants.
    bandit: Bandit | None = None

    @property
    def total(self) -> int:
        """Units of all arms."""
        return sum(self.units.values())


class _Seen(NamedTuple):
    """A comparison by the primary metric with what the experiment's own method says of it."""

    comparison: Comparison
    judged: Judgement

    @property
    def gap(self) -> float:
        """The difference that the verdict rests on."""
        look = self.judged.look
        if look is not None and look.crossed and look.estimate is not None:
            return look.estimate
        return self.judged.numbers.difference or 0.0

    def improves(self, direction: Direction) -> bool:
        """Whether the treatment is ahead, on the metric's own terms."""
        return self.gap > 0.0 if direction is Direction.INCREASE else self.gap < 0.0


def decide(facts: Facts) -> Decision:
    """The decision and its sentence. The first rule that applies speaks."""
    seen = [_Seen(each, each.judged) for each in facts.primary.comparisons if each.judged is not None]
    verdict, sentence, winner = _first(facts, seen)
    over = facts.spec.status in _OVER
    stopping = over or verdict in (Verdict.SHIP, Verdict.ROLL_BACK)
    ahead = progress(facts.spec, facts.total, facts.begin, facts.end)
    return Decision(
        verdict,
        sentence,
        winner,
        _cautions(facts, seen, verdict),
        facts.primary.metric,
        min((each.judged.numbers.alpha for each in seen), default=facts.alpha),
        rules(facts.spec, facts.alpha),
        ahead,
        () if over else outlooks(facts.primary, ahead),
        at_stop(facts.spec, facts.primary) if stopping else (),
    )


def ranked(compared: Iterable[Comparison], direction: Direction) -> list[Comparison]:
    """The comparisons whose treatment is ahead, the farthest first.

    Ahead by the difference, not by the arm's own level: where arms were open at different times only the
    differences were taken among units of the same time.
    """
    ahead = [each for each in compared if each.improves(direction)]
    return sorted(ahead, key=lambda each: -abs(each.effect.estimate or 0.0))


_Answer = tuple[Verdict, str, VariantSpec | None]


def _first(facts: Facts, seen: Sequence[_Seen]) -> _Answer:
    spec, over = facts.spec, facts.spec.status in _OVER
    total = facts.total
    waiting = Verdict.INCONCLUSIVE if over else Verdict.KEEP_RUNNING
    if not total:
        return _nobody_yet(spec, waiting)
    broken = next((check for check in facts.checks if check.health is Health.FAILED), None)
    if broken is not None:
        return Verdict.FIX, f"Do not read the effect yet. {broken.sentence} Find the cause first.", None
    if facts.missing is not None:
        return Verdict.INCONCLUSIVE, facts.missing.sentence, None
    if facts.segment is not None:
        said = f"this looks at the segment {facts.segment} alone, and the whole experiment decides"
        return waiting, f"{_lead(waiting)}: {said}.", None
    tripped = spec.breaker
    if tripped is not None and tripped.tripped_at is not None:
        did = "stopped" if tripped.action == "stop" else "paused"
        when = f"the circuit breaker {did} the experiment on {tripped.tripped_at:%Y-%m-%d at %H:%M} UTC"
        return Verdict.ROLL_BACK, f"Roll back: {when}. {tripped.reason}", None
    if facts.bandit is not None and spec.analysis.bandit is not None:
        return _by_bandit(facts, facts.bandit, spec.analysis.bandit, waiting)
    tested = [each for each in seen if each.judged.numbers.reason is None or each.judged.look is not None]
    if not tested:
        if facts.primary.silent and facts.primary.metric.event_type:
            return waiting, f"{_lead(waiting)}: {_silence(facts.primary.metric.event_type)}", None
        reason = next((each.judged.numbers.reason for each in seen), None)
        return waiting, f"{_lead(waiting)}: {reason.sentence if reason else ''}".strip(), None
    if spec.analysis.is_sequential:
        if all(each.judged.significant is None for each in tested):
            return waiting, f"{_lead(waiting)}: {_unlooked(facts, tested)}", None
    elif spec.target_sample_size is not None and total < spec.target_sample_size and not over:
        said = f"{total:,} of {spec.target_sample_size:,} planned {_people(spec)} are in"
        return waiting, f"Keep running: {said}; the result is judged when all are.", None
    if all(_too_few(each.comparison, facts.primary) for each in tested):
        return waiting, f"{_lead(waiting)}: too few {_people(spec)} for the test to be trusted.", None
    return _by_test(facts, tested, waiting)


def _nobody_yet(spec: ExperimentSpec, waiting: Verdict) -> _Answer:
    if spec.status == "draft":
        return Verdict.NOT_STARTED, "The experiment has not started: start it to get a result.", None
    people = _people(spec)
    if waiting is Verdict.INCONCLUSIVE:
        return waiting, f"The experiment ended before any {people} came in.", None
    return waiting, f"No {people} yet: check that the application asks for assignments.", None


def _unlooked(facts: Facts, tested: Sequence[_Seen]) -> str:
    said = next((each.judged.waiting for each in tested if each.judged.waiting), "")
    due = facts.next_look
    if due is None or (due.at is None and due.units is None):
        return said
    when = (
        f"on {due.at:%Y-%m-%d}" if due.at is not None else f"when {due.units:,} {_people(facts.spec)} are in"
    )
    return f"{said} Look {due.number} is due {when}."


def _by_test(facts: Facts, tested: Sequence[_Seen], waiting: Verdict) -> _Answer:
    metric = facts.primary.metric
    found = [each for each in tested if _rejects(each, facts.primary)]
    ahead = sorted(
        (each for each in found if each.improves(metric.direction)), key=lambda each: -abs(each.gap)
    )
    better = [each for each in ahead if each.comparison.treatment.is_on]
    guards = {
        each.comparison.treatment.id: guarded(facts.metrics, each.comparison.treatment) for each in better
    }
    clear = [each for each in better if guards[each.comparison.treatment.id] is None]
    if clear:
        best = clear[0].comparison.treatment
        return Verdict.SHIP, f"Ship {best.name}: {_effect(facts, clear[0])}.", best
    open_still = [each for each in better if _guard(guards, each).harmed is False]
    if open_still:
        return _unproven(facts, open_still[0], _guard(guards, open_still[0]), waiting)
    if better:
        name, guard = better[0].comparison.treatment.name, _guard(guards, better[0])
        price = f"{_effect(facts, better[0])}, but harms the guardrail {guard.metric.name}"
        return Verdict.ROLL_BACK, f"Do not ship {name}: {price}.", None
    if ahead:
        name = ahead[0].comparison.treatment.name
        return Verdict.INCONCLUSIVE, f"Only {name} does better, and is off: {_effect(facts, ahead[0])}.", None
    if found and len(found) == len(facts.primary.comparisons):
        kept = found[0].comparison.control.name
        return Verdict.ROLL_BACK, f"Keep {kept}: {_all_worse(facts, found)}.", None
    return _nothing_found(facts, tested, waiting)


def _by_bandit(facts: Facts, known: Bandit, how: BanditSpec, waiting: Verdict) -> _Answer:
    """The variant that is most probably the best, once that is probable, and a mistake would cost little."""
    best, control = known.best, facts.spec.control
    if best is None:
        return waiting, f"{_lead(waiting)}: {known.sentence}", None
    if all(_too_few(each, facts.primary) for each in facts.primary.comparisons):
        return (
            waiting,
            f"{_lead(waiting)}: too few {_people(facts.spec)} for a probability to be trusted.",
            None,
        )
    name, metric = best.variant.name, facts.primary.metric.name
    seen = (
        f"{name} is the best by {metric} with a probability of {chance(best.probability)}, and choosing it "
        f"is expected to cost {_cost(best.loss)}"
    )
    sure = best.probability >= how.ship_probability and best.loss is not None and best.loss < how.ship_loss
    if not sure:
        needed = f"needed are {setting(how.ship_probability)} and less than {setting(how.ship_loss)}"
        return waiting, f"{_lead(waiting)}: so far {seen}; {needed}.", None
    if control is not None and best.variant.id == control.id:
        return Verdict.ROLL_BACK, f"Keep {name}: {seen}.", None
    guard = guarded(facts.metrics, best.variant)
    if guard is None:
        return Verdict.SHIP, f"Ship {name}: {seen}.", best.variant
    if guard.harmed:
        return Verdict.ROLL_BACK, f"Do not ship {name}: {seen}, but it harms {guard.metric.name}.", None
    said = f"{seen}, but {guard.metric.name} is not shown to be within its margin"
    return waiting, f"{_lead(waiting)}: {said}.", None


def _cost(loss: float | None) -> str:
    """What choosing a variant is expected to cost, as a share of the control's value."""
    if loss is None:
        return "what nobody can tell, as the control's value is zero"
    return percent(loss) if loss >= 1e-5 else "less than 0.001 %"


def _guard(guards: Mapping[int, Guard | None], each: _Seen) -> Guard:
    found = guards[each.comparison.treatment.id]
    assert found is not None  # noqa: S101 - those without one were shipped
    return found


def _unproven(facts: Facts, best: _Seen, guard: Guard, waiting: Verdict) -> _Answer:
    name, other = best.comparison.treatment.name, guard.metric.name
    seen = f"{name} does better, {_effect(facts, best)}, but {other} is not shown to be within its margin"
    if waiting is Verdict.INCONCLUSIVE:
        return waiting, f"No verdict: {seen}.", None
    return waiting, f"Keep running: {seen} yet.", None


def _all_worse(facts: Facts, found: Sequence[_Seen]) -> str:
    if len(found) > 1:
        return f"every other variant does worse on {facts.primary.metric.name}"
    return f"{found[0].comparison.treatment.name} does worse, {_effect(facts, found[0])}"


def _nothing_found(facts: Facts, tested: Sequence[_Seen], waiting: Verdict) -> _Answer:
    closest = min(tested, key=lambda each: -abs(each.gap) / (each.judged.numbers.standard_error or 1.0))
    seen = (
        f"no difference in {facts.primary.metric.name} can be told from chance "
        f"({_evidence(closest.judged)}, {interval(closest.judged.numbers)})"
    )
    if waiting is Verdict.INCONCLUSIVE:
        return waiting, f"The experiment has ended and {seen}.", None
    if _all_in(facts):
        kept = closest.comparison.control.name
        how = f"With the planned sample in, {seen}: keep {kept}, or test something bolder."
        return Verdict.INCONCLUSIVE, how, None
    return Verdict.KEEP_RUNNING, f"Keep running: so far {seen}.", None


def _all_in(facts: Facts) -> bool:
    """Whether nothing more was planned to come."""
    spec = facts.spec
    if spec.analysis.method == "group_sequential":
        last = spec.looks[-1] if spec.looks else None
        return last is not None and (last.fraction >= 1.0 or last.number == spec.analysis.looks)
    if spec.analysis.method == "always_valid" and not (
        spec.analysis.planned_units or spec.target_sample_size
    ):
        return False
    planned = planned_units(spec)
    return planned is not None and facts.total >= planned


def _effect(facts: Facts, each: _Seen) -> str:
    verb = "raises" if each.gap > 0.0 else "lowers"
    numbers = each.judged.numbers
    return (
        f"it {verb} {facts.primary.metric.name} by {change(numbers)} against {each.comparison.control.name} "
        f"({interval(numbers)}, {_evidence(each.judged)})"
    )


def _evidence(judged: Judgement) -> str:
    """What the verdict rests on, in the terms of its method."""
    numbers = judged.numbers
    if numbers.chance_to_win is not None:
        return f"chance to win {chance(numbers.chance_to_win)}"
    if judged.look is not None:
        how = "crossed" if judged.look.crossed else "not crossed"
        return f"limit {how} at look {judged.look_number}"
    if judged.adjusted_p_value is not None:
        return f"{p_value(judged.adjusted_p_value)} corrected for {judged.members} comparisons"
    return p_value(numbers.p_value)


def _rejects(each: _Seen, report: MetricReport) -> bool:
    """Whether the test speaks, and stands on enough."""
    return bool(each.judged.significant) and not _too_few(each.comparison, report)


def _too_few(each: Comparison, report: MetricReport) -> bool:
    """Whether the normal approximation behind the test stands on too little."""
    fewest = min(each.control_tally.units, each.treatment_tally.units)
    if report.metric.type not in SHARES:
        # What is left of a quantile's few observations is its own reason for having no interval.
        return fewest < _FEWEST_FOR_MEANS and report.metric.type is not MetricType.QUANTILE
    units = each.control_tally.units + each.treatment_tally.units
    share = (each.control_tally.converters + each.treatment_tally.converters) / units
    return fewest * min(share, 1.0 - share) < _FEWEST_EXPECTED


def _cautions(facts: Facts, seen: Sequence[_Seen], verdict: Verdict) -> tuple[str, ...]:
    said: list[str] = []
    primary = facts.primary.metric
    if facts.narrowed:
        said.append("This looks at part of the experiment only.")
    if not primary.registered and primary.role is Role.PRIMARY:
        said.append(
            f"The primary metric {primary.name} is not the one of the plan frozen at the start: this is "
            "exploratory."
        )
    own = primary.event_type
    said += [_silence(each) for each in facts.silent if each and each != own]
    for each in seen:
        worse = _rejects(each, facts.primary) and not each.improves(primary.direction)
        if worse and verdict not in (Verdict.ROLL_BACK, Verdict.FIX):
            names = each.comparison.treatment.name, each.comparison.control.name
            said.append(f"{names[0]} does worse than {names[1]}: switch it off.")
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
