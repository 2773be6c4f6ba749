"""The only place where parts meet: settings in, a running application out."""

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import structlog

from assay import __version__
from assay.bucketing.ruleset import Ruleset
from assay.catalog import keys, lifecycle, ramps, segments
from assay.catalog.replay import replay
from assay.durable.priority import give_way
from assay.durable.siblings import Sibling
from assay.errors import AssayError
from assay.events.event import Limits
from assay.events.timestamps import EPOCH
from assay.hotpath.app import HotPath, microseconds
from assay.hotpath.assigner import Assigner
from assay.hotpath.assignment import AssignmentRoutes
from assay.hotpath.features import FeatureRoutes, Features
from assay.hotpath.features_stream import Streams
from assay.hotpath.http import Application as Asgi
from assay.hotpath.http import Receive, Scope, Send
from assay.hotpath.ofrep import OfrepRoutes
from assay.hotpath.operations import Check, OperationRoutes
from assay.hotpath.recording import RecordingRoutes
from assay.hotpath.routes import hot_routes
from assay.published import anonymous_rights
from assay.settings import Settings, load
from assay.stores.base import utc_now
from assay.stores.choice import stores_for
from assay.telemetry import Telemetry, configure_logging

if TYPE_CHECKING:
    from assay.reports.schedule import Schedule
    from assay.reports.snapshots import Snapshots

_log = structlog.get_logger("assay")

#: Seconds between two looks for reports and looks that are due.
_ROUND: Final = 30.0


class OnDemand:
    """An ASGI application that is put together, in a thread, when it is first asked.

    The control plane takes a second to import and a quarter of the process's memory. Assignments and events
    need neither, and most workers of a large installation are never asked for anything else.
    """

    def __init__(self, build: Callable[[], Asgi]) -> None:
        self._build = build
        self._built: asyncio.Future[Asgi] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._built is None or (self._built.done() and self._built.exception() is not None):
            self._built = asyncio.ensure_future(asyncio.to_thread(self._build))
        application = await asyncio.shield(self._built)
        await application(scope, receive, send)


class HealthChecks:
    """Looks at experiments' health in a thread of its own, one after the other; `ramps.Ask` is told of it.

    A report takes as long as it takes, and what is done twice a second must not wait for it.
    """

    def __init__(self, check: Callable[[int], str | None]) -> None:
        self._check = check
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="assay-health", initializer=give_way)
        self._asked: dict[int, tuple[datetime, Future[str | None]]] = {}

    def ask(self, experiment_id: int, due_at: datetime) -> ramps.Health | None:
        """See `ramps.Ask`. What cannot be read just now is asked again; a check that breaks is a problem."""
        asked = self._asked.get(experiment_id)
        if asked is None or asked[0] != due_at:
            self._asked[experiment_id] = (due_at, self._thread.submit(self._check, experiment_id))
            return None
        future = asked[1]
        if not future.done():
            return None
        error = future.exception()
        if error is None:
            return ramps.Health(future.result())
        del self._asked[experiment_id]
        if isinstance(error, AssayError):
            _log.warning("ramps.health_unknown", experiment_id=experiment_id, reason=error.detail)
            return None
        _log.error("ramps.health_failed", experiment_id=experiment_id, exc_info=error)
        return ramps.Health(f"Health could not be looked at ({type(error).__name__}).")

    def close(self) -> None:
        """Begin no more."""
        self._thread.shutdown(wait=False, cancel_futures=True)


