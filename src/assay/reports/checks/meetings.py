"""Do experiments that share units change each other's effects?"""

from collections.abc import Sequence
from functools import reduce
from itertools import product
from operator import add
from typing import Final, NamedTuple

from assay.reports.arms import value_of
from assay.reports.checks.base import Finding
from assay.reports.evidence import Meeting
from assay.reports.report import Health
from assay.reports.spec import ExperimentSpec
from assay.reports.wording import number
from assay.stats import Contrast, Moments, contrast, interaction

#: Chance of a false alarm, of all pairs of variants together.
INTERACTION: Final = 0.01


class _Pair(NamedTuple):
    """The effect of a variant here in the control there and in a variant there."""

    experiment: str
    treatment: str
    other_variant: str
    effect_in_control: float | None
    effect_in_variant: float | None
    p_value: float | None


def interactions(spec: ExperimentSpec, meetings: Sequence[Meeting]) -> Finding:
    """Whether the effect on the primary metric depends on what another experiment shows the same units.

    A z test of the difference between the effects in two groups of units, for each variant here and there.
    """
    pairs = [pair for meeting in meetings for pair in _pairs(spec, meeting)]
    known = [pair for pair in pairs if pair.p_value is not None]
    level = INTERACTION / max(len(known), 1)
    inputs = {
        "threshold": level,
        "looked_at": [
            {"experiment": each.other.key, "shared_units": each.units}
            for each in meetings
            if each.cells is not None
        ],
        "not_looked_at": [
            {"experiment": each.other.key, "shared_units": each.units}
            for each in meetings
            if each.cells is None
        ],
        "pairs": [pair._asdict() for pair in pairs],
    }
    worst = min(known, key=lambda pair: pair.p_value or 0.0, default=None)
    if worst is not None and (worst.p_value or 0.0) < level:
        return Finding(
            Health.WARNING,
            f"The effect of {worst.treatment} is {number(worst.effect_in_variant or 0.0)} among units that "
            f"have {worst.other_variant} in {worst.experiment}, {number(worst.effect_in_control or 0.0)} "
            f"among those in its control (p = {worst.p_value:.2g}): decide on both together, or put them "
            "into one layer.",
            inputs,
        )
    if not meetings:
        return Finding(Health.OK, "No experiment of the same time shares many units.", inputs)
    if not known:
        return Finding(Health.OK, "Too few units are shared to tell whether effects depend on it.", inputs)
    return Finding(Health.OK, "The effect does not depend on the experiments that were looked at.", inputs)


def _pairs(spec: ExperimentSpec, meeting: Meeting) -> list[_Pair]:
    control = spec.control
    if meeting.cells is None or control is None or spec.primary is None or not meeting.other.variants:
        return []
    groups: dict[tuple[int, int], list[Moments]] = {}
    for here, there, moments in meeting.cells:
        groups.setdefault((here, there), []).append(moments)
    (base, _), *others = meeting.other.variants
    value = value_of(spec.primary)

    def effect(treatment: int, there: int) -> Contrast | None:
        arms = [groups.get((here, there)) for here in (control.id, treatment)]
        if arms[0] is None or arms[1] is None:
            return None
        return contrast(reduce(add, arms[0]), reduce(add, arms[1]), value)

    found = []
    treatments = [variant for variant in spec.variants if variant.id != control.id]
    for variant, (there, key) in product(treatments, others):
        plain, other = effect(variant.id, base), effect(variant.id, there)
        if plain is not None and other is not None:
            tested = interaction(plain, other)
            found.append(
                _Pair(meeting.other.key, variant.key, key, plain.estimate, other.estimate, tested.p_value)
            )
    return found
