"""The event store in PostgreSQL, where events are acknowledged and reports ask for them in one place."""

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import psycopg

from assay.durable.watched import Away, never
from assay.errors import Conflict, Invalid, Unavailable
from assay.eventstore import importing
from assay.eventstore.asking import Asking
from assay.eventstore.base import (
    Appended,
    AssignmentImport,
    AssignmentRow,
    BadRow,
    Erased,
    EventImport,
    Imported,
    Position,
    Progress,
    Rebuilt,
    Rejections,
    Watermark,
)
from assay.eventstore.dialects import Engine, Postgres
from assay.eventstore.folding import do
from assay.eventstore.postgres_intake import Target, decoded, reading_file, rows_of, shorten_ledger, store
from assay.eventstore.postgres_rollups import PostgresRollups, up_to
from assay.eventstore.postgres_server import LOST, Connection, Pool, Row, changed, errors, pool, run
from assay.eventstore.statements import statements

_SCHEMA = statements("postgres/schema")
_APPEND = statements("postgres/append")
_ROLLUPS = statements("postgres/rollups")

#: The tables this code works with; higher ones come from a newer version of it.
_VERSION: Final = 4
#: The first server that can say whether a text is JSON without failing, 16.
_OLDEST_SERVER: Final = 160_000
#: Whoever makes or changes tables holds this lock of the database until the end of the transaction.
_PREPARING: Final = 7_021_605_188
#: Making rollups may take so many times what a question may.
_LONGER: Final = 10
#: Seconds to wait until those have committed who have a number already, and between two looks at them.
_SETTLING: Final = 2.0
_LOOK: Final = 0.005
#: A question may hash or sort in four places at once, each in three processes; hashes may take twice as much.
_SHARES: Final = 16

_UNITS: Final = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


class _Moment(threading.local):
    """The connection of the thread that is asking several questions at one moment, if it is."""

    connection: Connection | None = None


