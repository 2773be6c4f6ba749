"""Settings that need more than a type: addresses of databases, and how long events are kept."""

import asyncio
import re
from datetime import timedelta
from pathlib import Path

import asyncpg
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from assay.errors import Invalid
from assay.settings import Settings, load, postgres_url
from postgresql import Postgres


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("postgresql://u:p@h/db", {"user": "u", "password": "p", "host": "h", "dbname": "db"}),
        ("postgres://u:p%40s%2Fs@h:5433/db", {"password": "p@s/s", "port": "5433"}),
        ("postgres://u:p@ss@h/db", {"password": "p@ss", "host": "h"}),
        ("postgresql+asyncpg://h/db?ssl=require", {"sslmode": "require"}),
        ("postgresql+psycopg://h/db?sslmode=verify_full", {"sslmode": "verify-full"}),
        ("postgresql+psycopg2://h/db?ssl=true&sslmode=require", {"sslmode": "require"}),
        ("postgresql:///db?host=/run/postgresql&port=5433", {"host": "/run/postgresql", "port": "5433"}),
        ("postgresql://u@%2Frun%2Fpostgresql/db", {"host": "/run/postgresql", "user": "u"}),
        ("postgresql://h/db?user=u&password=p%25", {"user": "u", "password": "p%"}),
        ("postgresql://a:1,b:2/db?target_session_attrs=read-write", {"host": "a,b", "port": "1,2"}),
        ("postgresql://[::1]:5432/db", {"host": "::1", "port": "5432"}),
        ("postgresql://h/db?options=-c%20search_path%3Dx", {"options": "-c search_path=x"}),
        ("postgresql://h/db?application_name=a+b", {"application_name": "a+b"}),
        ("postgresql://h/db?pgbouncer=true&connect_timeout=9", {"host": "h", "connect_timeout": "9"}),
        ("postgresql://h/db", {"connect_timeout": "5"}),
    ],
)
def test_a_postgresql_url__is_read_in_every_spelling(written: str, meant: dict[str, str]) -> None:
    settings = load({"DATABASE_URL": written}, env_file=Path("absent"))
    assert settings.postgres is not None
    found = conninfo_to_dict(settings.postgres.url)
    assert {name: found.get(name) for name in meant} == meant


def test_both_drivers__get_where_it_says(postgres: Postgres) -> None:
    postgres.execute('CREATE DATABASE "a b/c%"')
    postgres.execute("CREATE ROLE \"u:\" LOGIN PASSWORD 'p &%@'")
    url = postgres_url(
        "X", f"postgres://u%3A:p%20%26%25%40@127.0.0.1:{postgres.port}/a%20b%2Fc%25?application_name=x%26y"
    )
    question = "SELECT current_database(), current_user::text, current_setting('application_name')"

    async def ask() -> tuple[str, ...]:
        connection = await asyncpg.connect(**url.asyncpg)
        try:
            return tuple(await connection.fetchrow(question))
        finally:
            await connection.close()

    with psycopg.connect(url.url) as connection:
        assert connection.execute(question).fetchone() == ("a b/c%", "u:", "x&y")
    assert asyncio.run(ask()) == ("a b/c%", "u:", "x&y")


def test_both_drivers__find_a_socket(postgres: Postgres) -> None:
    url = postgres_url("X", f"postgresql://postgres@/postgres?host={postgres.directory}&port={postgres.port}")

    async def ask() -> object:
        connection = await asyncpg.connect(**url.asyncpg)
        try:
            return await connection.fetchval("SELECT inet_server_addr() IS NULL")
        finally:
            await connection.close()

    with psycopg.connect(url.url) as connection:
        assert connection.execute("SELECT inet_server_addr() IS NULL").fetchone() == (True,)
    assert asyncio.run(ask()) is True


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ("postgresql://u:secret@h/db?foo=1&bar=2", "not known: foo, bar;"),
        ("postgresql://u:secret@h/db?sslmode=yes", "sslmode must be one of"),
        ("postgresql://u:secret@h/db?sslmode=require&ssl=disable", "say different things"),
        ("postgresql://u:secret@h/db?sslmode=require&sslmode=require", "gives the parameter sslmode twice"),
        ("postgresql://u:secret@h/db?sslrootcert=/no/such.crt", "there is no file /no/such.crt"),
        ("postgresql://u:secret@h:port/db", "a port is a number"),
        ("postgresql://u:secret@h:65536/db", "a port is a number"),
        ("postgresql://u:sec/ret@h/db", "%40"),
        ("postgresql://u:secret?x@h/db", "%40"),
        ("postgresql://u:secret#x@h/db", "%40"),
        ("postgresql://u:secret@h/db?user=v", "gives user twice"),
        ("postgresql://u:secret@h", "names no database"),
        ("postgresql://u:secret@h:5432/?sslmode=require", "names no database"),
        ("postgresql://u:secret@h/db?connect_timeout=soon", "connect_timeout must be 1 to 600"),
        ("mysql://u:secret@h/db", "mysql://… is not a database"),
        ("secret", "postgresql://user:password@host/database"),
    ],
)
def test_a_url_that_cannot_be_used__is_refused_without_its_password(written: str, sentence: str) -> None:
    with pytest.raises(Invalid) as caught:
        load({"DATABASE_URL": written}, env_file=Path("absent"))
    assert caught.value.errors[0].path == "DATABASE_URL"
    assert sentence in caught.value.detail
    assert not re.search(r"\bsec(ret)?\b", caught.value.detail)


