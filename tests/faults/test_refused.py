"""What a broken client sends to the hot routes is refused by field and value, and leaves no trace."""

import gzip
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx2
import pytest

from live import Server, until

ASSIGN = "/api/v1/experiments/refusing/assign"
ELIGIBLE = "/api/v1/experiments/check-eligibility"
BULK = "/api/v1/assignments"
EVENTS = "/api/v1/events"
TRACK = "/api/v1/experiments/refusing/track"

MAKE = "/api/v1/experiments"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}

MEGABYTE = 1024 * 1024


class Case(NamedTuple):
    """One broken request: where it goes, what it is, and what the answer must say."""

    name: str
    route: str
    body: bytes
    status: int
    path: str | None = None
    says: str = ""
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed


def j(**fields: Any) -> bytes:
    """A JSON object; NaN and infinity as Python writes them."""
    return json.dumps(fields).encode()


def event(**fields: Any) -> bytes:
    """An event that would be good without these fields."""
    return j(**{"user_id": "u1", "type": "buy", **fields})


def split(*percent: float) -> bytes:
    """An experiment with these shares."""
    return j(name="x", variants=[{"name": f"v{i}", "allocation_percent": p} for i, p in enumerate(percent)])


def deep(levels: int) -> bytes:
    """A value inside that many arrays."""
    return b"[" * levels + b"1" + b"]" * levels


