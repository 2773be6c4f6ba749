"""What only a server does: it ends, hangs, refuses, stands behind a pooler, or wants TLS."""

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import asyncpg
import psycopg
import pytest
from sqlalchemy import text

from assay.bucketing.ruleset import Ruleset
from assay.catalog import leases, schema
from assay.catalog.database import Actor, Database
from assay.catalog.publish import Publisher
from assay.errors import AssayError, Invalid, Unavailable
from assay.published import KeyRing, Published
from assay.settings import postgres_url as parsed
from catalog.conftest import NOON, Catalog
from live import until
from postgresql import Postgres, free_port

_ACTOR = Actor("test")


@contextlib.contextmanager
def opening(url: str, *, prepared: bool = True) -> Iterator[Catalog]:
    """A catalog on a server of its own."""
    published = Published(Ruleset(), KeyRing([]))
    database = Database(url, publish=Publisher(published).publish, prepared=prepared)
    database.refresh(NOON)
    try:
        yield Catalog(url, database, published)
    finally:
        database.close()


@pytest.fixture(scope="module")
def own() -> Iterator[Postgres]:
    """A server that tests may stop and must start again."""
    with Postgres() as running:
        yield running


@pytest.fixture
def mortal(own: Postgres) -> Iterator[Catalog]:
    with own.database() as url:
        schema.migrate(url)
        with opening(url) as found:
            yield found


def refusal(work: Callable[[], object]) -> AssayError:
    with pytest.raises(AssayError) as caught:
        work()
    return caught.value


@pytest.mark.parametrize("end", [Postgres.stop, Postgres.kill])
def test_a_server_that_ends_and_comes_back_is_used_again(
    own: Postgres, mortal: Catalog, end: Callable[[Postgres], None]
) -> None:
    before = mortal.running(name="before")
    end(own)
    for work in (
        lambda: mortal.create(name="during"),
        lambda: mortal.document(before),
        lambda: mortal.database.version(),
        lambda: mortal.database.refresh(NOON),
        lambda: leases.hold(mortal.database, "x", "a", 1),
        lambda: schema.is_current(mortal.url),
    ):
        error = refusal(work)
        assert isinstance(error, Unavailable)
        assert (error.code, error.retry_after) == ("database_unreachable", 2)
        assert error.detail.startswith("PostgreSQL cannot be used: ")
        assert "\n" not in error.detail
    assert mortal.compiled(before).name == "before"
    own.start()
    assert mortal.document(before)["name"] == "before"
    mortal.create(name="after")
    assert mortal.rows("SELECT name FROM experiments ORDER BY id") == [("before",), ("after",)]
    assert mortal.published.ruleset.version == 2


def test_a_connection_cut_in_the_middle_stores_nothing(own: Postgres, mortal: Catalog) -> None:
    def cut() -> None:
        with mortal.write() as tx:
            (pid,) = tx.execute(text("SELECT pg_backend_pid()")).one()
            mortal.rows(f"SELECT pg_terminate_backend({pid})")
            tx.record("experiment.edit", "experiment")

    error = refusal(cut)
    assert isinstance(error, Unavailable)
    assert mortal.rows("SELECT (SELECT count(*) FROM audit), (SELECT count(*) FROM catalog_version)") == [
        (0, 0)
    ]
    assert mortal.create() == 1


def test_a_server_that_ends_at_the_commit_leaves_it_in_doubt(own: Postgres, mortal: Catalog) -> None:
    def end() -> None:
        with mortal.write() as tx:
            tx.record("user.edit", "user")
            tx.flush()
            own.kill()

    error = refusal(end)
    own.start()
    assert (error.code, "may be there" in error.detail) == ("database_in_doubt", True)
    assert mortal.rows("SELECT count(*) FROM audit") == [(0,)]