def test_a_root_certificate__is_checked_unless_said_otherwise(tmp_path: Path) -> None:
    root = tmp_path / "root.crt"
    root.write_text("")
    for written, mode in (
        (f"postgresql://h/db?sslrootcert={root}", "verify-full"),
        (f"postgresql://h/db?sslrootcert={root}&sslmode=require", "require"),
    ):
        url = postgres_url("X", written)
        assert conninfo_to_dict(url.url)["sslmode"] == mode


@pytest.mark.parametrize(
    ("url", "prepared"),
    [
        ("postgresql://h/db", True),
        ("postgresql://h:6432/db", False),
        ("postgresql://pgbouncer/db", False),
        ("postgresql://x-pooler.example.com/db", False),
        ("postgresql://h/db?pgbouncer=true", False),
        ("postgresql://h/db?prepared_statement_cache_size=0", False),
        ("postgresql:///db?host=/run/pgbouncer&port=6432", False),
    ],
)
def test_statements__are_prepared_unless_a_pooler_shows(url: str, prepared: bool) -> None:
    found = postgres_url("X", url)
    assert Settings().prepares(found) is prepared
    assert Settings(database_prepared="on").prepares(found)
    assert not Settings(database_prepared="off").prepares(found)


def test_where_events_are_and_where_reports_read_them() -> None:
    embedded = Settings()
    assert (embedded.postgres, embedded.events_postgres, embedded.report_postgres) == (None, None, None)
    one = Settings(database_url="postgres://h/db")
    assert one.postgres == one.events_postgres == one.report_postgres
    three = Settings(
        database_url="postgres://h/db",
        events_url="postgres://e/db",
        report_database_url="postgres://r/db",
    )
    shown = [each.shown for each in (three.postgres, three.events_postgres, three.report_postgres) if each]
    assert shown == ["postgresql://h/db", "postgresql://e/db", "postgresql://r/db"]


@pytest.mark.parametrize(
    ("environment", "field", "sentence"),
    [
        ({"EVENTS_URL": "clickhouse://u:secret@h/db"}, "EVENTS_URL", "must be a postgresql:// URL"),
        ({"EVENTS_URL": "postgresql://u:secret@h/db"}, "EVENTS_URL", "needs a PostgreSQL in DATABASE_URL"),
        ({"REPORT_DATABASE_URL": "postgresql://u:secret@h/db"}, "REPORT_DATABASE_URL", "needs a PostgreSQL"),
        ({"RETENTION": "page_view"}, "RETENTION", "page_view=90d"),
        ({"RETENTION": "page_view=0d"}, "RETENTION", "page_view=90d"),
        ({"RETENTION": "a=1d,a=2d"}, "RETENTION", "names a twice"),
        ({"DATABASE_POOL_SIZE": "0"}, "DATABASE_POOL_SIZE", ">= 1"),
        ({"DATABASE_PREPARED": "maybe"}, "DATABASE_PREPARED", "maybe"),
        ({"STATEMENT_TIMEOUT": "0"}, "STATEMENT_TIMEOUT", "> 0"),
        ({"SHUTDOWN_DELAY": "-1"}, "SHUTDOWN_DELAY", ">= 0"),
        ({"DRAIN_TIMEOUT": "soon"}, "DRAIN_TIMEOUT", "soon"),
    ],
)
def test_a_setting_that_cannot_be__is_named(environment: dict[str, str], field: str, sentence: str) -> None:
    with pytest.raises(Invalid) as caught:
        load(environment, env_file=Path("absent"))
    assert caught.value.errors[0].path == field
    assert sentence in caught.value.detail
    assert "secret" not in caught.value.detail


def test_retention__is_by_type() -> None:
    settings = Settings(database_url="postgres://h/db", retention="page_view=90d, *=52w,a=b=12h")
    assert settings.retained == {
        "page_view": timedelta(days=90),
        "*": timedelta(weeks=52),
        "a=b": timedelta(hours=12),
    }
    assert Settings().retained == {}


def test_no_password__shows_in_settings() -> None:
    settings = Settings(
        database_url="postgres://u:sec/r@et@h/db?sslmode=require",
        events_url="postgres://h/db?user=u&password=secret&sslmode=require",
        unleash_url="https://u:secret@h/api",
        api_token="secret",
    )
    shown = repr(settings)
    assert "sec" not in shown.replace("seconds", "")
    assert "postgres://u:***@h/db?sslmode=require" in shown
    assert "secret" not in repr(postgres_url("X", "postgres://u:secret@h/db"))