CASES = [
    # Unknown, missing and mistyped fields.
    Case("event-unknown-field", EVENTS, event(colour="red"), 422, "colour", "not a field"),
    Case("event-no-user", EVENTS, j(type="buy"), 422, "user_id", "missing"),
    Case("event-no-type", EVENTS, j(user_id="u1"), 422, "type", "missing"),
    Case("event-user-number", EVENTS, event(user_id=7), 422, "user_id", "7"),
    Case("event-value-text", EVENTS, event(value="9.99"), 422, "value", "9.99"),
    Case("event-value-bool", EVENTS, event(value=True), 422, "value", "true"),
    Case("event-properties-list", EVENTS, event(properties=[4711]), 422, "properties", "4711"),
    Case("event-variant-word", EVENTS, event(variant_id="blue"), 422, "variant_id", "blue"),
    Case("event-experiment-unknown", EVENTS, event(experiment_id=4711), 422, "experiment_id", "4711"),
    Case("event-is-a-number", EVENTS, b"4711", 422, None, "4711"),
    Case("event-both-types", EVENTS, event(event_name="sell"), 422, "event_name", "sell"),
    Case(
        "track-unknown-field",
        TRACK,
        j(user_id="u1", event_name="buy", colour="red"),
        422,
        "colour",
        "not a field",
    ),
    Case("track-many", TRACK, b"[" + event() + b"," + event() + b"]", 422, None, "one event"),
    Case("assign-unknown-field", ASSIGN, j(user_id="u1", colour="red"), 422, "colour", "unknown"),
    Case("assign-no-user", ASSIGN, j(context={}), 422, "user_id", "missing"),
    Case("assign-user-number", ASSIGN, j(user_id=4711), 422, "user_id", "4711"),
    Case("assign-user-null", ASSIGN, j(user_id=None), 422, "user_id", "None"),
    Case("assign-context-list", ASSIGN, j(user_id="u1", context=[4711]), 422, "context", "4711"),
    Case("assign-is-a-list", ASSIGN, b"[4711]", 422, None, "4711"),
    Case(
        "eligible-ids-number", ELIGIBLE, j(user_id="u1", experiment_ids=4711), 422, "experiment_ids", "4711"
    ),
    Case(
        "eligible-id-float", ELIGIBLE, j(user_id="u1", experiment_ids=[1.5]), 422, "experiment_ids[0]", "1.5"
    ),
    Case(
        "eligible-unknown-field",
        ELIGIBLE,
        j(user_id="u1", experiment_ids=[], colour=1),
        422,
        "colour",
        "unknown",
    ),
    Case("bulk-user-number", BULK, j(user_ids=["u1", 4711]), 422, "user_ids[1]", "4711"),
    Case("bulk-nobody", BULK, j(user_ids=[]), 422, "user_ids", ""),
    Case("bulk-unknown-field", BULK, j(user_ids=["u1"], colour=1), 422, "colour", "unknown"),
    # Experiments that add up to nothing.
    Case("make-unknown-field", MAKE, j(name="x", colour="red"), 422, "colour", "not a known field"),
    Case("make-no-name", MAKE, j(description="x"), 422, "name", "required"),
    Case("make-name-number", MAKE, j(name=4711), 422, "name", "4711"),
    Case("make-name-1mb", MAKE, j(name="x" * MEGABYTE), 422, "name", "200"),
    Case("make-negative-share", MAKE, split(-10, 110), 422, "variants[0].allocation_percent", "-10"),
    Case("make-share-above-100", MAKE, split(110), 422, "variants[0].allocation_percent", "110"),
    Case("make-sum-90", MAKE, split(50, 40), 422, "variants", "90"),
    Case("make-sum-120", MAKE, split(60, 60), 422, "variants", "120"),
    Case("make-share-nan", MAKE, split(float("nan"), 50), 400, None, "NaN"),
    Case("make-key-taken", MAKE, j(name="x", key="refusing"), 409, None, "refusing"),
    Case("make-doubled-field", MAKE, b'{"name":"x","name":"y"}', 400, None, "name"),
    Case("make-deep", MAKE, b'{"name":"x","condition":' + deep(100_000) + b"}", 400, None, "nested"),
    Case("make-100000-variants", MAKE, split(*[0.001] * 100_000), 422, "variants", "100"),
    Case("make-body-10mb", MAKE, j(name="x", description="y" * 10 * MEGABYTE), 413, None, "8388608"),
    Case("make-form", MAKE, b"name=x", 415, None, "x-www-form", FORM),
    # Numbers that are none.
    Case("event-value-nan", EVENTS, event(value=float("nan")), 422, "value", "NaN"),
    Case("event-value-infinity", EVENTS, event(value=float("inf")), 422, "value", "Infinity"),
    Case(
        "event-value-1e999",
        EVENTS,
        b'{"user_id":"u1","type":"buy","value":1e999}',
        422,
        "value",
        "beyond the largest",
    ),
    Case(
        "event-property-nan",
        EVENTS,
        event(properties={"price": float("nan")}),
        422,
        "properties.price",
        "NaN",
    ),
    Case(
        "assign-context-nan",
        ASSIGN,
        j(user_id="u1", context={"age": float("nan")}),
        422,
        "context.age",
        "NaN",
    ),
    Case(
        "assign-context-1e999",
        ASSIGN,
        b'{"user_id":"u1","context":{"age":1e999}}',
        422,
        "context.age",
        "finite",
    ),
    # Ids and names.
    Case("event-user-nul", EVENTS, event(user_id="u\0🙂"), 422, "user_id", "NUL"),
    Case("event-user-empty", EVENTS, event(user_id=""), 422, "user_id", "empty"),
    Case("event-id-nul", EVENTS, event(event_id="e\0"), 422, "event_id", "NUL"),
    Case("event-type-1mb", EVENTS, event(type="x" * MEGABYTE), 413, None, "65536"),
    Case("event-user-201", EVENTS, event(user_id="x" * 201), 422, "user_id", "200"),
    Case("event-user-half-surrogate", EVENTS, b'{"user_id":"u\\ud83d","type":"buy"}', 422, "user_id", "d83d"),
    Case("assign-user-nul", ASSIGN, j(user_id="u\0🙂"), 422, "user_id", "NUL"),
    Case("assign-user-empty", ASSIGN, j(user_id=""), 422, "user_id", "empty"),
    Case("assign-user-1mb", ASSIGN, j(user_id="x" * MEGABYTE), 422, "user_id", "1048576"),
    Case("bulk-user-nul", BULK, j(user_ids=["u1", "u\0"]), 422, "user_ids[1]", "NUL"),
    Case("bulk-user-201", BULK, j(user_ids=["x" * 201]), 422, "user_ids[0]", "201"),
    Case("eligible-user-nul", ELIGIBLE, j(user_id="\0", experiment_ids=["refusing"]), 422, "user_id", "NUL"),
    # Times.
    Case("event-time-word", EVENTS, event(timestamp="yesterday"), 422, "timestamp", "yesterday"),
    Case("event-time-month-13", EVENTS, event(timestamp="2026-13-01"), 422, "timestamp", "2026-13-01"),
    Case("event-time-negative", EVENTS, event(timestamp=-1), 422, "timestamp", "-1"),
    Case("event-time-1970", EVENTS, event(timestamp="1970-01-01T00:00:00"), 422, "timestamp", "2000"),
    Case("event-time-9999", EVENTS, event(timestamp="9999-12-31T23:59:59"), 422, "timestamp", "9999"),
    Case("event-time-huge", EVENTS, event(timestamp=10**30), 422, "timestamp", "1000000"),
    Case("event-time-object", EVENTS, event(timestamp={"at": 4711}), 422, "timestamp", "4711"),
    # Size and depth.
    Case("event-body-10mb", EVENTS, event(properties={"x": "y" * 10 * MEGABYTE}), 413, None, "8388608"),
    Case(
        "assign-body-10mb", ASSIGN, j(user_id="u1", context={"x": "y" * 10 * MEGABYTE}), 413, None, "8388608"
    ),
    Case("bulk-body-10mb", BULK, j(user_ids=["y" * 10 * MEGABYTE]), 413, None, "8388608"),
    Case("event-100000", EVENTS, b"[" + b",".join([event()] * 100_000) + b"]", 413, None, "100000"),
    Case("bulk-100000", BULK, j(user_ids=[f"u{i}" for i in range(100_000)]), 422, "user_ids", "100000"),
    Case(
        "eligible-100000",
        ELIGIBLE,
        j(user_id="u1", experiment_ids=[1] * 100_000),
        422,
        "experiment_ids",
        "100000",
    ),
    Case(
        "event-101-properties",
        EVENTS,
        event(properties={f"p{i}": i for i in range(101)}),
        422,
        "properties",
        "101",
    ),
    Case(
        "event-deep-property",
        EVENTS,
        event()[:-1] + b',"properties":{"x":' + deep(20_000) + b"}}",
        422,
        None,
        "deep",
    ),
    Case("event-deep", EVENTS, deep(100_000), 422, None, "deep"),
    Case(
        "assign-deep", ASSIGN, b'{"user_id":"u1","context":{"x":' + deep(100_000) + b"}}", 422, None, "deep"
    ),
    # Not the JSON it says it is.
    Case("event-utf8", EVENTS, b'{"user_id":"u\xff","type":"buy"}', 400, None, "UTF-8"),
    Case("assign-utf8", ASSIGN, b'{"user_id":"u\xff"}', 400, None, "UTF-8"),
    Case("event-cut-off", EVENTS, event()[:-4], 400, None, "JSON"),
    Case("assign-cut-off", ASSIGN, j(user_id="u1")[:-2], 400, None, "JSON"),
    Case("event-empty", EVENTS, b"", 400, None, "empty"),
    Case("assign-empty", ASSIGN, b"", 400, None, "empty"),
    Case(
        "event-form",
        EVENTS,
        b"user_id=u1",
        415,
        None,
        "x-www-form",
        FORM,
    ),
    Case("assign-xml", ASSIGN, b"<user/>", 415, None, "text/xml", {"Content-Type": "text/xml"}),
    Case("event-bad-gzip", EVENTS, b"\x1f\x8bnothing", 400, None, "gzip", {"Content-Encoding": "gzip"}),
    Case(
        "event-half-gzip",
        EVENTS,
        gzip.compress(event() + b" " * 999)[:-9],
        400,
        None,
        "gzip",
        {"Content-Encoding": "gzip"},
    ),
    Case("event-brotli", EVENTS, event(), 415, None, "br", {"Content-Encoding": "br"}),
    Case(
        "event-gzip-bomb",
        EVENTS,
        gzip.compress(b" " * 200 * MEGABYTE, 9),
        413,
        None,
        "8388608",
        {"Content-Encoding": "gzip"},
    ),
    Case(
        "assign-gzip-bomb",
        ASSIGN,
        gzip.compress(b" " * 200 * MEGABYTE, 9),
        413,
        None,
        "8388608",
        {"Content-Encoding": "gzip"},
    ),
]


