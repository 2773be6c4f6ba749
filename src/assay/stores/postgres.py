"""The stores of an installation on PostgreSQL: any number of processes on any number of machines.

Nothing here is owned: what processes must agree on is in the database. Each looks twice a second for what
the others have changed; those of one machine tell each other at once.
"""

import asyncio
import contextlib
import math
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Final

import structlog
from sqlalchemy import text

from assay.assignments.base import AssignmentStore
from assay.assignments.postgres import PostgresAssignments
from assay.bucketing.ruleset import Ruleset
from assay.catalog import erasures, keys, leases, schema
from assay.catalog.database import Actor, Database, ReadTx, WriteTx
from assay.catalog.publish import Publisher
from assay.durable.lanes import Patience
from assay.durable.postgres import PostgresWriter
from assay.durable.siblings import Sibling
from assay.durable.watched import Away, never
from assay.errors import AssayError, Conflict, Invalid, Unavailable
from assay.events.log import EventLog
from assay.events.postgres import PostgresEventLog
from assay.eventstore.base import EventStore
from assay.eventstore.postgres import PostgresStore
from assay.hotpath.attributes import Attributes, PostgresAttributes
from assay.published import KeyRing, Published
from assay.settings import PostgresUrl, Settings
from assay.stores.base import Answer, Lag, Written, utc_now
from assay.stores.keeping import keep_key
from assay.stores.retention import Retention

_log = structlog.get_logger("assay")

#: Scheduled work is one process's, which says so again this often; gone, another takes over after the second.
_LEASE: Final = "schedule"
_RENEWED, _EXPIRES = 1.0, 3.0
#: An outage is known to who asks next, and its end soon after it.
_PATIENCE: Final = Patience(connect=3.0, statement=5.0, group=6.0, silence=1.0)
#: Seconds that the last words to the database may take when the process ends.
_FAREWELL: Final = 5.0
#: Seconds that a report waits for the replica it is read from.
_REPLICA_PATIENCE: Final = 10.0
#: Seconds between two rounds of work on rollups, and how many times longer than a round that must be.
_ROUND: Final = 2.0
_REST: Final = 10


class _SharedDatabase(Database):
    """A catalog whose changes the other workers of the machine see before whoever made one is answered."""

    def __init__(
        self,
        url: str,
        *,
        publish: Callable[[ReadTx, datetime], None],
        prepared: bool,
        away: Callable[[], bool],
        tell: Callable[[], None],
    ) -> None:
        super().__init__(url, publish=publish, prepared=prepared, away=away)
        self._tell = tell

    @contextlib.contextmanager
    def writing(self, actor: Actor, now: datetime) -> Iterator[WriteTx]:
        """See `Database`."""
        with super().writing(actor, now) as tx:
            yield tx
        if tx.publishes:
            self._tell()