class PostgresStore(Asking):
    """An `EventStore` in a PostgreSQL database; its promises are those of `assay.eventstore.base`.

    `url` is a libpq connection string or URL; `replica` names one that answers questions. `prepared`:
    False behind a pooler that gives each transaction another connection. `statement_timeout`: seconds that a
    question or a portion may take. `memory` bounds what one question may take, and the reading of a file, as
    `1GiB`. `connections` bounds those for writing and those for reading, each. While `away` says that the
    server of `url` does not answer, nobody waits for it. Connects when first used.
    """

    def __init__(
        self,
        url: str,
        *,
        replica: str | None = None,
        prepared: bool = True,
        statement_timeout: float = 60.0,
        memory: str = "1GiB",
        connections: int = 4,
        away: Away = never,
    ) -> None:
        self._memory = memory
        self._timeout = max(round(statement_timeout * 1_000), 1)
        work = max(_bytes(memory) // _SHARES // 1_024, 64)
        # Compiling a question costs more than it gives; taking rows from workers costs less than is thought.
        self._planning = (
            f"SET LOCAL jit = off; SET LOCAL work_mem = {work}; "
            "SET LOCAL parallel_tuple_cost = 0.001; SET LOCAL parallel_setup_cost = 100"
        )
        self._asking = (
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; "
            f"SET LOCAL statement_timeout = {self._timeout}; {self._planning}"
        )
        self._away = away
        self._writing = pool(url, connections, prepared=prepared, away=away)
        self._reading = self._writing if replica is None else pool(replica, connections, prepared=prepared)
        self._importing = threading.Lock()
        self._moment = _Moment()
        self._rollups = PostgresRollups()
        super().__init__(Engine(Postgres(), self._ask, self._rollups))

    def close(self) -> None:
        """Let go of the connections."""
        for each in {self._writing, self._reading}:
            each.close()

    def prepare(self) -> None:
        """Make the tables, or bring them to the newest form; does nothing where they are.

        Where the catalog lies in the same database its tables must be there first, `assignments` being one.
        """
        with self._transaction(timeout=0) as connection:
            server = connection.info.server_version
            if server < _OLDEST_SERVER:
                raise Unavailable(
                    f"Events need PostgreSQL 16 or newer; this server is {server // 10_000}.",
                    code="database_too_old",
                    retry_after=60,
                )
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [_PREPARING])
            connection.execute(_SCHEMA["versions"])
            found = run(connection, _SCHEMA["version"], {})
            if found and found[0][0] > _VERSION:
                raise Conflict(
                    f"The event store's tables are of version {found[0][0]}; this program knows {_VERSION}.",
                    code="store_is_newer",
                )
            if not found or found[0][0] < _VERSION:
                connection.execute(_SCHEMA["schema"])
                connection.execute(_SCHEMA["functions"])
                connection.execute(_ROLLUPS["schema"])
                connection.execute(_ROLLUPS["leaving"])
                run(connection, _SCHEMA["set_version"], {"version": _VERSION})

    def belong_to(self, identity: int) -> bool:
        """Whether this store is fed from the log with that identity; one fed from none yet will be."""
        with self._transaction() as connection:
            run(connection, _APPEND["taken"], {})
            known = run(connection, _SCHEMA["source"], {})
            if not known:
                run(connection, _SCHEMA["name_source"], {"identity": identity})
        return not known or bool(known[0][0] == identity)

    def caught_up(self, timeout: float) -> None:
        """Wait until the replica has all that is acknowledged; `Unavailable` after so many seconds."""
        if self._reading is self._writing:
            return
        with self._transaction() as connection:
            [(place,)] = run(connection, _SCHEMA["written"], {})
        deadline = time.monotonic() + timeout
        pause = 0.001
        with errors(), self._reading.connection() as connection:
            while not run(connection, _SCHEMA["replayed"], {"place": place})[0][0]:
                if time.monotonic() > deadline:
                    raise Unavailable(
                        f"The database for reports is behind by more than {timeout:g} s; ask again soon.",
                        code="store_behind",
                        retry_after=2,
                    )
                time.sleep(pause)
                pause = min(pause * 2, 0.1)

    def position(self) -> Position:
        """See `EventStore`. Always that of the primary: it says where writing goes on."""
        with self._transaction() as connection:
            return Position(*run(connection, _SCHEMA["position"], {})[0])

    def append(
        self,
        position: tuple[int, int],
        events: str = "[]",
        assignments: str = "[]",
        rejections: Sequence[Rejections] = (),
    ) -> Appended:
        """See `EventStore`."""
        portion = decoded(events)
        with self._transaction(storing=True) as connection:
            if events != "[]" or assignments != "[]":
                self._rollups.wait(_folder(connection))
            after = Position(*run(connection, _APPEND["taken"], {})[0])
            assigned = 0
            if assignments != "[]":  # first, so that a repetition finds the experiments its user is in
                parameters = {"assignments": assignments, "after": after.assignments}
                assigned = changed(connection, _APPEND["store_assignments"], parameters)
            rows = list(rows_of(portion, after.events))
            stored, duplicates = store(connection, [rows]) if rows else (0, 0)
            for experiment_id, kind, code, count, samples in rejections:
                note = {
                    "experiment_id": experiment_id,
                    "type": kind,
                    "code": code,
                    "count": count,
                    "samples": list(samples),
                }
                run(connection, _APPEND["note_rejections"], note)
            shorten_ledger(connection)
            if stored or assigned:
                self._rollups.drop_all(_folder(connection))
            run(connection, _APPEND["advance"], {"events": position[0], "assignments": position[1]})
        return Appended(stored, duplicates, assigned)

    def watermark(self) -> Watermark:
        """See `EventStore`.

        Rows are numbered by sequences, which count at once what is written later. So an unchanged count says
        that nothing was added since, unless somebody held a number then that was not committed: whoever does
        has locked the table, which is looked at after the count.
        """
        with self._transaction() as connection:
            [(events, assignments, changes, epoch)] = run(connection, _SCHEMA["watermark"], {})
            [(writing,)] = run(connection, _SCHEMA["being_written"], {})
        return Watermark((events, assignments, changes), epoch, settled=not writing)

    def recent_keys(self, limit: int) -> list[tuple[str, str]]:
        """See `EventStore`."""
        return [(row[0], row[1]) for row in self._ask(_SCHEMA["recent_keys"], {"limit": limit})]

    def purge(self, experiment_id: int) -> Erased:
        """See `EventStore`."""
        return self._removed("purge", {"experiment_id": experiment_id})

    def erase(self, user_id: str) -> Erased:
        """See `EventStore`."""
        return self._removed("erase", {"user_id": user_id})

    def expire(self, before: Mapping[str, int], otherwise: int | None, limit: int) -> int:
        """See `EventStore`."""
        with self._transaction(timeout=0) as connection:
            types = [row[0] for row in run(connection, _SCHEMA["types"], {})]
            ending = [(kind, before.get(kind, otherwise)) for kind in types]
            if all(at is None for _, at in ending):
                return 0
            folder = _folder(connection)
            self._rollups.wait(folder)
            removed = 0
            for kind, at in ending:
                if at is not None and removed < limit:
                    older = {"type": kind, "before": Postgres.time(at), "limit": limit - removed}
                    self._rollups.expiring(folder, "type = $type AND occurred_at < $before", older)
                    [(count, reversing)] = run(connection, _SCHEMA["expire"], older)
                    removed += count
                    if reversing:
                        self._rollups.drop_all(folder)
            if removed:
                run(connection, _APPEND["taken"], {})
        return removed

    def note_wishes(self) -> None:
        """Tell those who `maintain` which totals were asked for here."""
        if self._rollups.has_wishes():
            with self._transaction() as connection:
                self._rollups.note(_folder(connection))

    def maintain(self) -> None:
        """See `EventStore`. One process does it at a time; others that try meanwhile let it be."""
        self.note_wishes()
        with self._transaction() as connection:
            if not do(_folder(connection), "work")[0][0]:
                return
        until = self._settled()
        if until is None:
            return
        try:
            with self._folding() as folder:
                due = self._rollups.follow(folder, until)
        except Unavailable as error:
            if error.code not in {"store_failed", "store_timeout"}:
                raise
            with self._transaction(timeout=0) as connection:  # what cannot be carried along is made anew
                self._rollups.wait(_folder(connection))
                self._rollups.drop_all(_folder(connection))
            raise
        for experiment_id in {wish[0] for wish in due}:
            with self._folding() as folder:
                wished = {wish: one for wish, one in due.items() if wish[0] == experiment_id}
                self._rollups.grant(folder, wished)

    def rebuild(self) -> list[Rebuilt]:
        """See `EventStore`."""
        with self._folding() as folder:
            found = self._rollups.rebuild(folder, up_to(*self._rollups.wait(folder)))
            if any(one.differing for one in found):  # reports that were kept are no longer those of this mark
                folder.ask(_APPEND["taken"], {})
        return found

    def import_events(
        self,
        what: EventImport,
        bad_row: Callable[[BadRow], None],
        progress: Callable[[Progress], None],
    ) -> Imported:
        """See `EventStore`."""
        if not self._importing.acquire(blocking=False):
            raise Conflict("Another import is under way; wait until it has ended.", code="import_under_way")
        try:
            with reading_file(what.path, self._memory) as reader:
                target = Target(
                    reader,
                    lambda: self._transaction(timeout=0, storing=True),
                    lambda connection: self._rollups.wait(_folder(connection)),
                    lambda connection: self._rollups.drop_all(_folder(connection)),
                )
                return importing.events(reader, target, what, bad_row, progress)
        finally:
            self._importing.release()

    def read_assignments(
        self, what: AssignmentImport, bad_row: Callable[[BadRow], None]
    ) -> Iterator[list[AssignmentRow]]:
        """See `EventStore`."""
        with reading_file(what.path, self._memory) as reader:
            yield from importing.assignments(reader, what, bad_row)

    @contextlib.contextmanager
    def one_moment(self) -> Iterator[None]:
        """See `EventStore`."""
        if self._moment.connection is not None:
            yield
            return
        with self._snapshot() as connection:
            self._moment.connection = connection
            try:
                yield
            finally:
                self._moment.connection = None

    def _settled(self) -> tuple[int, int] | None:
        """Numbers of an event and an assignment up to which everything is committed that ever will be.

        None: somebody who may have a lower number takes long to commit.
        """
        deadline = time.monotonic() + _SETTLING
        with errors(), self._writing.connection() as connection:
            [(event, assignment)] = run(connection, _ROLLUPS["numbered"], {})
            writing = set(run(connection, _ROLLUPS["writing"], {}))
            while writing and time.monotonic() < deadline:
                time.sleep(_LOOK)
                writing &= set(run(connection, _ROLLUPS["writing"], {}))
        return None if writing else (event, assignment)

    @contextlib.contextmanager
    def _folding(self) -> Iterator[Engine]:
        """A transaction for work on rollups."""
        with self._transaction(timeout=_LONGER * self._timeout) as connection:
            connection.execute(self._planning)
            yield _folder(connection)

    def _ask(self, statement: str, parameters: Mapping[str, Any]) -> list[Row]:
        self._record(statement, parameters)
        if self._moment.connection is not None:
            with errors():
                return run(self._moment.connection, statement, parameters)
        with self._snapshot() as connection:
            return run(connection, statement, parameters)

    @contextlib.contextmanager
    def _snapshot(self) -> Iterator[Connection]:
        self._refuse_away(self._reading)
        with errors(), self._reading.connection() as connection:
            connection.execute(self._asking)
            try:
                yield connection
            finally:
                with contextlib.suppress(psycopg.Error):  # whatever happened has been said, or will be
                    connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def _transaction(self, *, timeout: int | None = None, storing: bool = False) -> Iterator[Connection]:
        """A write, kept whole: committed at the end, or nothing of it. `timeout` in ms, 0 for none.

        `storing`: what the server says of values is said of the input.
        """
        self._refuse_away(self._writing)
        limit = self._timeout if timeout is None else timeout
        with errors(storing=storing), self._writing.connection() as connection, connection.transaction():
            connection.execute(f"SET LOCAL statement_timeout = {limit}")
            yield connection

    def _refuse_away(self, asked: Pool) -> None:
        if asked is self._writing and self._away():
            sentence, code, retry_after = LOST
            raise Unavailable(sentence, code=code, retry_after=retry_after)

    def _removed(self, what: str, parameters: Mapping[str, Any]) -> Erased:
        with self._transaction(timeout=0) as connection:
            folder = _folder(connection)
            self._rollups.wait(folder)
            run(connection, _APPEND["taken"], {})
            run(connection, _APPEND["new_epoch"], {})
            purged = what == "purge"
            reversing = purged and run(connection, _SCHEMA["names_reversals"], parameters)[0][0]
            removed = Erased(
                *(
                    changed(connection, _SCHEMA[f"{what}_{table}"], parameters)
                    for table in ("events", "assignments", "ledger")
                )
            )
            if purged:
                self._rollups.purged(folder, parameters["experiment_id"], reversals=reversing)
            else:
                self._rollups.erased(folder, parameters["user_id"])
            return removed


def _folder(connection: Connection) -> Engine:
    """The engine for work on rollups in a transaction."""
    return Engine(Postgres(), lambda statement, parameters: run(connection, statement, parameters))


def _bytes(size: str) -> int:
    """A size as `512MiB` or `1GB` in bytes."""
    found = re.fullmatch(r"\s*([\d.]+)\s*([kmgt]?)i?b?\s*", size.lower())
    if found is None:
        raise Invalid.field("memory", f"{size!r} is no size; it would be one like 1GiB.")
    return int(float(found[1]) * _UNITS[found[2]])
