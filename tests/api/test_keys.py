"""API keys: shown once, revoked at once."""

import hashlib
import sqlite3

import pytest

from api.conftest import House, moment


def test_a_key_is_shown_once_and_stored_as_a_digest(house: House) -> None:
    response = house.ask("POST", "/auth/keys", {"name": "mobile app"})
    assert response.status_code == 201
    made = response.json()
    secret = made.pop("key")
    assert made == {
        "id": 5,
        "name": "mobile app",
        "role": "client",
        "prefix": secret[:12],
        "is_active": True,
        "created_at": made["created_at"],
        "experiments": None,
        "tags": None,
        "last_used_at": None,
        "expires_at": None,
    }
    assert secret.startswith("assay_")
    assert len(secret) == 6 + 43
    assert house.ask("GET", "/auth/keys").json()["keys"][0] == made
    assert secret not in house.ask("GET", "/auth/keys").text + house.ask("GET", "/api/v1/audit").text
    with sqlite3.connect(house.path) as connection:
        (digest,) = connection.execute("SELECT digest FROM api_keys WHERE id = 5").fetchone()
    connection.close()
    assert digest == hashlib.sha256(secret.encode()).hexdigest()
    for suffix in ("", "-wal"):
        assert secret.encode() not in house.path.with_name(house.path.name + suffix).read_bytes()


def test_a_revoked_key_ends_at_once(house: House) -> None:
    made = house.ask("POST", "/auth/keys", {"name": "k", "role": "viewer"}).json()
    headers = {"Authorization": f"Bearer {made['key']}"}
    assert house.ask("GET", "/experiments", role=None, headers=headers).status_code == 200
    assert house.ask("DELETE", f"/auth/keys/{made['id']}").status_code == 204
    assert house.ask("GET", "/experiments", role=None, headers=headers).status_code == 401
    assert house.ask("DELETE", f"/auth/keys/{made['id']}").status_code == 404
    listed = house.ask("GET", "/auth/keys?limit=1").json()
    assert listed["total"] == 5
    assert [(each["id"], each["is_active"]) for each in listed["keys"]] == [(made["id"], False)]


def test_a_key_expires(house: House) -> None:
    soon = moment(house.clock.now + 10_000_000).isoformat()
    made = house.ask("POST", "/auth/keys", {"name": "k", "role": "viewer", "expires_at": soon}).json()
    headers = {"Authorization": f"Bearer {made['key']}"}
    assert house.ask("GET", "/experiments", role=None, headers=headers).status_code == 200
    house.clock.now += 10_000_000
    assert house.ask("GET", "/experiments", role=None, headers=headers).status_code == 401
    assert not house.ask("GET", "/auth/keys").json()["keys"][0]["is_active"]


def test_when_a_key_was_last_used_is_written_now_and_then(house: House) -> None:
    house.ask("GET", "/experiments", role="viewer")
    used = moment(house.clock.now)
    assert house.parts.key_use.flush(house.parts.database, used) == 1
    assert house.parts.key_use.flush(house.parts.database, used) == 0
    keys = {each["name"]: each["last_used_at"] for each in house.ask("GET", "/auth/keys").json()["keys"]}
    assert keys["viewer key"] == used.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    assert keys["editor key"] is None


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "k", "role": "root"}, "role"),
        ({"name": "k", "role": 1}, "role"),
        ({"name": "k", "expires_at": "2020-01-01"}, "expires_at"),
        ({"name": "k", "expires_at": "tomorrow"}, "expires_at"),
        ({"name": "k", "key": "assay_mine"}, "key"),
    ],
)
def test_keys_that_are_refused(house: House, body: object, path: str) -> None:
    before = house.counts()
    response = house.ask("POST", "/auth/keys", body)
    assert (response.status_code, response.json()["errors"][0]["path"]) == (422, path)
    assert house.counts() == before


@pytest.mark.parametrize("key", ["0", "999", "abc", "1e3", "9" * 30, "-1"])
def test_keys_that_are_not_there(house: House, key: str) -> None:
    assert house.ask("DELETE", f"/auth/keys/{key}").status_code == 404


def test_making_and_revoking_is_audited(house: House) -> None:
    made = house.ask("POST", "/auth/keys", {"name": "k"}).json()
    house.ask("DELETE", f"/auth/keys/{made['id']}")
    entries = house.ask("GET", "/api/v1/audit?noun=key&limit=2").json()["entries"]
    assert [(each["action"], each["noun_id"], each["actor"]) for each in entries] == [
        ("key.revoke", made["id"], "admin key"),
        ("key.create", made["id"], "admin key"),
    ]
    assert entries[1]["changes"] == {
        "name": {"from": None, "to": "k"},
        "role": {"from": None, "to": "client"},
    }