class PostgresStores:
    """`Stores` on the PostgreSQL that the settings name; `sibling` is this process among several."""

    def __init__(self, settings: Settings, sibling: Sibling | None = None) -> None:
        self.settings = settings
        self.published = Published(Ruleset(), KeyRing(()))
        self._url = _database(settings)
        self._sibling = sibling
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._leads_until = 0.0
        self._renew_at = 0.0
        #: Numbers of erasures that were applied here; the latest, since they may come in another order.
        self._erased: set[int] = set()
        self._give_up_at = math.inf
        self._retention = Retention(settings)
        self._tending = threading.Lock()
        self._upkeep = ThreadPoolExecutor(1, thread_name_prefix="assay-upkeep")
        self._upkeep_at = 0.0
        self._waiters = ThreadPoolExecutor(4, thread_name_prefix="assay-flush")
        self._closing = contextlib.ExitStack()

    def open(self) -> None:
        """See `Stores`. An empty database gets its tables, an older one is brought up to date."""
        settings, url = self.settings, self._url
        prepared = settings.prepares(url)
        with contextlib.ExitStack() as stack:
            self._writer = PostgresWriter(
                url.asyncpg, prepared=prepared, connections=settings.database_pool_size, patience=_PATIENCE
            )
            self._store = _event_store(settings, url, self._is_away)
            stack.callback(self._store.close)
            _prepare(url, self._store)
            self.store: EventStore = self._store
            self._memory = PostgresAssignments(self._writer, settings.cache_max_size)
            self.assignments: AssignmentStore = self._memory
            self.attributes: Attributes = PostgresAttributes(self._writer)
            self.log: EventLog = PostgresEventLog(self._writer)
            self._publisher = Publisher(self.published, keys.environment_keys(settings.admin_secrets))
            self.database: Database = _SharedDatabase(
                url.url, publish=self._publish, prepared=prepared, away=self._is_away, tell=self._tell
            )
            stack.callback(self.database.close)
            _expect_whole(self.database)
            self.database.refresh(utc_now())
            self._erased = {number for number, _ in erasures.since(self.database, 0)}
            self._closing = stack.pop_all()

    async def start(self) -> None:
        """See `Stores`."""
        await self._writer.start()
        if self._sibling is not None:
            self._sibling.listen(lambda: self._look(utc_now()))
        self._waiters.submit(_look_at_replica, self.settings)  # nobody waits for it

    async def stop(self) -> None:
        """See `Stores`."""
        if self._sibling is not None:
            self._sibling.leave()
        await self._writer.close()
        self._give_up_at = time.monotonic() + _FAREWELL  # nobody asks any more whether the database answers
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Close what `open` has opened."""
        try:
            self._pass_notes()
            if self._leads_until:
                leases.release(self.database, _LEASE, self._holder)
        except AssayError as error:
            _log.warning("stores.closed_early", reason=error.detail)
        self._waiters.shutdown(wait=False)
        self._upkeep.shutdown(wait=False)
        self._closing.close()

    def flush(self) -> None:
        """See `Stores`: what is acknowledged is in the store already, and soon in a replica of it."""
        self._pass_notes()
        self._store.caught_up(_REPLICA_PATIENCE)

    async def wait_past(self) -> None:
        """See `Stores`; few threads wait for a slow replica, so that there are some for everything else."""
        await asyncio.get_running_loop().run_in_executor(self._waiters, self.flush)

    def paused(self) -> AbstractContextManager[None]:
        """See `Stores`: nothing is ever on its way."""
        return contextlib.nullcontext()

    def tend(self, now: datetime) -> None:
        """See `Stores`."""
        self._look(now)

    def pass_on(self, now: datetime) -> None:
        """See `Stores`."""
        self._pass_notes()
        if self.leads():
            self._retention.apply(self._store, now)
        if time.monotonic() >= self._upkeep_at:
            self._upkeep_at = math.inf  # until this round has ended
            self._upkeep.submit(self._maintain)

    def _maintain(self) -> None:
        """Keep rollups; a thread's work of its own, since making one takes as long as a question without."""
        began = time.monotonic()
        try:
            if self.leads():
                self._store.maintain()
            else:
                self._store.note_wishes()
        except AssayError as error:
            _log.warning("rollups.behind", reason=error.detail)
        except Exception:  # noqa: BLE001 - logged; questions are answered without, and the next round tries again
            _log.exception("rollups.failed")
        finally:
            ended = time.monotonic()
            self._upkeep_at = ended + max(_ROUND, _REST * (ended - began))

    def _is_away(self) -> bool:
        """Whether the database does not answer. The writer asks all the time; nobody else need find out."""
        error = self._writer.last_error
        known = error is not None and error.code == "store_unreachable"
        return known or time.monotonic() > self._give_up_at

    def _look(self, now: datetime) -> None:
        """See what other processes have changed."""
        with self._tending:
            recent = erasures.since(self.database, max(self._erased, default=0))
            for number, unit_id in recent:
                if number not in self._erased:
                    self._memory.forget_unit(unit_id)
                    self.log.forget(unit_id)
            self._erased = {number for number, _ in recent} or self._erased
            self.database.refresh(now)

    def _publish(self, tx: ReadTx, now: datetime) -> None:
        before = set(self.published.ruleset.by_id)
        self._publisher.publish(tx, now)
        for experiment_id in before - set(self.published.ruleset.by_id):
            self._memory.forget_experiment(experiment_id)

    def _tell(self) -> None:
        if self._sibling is not None and not self._sibling.tell():
            _log.warning(
                "siblings.slow", reason="a worker has not yet seen a change; it will within a second"
            )

    def _pass_notes(self) -> None:
        """Enter refusals and repetitions into the ledger."""
        notes = self.log.notes.take()
        if not notes:
            return
        try:
            self._store.append(self._store.position(), rejections=notes)
        except BaseException:
            self.log.notes.give_back(notes)
            raise

    def leads(self) -> bool:
        """See `Stores`: a lease, renewed every second."""
        at = time.monotonic()
        if at < self._renew_at:
            return at < self._leads_until
        self._renew_at = at + _RENEWED
        held = leases.hold(self.database, _LEASE, self._holder, _EXPIRES)
        self._leads_until = at + _EXPIRES if held else 0.0
        return held

    def failures(self) -> dict[str, AssayError | None]:
        """See `Stores`."""
        return {"database": self._writer.last_error}

    def forget(self, unit_id: str) -> None:
        """See `Stores`."""
        erasures.note(self.database, unit_id)
        self._look(utc_now())
        self._tell()

    def written(self) -> Written:
        """See `Stores`."""
        return Written(self._writer.commits, self._writer.rows, self._writer.waiting[0])

    def lag(self) -> Lag:
        """See `Stores`: acknowledged means stored."""
        return Lag(0, 0.0)

    def first_key(self) -> str | None:
        """See `Stores`; where no data directory can be written, the key is only shown."""
        if self.settings.admin_secrets:
            return None
        return keys.ensure_admin_key(self.database, utc_now(), self._keep)

    def _keep(self, secret: str) -> None:
        try:
            keep_key(self.settings, secret)
        except Unavailable as error:
            _log.warning("keys.not_kept", reason=error.detail)

    def listen(self, answer: Answer) -> None:
        """See `Stores`: commands open the database themselves."""

    def stop_listening(self) -> None:
        """See `Stores`."""


