"""The list of experiments, with what each has come to; on an empty installation, the way to the first one."""

from datetime import datetime
from functools import partial
from typing import NamedTuple

from starlette.responses import Response

from assay.bucketing.ruleset import Status
from assay.catalog import experiments
from assay.catalog.database import ReadTx
from assay.catalog.tables import Experiment
from assay.dashboard import wording
from assay.dashboard.checks import sifted
from assay.dashboard.pages import Form, Visit, link, render
from assay.dashboard.parts import moment
from assay.dashboard.snippets import calls
from assay.errors import AssayError
from assay.eventstore.base import EventFilter
from assay.reports.report import Report

_PAGE = 25


class Headline(NamedTuple):
    """What an experiment has come to, in one row."""

    verdict: tuple[str, str]
    sentence: str
    health: str
    worries: str
    units: int
    target: int | None


class Row(NamedTuple):
    """One experiment in the list; `headline` None: still to be read."""

    experiment: Experiment
    running: str
    headline: Headline | None
    waits: bool


def listed(visit: Visit) -> Response:
    """All experiments that match, newest first."""
    q, tag, status = (visit.query.get(name) for name in ("q", "tag", "status"))
    wanted = Status(status) if status in set(Status) else None
    skip = number(visit.query, "skip")
    with visit.parts.database.reading() as tx:
        found, total = experiments.page(tx, status=wanted, q=q[:200], tag=tag[:100], skip=skip, limit=_PAGE)
        anything = bool(total) or bool(experiments.page(tx, limit=1)[1]) or _archived(tx)
    rows = [_row(visit, each) for each in found]
    key = visit.origin
    return render(
        visit,
        "experiments.html",
        rows=rows,
        total=total,
        skip=skip,
        limit=_PAGE,
        anything=anything,
        q=q,
        tag=tag,
        wanted=wanted,
        statuses=list(Status),
        calls=None if anything else calls(key, "first-experiment", "signup"),
        address=partial(link, "experiments", q=q, tag=tag, status=wanted),
    )


def arrivals(visit: Visit) -> Response:
    """How far somebody who begins has come: the newest experiment, its first unit, and the latest event."""
    with visit.parts.database.reading() as tx:
        found, _ = experiments.page(tx, limit=1)
    experiment = found[0] if found else None
    visit.parts.flush()
    events, _ = visit.parts.store.events(EventFilter(), 1)
    event = events[0] if events else None
    return render(
        visit,
        "_arrivals.html",
        experiment=experiment,
        assigned=experiment is not None and bool(visit.parts.assignments.page(experiment.id, 0, 1)),
        event=event,
        received=None if event is None else moment(event.received_at),
    )


def headline(visit: Visit) -> Response:
    """The part of a row that takes a report."""
    try:
        found = _headline(visit.snapshot(visit.place["key"]).report)
    except AssayError as error:
        return render(visit, "_headline.html", headline=None, problem=error.detail)
    return render(visit, "_headline.html", headline=found, problem="")


def number(form: Form, name: str) -> int:
    """A number of rows to leave out; anything else is none."""
    text = form.get(name)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def running_for(started: datetime | None, ended: datetime | None, now: datetime) -> str:
    """How long an experiment has run, or ran."""
    return wording.MISSING if started is None else wording.days((ended or now) - started)


def _archived(tx: ReadTx) -> bool:
    return bool(experiments.page(tx, status=Status.ARCHIVED, limit=1)[1])


def _row(visit: Visit, experiment: Experiment) -> Row:
    started = experiment.started_at is not None
    kept = visit.kept_report(str(experiment.id)) if started else None
    return Row(
        experiment,
        running_for(experiment.started_at, experiment.ended_at, visit.now),
        None if kept is None else _headline(kept),
        waits=started and kept is None,
    )


def _headline(report: Report) -> Headline:
    checks, verdict = sifted(report), wording.VERDICTS[report.decision.verdict]
    return Headline(
        verdict,
        wording.without(report.decision.sentence, verdict[0], (each.name for each in report.variants)),
        checks.mark,
        " ".join(check.sentence for check in checks.worries),
        report.total_units,
        report.spec.target_sample_size,
    )
