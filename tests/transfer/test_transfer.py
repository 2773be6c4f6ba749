"""`assay transfer`: everything is there afterwards, and everything answers as it did."""

import asyncio
import hashlib
import sqlite3
from pathlib import Path
from typing import Any

import duckdb
import httpx2
import psycopg
import pytest

from assay.stores.commands import perform
from assay.wiring import Application
from inprocess import running
from live import Server, run
from transfer.conftest import Made
from transfer.installation import USERS, answers, held, journey

_SERVED = {"ADMIN_TOKEN": "the-admin-key"}


def moved(data: Path, url: str, *, seconds: float = 120) -> str:
    """Transfer; what the command printed."""
    done = run("transfer", "--data", data, "--to", url, cwd=data.parent, seconds=seconds)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def refused(data: Path, url: str, *more: str) -> str:
    """What the command says when it refuses."""
    done = run("transfer", "--data", data, "--to", url, *more, cwd=data.parent)
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(statement.encode()).fetchall()


def content(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, as text; apart from when a transfer was."""
    tables = [
        row[0]
        for row in rows(
            url, "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        )
        if row[0] != "transfer"
    ]
    return {name: sorted(rows(url, f"SELECT CAST(t AS TEXT) FROM {name} AS t")) for name in sorted(tables)}


def form(url: str) -> list[tuple[Any, ...]]:
    """Every index and every constraint."""
    tables = "tablename NOT LIKE 'transfer%'"
    indexes = rows(url, f"SELECT tablename, indexname, indexdef FROM pg_indexes WHERE {tables} ORDER BY 2")
    named = "conrelid::regclass::text AS tablename, conname, pg_get_constraintdef(oid)"
    constraints = rows(
        url,
        f"SELECT * FROM (SELECT {named} FROM pg_constraint) AS c WHERE {tables} ORDER BY 1, 2",
    )
    return [
        row for row in [*indexes, *constraints] if not row[0].startswith(("-", "pg_", "information_schema"))
    ]


def files(data: Path) -> dict[str, str]:
    """What a data directory holds, as digests of its tables."""
    found = {}
    with sqlite3.connect(data / "assay.db") as catalog:
        found["assay.db"] = hashlib.sha256("\n".join(catalog.iterdump()).encode()).hexdigest()
    with duckdb.connect(str(data / "events.duckdb"), read_only=True) as events:
        for (name,) in events.execute("SELECT table_name FROM duckdb_tables()").fetchall():
            found[name] = hashlib.sha256(repr(events.execute(f"FROM {name}").fetchall()).encode()).hexdigest()
    return found


def test_everything__answers_as_before(
    made: Made, data: Path, postgres_url: str, elsewhere: dict[str, str]
) -> None:
    before = files(data)
    said = moved(data, postgres_url)
    assert "differs" not in said
    assert "assay serve --workers" in said.splitlines()[-2] or "assay serve --workers" in said
    assert files(data) == before
    after = answers(elsewhere, made.facts)
    for path, answer in made.answers.items():
        assert after[path] == answer, path


def test_life_goes_on(made: Made, data: Path, postgres_url: str, elsewhere: dict[str, str]) -> None:
    moved(data, postgres_url)
    facts = made.facts

    async def going_on(client: httpx2.AsyncClient, application: Application) -> None:
        assert {user: await held(client, user) for user in USERS} == facts["held"]
        total = (await client.get("/api/v1/experiments")).json()
        fresh = await running(client, name="Fresh")
        assert fresh["id"] > max(*facts["ids"].values(), facts["purged"])
        assert min(each["id"] for each in fresh["variants"]) > 16
        assert total["total"] == made.answers["experiments"][1]["total"]
        new = (await client.post("/api/v1/experiments/main/assign", json={"user_id": "somebody new"})).json()
        assert new["variant_id"]
        main = f"/api/v1/experiments/{facts['ids']['main']}"
        before = (await client.get(f"{main}/events/ledger")).json()["totals"]
        known = [
            {"user_id": "u0", "type": "buy", "event_id": "order 0"},
            {"user_id": "u3", "type": "buy", "event_id": "i3"},
            {"user_id": "u1", "type": "buy", "event_id": "fresh one"},
        ]
        await client.post("/api/v1/events", json=known)
        after = (await client.get(f"{main}/events/ledger")).json()["totals"]
        assert after["duplicate"] == before["duplicate"] + 2
        assert after["counted"] == before["counted"] + 1
        listed = (await client.get("/api/v1/events", params={"user_id": "u1", "limit": "1"})).json()
        assert listed["events"][0]["event_id"] == "fresh one"
        heard: list[Any] = []
        request = {"do": "import", "request": {"kind": "events", "path": facts["file"]}}
        await asyncio.to_thread(perform, application.stores, request, heard.append)
        assert (heard[-1]["done"]["events"], heard[-1]["done"]["duplicates"]) == (0, 20)

    journey(elsewhere, going_on)
    assert rows(postgres_url, "SELECT min(seq) FROM events")[0][0] < 0
    assert rows(postgres_url, "SELECT max(seq) FROM events")[0][0] >= 10**15


def test_keys_and_the_admin_key__work_on__and_revoked_ones_do_not(
    made: Made, tmp_path: Path, postgres_url: str
) -> None:
    with Server(tmp_path / "data") as server, server.client() as client:
        gone = client.post("/api/v1/auth/keys", json={"name": "gone", "role": "viewer"}).json()
        client.delete(f"/api/v1/auth/keys/{gone['id']}")
        kept = client.post("/api/v1/auth/keys", json={"name": "kept", "role": "viewer"}).json()
        assert server.stop() == 0
    moved(tmp_path / "data", postgres_url)
    with Server(tmp_path / "data", {"DATABASE_URL": postgres_url}) as server:
        for key, status in ((server.key, 200), (kept["key"], 200), (gone["key"], 401)):
            with server.client(key) as client:
                assert client.get("/api/v1/experiments").status_code == status
        with server.client() as client:
            more = client.post("/api/v1/auth/keys", json={"name": "more", "role": "viewer"}).json()
            assert more["id"] == kept["id"] + 1


def test_repeated__says_so_and_changes_nothing(data: Path, postgres_url: str) -> None:
    moved(data, postgres_url)
    before = content(postgres_url)
    assert "Everything was transferred to" in moved(data, postgres_url)
    assert content(postgres_url) == before


def test_database_url_names_the_target__in_any_spelling(data: Path, postgres_url: str) -> None:
    url = postgres_url.replace("postgresql://", "postgres://") + "?sslmode=disable"
    done = run(
        *("transfer", "--from", "sqlite+duckdb", "--to", "postgresql", "--data", data),
        cwd=data.parent,
        extra={"DATABASE_URL": url, "ASSAY_WORKERS": "4", "RETENTION": "*=400d"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Next: assay serve --workers ")


def test_a_database_migrated_and_never_used__is_empty__and_keeps_its_form(
    data: Path, postgres_url: str
) -> None:
    done = run("migrate", cwd=data.parent, extra={"DATABASE_URL": postgres_url})
    assert done.returncode == 0, done.stderr
    before = form(postgres_url)
    assert before
    moved(data, postgres_url)
    assert form(postgres_url) == before


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("CREATE TABLE orders (id INT)", "has a table orders"),
        ("CREATE TABLE users (id INT); INSERT INTO users VALUES (1)", "has rows in users"),
    ],
)
def test_a_target_with_anything_else__is_refused_untouched(
    data: Path, postgres_url: str, statement: str, why: str
) -> None:
    with psycopg.connect(postgres_url) as connection:
        connection.execute(statement.encode())
    before = content(postgres_url)
    said = refused(data, postgres_url)
    assert why in said
    assert content(postgres_url) == before


def test_a_target_of_another_installation__is_refused_untouched(
    data: Path, postgres_url: str, tmp_path: Path
) -> None:
    with Server(tmp_path / "other") as server:
        assert server.stop() == 0
    moved(tmp_path / "other", postgres_url)
    before = content(postgres_url)
    assert "holds a transfer of another installation" in refused(data, postgres_url)
    assert content(postgres_url) == before


def test_a_running_server__is_named_and_nothing_is_touched(tmp_path: Path, postgres_url: str) -> None:
    with Server(tmp_path / "data") as server:
        said = refused(tmp_path / "data", postgres_url)
        assert f"in use by process {server.pid}" in said
    assert content(postgres_url) == {}


def test_no_installation__no_database__no_such_source(tmp_path: Path, data: Path, postgres_url: str) -> None:
    assert "There is no installation at" in refused(tmp_path / "nothing", postgres_url)
    assert not (tmp_path / "nothing").exists()
    assert "cannot be used" in refused(data, "postgresql://nobody@127.0.0.1:1/none")
    assert "sqlite+duckdb" in refused(data, postgres_url, "--from", "mysql")
    assert "names no PostgreSQL" in refused(data, "sqlite:///here.db")
    assert content(postgres_url) == {}


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (
            "UPDATE users SET attributes = '{\"a\": NaN}' WHERE id = 'u7'",
            "users.attributes of id 'u7' is not JSON",
        ),
        (
            "UPDATE audit SET actor = 'a' || char(0) WHERE id = 3",
            "audit.actor of id 3 contains the character NUL",
        ),
        (
            "UPDATE overrides SET unit_id = replace(hex(zeroblob(999)), '00', '€')",
            "overrides.unit_id of experiment_id 1, unit_id",
        ),
    ],
)
def test_what_postgresql_cannot_hold__is_named_first(
    data: Path, postgres_url: str, statement: str, said: str
) -> None:
    with sqlite3.connect(data / "assay.db") as catalog:
        catalog.execute(statement)
    assert said in refused(data, postgres_url)
    assert content(postgres_url) == {}


def test_an_event_that_postgresql_cannot_hold__is_named_first(data: Path, postgres_url: str) -> None:
    with duckdb.connect(str(data / "events.duckdb")) as events:
        [(seq,)] = events.execute("SELECT max(seq) FROM events").fetchall()
        events.execute("UPDATE events SET properties = '{' || chr(0) || '}' WHERE seq = ?", [seq])
    assert f"events.properties of seq {seq} contains the character NUL" in refused(data, postgres_url)
    assert content(postgres_url) == {}


def test_two_events_with_one_id_of_ours__both_stay(data: Path, postgres_url: str) -> None:
    """PostgreSQL tells a user's events apart by their ids, DuckDB only by those that callers chose."""
    with duckdb.connect(str(data / "events.duckdb")) as events:
        events.execute(
            "INSERT INTO events SELECT * REPLACE (seq + 1000000 AS seq) FROM events "
            "WHERE NOT keyed AND user_id = 'u8'"
        )
        events.execute("UPDATE rollups SET form = 0")  # what is kept of the events knows nothing of these
        [(count,)] = events.execute("SELECT count(*) FROM events").fetchall()
        kept = events.execute(
            "SELECT CAST(event_id AS VARCHAR) FROM events WHERE seq < 1000000 AND user_id = 'u8'"
        )
        ids = {row[0] for row in kept.fetchall()}
    with sqlite3.connect(data / "assay.db") as catalog:
        catalog.execute("UPDATE sqlite_sequence SET seq = 100 WHERE name = 'inbox'")
    moved(data, postgres_url)
    assert rows(postgres_url, "SELECT count(*) FROM events") == [(count,)]
    there = {str(row[0]) for row in rows(postgres_url, "SELECT event_id FROM events WHERE user_id = 'u8'")}
    assert ids < there
