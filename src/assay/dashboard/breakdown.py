"""The result by an attribute of users: each group's effect, behind the gate."""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup
from starlette.responses import Response

from assay.catalog import users
from assay.catalog.database import ReadTx
from assay.dashboard import charts, narrowing, wording
from assay.dashboard.meaning import is_share
from assay.dashboard.pages import Visit, render
from assay.dashboard.scorecard import STRIP
from assay.reports.report import Gate, Group, GroupedMetric, GroupEffect
from assay.reports.spec import Direction

#: Users that are looked at for names of attributes.
_SEEN = 100


class Row(NamedTuple):
    """One group: who is in it, and what was measured there."""

    name: str
    units: str
    lift: str
    around: str
    pulled: str
    chart: Markup
    tone: str
    outcome: str


class Block(NamedTuple):
    """One treatment on one metric, group by group."""

    metric: str
    treatment: str
    sentence: str
    differs: str
    tone: str
    axis: Markup
    rows: Sequence[Row]


def known_attributes(tx: ReadTx) -> list[str]:
    """Names of attributes that the newest users have, which one may look at the result by."""
    found = {name for user in users.page(tx, limit=_SEEN)[0] for name in user.attributes}
    return sorted(found)


def piece(visit: Visit) -> Response:
    """The groups of one attribute. Raises `Invalid` for one that the result cannot be read by."""
    reports, question = visit.parts.snapshots, narrowing.asked(visit, visit.query.get("attribute"))
    report = reports.get(visit.place["key"], question, visit.now, max_age=reports.max_age).report
    several = len(report.variants) > 2
    return render(
        visit,
        "_breakdown.html",
        dimensions=[
            (by.attribute, by.sentences, [block for each in by.metrics for block in _blocks(each)])
            for by in report.dimensions
        ],
        several=several,
    )


def _blocks(of: GroupedMetric) -> list[Block]:
    if of.sentence:
        return [Block(of.metric.name, "", of.sentence, "", "quiet", Markup(), ())]
    return [_block(of, gate) for gate in of.gates]


def _block(of: GroupedMetric, gate: Gate) -> Block:
    estimates = [_estimate(each) for each in gate.effects]
    span = charts.common_span(estimates, *STRIP)
    differs = {True: ("The groups differ", "careful"), False: ("No sign that groups differ", "plain")}
    word, tone = ("Not tested", "quiet") if gate.differs is None else differs[gate.differs]
    return Block(
        of.metric.name,
        gate.treatment.name,
        gate.sentence,
        word,
        tone,
        charts.interval_axis(span, wording.lift_tick),
        [_row(of, gate, each, span) for each in gate.effects],
    )


def _row(of: GroupedMetric, gate: Gate, each: GroupEffect, span: charts.Span) -> Row:
    found = each.numbers
    lift = wording.lift(found.lift, found.lift_interval)
    around = wording.lift_range(found.lift_interval)
    said, tone = _outcome(of, gate, each)
    name = _name(each.group)
    pulled = wording.MISSING
    if each.shrunken is not None:
        show = wording.points if is_share(of.metric) else wording.number
        pulled = show(each.shrunken.estimate, each.shrunken.standard_error)
    label = f"{name}, {gate.treatment.name}, {of.metric.name}: {lift}, {around}. {said}."
    return Row(
        name,
        wording.count(each.group.total),
        lift,
        around if found.lift is not None else "",
        pulled,
        charts.interval(_estimate(each), span, tone, label),
        tone,
        said,
    )


def _name(group: Group) -> str:
    if group.kind == "value":
        return group.value if isinstance(group.value, str) else wording.figure(group.value)
    return "all other values" if group.kind == "other" else "without it"


def _outcome(of: GroupedMetric, gate: Gate, each: GroupEffect) -> tuple[str, str]:
    if each.too_few:
        return "Too few", "quiet"
    if gate.differs is None:
        return "Not tested", "quiet"
    if each.significant is None:
        return "Like the others", "plain"
    if not each.significant:
        return "No clear difference", "plain"
    gap = each.numbers.difference or 0.0
    better = gap > 0.0 if of.metric.direction is Direction.INCREASE else gap < 0.0
    return ("Better", "good") if better else ("Worse", "bad")


def _estimate(each: GroupEffect) -> charts.Estimate:
    ends = each.numbers.lift_interval
    return charts.Estimate(each.numbers.lift, ends.low if ends else None, ends.high if ends else None)
