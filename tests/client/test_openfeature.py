"""The OpenFeature provider over the client, against a real server process."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.evaluation_context import EvaluationContext
from openfeature.event import EventDetails, ProviderEvent
from openfeature.exception import ErrorCode, ProviderFatalError, ProviderNotReadyError
from openfeature.flag_evaluation import Reason
from openfeature.track import TrackingEventDetails

from assay.client import Client, Options
from assay.client.openfeature import AssayProvider
from live import Server, until
from proxy import Proxy

QUICK = Options(retry=0.02, retry_most=0.2, flush_interval=0.05, request_wait=2.0, assign_wait=60.0)
ADA = EvaluationContext(
    "ada", {"country": "US", "since": datetime(2026, 1, 1, tzinfo=UTC), "tags": ("a", "b")}
)
KINDS = {"on": True, "text": "red", "count": 7, "share": 0.25}


def made(server: Server, key: str, **fields: Any) -> None:
    variants = [{"name": "control", "allocation": 0.5}, {"name": "blue", "allocation": 0.5}]
    body = {"name": key, "key": key, "status": "running", "variants": variants, **fields}
    with server.client() as admin:
        answer = admin.post("/api/v1/experiments", json=body)
    assert answer.status_code == 201, answer.text


@pytest.fixture(scope="module")
def app_key(shared_server: Server) -> str:
    with shared_server.client() as admin:
        key: str = admin.post("/auth/keys", json={"name": "app", "role": "client"}).json()["key"]
    for name, value in KINDS.items():
        made(shared_server, name, variants=[{"name": "only", "allocation": 1, "config": {"value": value}}])
    made(shared_server, "shape", variants=[{"name": "only", "allocation": 1, "config": {"a": [1]}}])
    made(shared_server, "plain", primary_metric="purchase")
    made(
        shared_server,
        "targeted",
        condition={"country": "US", "tags": {"$in": ["b"]}, "since": {"$gt": "2025"}},
    )
    made(shared_server, "team", unit="account_id", primary_metric="purchase")
    return key


@pytest.fixture
def providers() -> Iterator[None]:
    yield
    api.clear_providers()


def connected(url: str, key: str, **given: Any) -> OpenFeatureClient:
    api.set_provider_and_wait(AssayProvider(Client(url, key, QUICK), ready_wait=60, **given))
    return api.get_client()


def heard(flags: OpenFeatureClient, event: ProviderEvent) -> Callable[[], EventDetails | None]:
    """What comes with the next event of a kind."""
    found: list[EventDetails] = []
    flags.add_handler(event, found.append)
    return lambda: found[-1] if found else None


@pytest.mark.usefixtures("providers")
@pytest.mark.parametrize("durable", [False, True])
def test_every_type_reason_and_error(shared_server: Server, app_key: str, durable: bool) -> None:
    flags = connected(shared_server.url, app_key, durable=durable)
    assert flags.get_boolean_value("on", False, ADA) is True
    assert flags.get_string_value("text", "code", ADA) == "red"
    assert flags.get_integer_value("count", 1, ADA) == 7
    assert flags.get_float_value("share", 1.0, ADA) == 0.25
    whole = flags.get_float_value("count", 1.0, ADA)
    assert (whole, type(whole)) == (7.0, float)
    assert flags.get_object_value("shape", {}, ADA) == {"a": [1]}
    plain = flags.get_string_details("plain", "code", ADA)
    assert (plain.value, plain.variant) in [("control", "control"), ("blue", "blue")]
    assert plain.reason == Reason.SPLIT
    assert plain.flag_metadata == {"reason": "assigned", "origin": "server" if durable else "payload"}
    inside = flags.get_string_details("targeted", "code", ADA)
    outside = flags.get_string_details("targeted", "code", EvaluationContext("eve", {"country": "FR"}))
    assert inside.variant is not None
    assert (outside.value, outside.variant, outside.reason) == ("code", None, Reason.UNKNOWN)
    assert outside.flag_metadata["reason"] == "not_in_segment"
    team = EvaluationContext("ada", {"account_id": 17})
    assert flags.get_string_details("team", "code", team).reason == Reason.SPLIT
    assert flags.get_string_details("team", "code", ADA).flag_metadata["reason"] == "no_unit"
    wrong = {
        "nothing": (flags.get_string_details("nothing", "code", ADA), ErrorCode.FLAG_NOT_FOUND),
        "nobody": (
            flags.get_string_details("text", "code", EvaluationContext(None, {})),
            ErrorCode.TARGETING_KEY_MISSING,
        ),
        "type": (flags.get_string_details("on", "code", ADA), ErrorCode.TYPE_MISMATCH),
    }
    for details, code in wrong.values():
        assert (details.value, details.error_code, details.reason) == ("code", code, Reason.ERROR)
    assert flags.get_integer_details("on", 3, ADA).error_code is ErrorCode.TYPE_MISMATCH
    assert flags.get_integer_details("share", 3, ADA).error_code is ErrorCode.TYPE_MISMATCH
    assert flags.get_boolean_details("count", False, ADA).error_code is ErrorCode.TYPE_MISMATCH
    assert flags.get_object_details("text", {}, ADA).error_code is ErrorCode.TYPE_MISMATCH

    async def asked() -> list[Any]:
        return [
            await flags.get_boolean_value_async("on", False, ADA),
            await flags.get_string_value_async("text", "code", ADA),
            await flags.get_integer_value_async("count", 1, ADA),
            await flags.get_float_value_async("share", 1.0, ADA),
            await flags.get_object_value_async("shape", {}, ADA),
        ]

    assert asyncio.run(asked()) == [True, "red", 7, 0.25, {"a": [1]}]


@pytest.mark.usefixtures("providers")
def test_tracking__is_measured(shared_server: Server, app_key: str) -> None:
    flags = connected(shared_server.url, app_key)
    provider = flags.provider
    assert isinstance(provider, AssayProvider)
    for number in range(20):
        context = EvaluationContext(f"buyer-{number}", {"account_id": f"acme-{number}"})
        for flag in ("plain", "team"):
            assert flags.get_string_details(flag, "code", context).variant
        flags.track("purchase", context, TrackingEventDetails(9.5, {"currency": "EUR"}))
    flags.track("purchase", EvaluationContext(None, {}))
    assert provider.client.flush(20)
    with shared_server.client() as admin:
        for key in ("plain", "team"):
            stats = admin.get(f"/api/v1/experiments/{key}/stats").json()["variants"]
            assert sum(arm["conversions"] for arm in stats) == 20
        [event] = admin.get("/api/v1/events", params={"user_id": "buyer-3"}).json()["events"]
    assert (event["value"], event["properties"]) == (9.5, {"currency": "EUR"})


@pytest.mark.usefixtures("providers")
def test_events__configuration_stale_and_ready_again(shared_server: Server, app_key: str) -> None:
    with Proxy(int(shared_server.url.rpartition(":")[2])) as proxy:
        flags = connected(f"http://127.0.0.1:{proxy.port}", app_key)
        assert flags.get_provider_status().value == "READY"
        changed = heard(flags, ProviderEvent.PROVIDER_CONFIGURATION_CHANGED)
        made(shared_server, "brand-new")
        details = until(changed, "the configuration changed")
        assert details.flags_changed == ["brand-new"]
        stale = heard(flags, ProviderEvent.PROVIDER_STALE)
        proxy.drop(refuse=True)
        until(stale, "the provider is stale")
        old = flags.get_string_details("plain", "code", ADA)
        assert (old.reason, old.flag_metadata["reason"]) == (Reason.STALE, "assigned")
        proxy.accept()
        until(lambda: flags.get_provider_status().value == "READY", "the provider is ready again")
        assert flags.get_string_details("plain", "code", ADA).reason == Reason.SPLIT
        api.clear_providers()


@pytest.mark.usefixtures("providers")
def test_no_server_and_a_wrong_key__errors_and_defaults(shared_server: Server, app_key: str) -> None:
    with Proxy(int(shared_server.url.rpartition(":")[2])) as proxy:
        proxy.drop(refuse=True)
        provider = AssayProvider(Client(f"http://127.0.0.1:{proxy.port}", app_key, QUICK), ready_wait=0.2)
        with pytest.raises(ProviderNotReadyError):
            api.set_provider_and_wait(provider)
        flags = api.get_client()
        assert flags.get_string_value("plain", "code", ADA) == "code"
        ready = threading.Event()
        flags.add_handler(ProviderEvent.PROVIDER_READY, lambda _: ready.set())
        proxy.accept()
        assert ready.wait(60), "it comes back by itself"
        assert flags.get_string_value("plain", "code", ADA) != "code"
        api.clear_providers()
    wrong = AssayProvider(Client(shared_server.url, "assay_wrong", QUICK), ready_wait=60)
    with pytest.raises(ProviderFatalError):
        api.set_provider_and_wait(wrong)
    assert api.get_client().get_boolean_details("on", False, ADA).error_code is ErrorCode.PROVIDER_FATAL
