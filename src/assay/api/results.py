"""Routes of results: one report, in the shape that each client expects."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Any, NamedTuple, cast, get_args

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import Field

from assay.api.bodies import OptionalDocument
from assay.api.calls import Call, Reading, encode
from assay.api.operations import operation
from assay.catalog.checks import Input, Name, parse
from assay.errors import Invalid
from assay.events.timestamps import micros
from assay.eventstore.base import EventFilter
from assay.reports import export
from assay.reports.audience import read_audience
from assay.reports.notebook import MEDIA, notebook
from assay.reports.picture import read_spec
from assay.reports.question import GRAINS, Question, ask, known_only
from assay.reports.report import Report
from assay.reports.snapshots import Snapshot
from assay.reports.units import UnitTable
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
    "refresh": "Compute anew, even if nothing new has come.",
    "max_age": "An answer computed so many seconds ago will do, whatever has come since.",
    "sql": "Add the statements that the numbers came from.",
    "format": (
        f"One of {', '.join(get_args(export.Format))}; or `notebook`: a Jupyter notebook that makes the "
        "headline again from user rows with numpy and scipy alone."
    ),
    "segment": "Look at the members of this segment only: its id, key or name.",
    "dimension": "Tell units apart by this attribute of users; several times for several attributes.",
    "rows": (
        "`dimensions`, `users` (each with its numbers in the metrics) or `events` instead of the sufficient "
        "statistics."
    ),
}
_FORMATS = (*get_args(export.Format), "notebook")
_WINDOW = ("start_date", "end_date", "last_day")
_FRESH = ("refresh", "max_age")
_OLDEST = 86_400
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

    def read(self, request: Request) -> dict[str, Any]:
        """What was sent. Raises `Invalid` for a parameter that would be ignored, or sent with two values."""
        sent = request.query_params.multi_items()
        known_only(frozenset(self.names), (name for name, _ in sent))
        given: dict[str, Any] = {}
        for name, value in sent:
            if name == "dimension":
                given[name] = (*given.get(name, ()), *([value] if value else ()))
            elif name == "metrics" and name in given:
                given[name] += f",{value}"
            elif given.setdefault(name, value) != value:
                raise Invalid.field(name, f"is given twice: {given[name]!r} and {value!r}")
        return given


_REPORT = _Query((*_WINDOW, "start", "end", "metrics", "segment", "dimension", "sql", *_FRESH))
_RESULTS = _Query(
    (*_WINDOW, *_CONVERSION, "variant_id", "segment", "group_by", "aggregation", "view", *_FRESH)
)
_STATS = _Query((*_WINDOW, *_CONVERSION, "segment", *_FRESH))
_TIMESERIES = _Query(
    (*_WINDOW, "start", "end", "metric", "segment", "by", "group_by", "aggregation", "cumulative", *_FRESH)
)
_EXPORT = _Query((*_WINDOW, "metrics", "event_type", "segment", "dimension", "format", "rows", *_FRESH))


class _Freshness(NamedTuple):
    """How new an answer must be: computed after the call, or that old at most; else with all there is."""

    anew: bool = False
    max_age: timedelta | None = None

    @classmethod
    def taken(cls, given: dict[str, Any]) -> "_Freshness":
        """What the parameters ask for; they are taken out. Raises `Invalid` naming the one that is wrong."""
        anew, text = given.pop("refresh", "").lower() or "false", given.pop("max_age", "")
        if anew not in ("true", "false", "1", "0"):
            raise Invalid.field("refresh", f"must be true or false, got {anew!r}")
        if not text:
            return cls(anew in ("true", "1"))
        if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= _OLDEST):
            raise Invalid.field("max_age", f"must be a whole number of seconds, 0 to {_OLDEST}, got {text!r}")
        if anew in ("true", "1"):
            raise Invalid.field("max_age", "contradicts refresh=true, which computes anew: send one of them")
        return cls(max_age=timedelta(seconds=int(text)))


class ConversionInput(Input):
    """What counts as the conversion, and how sure one wants to be."""

    conversion_event_type: Name | None = Field(
        None, description="By default the event type of the primary metric."
    )
    confidence_level: _Share | None = Field(None, description="Of each variant's interval.")
    significance_threshold: _Share | None = Field(
        None, description="By default the experiment's significance level."
    )
    segment: Name | None = Field(
        None, description="Look at the members of this segment only: id, key or name."
    )


@router.get("/experiments/{experiment}/report", openapi_extra=_REPORT.documented)
@operation(answers=_Document)
async def get_report(call: Reading, request: Request, experiment: str) -> Response:
    """The complete report: every metric, every comparison, health and decision."""
    given = _REPORT.read(request)
    fresh = _Freshness.taken(given)
    return await _answered(call, experiment, ask(given, call.now), canonical, fresh)


@router.get("/experiments/{experiment}/results", openapi_extra=_RESULTS.documented)
@operation(answers=_Document)
async def get_results(call: Reading, request: Request, experiment: str) -> Response:
    """Variants, comparisons, series over time and sample ratio, together with a flat summary."""
    given = _RESULTS.read(request)
    view = given.pop("view", "") or "full"
    if view not in ("full", "summary"):
        raise Invalid.field("view", f"{view!r} is not one of full, summary")
    fresh = _Freshness.taken(given)
    question = replace(ask(given, call.now), counts=True)
    return await _answered(call, experiment, question, summary if view == "summary" else results, fresh)


@router.post("/experiments/{experiment}/results", status_code=200)
@operation(takes=ConversionInput, answers=_Document, body_required=False)
async def post_results(call: Reading, experiment: str, body: OptionalDocument) -> Response:
    """Who won, by rates in percent with their intervals."""
    given = parse(ConversionInput, body)
    return await _answered(call, experiment, ask(given.model_dump(), call.now), winners, _Freshness())


@router.get("/experiments/{experiment}/stats", openapi_extra=_STATS.documented)
@operation(answers=_Document)
async def get_stats(call: Reading, request: Request, experiment: str) -> Response:
    """One headline comparison with a recommendation."""
    given = _STATS.read(request)
    fresh = _Freshness.taken(given)
    return await _answered(call, experiment, ask(given, call.now), stats, fresh)


@router.get("/experiments/{experiment}/timeseries", openapi_extra=_TIMESERIES.documented)
@operation(answers=_Document)
async def get_timeseries(call: Reading, request: Request, experiment: str) -> Response:
    """The effect with its interval over time, for charts.

    Long cumulative series are thinned to evenly spaced points, and `thinned` says so. No step of another
    series is left out; long ones of anything but a share come without intervals, and `note` says so.
    """
    given = _TIMESERIES.read(request)
    fresh = _Freshness.taken(given)
    question = ask(given, call.now)
    grain = question.grain or "day"
    asked = replace(question, grain=None)

    def body(snapshot: Snapshot) -> bytes:
        report = snapshot.report
        metric = report.primary.metric if question.metrics is None else report.metrics[0].metric
        found = call.parts.snapshots.trend(snapshot, metric, grain)
        shown = replace(report, question=replace(report.question, grain=grain))
        return encode(timeseries(shown, metric, found))

    def kept(snapshot: Snapshot) -> bytes:
        return snapshot.kept((timeseries, grain), lambda: body(snapshot))

    return await _shown(call, experiment, asked, kept, fresh)


@router.get("/experiments/{experiment}/export", openapi_extra=_EXPORT.documented)
@operation(answers=_Document)
async def get_export(call: Reading, request: Request, experiment: str) -> Response:
    """The sufficient statistics, or the rows behind them, as a file."""
    given = _EXPORT.read(request)
    form = given.pop("format", "") or "csv"
    if form not in _FORMATS:
        raise Invalid.field("format", f"{form!r} is not one of {', '.join(_FORMATS)}")
    kind = given.pop("rows", "") or ("users" if form == "notebook" else "statistics")
    if kind not in get_args(export.Kind):
        raise Invalid.field("rows", f"{kind!r} is not one of {', '.join(get_args(export.Kind))}")
    if form == "notebook" and kind != "users":
        raise Invalid.field("rows", f"a notebook is made of users, not of {kind}")
    _expect_use(kind, given)
    fresh = _Freshness.taken(given)
    question = ask(given, call.now)
    await call.parts.flush()
    if form == "notebook":
        key, document = await run_in_threadpool(_notebook, call, experiment, question)
        return Response(document, media_type=MEDIA, headers=_named(f"{key}.ipynb"))
    key, columns, rows = await run_in_threadpool(_rows, call, experiment, question, kind, fresh)
    shape = cast("export.Format", form)
    pieces = export.written(columns, rows, shape)
    return StreamingResponse(pieces, media_type=export.MEDIA[shape], headers=_named(f"{key}-{kind}.{form}"))


def _named(file: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{file}"'}


def _expect_use(kind: str, given: _Document) -> None:
    """Raises `Invalid` for parameters that rows of this kind leave no use for, or that they need."""
    if kind == "dimensions" and not given.get("dimension"):
        raise Invalid.field("dimension", "is needed for rows=dimensions: name an attribute of users")
    if kind != "dimensions" and given.get("dimension"):
        raise Invalid.field("dimension", "is for rows=dimensions; rows of other kinds hold no attributes")


async def _answered(
    call: Call,
    experiment: str,
    question: Question,
    view: Callable[[Report], _Document],
    fresh: _Freshness,
) -> Response:
    """The view of the report; the same bytes for as long as it is the same report."""

    def kept(snapshot: Snapshot) -> bytes:
        return snapshot.kept(view, lambda: encode(view(snapshot.report)))

    return await _shown(call, experiment, question, kept, fresh)


async def _shown(
    call: Call, experiment: str, question: Question, body: Callable[[Snapshot], bytes], fresh: _Freshness
) -> Response:
    """The answer that is made of a snapshot, and how many seconds ago that was computed."""
    if fresh.max_age is None:
        await call.parts.flush()

    def made() -> Response:
        snapshot = _snapshot(call, experiment, question, fresh)
        age = {"Age": f"{snapshot.age(call.now) // timedelta(seconds=1)}"}
        return Response(body(snapshot), headers=age, media_type="application/json")

    return await run_in_threadpool(made)


def _snapshot(call: Call, experiment: str, question: Question, fresh: _Freshness) -> Snapshot:
    """On everything that was acknowledged before the call, unless an older one will do."""
    if fresh.anew:
        return call.parts.snapshots.anew(experiment, question, call.now)
    return call.parts.snapshots.get(experiment, question, call.now, max_age=fresh.max_age)


class _Rows(NamedTuple):
    """The experiment's key, and rows to write with their columns."""

    key: str
    columns: Mapping[str, type]
    rows: Iterator[export.Row]


