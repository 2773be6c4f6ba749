"""Whom a rule would reach: the known users that match it, counted as they are now.

Users need not be known to take part, so this is a look at those that were described, and no forecast. It
looks for a bounded time: where there are more users than that allows, it says how many it has looked at.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Final, Self, TypedDict

from pydantic import Field, model_validator
from sqlalchemy import func, select

from assay.bucketing import ruleset
from assay.bucketing.conditions import Condition
from assay.catalog import segments
from assay.catalog.checks import Input, Reference, Rule, refuse
from assay.catalog.database import ReadTx
from assay.catalog.groups import checked_rule
from assay.catalog.tables import Experiment, User
from assay.errors import Invalid, NotFound

#: Seconds that one look may take, and users read at a time.
PATIENCE: Final = 2.0
_PAGE: Final = 2_000
_MOST_SHOWN: Final = 100


class PreviewInput(Input):
    """Whom to count: users in any of the segments, if there are some, for whom the condition holds."""

    condition: Rule | None = None
    rules: Rule | None = Field(default=None, description="The same as `condition`.")
    segments: Annotated[list[Reference], Field(max_length=100)] = Field(default_factory=list)
    sample: Annotated[int, Field(ge=0, le=_MOST_SHOWN)] = Field(
        default=10, description="How many of the users that match to show."
    )

    @model_validator(mode="after")
    def _one_condition(self) -> Self:
        if self.condition is not None and self.rules is not None:
            raise refuse("and condition say the same thing; give one of them", "rules")
        return self


class Preview(TypedDict):
    """`matched` of the `of` users that were looked at; `known` are all there are.

    `sample` are the first that match, by id. `complete` says whether all were looked at.
    """

    matched: int
    of: int
    known: int
    complete: bool
    sample: list[str]


def preview(tx: ReadTx, given: PreviewInput, clock: Callable[[], float]) -> Preview:
    """Count the users that a rule matches. Raises `Invalid`. `clock` counts seconds."""
    rule = given.rules if given.condition is None else given.condition
    attached = []
    for at, number in enumerate(given.segments):
        try:
            attached.append(segments.compiled(tx, segments.find(tx, number)))
        except NotFound as error:
            raise Invalid.field(f"segments[{at}]", error.detail, code="unknown_segment") from error
    path = "condition" if given.rules is None else "rules"
    condition = segments.condition_of(tx, checked_rule(tx, rule, path), path)
    return _counted(tx, condition, attached, given.sample, clock)


def audience(tx: ReadTx, experiment: Experiment, sample: int, clock: Callable[[], float]) -> Preview:
    """Count the users that an experiment's targeting lets in, whatever its state, traffic and layer."""
    condition = segments.condition_of(tx, experiment.condition, "condition")
    attached = [segments.compiled(tx, each) for each in experiment.segments]
    return _counted(tx, condition, attached, sample, clock)


def _counted(
    tx: ReadTx,
    condition: Condition | None,
    attached: list[ruleset.Segment],
    wanted: int,
    clock: Callable[[], float],
) -> Preview:
    until = clock() + PATIENCE
    known = tx.scalar(select(func.count()).select_from(User)) or 0
    matched = looked = 0
    sample: list[str] = []
    for page in _users(tx):
        for user_id, attributes in page:
            seen = {"id": user_id, "user_id": user_id, **attributes}
            if attached and not any(each.matches(user_id, seen) for each in attached):
                continue
            if condition is not None and not condition(seen):
                continue
            matched += 1
            if len(sample) < wanted:
                sample.append(user_id)
        looked += len(page)
        if clock() >= until:
            break
    return {
        "matched": matched,
        "of": looked,
        "known": known,
        "complete": looked >= known,
        "sample": sample,
    }


def _users(tx: ReadTx) -> Iterator[list[tuple[str, Mapping[str, Any]]]]:
    """All known users by id, in stretches."""
    last = ""
    while True:
        rows = select(User.id, User.attributes).where(User.id > last).order_by(User.id).limit(_PAGE)
        page = [(row.id, row.attributes) for row in tx.execute(rows)]
        if not page:
            return
        yield page
        last = page[-1][0]
