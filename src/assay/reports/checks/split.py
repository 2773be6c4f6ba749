"""Do the arms hold the units they were dealt? Tested as a whole, phase by phase, and day by day.

Where they do not, every attribute of users is asked where the others are (`checks.attributes`).

The whole is tested at a level that makes up for being read every day, and by a test that may be read at any
time (Lindon & Malek, 2022); each phase and each day by itself at that level divided by their number, since
what is off in one may be balanced or buried in the others.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from itertools import groupby
from typing import NamedTuple

from assay.events.timestamps import EPOCH
from assay.eventstore.base import Arrivals
from assay.reports.audience import ByAttribute, nothing_known
from assay.reports.checks.attributes import localised
from assay.reports.checks.base import Finding
from assay.reports.evidence import by_split
from assay.reports.report import Health
from assay.reports.spec import ExperimentSpec
from assay.stats import Phase, SampleRatio, SequentialRatio, sequential_sample_ratio
from assay.stats import sample_ratio as tested

#: A mismatch that chance makes once in so many times: of one test, and of all days together.
THRESHOLD = 0.001
ANY_TIME = 0.01
_DAY = 86_400_000_000
#: Days and phases that are named.
_SHOWN = 5


class _Part(NamedTuple):
    """A phase or a day, and how its units fit what they were dealt."""

    label: object
    found: SampleRatio

    @property
    def p(self) -> float:
        """The p-value, 0 where a unit is in an arm that was dealt none."""
        return 0.0 if self.found.stray or self.found.p_value is None else self.found.p_value

    def shown(self, name: str) -> Mapping[str, object]:
        """The part as it stands among the inputs."""
        return {
            name: self.label,
            "counts": list(self.found.counts),
            "expected": list(self.found.expected),
            "p_value": self.found.p_value,
        }


def sample_ratio(
    spec: ExperimentSpec,
    arrivals: Sequence[Arrivals],
    activated: SampleRatio | None,
    attributes: Callable[[], ByAttribute] = nothing_known,
) -> Finding:
    """Whether the units that are analysed fit the split: those assigned, or of them those activated."""
    return _of_assigned(spec, arrivals, attributes) if activated is None else _of_activated(activated)


def sample_ratio_assigned(
    spec: ExperimentSpec,
    arrivals: Sequence[Arrivals],
    activated: SampleRatio | None,
    attributes: Callable[[], ByAttribute] = nothing_known,
) -> Finding:
    """Whether all assigned units do, where only some of them are analysed."""
    if activated is None:
        return Finding(Health.OK, "All assigned units are analysed.", {})
    found = _of_assigned(spec, arrivals, attributes)
    return found._replace(sentence=f"Of all units that were assigned: {found.sentence}")


def _of_assigned(
    spec: ExperimentSpec, arrivals: Sequence[Arrivals], attributes: Callable[[], ByAttribute]
) -> Finding:
    by_day = _by_day(arrivals)
    splits = by_split(spec, ((row.variant_id, row.phase, row.units) for row in by_day))
    if len(spec.variants) < 2 or not splits:
        return Finding(Health.OK, "There is no split to check yet.", {})
    whole = tested(splits, threshold=THRESHOLD)
    if whole.statistic is None and not whole.stray:
        return Finding(Health.OK, "There is no split to check yet.", {})
    days = _days(spec, by_day)
    running = _running(days)
    phases = _parts(spec, by_day, lambda row: row.phase)
    off = [each for each in phases if each.p < THRESHOLD / len(phases)] if len(phases) > 1 else []
    inputs: dict[str, object] = {
        "variants": [variant.key for variant in spec.variants],
        "counts": list(whole.counts),
        "expected": list(whole.expected),
        "p_value": whole.p_value,
        "threshold": THRESHOLD,
        "method": whole.method,
        "any_time_p_value": running.p_value,
        "any_time_threshold": ANY_TIME,
        "stray": whole.stray,
    }
    if len(phases) > 1:
        inputs["phases"] = [each.shown("phase") for each in sorted(phases, key=_by_p)[:_SHOWN]]
    worst = _standing_out(_parts(spec, by_day, lambda row: row.bucket // _DAY))
    if not (whole.mismatch or running.mismatch or off or worst):
        return Finding(Health.OK, "The variants hold the shares of units that they were dealt.", inputs)
    inputs["days"] = [each._replace(label=_date(each.label)).shown("day") for each in worst[:_SHOWN]]
    where = localised(spec, attributes, THRESHOLD)
    inputs["attributes"] = where.inputs
    said = f"{_sentence(whole, running, off, worst, len(days))} {where.sentence}".strip()
    return Finding(Health.FAILED, said, inputs)


def _of_activated(activated: SampleRatio) -> Finding:
    inputs = {
        "counts": list(activated.counts),
        "expected": list(activated.expected),
        "p_value": activated.p_value,
        "threshold": activated.threshold,
    }
    if activated.mismatch:
        return Finding(
            Health.FAILED,
            f"The variants do not lead equal shares of their units to the activation event (p = "
            f"{activated.p_value:.2g}): those who remain are other people in each, so take an event that the "
            "variants cannot influence.",
            inputs,
        )
    return Finding(Health.OK, "Equal shares of the variants' units reached the activation event.", inputs)


def _sentence(
    whole: SampleRatio,
    running: SequentialRatio,
    off: Sequence[_Part],
    days: Sequence[_Part],
    of_days: int,
) -> str:
    if whole.stray:
        return (
            f"{whole.stray:,} units are in a variant that was dealt none when they came: "
            f"assignment or logging is broken. {_when(days, of_days)}"
        ).strip()
    if whole.mismatch:
        how = f"p = {whole.p_value:.2g}"
    elif off:
        named = ", ".join(str(each.label) for each in off[:_SHOWN])
        how = f"p = {min(each.p for each in off):.2g} in phase {named}, though not in sum"
    elif running.mismatch:
        how = f"p = {running.p_value:.2g} by the test that may be read every day"
    else:
        how = f"p = {days[0].p:.2g} on one day, though not in sum"
    return (
        f"The variants do not hold the shares of units that they were dealt ({how}): units may be lost, "
        f"counted twice or given another variant on the way. {_when(days, of_days)}"
    ).strip()


def _when(days: Sequence[_Part], of_days: int) -> str:
    """Where to look: the days that stand out, if any do."""
    if of_days < 2:
        return ""
    if not days:
        return "No day stands out: look for a cause that is there all the time."
    named = ", ".join(sorted(_date(each.label) for each in days[:_SHOWN]))
    return f"It stands out on {named}{' and other days' if len(days) > _SHOWN else ''}: what changed then?"


def _standing_out(days: Sequence[_Part]) -> list[_Part]:
    return sorted((each for each in days if each.p < THRESHOLD / len(days)), key=_by_p)


def _by_p(part: _Part) -> float:
    return part.p


def _parts(
    spec: ExperimentSpec, arrivals: Sequence[Arrivals], label: Callable[[Arrivals], int]
) -> list[_Part]:
    """Each phase, or day, by itself."""
    found = []
    for name, rows in groupby(sorted(arrivals, key=label), key=label):
        splits = by_split(spec, ((row.variant_id, row.phase, row.units) for row in rows))
        if splits:
            found.append(_Part(name, tested(splits, threshold=THRESHOLD)))
    return found


def _by_day(arrivals: Iterable[Arrivals]) -> list[Arrivals]:
    counts: Counter[tuple[int, int, int]] = Counter()
    for row in arrivals:
        counts[row.bucket - row.bucket % _DAY, row.variant_id, row.phase] += row.units
    return [Arrivals(*key, units) for key, units in sorted(counts.items())]


def _days(spec: ExperimentSpec, arrivals: Iterable[Arrivals]) -> list[list[Phase]]:
    """What came on each day, by split."""
    return [
        by_split(spec, ((row.variant_id, row.phase, row.units) for row in rows))
        for _, rows in groupby(arrivals, key=lambda row: row.bucket // _DAY)
    ]


def _running(days: Sequence[Sequence[Phase]]) -> SequentialRatio:
    """The test that holds at every look, as it stood at the end of the last day, having looked on each."""
    so_far: dict[tuple[float, ...], tuple[int, ...]] = {}
    found: SequentialRatio | None = None
    for day in days:
        for split in day:
            before = so_far.get(split.weights, (0,) * len(split.counts))
            so_far[split.weights] = tuple(map(sum, zip(before, split.counts, strict=True)))
        everything = [Phase(counts, weights) for weights, counts in so_far.items()]
        previous = 1.0 if found is None else found.p_value
        found = sequential_sample_ratio(everything, previous_p=previous, threshold=ANY_TIME)
    assert found is not None  # noqa: S101 there is at least one day where there is a split
    return found


def _date(day: object) -> str:
    return f"{(EPOCH + timedelta(days=int(str(day)))):%Y-%m-%d}"