def _rows(call: Call, experiment: str, question: Question, kind: str, fresh: _Freshness) -> _Rows:
    if kind == "events":
        with call.parts.database.reading() as tx:
            spec = read_spec(tx, experiment)
            members = read_audience(tx, spec, question).members
        which = EventFilter(
            experiment_id=spec.id,
            unit=spec.unit,
            types=() if question.event_type is None else (question.event_type,),
            start=None if question.start is None else micros(question.start),
            end=None if question.end is None else micros(question.end),
        )
        return _Rows(spec.key, export.EVENTS, export.events(call.parts.store, which, members))
    report = _snapshot(call, experiment, question, fresh).report
    if kind == "statistics":
        return _Rows(report.spec.key, export.STATISTICS, export.sufficient_statistics(report))
    if kind == "dimensions":
        return _Rows(report.spec.key, export.DIMENSIONS, export.by_dimension(report))
    table = UnitTable.of(report, report.metrics)
    return _Rows(report.spec.key, export.user_columns(table), export.users(report, table, call.parts.store))


def _notebook(call: Call, experiment: str, question: Question) -> tuple[str, bytes]:
    """The experiment's key and the notebook."""
    with call.parts.database.reading() as tx:
        spec = read_spec(tx, experiment)
        audience = read_audience(tx, spec, question)
    return spec.key, notebook(call.parts.store, spec, question, call.now, audience)