class Application:
    """The ASGI application: opens its stores when the server starts, closes them when it stops."""

    def __init__(self, settings: Settings, sibling: Sibling | None = None) -> None:
        self.settings = settings
        self._sibling = sibling
        self._telemetry = Telemetry()
        self.stores = stores_for(settings, sibling)
        #: Set when the server is about to end: `/ready` is red then.
        self.draining = False
        #: Called when the application can answer.
        self.on_startup: Callable[[], None] = lambda: None
        self._opened = False
        #: The routes that carry the load; None before the start and after the end.
        self.hot: HotPath | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._uses = keys.KeyUse()
        self._first = threading.Lock()
        self._snapshots: Snapshots | None = None
        self._health = HealthChecks(self._problem)
        self._schedule: Schedule | None = None
        #: Seconds between two rounds of the schedule, and when the next is, by the clock that never steps.
        self._round = min(_ROUND, settings.report_refresh or _ROUND, settings.breaker_interval)
        self._next_round = time.monotonic() + self._round
        #: When the catalog was last seen, by the clock that never steps.
        self._seen_catalog = 0.0

    @classmethod
    def from_environment(cls) -> "Application":
        """What `uvicorn assay.asgi:app` serves."""
        settings = load()
        configure_logging(settings.log_level, settings.log_format)
        return cls(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif self.hot is not None:
            await self.hot(scope, receive, send)
        else:
            raise RuntimeError("Assay needs its lifespan events: start the server with lifespan on.")

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self.startup()
                except AssayError as error:
                    await send({"type": "lifespan.startup.failed", "message": error.detail})
                    return
                self.on_startup()
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.shutdown()
                await send({"type": "lifespan.shutdown.complete"})
                return

    def open(self) -> None:
        """Open the stores and announce the first key. Called by `startup` unless it was called before."""
        self.stores.open()
        self._opened = True
        secret = self.stores.first_key()
        if secret is not None:
            path = self.settings.data / "admin.key"
            sys.stdout.write(f"Admin key, shown this once and kept in {path}:\n\n    {secret}\n\n")
            sys.stdout.flush()

    async def startup(self) -> None:
        """Open what is not open yet and start the chores."""
        if not self._opened:
            self.open()
        try:
            await self._start()
        except BaseException:
            await self.stores.stop()
            raise

    async def _start(self) -> None:
        await self.stores.start()
        if self.settings.anonymous_role:
            _log.warning("anonymous.allowed", role=self.settings.anonymous_role)
        self.hot = self._assemble()
        self._seen_catalog = time.monotonic()
        self._tasks = [
            asyncio.create_task(self._repeat(self._watch_catalog, "assay-watch")),
            asyncio.create_task(self._repeat(self._keep_house, "assay-house")),
            asyncio.create_task(self._repeat(self._keep_schedule, "assay-schedule")),
            asyncio.create_task(self._fill()),
        ]
        self.stores.listen(self._perform)

    def _perform(self, request: dict[str, Any], say: Callable[[dict[str, Any]], None]) -> None:
        """Do what another process asks of the stores; reports and numpy are imported for the first."""
        import_module("assay.stores.commands").perform(self.stores, request, say)

    async def shutdown(self) -> None:
        """Finish what was accepted and close everything."""
        self.stores.stop_listening()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.hot = None
        self._health.close()
        if self._sibling is not None:
            self._sibling.say(self._telemetry.snapshot())
        if self._opened:
            try:
                await asyncio.to_thread(self._uses.flush, self.stores.database, utc_now())
            except AssayError as error:
                _log.warning("keys.last_use_not_stored", reason=error.detail)
            await self.stores.stop()
            self._opened = False

    def _assemble(self) -> HotPath:
        settings, stores = self.settings, self.stores
        telemetry = self._telemetry
        self._watch(telemetry)
        if self._sibling is not None:
            telemetry.inherit(self._sibling.inherited())
            telemetry.others = self._sibling.others
        limits = Limits(
            body=settings.max_body_bytes,
            events=settings.max_batch_events,
            event_bytes=settings.max_event_bytes,
            properties=settings.max_event_properties,
            name=settings.max_name_length,
        )
        assigner = Assigner(stores.published, stores.assignments, stores.attributes, telemetry)
        features = Features(stores.published, self._uses.note)
        recording = RecordingRoutes(stores.published, stores.assignments, stores.log, telemetry, limits)
        routes = hot_routes(
            AssignmentRoutes(
                assigner,
                max_name=settings.max_name_length,
                max_pairs=settings.max_bulk_pairs,
                replay=lambda experiment_id, user_id, unit_id, at: replay(
                    stores.database, experiment_id, user_id, unit_id, EPOCH + timedelta(microseconds=at)
                ),
                notes=stores.log.notes,
            ),
            recording,
            FeatureRoutes(features, assigner, max_name=settings.max_name_length),
            OfrepRoutes(assigner, recording, max_name=settings.max_name_length),
            OperationRoutes(
                telemetry, self._checks, version=__version__, metrics_token=settings.metrics_token
            ),
        )
        control = OnDemand(
            lambda: import_module("assay.control").build(
                settings, stores, routes, self._uses, lambda: self.draining, self._kept()
            )
        )
        streams = Streams(features, control, closing=lambda: self.draining, clock=microseconds)
        telemetry.watch("assay_sdk_streams", "Open streams of SDKs.", lambda: streams.open)
        hot = HotPath(
            routes,
            streams,
            stores.published,
            anonymous=anonymous_rights(settings.anonymous_role),
            max_body=settings.max_body_bytes,
            clock=microseconds,
            note_use=self._uses.note,
            answered=telemetry.answered,
            age=lambda: time.monotonic() - self._seen_catalog,
        )
        waiting = "Requests waiting for a commit or a look-up."
        telemetry.watch("assay_waiting_requests", waiting, lambda: hot.admission.waiting)
        overloaded = "Whether requests are refused because more are sent than can be answered soon."
        telemetry.watch("assay_overloaded", overloaded, lambda: hot.admission.overloaded)
        return hot

    def _kept(self) -> "Snapshots":
        """The reports this process keeps, made when the first is asked for, with all that takes to import."""
        with self._first:
            if self._snapshots is None:
                made = import_module("assay.control").snapshots
                self._snapshots = made(self.settings, self.stores, self._telemetry)
            return self._snapshots

    def _watch(self, telemetry: Telemetry) -> None:
        """Connect the gauges to what they show."""
        stores = self.stores

        def ruleset() -> Ruleset:
            return stores.published.ruleset

        def statuses() -> dict[str, int]:
            counted: dict[str, int] = {}
            for experiment in ruleset().by_id.values():
                counted[str(experiment.status)] = counted.get(str(experiment.status), 0) + 1
            return counted

        def variant_key(experiment_id: int, variant_id: int) -> str:
            experiment = ruleset().find(experiment_id)
            at = None if experiment is None else experiment.by_variant_id.get(variant_id)
            return str(variant_id) if experiment is None or at is None else experiment.variants[at].key

        telemetry.statuses, telemetry.variant_key = statuses, variant_key
        telemetry.count("assay_group_commits_total", "Group commits.", lambda: stores.written().commits)
        telemetry.count("assay_committed_rows_total", "Rows in group commits.", lambda: stores.written().rows)
        telemetry.watch("assay_waiting_rows", "Rows waiting for a commit.", lambda: stores.written().waiting)
        telemetry.count(
            "assay_cache_hits_total", "Assignments found in memory.", lambda: stores.assignments.held().hits
        )
        telemetry.count(
            "assay_cache_misses_total", "Assignments not in memory.", lambda: stores.assignments.held().misses
        )
        telemetry.watch(
            "assay_cache_entries", "Assignments in memory.", lambda: stores.assignments.held().entries
        )
        telemetry.watch(
            "assay_drain_lag_rows", "Log rows not yet in the event store.", lambda: stores.lag().rows
        )
        telemetry.watch("assay_drain_lag_seconds", "Age of the oldest of them.", lambda: stores.lag().seconds)
        telemetry.watch(
            "assay_ruleset_version", "Version of the catalog in force.", lambda: ruleset().version
        )
        telemetry.watch(
            "assay_refused_rules",
            "Stored rules that this version refuses, and that hold for nobody.",
            lambda: len(ruleset().refused()),
        )
        telemetry.watch(
            "assay_ruleset_age_seconds",
            "Seconds since the catalog was last seen.",
            lambda: time.monotonic() - self._seen_catalog,
        )

    def _checks(self, _now: int) -> list[Check]:
        """What readiness depends on."""
        age = time.monotonic() - self._seen_catalog
        fresh = age <= self.settings.max_ruleset_age
        checks = [Check("catalog", fresh, f"seen {age:.1f} s ago")]
        for name, failure in self.stores.failures().items():
            checks.append(Check(name, failure is None, failure.detail if failure else "well"))
        refused = self.stores.published.ruleset.refused()
        if refused:  # no reason to be taken out of rotation: all the others are served
            said = (
                f"refused by this version, and holding for nobody: those of {', '.join(refused)}; see the log"
            )
            checks.append(Check("rules", ok=True, detail=said))
        if self.draining:
            checks.append(Check("server", ok=False, detail="shutting down"))
        return checks

    async def _fill(self) -> None:
        """Take assignments into memory; without them answers come from the disk, a little later."""
        try:
            filled = await self.stores.assignments.fill()
        except AssayError as error:
            _log.warning("assignments.not_filled", reason=error.detail)
        else:
            _log.debug("assignments.filled", records=filled)

    async def _repeat(self, chore: Callable[[], None], thread: str) -> None:
        """Do a chore every half second at most, in a thread that nothing else can keep busy."""
        failing: str | None = None
        executor = ThreadPoolExecutor(1, thread_name_prefix=thread)
        try:
            while True:
                await asyncio.sleep(self.settings.poll_seconds)
                try:
                    await asyncio.get_running_loop().run_in_executor(executor, chore)
                except AssayError as error:
                    if error.detail != failing:  # once, not twice a second as long as it lasts
                        _log.warning("chores.failed", reason=error.detail)
                    failing = error.detail
                except Exception:  # noqa: BLE001 - logged; the next round tries again
                    _log.exception("chores.failed")
                else:
                    failing = None
        finally:
            executor.shutdown(wait=False)

    def _watch_catalog(self) -> None:
        """What must happen within a second: changes of others, revoked keys, scheduled starts and ends."""
        now = utc_now()
        self.stores.tend(now)
        self._seen_catalog = time.monotonic()
        if self.stores.leads():
            lifecycle.tick(self.stores.database, now)
            ramps.tick(self.stores.database, now, self._health.ask)

    def _problem(self, experiment_id: int) -> str | None:
        """Why a ramp should not go on; the report is loaded when it is first needed, as all of control is."""
        found: str | None = import_module("assay.reports.halting").problem(
            self._kept(), experiment_id, utc_now()
        )
        return found

    def _keep_schedule(self) -> None:
        """Reports and looks that are due: one process computes them, in a thread that gives way to all."""
        at = time.monotonic()
        if at < self._next_round or not self.stores.leads():
            return
        self._next_round = at + self._round
        if not any(each.started_at for each in self.stores.published.ruleset.by_id.values()):
            return  # without the control plane's memory, as long as there is nothing to report on
        if self._schedule is None:
            made = import_module("assay.control").schedule
            self._schedule = made(self.settings, self.stores, self._telemetry, self._kept())
        self._schedule.run(utc_now, lambda: not self.draining and self.stores.leads())

    def _keep_house(self) -> None:
        """What may wait for a slow store."""
        now = utc_now()
        if self._sibling is not None:
            self._sibling.say(self._telemetry.snapshot())
        self._uses.flush(self.stores.database, now)
        self.stores.pass_on(now)
        if self.stores.leads():
            segments.tidy(self.stores.database, now)