def test_a_writer_that_takes_too_long_makes_others_wait_and_no_more(lasting: Catalog) -> None:
    """Somebody with a transaction open: others are told, and can go on when it ends."""
    with lasting.write() as tx:
        tx.record("user.edit", "user")
        with psycopg.connect(lasting.url) as other:
            other.execute("SET LOCAL lock_timeout = '50ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                other.execute("SELECT pg_advisory_xact_lock(x'41535341595F01'::bigint)")
        assert lasting.database.version() == 0  # readers don't wait
        assert leases.hold(lasting.database, "x", "a", 60)  # nor does what stands beside the catalog
    lasting.create()


@pytest.fixture
def lasting(postgres_url: str) -> Iterator[Catalog]:
    schema.migrate(postgres_url)
    with opening(postgres_url) as found:
        yield found


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("SELECT pg_sleep(1)", "database_timeout"),
        ("SELECT * FROM no_such_table", "database_not_migrated"),
        ("DO $$ BEGIN RAISE serialization_failure; END $$", "database_busy"),
        ("DO $$ BEGIN RAISE deadlock_detected; END $$", "database_busy"),
        ("DO $$ BEGIN RAISE disk_full; END $$", "database_full"),
        ("DO $$ BEGIN RAISE too_many_connections; END $$", "database_connections"),
        ("DO $$ BEGIN RAISE insufficient_privilege; END $$", "database_forbids"),
    ],
)
def test_what_a_server_refuses_is_said_in_a_sentence(lasting: Catalog, statement: str, code: str) -> None:
    def ask() -> None:
        with lasting.write() as tx:
            tx.record("experiment.edit", "experiment")
            tx.execute(text("SET LOCAL statement_timeout = '200ms'"))
            tx.execute(text(statement))

    error = refusal(ask)
    assert isinstance(error, Unavailable)
    assert (error.code, error.detail[-1], "\n" in error.detail) == (code, ".", False)
    assert lasting.rows("SELECT count(*) FROM audit") == [(0,)]


def test_a_value_it_cannot_hold_is_the_callers(lasting: Catalog) -> None:
    def ask() -> None:
        with lasting.write() as tx:
            tx.execute(text("SELECT CAST(:t AS text)"), {"t": "\x00"})

    assert isinstance(refusal(ask), Invalid)


def test_nothing_is_left_set_on_a_connection(lasting: Catalog) -> None:
    lasting.create()
    names = "statement_timeout lock_timeout idle_in_transaction_session_timeout".split()  # noqa: SIM905
    for engine in (lasting.database._writer, lasting.database._reader):
        with engine.connect() as connection:
            shown = [connection.scalar(text(f"SELECT current_setting('{name}')")) for name in names]
            assert shown == ["0", "0", "0"]
            assert connection.scalar(text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")) == 0


@contextlib.contextmanager
def pooling(postgres: Postgres, **settings: str) -> Iterator[Callable[[str], str]]:
    """PgBouncer in transaction mode with two connections; gives the URL that leads through it."""
    program = shutil.which("pgbouncer")
    if program is None:
        pytest.skip("pgbouncer is not installed")
    port = free_port()
    names, configuration = postgres.directory / "users.txt", postgres.directory / "pgbouncer.ini"
    names.write_text('"postgres" ""\n')
    settings = {
        "listen_addr": "127.0.0.1",
        "listen_port": str(port),
        "unix_socket_dir": "",
        "auth_type": "trust",
        "auth_file": str(names),
        "pool_mode": "transaction",
        "default_pool_size": "2",
        **settings,
    }
    lines = [f"{name} = {value}" for name, value in settings.items()]
    server = f"* = host=127.0.0.1 port={postgres.port}"
    configuration.write_text("\n".join(["[databases]", server, "[pgbouncer]", *lines, ""]))
    for each in (names, configuration):
        each.chmod(0o644)
    log = postgres.directory / "pgbouncer.log"
    with log.open("wb") as output:
        running = subprocess.Popen(
            [program, str(configuration)], user=postgres.user, stdout=output, stderr=output
        )

    def answers() -> bool:
        assert running.poll() is None, log.read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 2):
            return True
        return False

    try:
        until(answers, "PgBouncer takes connections")
        yield lambda url: f"postgresql://postgres@127.0.0.1:{port}/{url.rpartition('/')[2]}"
    finally:
        running.terminate()
        running.wait(60)


@pytest.fixture(scope="module")
def pooler(postgres: Postgres) -> Iterator[Callable[[str], str]]:
    with pooling(postgres) as address:
        yield address


