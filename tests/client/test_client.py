"""The Python client against a real server process: what it promises when all is well, and when it is not."""

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from assay.client import AsyncClient, Change, Client, MemoryStickyBuckets, Options, Origin, Status
from live import Server, until
from proxy import Proxy

#: What a busy build machine may add to the times that are promised.
#: Seconds that a busy machine may add to a wait; what waits for an answer that never comes waits longer.
SLACK = 5.0
#: Failures are over soon; what a server that is there has to do may take its time.
QUICK = Options(
    retry=0.02,
    retry_most=0.2,
    flush_interval=0.05,
    request_wait=2.0,
    first_wait=60.0,
    assign_wait=60.0,
    exit_wait=60.0,
)
VARIANTS = [
    {"name": "control", "allocation": 0.5},
    {"name": "blue", "allocation": 0.5, "config": {"colour": "blue"}},
]


def made(server: Server, key: str, **fields: Any) -> dict[str, Any]:
    """A running experiment."""
    body = {"name": key, "key": key, "status": "running", "variants": VARIANTS, **fields}
    with server.client() as admin:
        answer = admin.post("/api/v1/experiments", json=body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def secret(server: Server) -> dict[str, Any]:
    with server.client() as admin:
        answer = admin.post("/auth/keys", json={"name": "app", "role": "client"})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def ledger(admin: httpx2.Client, key: str) -> dict[str, int]:
    totals: dict[str, int] = admin.get(f"/api/v1/experiments/{key}/events/ledger").json()["totals"]
    return totals


def port(server: Server) -> int:
    return int(server.url.rpartition(":")[2])


@pytest.fixture(scope="module")
def app_key(shared_server: Server) -> str:
    key: str = secret(shared_server)["key"]
    return key


@pytest.fixture
def client(shared_server: Server, app_key: str) -> Iterator[Client]:
    with Client(shared_server.url, app_key, QUICK) as running:
        yield running


@pytest.fixture
def proxy(shared_server: Server) -> Iterator[Proxy]:
    with Proxy(port(shared_server)) as running:
        yield running


def through(proxy: Proxy, key: str, options: Options = QUICK) -> Client:
    return Client(f"http://127.0.0.1:{proxy.port}", key, options)


def told(client: Client, wanted: Callable[[Change], bool]) -> threading.Event:
    """Set as soon as the client tells of a change like this."""
    heard = threading.Event()
    client.subscribe(lambda change: heard.set() if wanted(change) else None)
    return heard


def test_many_users_and_random_experiments__same_variant_value_and_reason_as_the_server(
    shared_server: Server, client: Client
) -> None:
    chance = random.Random(6)
    keys = []
    for number in range(25):
        count = chance.randint(1, 4)
        shares = [chance.randint(1, 9) for _ in range(count)]
        key = f"agree-{number}"
        made(
            shared_server,
            key,
            variants=[
                {
                    "name": f"v{at}",
                    "allocation_percent": 100 * share / sum(shares),
                    "config": chance.choice([{}, {"value": at}, {"n": at}]),
                }
                for at, share in enumerate(shares)
            ],
            traffic_allocation=chance.choice([0.2, 0.7, 1.0]),
            unit=chance.choice(["user_id", "user_id", "account_id"]),
            condition=chance.choice(
                [
                    None,
                    {"country": {"$in": ["US", "DE"]}},
                    {"version": {"$vgte": "2.0.0"}},
                    {"age": {"$lt": 40}},
                ]
            ),
        )
        keys.append(key)
    users = [
        {
            "user_id": chance.choice([f"user-{number}", f"ü-{number}-😀"]),
            "context": {
                "country": chance.choice(["US", "DE", "FR"]),
                "version": chance.choice(["1.9.0", "2.0.0", "2.10.1-beta"]),
                "age": chance.randint(10, 80),
            },
            "units": {} if chance.random() < 0.1 else {"account_id": f"acme-{chance.randint(1, 60)}"},
        }
        for number in range(200)
    ]
    assert client.wait_until_ready(60)
    unknown = client.evaluate("no-such-experiment", "nobody", expose=False).reason
    until(
        lambda: client.evaluate(keys[-1], "nobody", expose=False).reason != unknown,
        "the last experiment is known",
    )
    with shared_server.client() as admin:
        answer = admin.post("/api/v1/assignments", json={"units": users, "experiments": keys})
        assert answer.status_code == 200, answer.text
        served = answer.json()["assignments"]
    mine = [
        client.evaluate(key, user["user_id"], user["context"], units=user["units"], expose=False)
        for user in users
        for key in keys
    ]
    assert len(mine) == len(served) == 5_000
    for local, theirs in zip(mine, served, strict=True):
        assert (local.experiment, local.user_id) == (theirs["experiment_key"], theirs["user_id"])
        assert (local.variant, local.reason) == (theirs["variant_key"], theirs["reason"]), theirs
        config = theirs["config"] if theirs["assigned"] else None
        value = config.get("value", config) if config else theirs["variant"]
        assert local.value == value
    assert len({local.reason for local in mine}) >= 4


def test_what_users_met_and_did__is_what_the_results_count(shared_server: Server, client: Client) -> None:
    made(shared_server, "counted", primary_metric="purchase")
    assert client.wait_until_ready(60)
    users = [f"user-{number}" for number in range(120)]
    until(lambda: client.evaluate("counted", "nobody", expose=False).assigned, "the experiment is known")
    groups: dict[str | None, int] = {}
    for user in users:
        found = client.evaluate("counted", user)
        groups[found.variant] = groups.get(found.variant, 0) + 1
        assert client.value("counted", user, {"colour": "grey"}) in ({"colour": "grey"}, {"colour": "blue"})
        # At once: the clocks of two processes differ, and still it does not count as before the exposure.
        client.track(user, "purchase", value=2.5, properties={"item": "book"})
    assert client.flush(60)
    done = client.delivery()
    assert (done.accepted, done.lost, done.rejected, done.pending) == (240, 0, 0, 0)
    with shared_server.client() as admin:
        stats = admin.get("/api/v1/experiments/counted/stats").json()
        totals = ledger(admin, "counted")
    arms = {arm["variant"]: (arm["sample_size"], arm["conversions"]) for arm in stats["variants"]}
    assert arms == {name: (number, number) for name, number in groups.items()}
    assert (totals["counted"], totals["before_assignment"], totals["duplicate"]) == (120, 0, 0)


def test_clock_an_hour_ahead__events_count_all_the_same(
    shared_server: Server, app_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(shared_server, "clock", primary_metric="purchase")
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + 3_600 * 10**9)
    with Client(shared_server.url, app_key, QUICK) as client:
        for number in range(20):
            # Of users of its own: times are corrected to a second, and another test may just have sent some.
            client.evaluate("clock", f"ahead-{number}")
            client.track(f"ahead-{number}", "purchase")
        assert client.flush(60)
        assert client.delivery().rejected == 0
    with shared_server.client() as admin:
        assert ledger(admin, "clock")["counted"] == 20


def test_assign__is_on_record__and_answered_from_memory_until_something_changes(
    shared_server: Server, client: Client
) -> None:
    made(shared_server, "durable", unit="account_id")
    assert client.wait_until_ready(60)
    until(lambda: client.evaluate("durable", "a", units={"account_id": "x"}).assigned, "it is known")
    options = {"units": {"account_id": "acme"}}
    first = client.assign("durable", "ada", {"country": "DE"}, **options)
    again = client.assign("durable", "ada", **options)
    assert (first.origin, again.origin) == (Origin.SERVER, Origin.MEMORY)
    with shared_server.client() as admin:
        path = "/api/v1/experiments/durable/assignment/ada?account_id=acme"
        stored = admin.get(path).json()
        assert first.variant == again.variant == stored["variant_key"]
        heard = told(client, lambda change: "durable" in change.changed)
        assert admin.post("/api/v1/experiments/durable/stop", json={"winner": "blue"}).status_code == 200
    assert heard.wait(60)
    won = client.assign("durable", "ada", **options)
    assert (won.value, won.reason, won.origin) == ({"colour": "blue"}, "rolled_out", Origin.SERVER)
    assert client.evaluate("durable", "eve").reason == "rolled_out"
    assert client.assign("no-such-thing", "ada").reason == "unknown_experiment"


def test_change__is_heard_of_at_once(shared_server: Server, client: Client) -> None:
    made(shared_server, "changing")
    assert client.wait_until_ready(60)
    until(lambda: client.evaluate("changing", "ada").assigned, "it is known")
    times = []
    with shared_server.client() as admin:
        for action, known in (("pause", False), ("resume", True), ("pause", False)):
            heard = told(client, lambda change: change.changed == ["changing"])
            assert admin.post(f"/api/v1/experiments/changing/{action}").status_code == 200
            began = time.perf_counter()
            assert heard.wait(60)
            times.append(time.perf_counter() - began)
            assert client.evaluate("changing", "ada").assigned is known
    assert min(times) < 5.0  # the others may have met a busy machine


def test_override_and_experiment_that_does_not_run__are_told_apart(
    shared_server: Server, client: Client
) -> None:
    made(shared_server, "forced", condition={"country": "nowhere"})
    with shared_server.client() as admin:
        admin.put("/api/v1/experiments/forced/overrides/tester", json={"variant": "blue"})
    assert client.wait_until_ready(60)
    until(lambda: client.evaluate("forced", "tester").assigned, "the override is known")
    tester, other = client.evaluate("forced", "tester"), client.evaluate("forced", "other")
    assert (tester.variant, tester.value, tester.reason) == ("blue", {"colour": "blue"}, "override")
    assert (other.variant, other.value, other.reason) == (None, None, "not_in_segment")
    unknown = client.evaluate("never-made", "other")
    assert (unknown.reason, unknown.value, unknown.assigned) == ("unknown_experiment", None, False)
    assert client.delivery().pending == 0, "neither is an exposure"


def test_exposure_of_an_experiment_that_ended_meanwhile__is_refused_alone(
    shared_server: Server, app_key: str
) -> None:
    for key in ("ended", "going-on"):
        made(shared_server, key)
    with Client(shared_server.url, app_key, Options(first_wait=60, flush_interval=60)) as client:
        for number in range(6):
            for key in ("ended", "going-on"):
                assert client.evaluate(key, f"user-{number}").assigned
        with shared_server.client() as admin:
            assert admin.post("/api/v1/experiments/ended/stop", json={}).status_code == 200
        client.track("user-1", "x" * 300)
        client.track("user-1", "fine")
        assert client.flush(60)
        done = client.delivery()
    assert (done.accepted, done.rejected, done.lost) == (7, 7, 0)


def test_sticky_buckets__keep_a_variant_when_the_split_changes(shared_server: Server, app_key: str) -> None:
    experiment = made(shared_server, "sticky")
    kept = MemoryStickyBuckets()
    options = Options(first_wait=60, sticky=kept)
    plain, sticky = (Client(shared_server.url, app_key, each) for each in (QUICK, options))
    with plain, sticky:
        users = [f"user-{number}" for number in range(60)]
        before = [sticky.evaluate("sticky", user).variant for user in users]
        assert set(before) == {"control", "blue"}
        heard = [told(each, lambda change: "sticky" in change.changed) for each in (plain, sticky)]
        assert plain.wait_until_ready(60)
        control, blue = experiment["variants"]
        body = {"variants": [{**control, "allocation": 0.01}, {**blue, "allocation": 0.99}]}
        with shared_server.client() as admin:
            for variant in body["variants"]:
                admin.patch(
                    f"/api/v1/experiments/sticky/variants/{variant['id']}",
                    json={"allocation": min(variant["allocation"], 0.4)},
                ).raise_for_status()
        assert all(each.wait(60) for each in heard)
        until(
            lambda: [plain.evaluate("sticky", user).variant for user in users] != before, "the split changed"
        )
        assert [sticky.evaluate("sticky", user).variant for user in users] == before


def test_sticky_buckets_that_fail__users_are_served_without(shared_server: Server, app_key: str) -> None:
    class Broken(MemoryStickyBuckets):
        def get(self, *_: str) -> dict[str, str]:
            raise OSError("the cache is away")

    made(shared_server, "broken-sticky")
    with Client(shared_server.url, app_key, Options(first_wait=60, sticky=Broken())) as client:
        assert client.evaluate("broken-sticky", "ada").assigned


def test_rubbish_from_the_application__never_raises(shared_server: Server, client: Client) -> None:
    made(shared_server, "rubbish")
    assert client.wait_until_ready(60)
    until(lambda: client.evaluate("rubbish", "ada").assigned, "it is known")
    anything: Any = object()
    before = client.delivery()
    assert client.evaluate("rubbish", anything).reason == "error"
    assert client.evaluate("rubbish", "").reason == "error"
    assert client.evaluate("rubbish", "ada", {"country": anything}).assigned
    assert client.evaluate("rubbish", "ada", anything).reason == "error"
    assert client.assign("rubbish", "ada", {"country": anything}).origin is not Origin.SERVER
    assert client.assign("rubbish", "\ud800").origin is not Origin.SERVER
    assert client.assign("rubbish", "ada", units=anything).reason == "error"
    assert client.assign("rubbish", "eve").origin is Origin.SERVER, "the server is well, and is asked again"
    client.track("ada", "bought", properties={"what": anything})
    client.track("ada", "bought", value=float("nan"))
    client.track("ada", anything)
    assert client.value("rubbish", "ada", 7) == 7, "a value of another type is not served"
    assert client.flush(60)
    done = client.delivery()
    assert (done.lost - before.lost, done.rejected - before.rejected) == (3, 1)


def test_answers_that_are_lost__are_asked_for_again_and_count_once(
    shared_server: Server, app_key: str, proxy: Proxy
) -> None:
    made(shared_server, "cut", primary_metric="purchase")
    with through(proxy, app_key) as client:
        assert client.wait_until_ready(60)
        for number in range(30):
            client.evaluate("cut", f"user-{number}")
        assert client.flush(60)
        proxy.cut_before_answer()
        for number in range(30):
            client.track(f"user-{number}", "purchase", experiment="cut")
        assert client.flush(60)
        done = client.delivery()
    assert done.accepted + done.duplicates == 60
    assert (done.duplicates, done.lost, done.rejected) == (30, 0, 0)
    with shared_server.client() as admin:
        assert ledger(admin, "cut")["counted"] == 30


def test_no_server_at_the_start__defaults_at_once__and_everything_arrives_when_it_comes(
    shared_server: Server, app_key: str, proxy: Proxy
) -> None:
    made(shared_server, "late", primary_metric="purchase")
    proxy.drop(refuse=True)
    options = Options(retry=0.02, retry_most=0.1, flush_interval=0.05)
    with through(proxy, app_key, options) as client:
        began = time.perf_counter()
        assert client.value("late", "ada", "grey") == "grey"
        assert client.evaluate("late", "ada").reason == "not_ready"
        found = client.assign("late", "ada")
        assert time.perf_counter() - began < options.first_wait + options.assign_wait + SLACK
        assert (found.reason, found.origin) == ("not_ready", Origin.NOBODY)
        ids = {client.track(f"user-{number}", "purchase", experiment="late") for number in range(40)}
        assert not client.flush(0.2)
        assert client.status is Status.ERROR
        assert client.delivery().pending == len(ids) == 40
        proxy.accept()
        assert client.wait_until_ready(60)
        assert client.flush(60)
        assert client.evaluate("late", "ada").assigned
        assert client.delivery().accepted >= 40
    with shared_server.client() as admin:
        assert ledger(admin, "late")["accepted"] == 40


def test_server_that_hangs__nobody_waits_longer_than_stated(
    shared_server: Server, app_key: str, proxy: Proxy
) -> None:
    made(shared_server, "hanging")
    proxy.stall()
    with through(proxy, app_key, Options(exit_wait=0.2)) as client:
        began = time.perf_counter()
        assert client.evaluate("hanging", "ada").reason == "not_ready"
        assert time.perf_counter() - began < 0.05 + SLACK
        began = time.perf_counter()
        for _ in range(200):
            assert client.evaluate("hanging", "ada").reason == "not_ready"
            client.track("ada", "purchase")
        assert time.perf_counter() - began < SLACK, "only the first one waits"
        began = time.perf_counter()
        for _ in range(50):
            assert client.assign("hanging", "ada").origin is Origin.NOBODY
        assert time.perf_counter() - began < 0.5 + SLACK, "it is not asked again and again"
        began = time.perf_counter()
        assert not client.flush(0.1)
        assert not client.wait_until_ready(0.1)
        assert time.perf_counter() - began < 0.2 + SLACK
        began = time.perf_counter()
        assert not client.close()
        assert time.perf_counter() - began < 0.5 + SLACK
        assert client.delivery().lost == 200
        assert client.evaluate("hanging", "ada").reason == "not_ready", "nor raises after the end"
        client.track("ada", "purchase")
    proxy.resume()


def test_key_that_is_revoked__goes_on_from_memory_and_gives_up_sending_quickly(
    shared_server: Server,
) -> None:
    made(shared_server, "revoked")
    key = secret(shared_server)
    with Client(shared_server.url, key["key"], QUICK) as client:
        first = client.evaluate("revoked", "ada")
        assert first.assigned
        assert client.flush(60)
        heard = told(client, lambda change: change.status is Status.STALE and change.refused)
        with shared_server.client() as admin:
            assert admin.delete(f"/auth/keys/{key['id']}").status_code in {200, 204}
        assert heard.wait(60)
        assert client.evaluate("revoked", "ada").variant == first.variant
        client.track("ada", "purchase")
        began = time.perf_counter()
        assert not client.flush(120)
        assert time.perf_counter() - began < 60
        assert client.assign("revoked", "ada").variant == first.variant


def test_offline__evaluates_from_the_last_payload(
    shared_server: Server, app_key: str, tmp_path: Path, proxy: Proxy
) -> None:
    made(shared_server, "kept")
    file = tmp_path / "assay.json"
    with Client(shared_server.url, app_key, Options(file=file, first_wait=60)) as client:
        before = [client.evaluate("kept", f"user-{number}", expose=False).variant for number in range(50)]
        until(file.exists, "the payload is kept")
    assert file.stat().st_mode & 0o077 == 0
    assert [path.name for path in tmp_path.iterdir()] == ["assay.json"]
    proxy.drop(refuse=True)
    with through(proxy, app_key, Options(file=file, first_wait=60)) as client:
        assert [client.evaluate("kept", f"user-{at}", expose=False).variant for at in range(50)] == before
        assert client.status is Status.STALE
        assert client.assign("kept", "user-1").variant == before[1]
    file.write_text("{")
    with through(proxy, app_key, Options(file=file)) as client:
        assert client.evaluate("kept", "user-1").reason == "not_ready"


def test_without_a_stream__changes_are_asked_for(shared_server: Server, app_key: str) -> None:
    options = Options(stream=False, poll=0.05, first_wait=60)
    with Client(shared_server.url, app_key, options) as client:
        assert not client.evaluate("polled", "ada").assigned
        made(shared_server, "polled")
        until(lambda: client.evaluate("polled", "ada").assigned, "the change was asked for")


def test_server_that_dies_in_the_middle__loses_nothing_and_counts_nothing_twice(server: Server) -> None:
    made(server, "crash", primary_metric="purchase")
    key = secret(server)["key"]
    sent: set[str] = set()
    with Proxy(port(server)) as proxy, through(proxy, key) as client:
        assert client.wait_until_ready(60)
        going = threading.Event()
        done = threading.Event()

        def application() -> None:
            for number in range(600):
                user = f"user-{number % 50}"
                assert client.evaluate("crash", user).assigned
                sent.add(client.track(user, "purchase", experiment="crash"))
                if number > 200:
                    going.set()
                done.wait(0.001)
            done.set()

        thread = threading.Thread(target=application)
        thread.start()
        assert going.wait(60)
        server.kill()
        proxy.drop()
        server.start()
        proxy.target = port(server)
        thread.join(60)
        assert client.wait_until_ready(60)
        assert client.flush(60), client.delivery()
        delivery = client.delivery()
        assert (delivery.lost, delivery.rejected, delivery.conflicts) == (0, 0, 0)
        assert delivery.accepted + delivery.duplicates == 600 + 50
    with server.client() as admin:
        totals = ledger(admin, "crash")
    assert len(sent) == 600
    assert (totals["counted"], totals["before_assignment"], totals["unassigned"]) == (600, 0, 0)


def test_async__the_same_calls_and_promises(shared_server: Server, app_key: str, proxy: Proxy) -> None:
    made(shared_server, "async", primary_metric="purchase")

    async def application(url: str) -> None:
        async with AsyncClient(url, app_key, QUICK) as client:
            found = await asyncio.gather(*(client.evaluate("async", f"user-{at}") for at in range(50)))
            assert {each.variant for each in found} == {"control", "blue"}
            again = await asyncio.gather(*(client.assign("async", f"user-{at}") for at in range(50)))
            assert [each.variant for each in again] == [each.variant for each in found]
            assert {each.origin for each in again} == {Origin.SERVER}
            for number in range(50):
                client.track(f"user-{number}", "purchase")
            assert await client.wait_until_ready(60)
            assert await client.flush(60)
            assert await client.value("async", "user-1", {}) == found[1].value or found[1].value == "control"
            assert client.delivery().accepted == 100

    async def alone(url: str) -> None:
        client = AsyncClient(url, app_key, Options(exit_wait=0.1))
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert await client.value("async", "ada", "grey") == "grey"
        assert (await client.assign("async", "ada")).origin is Origin.NOBODY
        client.track("ada", "purchase")
        assert not await client.flush(0.1)
        assert not await client.close()
        assert loop.time() - began < 1.0 + 2 * SLACK

    # In two loops, one after the other, as tests and scripts do.
    asyncio.run(application(shared_server.url))
    asyncio.run(application(shared_server.url))
    proxy.stall()
    asyncio.run(alone(f"http://127.0.0.1:{proxy.port}"))
    proxy.resume()


@pytest.mark.parametrize(
    ("url", "key", "options"),
    [
        ("assay.example", "assay_x", {}),
        ("ftp://assay.example", "assay_x", {}),
        ("https://assay.example", "", {}),
        ("https://assay.example", "assay_\r\nx", {}),
        ("https://assay.example", "assay_x", {"batch": 0}),
        ("https://assay.example", "assay_x", {"first_wait": -1.0}),
        ("https://assay.example", "assay_x", {"poll": float("nan")}),
    ],
)
def test_arguments_that_cannot_work__are_refused_by_the_constructor_alone(
    url: str, key: str, options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="must be"):
        Client(url, key, Options(**options))
