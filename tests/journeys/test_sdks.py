"""SDKs that nobody here wrote, against a real server process."""

import random
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from growthbook import GrowthBook, feature_repo
from openfeature import api
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import Reason

from live import Server, until

CONDITION = {"country": {"$in": ["US", "DE"]}, "version": {"$vgte": "2.0.0"}}


def made(client: httpx2.Client, key: str, **fields: Any) -> dict[str, Any]:
    body = {
        "name": key,
        "key": key,
        "status": "running",
        "variants": [
            {"name": "control", "allocation": 0.4},
            {"name": "blue", "allocation": 0.6, "config": {"colour": "blue"}},
        ],
        **fields,
    }
    answer = client.post("/api/v1/experiments", json=body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def sdk_key(client: httpx2.Client) -> dict[str, Any]:
    answer = client.post("/auth/keys", json={"name": "app", "role": "client"})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.fixture
def growthbook() -> Iterator[None]:
    """The SDK keeps what it has loaded for the whole process."""
    feature_repo.clear_cache()
    yield
    feature_repo.clear_cache()


def attributes(number: int) -> dict[str, Any]:
    return {
        "country": ("US", "DE", "FR")[number % 3],
        "version": ("1.9.0", "2.0.0", "2.10.1", "2.0.0-beta")[number % 4],
        "account_id": f"acme-{number % 40}",
    }


@pytest.mark.usefixtures("growthbook")
def test_growthbook__loads_our_payload_and_gives_what_the_server_gives(server: Server) -> None:
    with server.client() as client:
        made(client, "plain")
        made(client, "targeted", condition=CONDITION)
        made(client, "small", traffic_allocation=0.3)
        made(client, "team", unit="account_id")
        made(client, "forced", condition={"country": "nowhere"})
        made(client, "hidden", status="draft")
        made(client, "won")
        assert client.post("/api/v1/experiments/won/stop", json={"winner": "blue"}).status_code == 200
        for user in ("user-3", "user-8"):
            path = f"/api/v1/experiments/forced/overrides/{user}"
            assert client.put(path, json={"variant": "blue"}).status_code in {200, 201}
        keys = ["plain", "targeted", "small", "team", "forced", "hidden", "won"]
        sdk = GrowthBook(api_host=server.url, client_key=sdk_key(client)["key"])
        sdk.load_features()
        compared: dict[str, set[str]] = {key: set() for key in keys}
        for number in range(200):
            user, known = f"user-{number}", attributes(number)
            sdk.set_attributes({"id": user, **known})
            local = {key: sdk.get_feature_value(key, None) for key in keys}
            for key, value in local.items():
                answer = client.post(
                    f"/api/v1/experiments/{key}/assign",
                    json={"user_id": user, "context": known, "units": {"account_id": known["account_id"]}},
                ).json()
                served = (answer["config"] or answer["variant"]) if answer["assigned"] else None
                assert value == served, (key, user, known)
                compared[key].add(str(value))
    both = {"control", "{'colour': 'blue'}"}
    assert compared["plain"] == compared["team"] == both
    assert compared["targeted"] == compared["small"] == {*both, "None"}
    assert compared["forced"] == {"None", "{'colour': 'blue'}"}
    assert compared["hidden"] == {"None"}
    assert compared["won"] == {"{'colour': 'blue'}"}


def random_experiments(client: httpx2.Client, count: int, chance: random.Random) -> list[str]:
    """Experiments of every kind that SDKs evaluate, and the lists, segments and layer that they use."""
    for body in ({"name": "vip"}, {"name": "german", "rules": {"country": "DE"}}):
        assert client.post("/segments", json=body).status_code == 201
    vips = [f"user-{number}" for number in range(0, 1000, 3)]
    assert client.post("/segments/vip/users", json={"user_ids": vips}).status_code == 200
    assert client.post("/api/v1/layers", json={"key": "page", "name": "Page"}).status_code == 201
    conditions: list[dict[str, Any]] = [
        CONDITION,
        {"id": {"$inGroup": "vip"}},
        {"id": {"$notInGroup": "vip"}, "$or": [{"country": "FR"}, {"version": {"$vlt": "2.0.0"}}]},
        {"id": {"$regex": "[02468]$"}},
    ]
    keys: list[str] = []
    for number in range(count):
        shares = [chance.randint(1, 9) for _ in range(chance.randint(1, 4))]
        exact = [round(share / sum(shares), 4) for share in shares]
        exact[-1] = round(1 - sum(exact[:-1]), 4)
        fields: dict[str, Any] = {
            "variants": [{"name": f"v{at}", "allocation": share} for at, share in enumerate(exact)],
            "traffic_allocation": chance.choice([0.2, 0.5, 1.0]),
        }
        kind = ("plain", "condition", "segment", "layer", "account", "prerequisite")[number % 6]
        if kind == "condition":
            fields["condition"] = conditions[number // 6 % len(conditions)]
        elif kind == "segment":
            fields["segments"] = [1, 2][: number // 6 % 2 + 1]
        elif kind == "layer" and number < 24:
            fields["layer"] = {"key": "page", "share": 0.25}
        elif kind == "account":
            fields["unit"] = "account_id"
        elif kind == "prerequisite":
            fields["prerequisites"] = [{"experiment": chance.choice(keys[:4]), "variants": ["v0"]}]
        keys.append(f"e{number}")
        made(client, keys[-1], **fields)
        if kind == "plain":
            path = f"/api/v1/experiments/{keys[-1]}/overrides/user-{number}"
            assert client.put(path, json={"variant": "v0"}).status_code in {200, 201}
    return keys


# The SDK takes seven minutes for 100,000 users of 50 experiments.
@pytest.mark.usefixtures("growthbook")
@pytest.mark.parametrize(
    ("experiments", "users"), [(12, 200), pytest.param(50, 100_000, marks=pytest.mark.nightly)]
)
def test_growthbook__any_experiments_and_users__what_the_server_assigns(
    server: Server, experiments: int, users: int
) -> None:
    chance = random.Random(20260712)
    with server.client() as client:
        keys = random_experiments(client, experiments, chance)
        sdk = GrowthBook(api_host=server.url, client_key=sdk_key(client)["key"])
        sdk.load_features()
        inside = compared = 0
        for start in range(0, users, 200):
            numbers = range(start, min(start + 200, users))
            asked = [
                {"user_id": f"user-{each}", "context": known, "units": {"account_id": known["account_id"]}}
                for each in numbers
                for known in [attributes(each)]
            ]
            answer = client.post("/api/v1/assignments", json={"units": asked, "experiments": keys})
            assert answer.status_code == 200, answer.text
            found = {(each["user_id"], each["experiment_key"]): each for each in answer.json()["assignments"]}
            for number in numbers:
                sdk.set_attributes({"id": f"user-{number}", **attributes(number)})
                for key in keys:
                    served = found[f"user-{number}", key]["variant"]
                    assert sdk.get_feature_value(key, None) == served, (key, number)
                    inside += served is not None
                    compared += 1
    assert compared == users * experiments
    assert 0.1 < inside / compared < 0.9  # neither nobody nor everybody, else nothing is compared


@pytest.mark.usefixtures("growthbook")
def test_growthbook__hears_of_a_change_and_asks_again(server: Server) -> None:
    with server.client() as client:
        made(client, "first")
        sdk = GrowthBook(api_host=server.url, client_key=sdk_key(client)["key"], attributes={"id": "ada"})
        sdk.load_features()
        assert set(sdk.get_features()) == {"first"}
        sdk.start_auto_refresh()

        def connected() -> bool:
            return "\nassay_sdk_streams 1.0\n" in client.get("/metrics").text

        def changed() -> bool:
            return "second" in sdk.get_features()

        try:
            until(connected, "the SDK listens")
            made(client, "second")
            until(changed, "the SDK has the new feature")
        finally:
            sdk.stop_auto_refresh(timeout=1)


@pytest.mark.usefixtures("growthbook")
def test_growthbook__remote_evaluation_gives_what_is_on_record_and_tracks_it(server: Server) -> None:
    seen: list[tuple[str, str, str]] = []

    def viewed(experiment: Any, result: Any, user_context: Any) -> None:
        seen.append((experiment.key, result.key, user_context.attributes["id"]))

    with server.client() as client:
        made(client, "plain")
        sdk = GrowthBook(
            api_host=server.url,
            client_key=sdk_key(client)["key"],
            attributes={"id": "ada"},
            remote_eval=True,
            on_experiment_viewed=viewed,
        )
        sdk.load_features()
        value = sdk.get_feature_value("plain", None)
        stored = client.get("/api/v1/experiments/plain/assignment/ada").json()
    assert value == (stored["config"] or stored["variant"])
    assert seen == [("plain", stored["variant_key"], "ada")]


def test_openfeature__a_provider_reads_every_type_and_every_error(server: Server) -> None:
    with server.client() as client:
        kinds = {"on": True, "text": "red", "count": 7, "share": 0.25}
        for key, value in kinds.items():
            made(client, key, variants=[{"name": "only", "allocation": 1, "config": {"value": value}}])
        made(client, "shape", variants=[{"name": "only", "allocation": 1, "config": {"a": [1]}}])
        made(client, "targeted", condition=CONDITION)
        key = sdk_key(client)["key"]

    def headers() -> dict[str, str]:
        return {"Authorization": f"Bearer {key}"}

    api.set_provider(OFREPProvider(server.url, headers_factory=headers))
    try:
        flags = api.get_client()
        ada = EvaluationContext("ada", {"country": "US", "version": "2.1.0"})
        assert flags.get_boolean_value("on", default_value=False, evaluation_context=ada) is True
        assert flags.get_string_value("text", "code", ada) == "red"
        assert flags.get_integer_value("count", 1, ada) == 7
        assert flags.get_float_value("share", 1.0, ada) == 0.25
        assert flags.get_object_value("shape", {}, ada) == {"a": [1]}
        inside = flags.get_string_details("targeted", "code", ada)
        outside = flags.get_string_details("targeted", "code", EvaluationContext("eve", {"country": "FR"}))
        assert (inside.reason, inside.variant != "") == (Reason.SPLIT, True)
        assert (outside.value, outside.reason) == ("code", Reason.UNKNOWN)
        assert outside.flag_metadata["reason"] == "not_in_segment"
        unknown = flags.get_string_details("nothing", "code", ada)
        assert (unknown.value, unknown.error_code) == ("code", ErrorCode.FLAG_NOT_FOUND)
        nobody = flags.get_string_details("text", "code", EvaluationContext(None, {"country": "US"}))
        assert (nobody.value, nobody.error_code) == ("code", ErrorCode.TARGETING_KEY_MISSING)
    finally:
        api.clear_providers()


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_server_with_open_streams_ends_at_once(server: Server, sent: signal.Signals) -> None:
    with server.client() as client:
        key = sdk_key(client)["key"]
    ended = threading.Event()
    connected = threading.Event()

    def listen() -> None:
        with httpx2.stream("GET", f"{server.url}/sub/{key}", timeout=60) as response:
            for line in response.iter_lines():
                if line:
                    connected.set()
        ended.set()

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    assert connected.wait(60)
    process = server.process
    assert process is not None
    process.send_signal(sent)
    assert ended.wait(60), "the stream did not end"
    until(lambda: process.poll() is not None, "the server has ended")
    listener.join(60)
    assert "Traceback" not in server.output()
    server.process = None


def test_on_postgresql__sdks_are_answered_by_any_worker_and_hear_of_every_change(
    postgres_url: str, tmp_path: Path
) -> None:
    settings = {"DATABASE_URL": postgres_url, "ASSAY_WORKERS": "2", "ADMIN_TOKEN": "the-admin-key"}
    with Server(tmp_path / "data", settings) as server, server.client() as client:
        made(client, "plain")
        made(client, "targeted", condition=CONDITION)
        key = sdk_key(client)["key"]
        body = {"context": {"targetingKey": "ada", "country": "DE", "version": "2.0.0"}}
        remote = {"attributes": {"id": "ada", "country": "DE", "version": "2.0.0"}}
        variants: dict[str, set[str]] = {"plain": set(), "targeted": set()}
        for _ in range(6):  # a connection of its own each time, which either worker may take
            with server.client(key) as app:
                bulk = app.post("/ofrep/v1/evaluate/flags", json=body)
                again = app.post(
                    "/ofrep/v1/evaluate/flags", json=body, headers={"If-None-Match": bulk.headers["etag"]}
                )
                assert (bulk.status_code, again.status_code) == (200, 304)
                for flag in bulk.json()["flags"]:
                    variants[flag["key"]].add(flag["variant"])
                features = app.post(f"/api/eval/{key}", json=remote).json()["features"]
                for name, feature in features.items():
                    variants[name].add(feature["rules"][0]["tracks"][0]["result"]["key"])
        for name, found in variants.items():
            stored = client.get(f"/api/v1/experiments/{name}/assignment/ada").json()
            assert found == {stored["variant_key"]}

        # Two streams, which may lie at one worker or at both; the change is made at any.
        heard: list[str] = []
        ready = threading.Semaphore(0)

        def listen() -> None:
            with httpx2.stream("GET", f"{server.url}/sub/{key}", timeout=60) as response:
                for line in response.iter_lines():
                    if line.startswith("retry"):
                        ready.release()
                    if line == "event: features-updated":
                        heard.append(line)

        listeners = [threading.Thread(target=listen, daemon=True) for _ in range(4)]
        for listener in listeners:
            listener.start()
        assert all(ready.acquire(timeout=60) for _ in listeners)
        made(client, "later")
        until(lambda: len(heard) == 4, "all streams hear of the change")
        assert server.stop() == 0, server.output()
        for listener in listeners:
            listener.join(60)
            assert not listener.is_alive()