def _event_store(settings: Settings, url: PostgresUrl, away: Away = never) -> PostgresStore:
    events, reports = settings.events_postgres, settings.report_postgres
    if events != url:
        raise Invalid.field(
            "EVENTS_URL",
            "the events of this version are in the PostgreSQL of DATABASE_URL: leave it empty",
        )
    replica = reports if reports != url else None
    return PostgresStore(
        url.url,
        replica=replica.url if replica is not None else None,
        prepared=settings.prepares(url) and (replica is None or settings.prepares(replica)),
        statement_timeout=settings.statement_timeout,
        memory=settings.report_memory,
        away=away,
    )


def _look_at_replica(settings: Settings) -> None:
    """Warn at the start of a replica that reports will not be able to use."""
    replica = settings.report_postgres
    if replica is None or replica == settings.events_postgres:
        return
    try:
        if not schema.is_current(replica.url):
            _log.warning(
                "replica.behind", reason=f"{replica.shown} has no tables of this version: is it a replica?"
            )
    except AssayError as error:
        _log.warning("replica.unusable", reason=error.detail)


def _expect_whole(database: Database) -> None:
    """Refuse a database into which a transfer was begun and not finished: half of its users would be new."""
    with database.reading() as tx:
        if tx.scalar(text("SELECT to_regclass('transfer')")) is None:
            return
        begun = tx.scalar(text("SELECT begun_at FROM transfer WHERE finished_at IS NULL"))
    if begun is not None:
        raise Conflict(
            f"A transfer into this database was begun at {begun:%Y-%m-%d %H:%M} UTC and has not "
            "finished: run assay transfer again, which goes on where it was.",
            code="transfer_unfinished",
        )


def _prepare(url: PostgresUrl, store: PostgresStore) -> None:
    if not schema.is_current(url.url):
        schema.migrate(url.url)
    store.prepare()


def migrate(settings: Settings) -> str:
    """Bring the database to the newest tables; what it is called."""
    url = _database(settings)
    store = _event_store(settings, url)
    try:
        _prepare(url, store)
    finally:
        store.close()
    return url.shown


def _database(settings: Settings) -> PostgresUrl:
    url = settings.postgres
    if url is None:
        raise Invalid.field("DATABASE_URL", "names no PostgreSQL")
    return url
