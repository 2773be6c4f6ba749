"""Listing events and the ledger over HTTP, on a real event store."""

import json
from typing import Any

import pytest

from api.conftest import START, House

HALVES = [{"name": "control", "allocation": 0.5}, {"name": "b", "allocation": 0.5}]
SECOND = 1_000_000


def ids(response: Any) -> list[str]:
    assert response.status_code == 200, response.text
    return [each["event_id"] for each in response.json()["events"]]


@pytest.fixture
def world(house: House) -> House:
    """Two users in experiment 1, and events of theirs and a stranger's; event n happened at second n."""
    house.made({"name": "x", "variants": HALVES, "status": "running"})
    house.made({"name": "y", "status": "running"})
    assignments = [[1, 1, "u1", 1, 1, START], [2, 1, "u2", 2, 1, START + 5 * SECOND]]
    rows = [
        ("u1", "click", 1, None, {"a": 1.50, "b": "é"}),
        ("u1", "purchase", 2, 1, {}),
        ("u2", "click", 3, 1, {}),
        ("u2", "click", 6, 1, {}),
        ("u3", "click", 7, 1, {}),
        ("u1", "click", 8, 2, {}),
    ]
    events = [
        {
            "e": f"00000000-0000-0000-0000-{number:012}",
            "k": True,
            "u": user,
            "t": kind,
            "s": START + at * SECOND,
            "c": START + at * SECOND,
            "r": START + 60 * SECOND,
            **({"x": experiment} if experiment else {}),
            **({"p": properties} if properties else {}),
        }
        for number, (user, kind, at, experiment, properties) in enumerate(rows, 1)
    ]
    house.parts.store.append(
        (65_536 + len(events), 2),
        json.dumps([{"q": 1, "i": 0, "b": events}]),
        json.dumps(assignments),
        [(1, "click", "future", 4, ('{"type":"click"}',))],
    )
    return house


def name(number: int) -> str:
    return f"00000000-0000-0000-0000-{number:012}"


def test_events_are_listed_newest_first(world: House) -> None:
    assert ids(world.ask("GET", "/events")) == [name(at) for at in (6, 5, 4, 3, 2, 1)]
    assert ids(world.ask("GET", "/api/events?type=purchase")) == [name(2)]
    assert ids(world.ask("GET", "/events?type=purchase&type=click&user_id=u1")) == [name(6), name(2), name(1)]
    for spelling in ("event_type", "event_types"):
        assert ids(world.ask("GET", f"/events?{spelling}=purchase")) == [name(2)]
    assert ids(world.ask("GET", "/events?event_types=purchase&type=nothing")) == [name(2)]
    assert ids(world.ask("GET", "/events?event_types=zz")) == []
    assert ids(world.ask("GET", "/events?experiment_id=y")) == [name(6)]
    assert world.ask("GET", "/events?experiment_id=nowhere").status_code == 404
    assert len(world.flushes) == 8


def test_the_events_of_an_experiment(world: House) -> None:
    everything = [name(at) for at in (5, 4, 3, 2, 1)]
    for prefix in ("/api/v1", "/api", ""):
        assert ids(world.ask("POST", f"{prefix}/events/1", {})) == everything
    assert ids(world.ask("POST", "/events/x")) == everything
    body = {"variant_id": 2, "event_types": ["click", "conversion"]}
    assert ids(world.ask("POST", "/api/events/1", body)) == [name(4), name(3)]
    assert ids(world.ask("POST", "/events/1", {"user_ids": ["u3", "nobody"]})) == [name(5)]
    assert world.ask("POST", "/events/999", {}).status_code == 404


def test_an_event_as_it_was_sent(world: House) -> None:
    event = world.ask("GET", f"/events/{name(1)}").json()
    assert event == {
        "event_id": name(1),
        "user_id": "u1",
        "type": "click",
        "timestamp": "2026-11-18T11:06:41.000000Z",
        "received_at": "2026-11-18T11:07:40.000000Z",
        "value": None,
        "properties": {"a": 1.5, "b": "é"},
        "units": {},
        "experiment_id": None,
        "variant_id": None,
        "claimed_variant_id": None,
    }
    assert world.ask("GET", f"/events/{name(2)}").json()["variant_id"] == 1
    assert world.ask("GET", f"/events/{name(2)}?user_id=u1").status_code == 200
    assert world.ask("GET", f"/events/{name(2)}?user_id=u2").status_code == 404
    assert world.ask("GET", "/events/a%2Fb").status_code == 404


@pytest.mark.parametrize(
    ("window", "found"),
    [
        ({"start_time": "2026-11-18T11:06:43Z"}, [5, 4, 3]),
        ({"start_time": "2026-11-18T12:06:43+01:00"}, [5, 4, 3]),
        ({"end_time": "2026-11-18T11:06:43"}, [3, 2, 1]),
        ({"start_time": "2026-11-18", "end_time": "2026-11-18"}, [5, 4, 3, 2, 1]),
        ({"end_time": "2026-11-17"}, []),
        ({"start_time": "2026-11-19"}, []),
    ],
)
def test_a_window_is_inclusive_and_a_bare_date_a_whole_day(
    world: House, window: dict[str, str], found: list[int]
) -> None:
    assert ids(world.ask("POST", "/events/1", window)) == [name(at) for at in found]


def test_pages(world: House) -> None:
    seen, cursor = [], None
    for _ in range(3):
        page = world.ask("POST", "/events/1", {"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        seen += [each["event_id"] for each in page["events"]]
        cursor = page["next_cursor"]
    assert seen == [name(at) for at in (5, 4, 3, 2, 1)]
    assert cursor is None


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"variant_id": "2"}, "variant_id"),
        ({"event_types": "click"}, "event_types"),
        ({"event_types": [""]}, "event_types[0]"),
        ({"user_ids": [1]}, "user_ids[0]"),
        ({"start_time": "yesterday"}, "start_time"),
        ({"end_time": 5}, "end_time"),
        ({"cursor": "x"}, "cursor"),
        ({"limit": 1001}, "limit"),
        ({"types": []}, "types"),
    ],
)
def test_queries_that_are_refused(house: House, body: dict[str, Any], path: str) -> None:
    house.made({"name": "x"})
    response = house.ask("POST", "/events/1", body)
    assert (response.status_code, response.json()["errors"][0]["path"]) == (422, path)


def test_the_ledger(world: House) -> None:
    ledger = world.ask("GET", "/api/v1/experiments/x/events/ledger").json()
    assert ledger["experiment_id"] == 1
    by_type = {each["type"]: each["counts"] for each in ledger["types"]}
    assert by_type["purchase"]["counted"] == 1
    click = by_type["click"]
    assert {reason: count for reason, count in click.items() if count} == {
        "accepted": 4,
        "counted": 2,
        "before_assignment": 1,
        "unassigned": 1,
        "rejected": 4,
    }
    assert ledger["totals"]["counted"] == 3
    for spelling in ("type", "event_type", "event_types"):
        only = world.ask("GET", f"/experiments/1/events/ledger?{spelling}=purchase").json()
        assert [each["type"] for each in only["types"]] == ["purchase"]
