"""The control plane put together; imported when it is first asked for something."""

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta

from assay import __version__
from assay.api.app import create_api
from assay.api.parts import Parts
from assay.catalog.keys import KeyUse
from assay.dashboard import parts as dashboard
from assay.dashboard.app import Dashboard, Entrance
from assay.dashboard.meaning import span
from assay.hotpath.app import Route, microseconds, openapi_paths
from assay.hotpath.features_stream import STREAM_PATHS
from assay.hotpath.http import Application
from assay.published import anonymous_rights
from assay.reports.report import Report
from assay.reports.schedule import Schedule
from assay.reports.snapshots import Snapshots
from assay.settings import Settings
from assay.stores.base import Stores, utc_now
from assay.telemetry import Telemetry


def snapshots(settings: Settings, stores: Stores, telemetry: Telemetry) -> Snapshots:
    """The reports that this process keeps, for whoever shows them and for the schedule."""

    def analysed(report: Report, seconds: float) -> None:
        significant = any(each.significant for each in report.primary.comparisons)
        telemetry.analysed(report.spec.id, seconds, significant=significant)

    made = Snapshots(
        stores.database,
        stores.store,
        stores.flush,
        max_age=timedelta(seconds=settings.report_max_age),
        analysed=analysed,
    )
    counted = made.counted
    telemetry.count("assay_report_hits_total", "Reports that were at hand.", lambda: counted.hits)
    telemetry.count("assay_report_waits_total", "Reports shared with another reader.", lambda: counted.waits)
    telemetry.count("assay_report_misses_total", "Reports that were computed.", lambda: counted.misses)
    return made


def schedule(settings: Settings, stores: Stores, telemetry: Telemetry, kept: Snapshots) -> Schedule:
    """What is computed without anybody asking for it."""
    period = timedelta(seconds=settings.report_refresh) or None
    watch = timedelta(seconds=settings.breaker_interval)
    made = Schedule(kept, stores.database, period, settings.report_history, watch)
    done = made.done
    telemetry.count("assay_scheduled_reports_total", "Reports made by the schedule.", lambda: done.reports)
    telemetry.count("assay_scheduled_looks_total", "Looks made by the schedule.", lambda: done.looks)
    telemetry.count("assay_bandit_splits_total", "Splits changed by bandits.", lambda: done.splits)
    telemetry.count("assay_breaker_trips_total", "Circuit breakers tripped.", lambda: done.trips)
    return made


def build(
    settings: Settings,
    stores: Stores,
    routes: Sequence[Route],
    uses: KeyUse,
    closing: Callable[[], bool],
    kept: Snapshots,
) -> Application:
    """API and dashboard over the open stores; `routes` are the hot ones, for the API page.

    `closing` says whether the server is about to end.
    """

    @contextlib.contextmanager
    def paused() -> Iterator[None]:
        with stores.paused():
            yield
            stores.log.relearn()

    since = utc_now()
    anonymous = anonymous_rights(settings.anonymous_role)
    paths, schemas = openapi_paths(routes)
    api = create_api(
        Parts(
            database=stores.database,
            published=stores.published,
            store=stores.store,
            snapshots=kept,
            history_days=settings.report_history,
            assignments=stores.assignments,
            flush=stores.wait_past,
            paused=paused,
            forget=stores.forget,
            clock=microseconds,
            key_use=uses,
            anonymous=anonymous,
            max_body=settings.max_body_bytes,
            docs=settings.docs,
            extra_paths={**paths, **STREAM_PATHS},
            extra_schemas=schemas,
        )
    )
    pages = Dashboard(
        dashboard.Parts(
            database=stores.database,
            published=stores.published,
            store=stores.store,
            snapshots=kept,
            assignments=stores.assignments,
            flush=stores.flush,
            clock=microseconds,
            key_use=uses,
            installation=lambda: _installation(settings, stores, since),
            anonymous=anonymous,
            closing=closing,
            history_days=settings.report_history,
        )
    )
    return Entrance(pages, api)


def _installation(settings: Settings, stores: Stores, since: datetime) -> dashboard.Installation:
    written, lag, held = stores.written(), stores.lag(), stores.assignments.held()
    figures = (
        ("Runs since", since, "When this process was ready for its first page."),
        ("Events waiting", f"{lag.rows:,}", "Rows of the log that are not in the event store yet."),
        ("Longest wait", f"{lag.seconds:.1f} s", "Age of the oldest of them: how far results are behind."),
        ("Assignments in memory", f"{held.entries:,}", "Answered without asking the disk."),
        ("Group commits", f"{written.commits:,}", "Since this process started."),
        ("Rows committed", f"{written.rows:,}", "Since this process started."),
        ("Rows waiting for a commit", f"{written.waiting:,}", "Now."),
    )
    return dashboard.Installation(
        __version__,
        [
            dashboard.Standing(name, None if failure is None else failure.detail)
            for name, failure in stores.failures().items()
        ],
        [dashboard.Figure(*each) for each in _setup(settings)],
        [dashboard.Figure(*each) for each in figures],
    )


def _setup(settings: Settings) -> Iterator[tuple[str, str, str]]:
    """How the installation is set up, where that is worth a look."""
    if settings.postgres is not None:
        yield "Stores", "PostgreSQL", settings.postgres.shown
    else:
        yield "Stores", "embedded", f"SQLite and DuckDB in {settings.data}"
        with contextlib.suppress(OSError):  # nothing is said where the system does not say
            disk = shutil.disk_usage(settings.data)
            yield "Room on the disk", _bytes(disk.free), f"Free, of {_bytes(disk.total)}."
    yield "Workers", f"{settings.workers}", "Processes behind the one socket of this machine."
    period = int(settings.report_refresh * 1_000_000)
    yield (
        "Reports by the schedule",
        f"every {span(period)}".replace("every 1 ", "every ") if period else "never",
        f"Of each running experiment; kept for {settings.report_history} days.",
    )


def _bytes(size: float) -> str:
    """A size in GiB, or in MiB where it is small."""
    gib = size / 2**30
    return f"{gib:,.1f} GiB" if gib >= 1.0 else f"{size / 2**20:,.0f} MiB"
