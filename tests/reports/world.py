"""A small experiment and a real store to put its units and events into."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from assay.eventstore.base import EventStore
from assay.reports.build import build
from assay.reports.question import Question, ask
from assay.reports.report import Report
from assay.reports.spec import ExperimentSpec, MetricSpec, MetricType, PhaseSpec, Role, VariantSpec
from contracts.event_store import DAY, NOW, Feed, event

CONTROL = VariantSpec(10, "control", "control", 0.5, is_control=True)
BLUE = VariantSpec(11, "blue", "blue", 0.5)
GREEN = VariantSpec(12, "green", "green", 0.0)
PURCHASE = MetricSpec("purchase", "purchase", MetricType.CONVERSION, "purchase", role=Role.PRIMARY)
START = datetime(2026, 9, 1, tzinfo=UTC)
TIME = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=NOW)


def phase(number: int, *shares: float) -> PhaseSpec:
    """A phase that dealt these shares to control, blue and green."""
    dealt = tuple(zip((10, 11, 12), shares, strict=False))
    return PhaseSpec(number, START + timedelta(days=number), None, dealt)


SPEC = ExperimentSpec(
    id=1,
    key="colours",
    name="Colours",
    status="running",
    created_at=START,
    variants=(CONTROL, BLUE),
    phases=(phase(0, 0.5, 0.5),),
    started_at=START,
    metrics=(PURCHASE,),
)
THREE = replace(
    SPEC,
    variants=(
        replace(CONTROL, allocation=0.4),
        replace(BLUE, allocation=0.3),
        replace(GREEN, allocation=0.3),
    ),
    phases=(phase(0, 0.4, 0.3, 0.3),),
)


class World:
    """The store under a report, and short ways to fill and read it."""

    def __init__(self, store: EventStore) -> None:
        self.store = store
        self.feed = Feed(store)

    def units(
        self, variant: int, count: int, *, phase: int = 0, at: int = NOW - DAY, prefix: str = "u"
    ) -> None:
        """Assign `count` units, named u<variant>-0, …"""
        rows = [(f"{prefix}{variant}-{number}", variant) for number in range(count)]
        self.feed.assign(*rows, phase=phase, at=at)

    def events(
        self,
        variant: int,
        count: int,
        kind: str = "purchase",
        *,
        at: int = NOW,
        prefix: str = "u",
        **more: Any,
    ) -> None:
        """One event each for the first `count` units of a variant."""
        self.feed.events(*(event(f"{prefix}{variant}-{n}", kind, at, **more) for n in range(count)))

    def report(self, spec: ExperimentSpec = SPEC, now: datetime = TIME, **asked: Any) -> Report:
        """The report that these parameters ask for, with counts."""
        return self.answer(spec, replace(ask(asked, now), counts=True), now)

    def answer(self, spec: ExperimentSpec, question: Question, now: datetime = TIME) -> Report:
        """The report on a question."""
        return build(self.store, spec, question, now)
