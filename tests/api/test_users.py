"""Users over HTTP: flat documents, and forgetting them."""

import hashlib
import sqlite3
from typing import Any

import pytest

from api.conftest import House


def test_a_user_is_flat_and_comes_back_as_it_came(house: House) -> None:
    body = {
        "id": "u1",
        "country_code": "US",
        "is_premium": True,
        "age": 31,
        "tags": ["a"],
        "address": {"zip": "1"},
    }
    made = house.ask("POST", "/users", body)
    assert made.status_code == 201
    document = made.json()
    assert {**document, "created_at": None} == {**body, "created_at": None}
    assert list(document)[2:] == list(body)[1:]
    assert house.ask("GET", "/api/users/u1").json() == document
    assert house.ask("GET", "/users").json() == {"users": [document], "total": 1, "skip": 0, "limit": 100}


def test_an_id_is_made_where_none_is_given(house: House) -> None:
    made = house.ask("POST", "/users", {"country_code": "US"}).json()
    assert len(made["id"]) == 36
    assert house.ask("GET", f"/users/{made['id']}").json() == made


def test_the_same_description_again_changes_nothing_and_another_is_a_conflict(house: House) -> None:
    body = {"id": "u1", "plan": "pro"}
    first = house.ask("POST", "/users", body)
    before = house.counts()
    again = house.ask("POST", "/users", body)
    assert (again.status_code, again.json()) == (200, first.json())
    other = house.ask("POST", "/users", {"id": "u1", "plan": "free"})
    assert (other.status_code, other.json()["code"]) == (409, "user_exists")
    assert house.counts() == before


def test_put_makes_or_replaces(house: House) -> None:
    assert house.ask("PUT", "/users/u1", {"plan": "pro"}).status_code == 201
    replaced = house.ask(
        "PUT", "/users/u1", {"id": "u1", "country": "DE", "created_at": "2020-02-03T04:05:06Z"}
    )
    assert replaced.status_code == 200
    assert replaced.json() == {"id": "u1", "created_at": "2020-02-03T04:05:06.000000Z", "country": "DE"}
    assert house.ask("PUT", "/users/u1", replaced.json()).json() == replaced.json()
    entries = house.ask("GET", "/api/v1/audit?noun=user").json()["entries"]
    assert [each["action"] for each in entries] == ["user.edit", "user.create"]
    assert entries[0]["changes"]["plan"] == {"from": "pro", "to": None}


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ([], "body"),
        ({"id": 1}, "id"),
        ({"id": "a", "created_at": "soon"}, "created_at"),
        ({"blob": "x" * 70_000}, "body"),
        ({f"a{at}": 1 for at in range(201)}, "body"),
        ({"": 1}, "body"),
        ({"a\x00": 1}, "body"),
        ({"x" * 201: 1}, "body"),
    ],
)
def test_users_that_are_refused(house: House, body: Any, path: str) -> None:
    before = house.counts()
    response = house.ask("POST", "/users", body)
    assert (response.status_code, response.json()["errors"][0]["path"]) == (422, path)
    assert house.ask("PUT", "/users/u1", body).status_code == 422
    assert house.ask("PUT", "/users/u1", {"id": "u2"}).json()["errors"][0]["path"] == "id"
    assert house.counts() == before


def test_forgetting_a_description(house: House) -> None:
    house.ask("PUT", "/users/u1", {"plan": "pro"})
    assert house.ask("DELETE", "/users/u1").status_code == 204
    assert house.ask("GET", "/users/u1").status_code == 404
    assert house.ask("DELETE", "/users/u1").status_code == 404


def test_erasing_removes_every_trace_and_says_what(house: House) -> None:
    halves = [{"name": "control", "allocation": 0.5}, {"name": "b", "allocation": 0.5}]
    experiment = house.made({"name": "x", "variants": halves, "status": "running"})["id"]
    segment = house.ask("POST", "/segments", {"name": "s"}).json()["id"]
    house.ask("PUT", f"/experiments/{experiment}/segments/{segment}")
    for user in ("ada@example.org", "bob"):
        house.ask("PUT", f"/users/{user}", {"plan": "pro"})
        house.ask("PUT", f"/segments/{segment}/users/{user}")
        house.ask("PUT", f"/experiments/{experiment}/overrides/{user}", {"variant": "b"})
    with sqlite3.connect(house.path) as connection:
        connection.execute(
            "INSERT INTO assignments (experiment_id, unit_id, variant_id, phase, assigned_at) "
            "VALUES (?, 'ada@example.org', 1, 1, 1)",
            (experiment,),
        )
    connection.close()
    answer = house.ask("DELETE", "/users/ada@example.org?erase=true")
    assert answer.status_code == 200
    assert answer.json() == {
        "user_id": "ada@example.org",
        "removed": {
            "users": 1,
            "segment_members": 1,
            "overrides": 1,
            "report_snapshots": 0,
            "audit_entries_anonymised": 3,
            "assignments": 1,
            "events": 0,
            "ledger_samples": 0,
        },
    }
    compiled = house.parts.published.ruleset.find(experiment)
    assert compiled is not None
    assert dict(compiled.overrides) == {"bob": 1}
    assert [each.matches("ada@example.org", {}) for each in compiled.segments] == [False]
    assert [each.matches("bob", {}) for each in compiled.segments] == [True]
    assert house.ask("GET", f"/segments/{segment}").json()["member_count"] == 1
    with sqlite3.connect(house.path) as connection:
        dump = "\n".join(connection.iterdump())
    connection.close()
    assert "ada@example.org" not in dump
    assert hashlib.sha256(b"ada@example.org").hexdigest() in dump
    again = house.ask("DELETE", "/users/ada@example.org?erase=true").json()["removed"]
    assert {name: count for name, count in again.items() if count} == {}
