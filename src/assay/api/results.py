"""Routes of results: one report, in the shape that each client expects."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Annotated, Any, NamedTuple, cast, get_args

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import Field

from assay.api.bodies import OptionalDocument
from assay.api.calls import Call, Reading, answer
from assay.api.operations import operation
from assay.catalog.checks import Input, Name, parse
from assay.durable.priority import give_way
from assay.errors import Invalid
from assay.events.timestamps import micros
from assay.eventstore.base import EventFilter
from assay.reports import export
from assay.reports.build import build
from assay.reports.picture import read_spec
from assay.reports.question import GRAINS, Question, ask, known_only
from assay.reports.report import Report
from assay.reports.trend import trend
from assay.reports.views.canonical import canonical, timeseries
from assay.reports.views.results import results, summary
from assay.reports.views.verdicts import stats, winners

router = APIRouter(tags=["results"])

_Document = dict[str, Any]
_Share = Annotated[float, Field(gt=0.0, lt=1.0)]

_ABOUT = {
    "start_date": "First date or time whose events count; assignments are not narrowed.",
    "end_date": "Last date or time, inclusive, for events and assignments; a bare date means to its end.",
    "start": "The same as `start_date`.",
    "end": "The same as `end_date`.",
    "last_day": "Events of the last so many days.",
    "event_type": "Count events of this type only.",
    "primary_event_type": "The event type that counts as the conversion.",
    "conversion_event_type": "The same as `primary_event_type`.",
    "variant_id": "Show this variant only: id, key or name.",
    "group_by": f"Add a series over time: {', '.join(GRAINS)}.",
    "aggregation": "The same as `group_by`.",
    "by": f"Length of a step: {', '.join(GRAINS)}.",
    "view": "`summary` for the flat summary alone.",
    "metrics": "Keys or names of metrics, comma-separated; any other word is an event type to convert to.",
    "metric": "Key or name of one metric; by default the primary one.",
    "cumulative": "Whether each point holds everything so far (the default) or its own step alone.",
    "refresh": "Compute anew; every report is, as long as none is kept.",
    "format": f"One of {', '.join(get_args(export.Format))}.",
    "rows": "`users` or `events` instead of the sufficient statistics.",
}
_WINDOW = ("start_date", "end_date", "last_day")
_CONVERSION = ("event_type", "primary_event_type", "conversion_event_type")


class _Query(NamedTuple):
    """The parameters a route reads."""

    names: tuple[str, ...]

    @property
    def documented(self) -> _Document:
        """The same for the API page."""
        return {
            "parameters": [
                {
                    "name": name,
                    "in": "query",
                    "required": False,
                    "description": _ABOUT[name],
                    "schema": {"type": "string"},
                }
                for name in self.names
            ]
        }

    def read(self, request: Request) -> dict[str, str]:
        """What was sent. Raises `Invalid` for a parameter that would be ignored, or sent with two values."""
        sent = request.query_params.multi_items()
        known_only(frozenset(self.names), (name for name, _ in sent))
        given: dict[str, str] = {}
        for name, value in sent:
            if name == "metrics" and name in given:
                given[name] += f",{value}"
            elif given.setdefault(name, value) != value:
                raise Invalid.field(name, f"is given twice: {given[name]!r} and {value!r}")
        return given


_REPORT = _Query((*_WINDOW, "start", "end", "metrics", "refresh"))
_RESULTS = _Query((*_WINDOW, *_CONVERSION, "variant_id", "group_by", "aggregation", "view"))
_STATS = _Query((*_WINDOW, *_CONVERSION))
_TIMESERIES = _Query((*_WINDOW, "start", "end", "metric", "by", "group_by", "aggregation", "cumulative"))
_EXPORT = _Query((*_WINDOW, "metrics", "event_type", "format", "rows"))


class ConversionInput(Input):
    """What counts as the conversion, and how sure one wants to be."""

    conversion_event_type: Name | None = Field(
        None, description="By default the event type of the primary metric."
    )
    confidence_level: _Share | None = Field(None, description="Of each variant's interval.")
    significance_threshold: _Share | None = Field(
        None, description="By default the experiment's significance level."
    )


@router.get("/experiments/{experiment}/report", openapi_extra=_REPORT.documented)
@operation(answers=_Document)
async def get_report(call: Reading, request: Request, experiment: str) -> Response:
    """The complete report: every metric, every comparison, health and decision."""
    given = _REPORT.read(request)
    return await _answered(call, experiment, ask(given, call.now), canonical)


@router.get("/experiments/{experiment}/results", openapi_extra=_RESULTS.documented)
@operation(answers=_Document)
async def get_results(call: Reading, request: Request, experiment: str) -> Response:
    """Variants, comparisons, series over time and sample ratio, together with a flat summary."""
    given = _RESULTS.read(request)
    view = given.pop("view", "") or "full"
    if view not in ("full", "summary"):
        raise Invalid.field("view", f"{view!r} is not one of full, summary")
    question = replace(ask(given, call.now), counts=True)
    return await _answered(call, experiment, question, summary if view == "summary" else results)


@router.post("/experiments/{experiment}/results", status_code=200)
@operation(takes=ConversionInput, answers=_Document, body_required=False)
async def post_results(call: Reading, experiment: str, body: OptionalDocument) -> Response:
    """Who won, by rates in percent with their intervals."""
    given = parse(ConversionInput, body)
    return await _answered(call, experiment, ask(given.model_dump(), call.now), winners)


@router.get("/experiments/{experiment}/stats", openapi_extra=_STATS.documented)
@operation(answers=_Document)
async def get_stats(call: Reading, request: Request, experiment: str) -> Response:
    """One headline comparison with a recommendation."""
    given = _STATS.read(request)
    return await _answered(call, experiment, ask(given, call.now), stats)


@router.get("/experiments/{experiment}/timeseries", openapi_extra=_TIMESERIES.documented)
@operation(answers=_Document)
async def get_timeseries(call: Reading, request: Request, experiment: str) -> Response:
    """The effect with its interval over time, for charts.

    Long cumulative series are thinned to evenly spaced points, and `thinned` says so. No step of another
    series is left out; long ones of anything but a share come without intervals, and `note` says so.
    """
    question = ask(_TIMESERIES.read(request), call.now)
    grain = question.grain or "day"

    def document(report: Report) -> _Document:
        metric = report.primary.metric if question.metrics is None else report.metrics[0].metric
        found = trend(call.parts.store, report, metric, grain)
        return timeseries(replace(report, question=replace(report.question, grain=grain)), metric, found)

    return await _answered(call, experiment, replace(question, grain=None), document)


@router.get("/experiments/{experiment}/export", openapi_extra=_EXPORT.documented)
@operation(answers=_Document)
async def get_export(call: Reading, request: Request, experiment: str) -> Response:
    """The sufficient statistics, or the rows behind them, as a file."""
    given = _EXPORT.read(request)
    form = cast("export.Format", given.pop("format", "") or "csv")
    if form not in get_args(export.Format):
        raise Invalid.field("format", f"{form!r} is not one of {', '.join(get_args(export.Format))}")
    kind = given.pop("rows", "") or "statistics"
    if kind not in ("statistics", "users", "events"):
        raise Invalid.field("rows", f"{kind!r} is not one of statistics, users, events")
    question = ask(given, call.now)
    await call.parts.flush()
    key, rows = await run_in_threadpool(_rows, call, experiment, question, kind)
    pieces = export.written(cast("export.Kind", kind), rows, form)
    name = f'attachment; filename="{key}-{kind}.{form}"'
    return StreamingResponse(pieces, media_type=export.MEDIA[form], headers={"Content-Disposition": name})


async def _answered(
    call: Call, experiment: str, question: Question, view: Callable[[Report], _Document]
) -> Response:
    """The view of the report on everything that was acknowledged before the call."""
    await call.parts.flush()
    return await run_in_threadpool(lambda: answer(view(_report(call, experiment, question))))


def _report(call: Call, experiment: str, question: Question) -> Report:
    give_way()  # a report may take seconds of all cores, an assignment takes microseconds of one
    with call.parts.database.reading() as tx:
        spec = read_spec(tx, experiment)
    begun = time.perf_counter()
    report = build(call.parts.store, spec, question, call.now)
    call.parts.analysed(report, time.perf_counter() - begun)
    return report


def _rows(call: Call, experiment: str, question: Question, kind: str) -> tuple[str, Iterator[export.Row]]:
    """The experiment's key and the rows to write."""
    if kind == "statistics":
        report = _report(call, experiment, question)
        return report.spec.key, export.sufficient_statistics(report)
    with call.parts.database.reading() as tx:
        spec = read_spec(tx, experiment)
    if kind == "users":
        return spec.key, export.users(spec, call.parts.assignments.page)
    which = EventFilter(
        experiment_id=spec.id,
        unit=spec.unit,
        types=() if question.event_type is None else (question.event_type,),
        start=None if question.start is None else micros(question.start),
        end=None if question.end is None else micros(question.end),
    )
    return spec.key, export.events(call.parts.store, which)