@pytest.fixture(scope="module")
def client(shared_server: Server) -> Iterator[httpx2.Client]:
    with shared_server.client() as client:
        made = client.post(
            "/api/v1/experiments",
            json={"name": "Refusing", "key": "refusing", "variants": [{"name": "control", "allocation": 1}]},
        )
        assert made.status_code == 201, made.text
        assert client.post("/api/v1/experiments/refusing/start").status_code == 200
        yield client


def stored(client: httpx2.Client) -> tuple[int, int, int]:
    """How many events, assignments and experiments there are."""
    events = client.get("/api/v1/events", params={"limit": 100}).json()["events"]
    assignments = client.get("/api/v1/experiments/refusing/assignments", params={"limit": 100}).json()
    return len(events), len(assignments["assignments"]), client.get("/api/v1/experiments").json()["total"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_broken_request__refused_by_name__nothing_stored(client: httpx2.Client, case: Case) -> None:
    answer = client.post(
        case.route, content=case.body, headers={"Content-Type": "application/json", **case.headers}
    )
    problem = answer.json()
    assert answer.status_code == case.status, problem
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["status"] == case.status
    said = problem["detail"] + "".join(f" {each['path']}: {each['message']}" for each in problem["errors"])
    assert case.says in said
    if case.path is not None:
        assert case.path in [each["path"] for each in problem["errors"]]
    assert len(answer.content) < 2000
    assert stored(client) == (0, 0, 1)


def test_good_beside_bad__only_the_good_is_stored(server: Server) -> None:
    lines = b"\n".join(
        [event(event_id="a"), b"{", event(event_id="b", value=float("nan")), event(event_id="c")]
    )
    with server.client() as client:
        answer = client.post(EVENTS, content=lines, headers={"Content-Type": "application/x-ndjson"})
        assert answer.status_code == 202
        assert answer.json()["accepted"] == 2
        assert [each["index"] for each in answer.json()["rejected"]] == [1, 2]
        assert answer.json()["event_ids"] == ["a", "c"]

        def listed() -> list[str] | None:
            found = client.get("/api/v1/events").json()["events"]
            return [each["event_id"] for each in found] if len(found) == 2 else None

        assert sorted(until(listed, "both good events are listed")) == ["a", "c"]


def test_names_of_any_script__are_kept(server: Server) -> None:
    with server.client() as client:
        made = client.post("/experiments", json={"name": "Été 🙂"}).json()
        answer = client.post(f"/experiments/{made['id']}/assign", json={"user_id": "🙂 Ωmega"})
        assert answer.json()["user_id"] == "🙂 Ωmega"
        again = client.get(f"/experiments/{made['id']}/assignment/%F0%9F%99%82%20%CE%A9mega")
        assert again.json() == answer.json()
        assert made["name"] == "Été 🙂"
