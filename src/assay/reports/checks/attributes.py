"""Of which units is it that an arm holds too many? Asked of every attribute of users once the split is off.

Units that were lost were often lost of one browser, one country, one release. Each value of each attribute is
held against the split by itself, at the level divided by the number of all that were looked at; then it is
asked whether the other units hold theirs, which tells a cause within the group from one that is everywhere.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from assay.errors import AssayError
from assay.reports.audience import Attributed, ByAttribute
from assay.reports.evidence import by_split
from assay.reports.spec import ExperimentSpec
from assay.reports.wording import p_value
from assay.stats import SampleRatio
from assay.stats import sample_ratio as tested

#: Groups that are shown, and of these named.
_SHOWN, _NAMED = 10, 3


class _Part(NamedTuple):
    """Units with one value of an attribute, and how they and all others fit what they were dealt."""

    group: Attributed
    found: SampleRatio
    others: SampleRatio | None

    @property
    def p(self) -> float:
        """The p-value, 0 where a unit is in an arm that was dealt none."""
        return 0.0 if self.found.stray or self.found.p_value is None else self.found.p_value


class Localised(NamedTuple):
    """A sentence on where the mismatch is, and the numbers it rests on."""

    sentence: str
    inputs: dict[str, object]


def localised(spec: ExperimentSpec, ask: Callable[[], ByAttribute], threshold: float) -> Localised:
    """Where the mismatch is among users; `threshold` is that of one test. What cannot be read is said."""
    try:
        known = ask()
    except AssayError as problem:
        return Localised(f"Users' attributes could not be read: {problem.detail}", {"units": 0})
    if not known.groups:
        return Localised("", {"units": known.units})
    level = threshold / len(known.groups)
    off = sorted(_standing_out(spec, known.groups, level, threshold), key=lambda each: each.p)
    inputs: dict[str, object] = {
        "units": known.units,
        "groups": len(known.groups),
        "threshold": level,
        "standing_out": [_shown(each) for each in off[:_SHOWN]],
    }
    return Localised(_sentence(off), inputs)


def _standing_out(
    spec: ExperimentSpec, groups: Sequence[Attributed], level: float, threshold: float
) -> Iterable[_Part]:
    for group in groups:
        splits = by_split(spec, group.counted)
        found = tested(splits, threshold=level) if splits else None
        if found is not None and found.mismatch:
            rest = [
                row
                for each in groups
                if each.attribute == group.attribute and each != group
                for row in each.counted
            ]
            others = by_split(spec, rest)
            yield _Part(group, found, tested(others, threshold=threshold) if others else None)


def _sentence(off: Sequence[_Part]) -> str:
    if not off:
        return "No attribute of users tells where."
    apart = [each for each in off if each.others is not None and not each.others.mismatch]
    named = "; ".join(_told(each) for each in (apart or off)[:_NAMED])
    if apart:
        return f"Among users it stands out where {named}: the others hold their shares."
    return f"Among users it stands out where {named}, and among the others, too: the cause is no such group."


def _told(each: _Part) -> str:
    group = each.group
    if group.kind == "none":
        what = f"{group.attribute} is unknown"
    elif group.kind == "other":
        what = f"{group.attribute} is another value than the most frequent ones"
    else:
        what = f"{group.attribute} is {group.value!r}"
    return f"{what} ({p_value(each.p)})"


def _shown(each: _Part) -> dict[str, object]:
    group, found, others = each
    return {
        "attribute": group.attribute,
        "kind": group.kind,
        "value": group.value,
        "counts": list(found.counts),
        "expected": list(found.expected),
        "p_value": found.p_value,
        "p_value_of_others": None if others is None else others.p_value,
    }