def test_a_pooler_in_transaction_mode_is_good_enough(pooler: Callable[[str], str], postgres_url: str) -> None:
    url = pooler(postgres_url)
    schema.migrate(url)
    assert schema.is_current(url)
    failures: list[BaseException] = []
    with opening(url, prepared=False) as one, opening(url, prepared=False) as two:

        def work(catalog: Catalog, number: int) -> None:
            try:
                for step in range(8):
                    experiment = catalog.running(name=f"{number} {step}")
                    assert catalog.document(experiment)["name"] == f"{number} {step}"
                    catalog.database.refresh(NOON)
                    leases.hold(catalog.database, "x", str(number), 60)
            except BaseException as error:  # noqa: BLE001 - shown by the assertion below
                failures.append(error)

        threads = [
            threading.Thread(target=work, args=((one, two)[number % 2], number)) for number in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        two.database.refresh(NOON)
        assert len(two.published.ruleset) == 48
        assert two.published.ruleset.version == one.database.version() == 48
        with pytest.raises(Unavailable), two.read() as tx:
            tx.execute(text("DELETE FROM experiments"))


class Secure(NamedTuple):
    """Where connections need TLS, and the folder with `server.crt` and `other.crt`."""

    url: str
    folder: Path


@pytest.fixture(scope="module")
def secure(postgres: Postgres) -> Iterator[Secure]:
    folder = postgres.directory
    for name in ("server", "other"):
        key, certificate = folder / f"{name}.key", folder / f"{name}.crt"
        what = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1")
        alias = ("-addext", "subjectAltName=IP:127.0.0.1")
        subprocess.run(
            ["openssl", *what, *alias, "-keyout", str(key), "-out", str(certificate)],
            check=True,
            capture_output=True,
        )
        if postgres.user is not None:
            shutil.chown(key, postgres.user)
    tls = {
        "client_tls_sslmode": "require",
        "client_tls_key_file": str(folder / "server.key"),
        "client_tls_cert_file": str(folder / "server.crt"),
    }
    # The server that tests bring along is built without TLS, so the pooler before it does that part.
    with pooling(postgres, **tls) as address:
        yield Secure(address(postgres.url()), folder)


@pytest.mark.parametrize(
    "spelling",
    [
        "sslmode=require",
        "ssl=true",
        "sslmode=verify-full&sslrootcert={folder}/server.crt",
        "sslmode=verify-ca&sslrootcert={folder}/server.crt",
        "sslrootcert={folder}/server.crt",
        "",
    ],
)
def test_tls_in_every_spelling_with_both_drivers(secure: Secure, spelling: str) -> None:
    url = parsed("DATABASE_URL", f"{secure.url}?{spelling.format(folder=secure.folder)}")

    async def ask() -> object:
        connection = await asyncpg.connect(**url.asyncpg, statement_cache_size=0)
        try:
            return await connection.fetchval("SELECT 1")
        finally:
            await connection.close()

    assert not schema.is_current(url.url)
    assert asyncio.run(ask()) == 1


def test_what_wants_tls_refuses_to_go_without(secure: Secure) -> None:
    url = parsed("DATABASE_URL", f"{secure.url}?sslmode=disable")
    error = refusal(lambda: schema.is_current(url.url))
    assert isinstance(error, Unavailable)
    assert "SSL required" in error.detail


def test_a_certificate_of_somebody_else_is_refused(secure: Secure) -> None:
    url = parsed("X", f"{secure.url}?sslmode=verify-full&sslrootcert={secure.folder}/other.crt")
    error = refusal(lambda: schema.migrate(url.url))
    assert isinstance(error, Unavailable)
    assert error.code == "database_unreachable"
    assert "certificate verify failed" in error.detail

    async def ask() -> None:
        await asyncpg.connect(**url.asyncpg)

    with pytest.raises(ssl.SSLCertVerificationError):
        asyncio.run(ask())


def test_a_name_that_is_not_in_the_certificate_is_refused(secure: Secure) -> None:
    address = secure.url.replace("127.0.0.1", "localhost")
    url = parsed("X", f"{address}?sslmode=verify-full&sslrootcert={secure.folder}/server.crt")
    error = refusal(lambda: schema.migrate(url.url))
    assert "does not match host name" in error.detail
