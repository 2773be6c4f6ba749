"""One transfer from beginning to end: look at the source, copy what is missing, check, finish."""

import contextlib
from collections.abc import Callable, Iterator
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Protocol

import duckdb
import msgspec
import psycopg

from assay.catalog.database import Database, sqlite_url
from assay.errors import Conflict, Unavailable
from assay.eventstore.postgres import PostgresStore
from assay.settings import PostgresUrl, Settings
from assay.transfer import agreement
from assay.transfer.source import Known, Source, fingerprint
from assay.transfer.tables import copied, counted
from assay.transfer.target import Target

#: Seconds that one question of the check may take in the target.
_PATIENCE = 86_400.0


class Outcome(StrEnum):
    """What became of a transfer that raised nothing."""

    TRANSFERRED = "transferred"
    FINISHED_BEFORE = "finished before"


class Check(NamedTuple):
    """Something that must be the same on both sides."""

    name: str
    source: str
    target: str
    differs: bool


class Show(Protocol):
    """Who is shown how it goes."""

    def working(self, what: str, total: int | None, done: int = 0) -> None:
        """From now on this is done; `total` rows, `done` of them by an earlier run."""

    def advanced(self, rows: int) -> None:
        """So many rows more."""

    def said(self, sentence: str) -> None:
        """Something worth knowing."""

    def checked(self, checks: list[Check]) -> None:
        """All checks that were made."""


def source_settings(settings: Settings) -> Settings:
    """The settings of the installation in the data directory: those of PostgreSQL do not count for it."""
    sqlite = settings.database_url if settings.postgres is None else ""
    return msgspec.structs.replace(
        settings, database_url=sqlite, events_url="", report_database_url="", retention="", workers=1
    )


def transfer(settings: Settings, url: PostgresUrl, show: Show, clock: Callable[[], datetime]) -> Outcome:
    """Copy the installation that `settings` name (see `source_settings`) to the database at `url`.

    Interrupted at any moment and called again, it goes on after the last step that was stored; called again
    after the end it changes nothing. Raises `Conflict` where a server runs on the source, where the target
    holds anything else, and where a check fails; `Invalid` for a value that PostgreSQL cannot hold;
    `Unavailable` when one of the two cannot be used. Whatever it raises, the source is as it was.
    """
    with _spoken(url), Source(settings) as source, Target(url) as target:
        state = target.state(source.identity)
        if state is not None and state.finished_at is not None:
            show.said(
                f"Everything was transferred to {url.shown} at {state.finished_at:%Y-%m-%d %H:%M:%S %Z}; "
                "nothing was changed. What the data directory has taken in since is not there."
            )
            return Outcome.FINISHED_BEFORE
        show.working("looking at the data directory", None)
        found = source.examine(lambda _name, known: show.advanced(known.rows))
        highest = source.highest()
        whole = fingerprint(found, highest)
        if state is not None:
            target.expect_untouched()
        else:
            target.prepare()
        if state is None or state.fingerprint != whole:
            if state is not None:
                show.said(
                    "The copy that was begun is not of this state of the data directory: it begins anew."
                )
            target.begin(source.identity, whole, clock())
        else:
            show.said("An interrupted transfer goes on.")
        _copy(source, target, found, show)
        target.count_on(highest, counted())
        checks = _sums(target, found, show)
        _expect_same(checks, target, show)
        for name in target.missing_indexes():
            show.working(f"index {name}", None)
            target.make_index(name)
        show.working("statistics for the planner", None)
        target.tidy()
        checks += _reports(source, url, show)
        _expect_same(checks, target, show)
        target.finish(clock())
        show.checked(checks)
    return Outcome.TRANSFERRED


def _copy(source: Source, target: Target, found: dict[str, Known], show: Show) -> None:
    for table in copied():
        done = target.done(table)
        if done.rows < found[table.name].rows:
            show.working(table.name, found[table.name].rows, done.rows)
            for step in source.steps(table, done.after):
                target.store(table, step, show.advanced)


def _sums(target: Target, found: dict[str, Known], show: Show) -> list[Check]:
    checks = []
    show.working("checking rows", sum(known.rows for known in found.values()))
    for table in copied():
        there, here = target.sums(table), found[table.name]
        checks.append(Check(table.name, _sum(here), _sum(there), here != there))
        show.advanced(there.rows)
    return checks


def _sum(known: Known) -> str:
    return f"{known.rows:,} rows {known.total % 2**32:08x}"


def _reports(source: Source, url: PostgresUrl, show: Show) -> list[Check]:
    """Ask both event stores what the report of every experiment is made of."""
    settings = source.settings
    checks = []
    with contextlib.ExitStack() as stack:
        database = Database(sqlite_url(source.path), publish=lambda _tx, _now: None)
        stack.callback(database.close)
        specs = agreement.experiments(database)
        here = stack.enter_context(source.store())
        there = PostgresStore(
            url.url, prepared=False, statement_timeout=_PATIENCE, memory=settings.report_memory
        )
        stack.callback(there.close)
        show.working("checking reports", len(specs))
        for spec in specs:
            said = agreement.difference(spec, here, there)
            name = f"report of {spec.key}"
            checks.append(Check(name, "moments", "equal" if said is None else said, said is not None))
            show.advanced(1)
    return checks


def _expect_same(checks: list[Check], target: Target, show: Show) -> None:
    wrong = [check.name for check in checks if check.differs]
    if wrong:
        target.fail()
        show.checked(checks)
        raise Conflict(
            f"The copy is not what the data directory holds: {', '.join(wrong)}. It stays unfinished; "
            "repeated, the command copies everything anew.",
            code="transfer_differs",
        )


@contextlib.contextmanager
def _spoken(url: PostgresUrl) -> Iterator[None]:
    """What the drivers say, in one sentence."""
    try:
        yield
    except psycopg.Error as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise Unavailable(
            f"{url.shown} failed: {said}. Repeat the command: it goes on after what is stored.",
            code="target_failed",
        ) from error
    except duckdb.Error as error:
        said = str(error).splitlines()[0]
        raise Unavailable(f"The event store could not be read: {said}", code="store_failed") from error
