"""The parts of the client that know neither sockets nor clocks."""

import json
import logging
import threading
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.client import Client, Options
from assay.client.evaluation import PayloadError, changed, evaluate, read_rules
from assay.client.ids import uuid7
from assay.client.memory import MemoryStickyBuckets, Recent
from assay.client.outbox import Item, Kind, Outbox
from assay.client.wire import Address, EventNames


def item(number: int, size: int = 10) -> Item:
    return Item(Kind.EVENT, str(number).encode().ljust(size))


def test_uuid7__ids_of_now_that_sort_by_time_and_never_repeat() -> None:
    found = [uuid.UUID(uuid7()) for _ in range(2_000)]
    assert {(each.version, each.variant) for each in found} == {(7, uuid.RFC_4122)}
    assert len(set(found)) == 2_000
    times = [each.int >> 80 for each in found]
    assert times == sorted(times)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 40)), max_size=60))
def test_outbox__never_above_its_bounds_and_every_item_accounted_for(steps: list[tuple[bool, int]]) -> None:
    outbox = Outbox(most=10, most_bytes=200)
    added = lost = sent = 0
    expected: list[int] = []
    for adds, size in steps:
        if adds:
            _, gone = outbox.add(item(added, size))
            expected.append(added)
            added += 1
            lost += gone
            expected = expected[gone:]
        else:
            taken = outbox.take(3, 100)
            assert [int(each.body) for each in taken] == expected[: len(taken)]
            assert bool(taken) == bool(expected)
            expected = expected[len(taken) :]
            outbox.settle()
            sent += len(taken)
        assert len(outbox) == len(expected) <= 10
        assert sum(len(each.body) for each in outbox._waiting) <= 200
        assert outbox.delivery().lost == lost
        assert added == sent + lost + len(outbox)
    assert outbox.through(added - len(outbox))
    assert not outbox.through(added - len(outbox) + 1)


def test_outbox__what_is_on_its_way_is_not_dropped() -> None:
    outbox = Outbox(most=4, most_bytes=1_000)
    for number in range(4):
        outbox.add(item(number))
    assert [int(each.body) for each in outbox.take(2, 1_000)] == [0, 1]
    assert [outbox.add(item(number))[1] for number in range(4, 8)] == [1, 1, 1, 1]
    outbox.settle()
    assert [int(each.body) for each in outbox.take(9, 1_000)] == [6, 7]


def test_full_queue__drops_the_oldest_counts_them_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    options = Options(queue=100, exit_wait=0.0, first_wait=0.0, retry=60, retry_most=60)
    with caplog.at_level(logging.WARNING), Client("http://127.0.0.1:9", "assay_x", options) as client:
        for number in range(5_000):
            client.track(f"user-{number}", "purchase")
        delivery = client.delivery()
        assert (delivery.lost, delivery.pending) == (4_900, 100)
    assert sum("The queue is full" in record.message for record in caplog.records) == 1


def test_recent__keeps_the_newest_from_any_number_of_threads() -> None:
    recent: Recent[int, int] = Recent(50)

    def fill(start: int) -> None:
        for number in range(2_000):
            recent.put(start + number, number)
            assert len(recent) <= 50

    threads = [threading.Thread(target=fill, args=(at * 10_000,)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(recent) == 50
    assert recent.put(-1, 0)
    assert not recent.put(-1, 1)
    assert recent.get(-1) == 1


def test_memory_sticky_buckets__keep_one_more_and_forget_the_oldest_unit() -> None:
    kept = MemoryStickyBuckets(most=2)
    kept.put("id", "a", "x__0", "blue")
    kept.put("id", "a", "y__0", "red")
    assert kept.get("id", "a") == {"x__0": "blue", "y__0": "red"}
    kept.put("id", "b", "x__0", "red")
    kept.put("id", "c", "x__0", "red")
    assert (kept.get("id", "a"), kept.get("id", "c")) == ({}, {"x__0": "red"})


STREAM = (
    b": connected\nretry: 3000\nid: a\n\nid: b\nevent: features-updated\ndata: {}\n\n"
    b": still here\n\ndata: x\r\n\r\n"
)


@pytest.mark.parametrize("size", [1, 2, 7, 1_000])
def test_stream__same_events_however_it_is_cut(size: int) -> None:
    names = EventNames()
    found = [name for at in range(0, len(STREAM), size) for name in names.feed(STREAM[at : at + size])]
    assert found == ["features-updated", "message"]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://assay.example", (True, "assay.example", 443, "", "assay.example")),
        ("http://assay.example/", (False, "assay.example", 80, "", "assay.example")),
        ("http://127.0.0.1:8000/tools/assay/", (False, "127.0.0.1", 8000, "/tools/assay", "127.0.0.1:8000")),
        ("https://[::1]:443/a b", (True, "::1", 443, "/a%20b", "[::1]")),
    ],
)
def test_address__scheme_host_port_and_base(url: str, expected: tuple[Any, ...]) -> None:
    address = Address.parse(url)
    assert (*address, address.authority) == expected


def payload(**features: Any) -> bytes:
    return json.dumps({"status": 200, "features": features}).encode()


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"features": []}', b"\xff", b"[" * 100_000])
def test_payload_that_is_none__is_refused(body: bytes) -> None:
    with pytest.raises(PayloadError):
        read_rules(body, "mark")


@pytest.mark.parametrize(
    "rubbish",
    [
        7,
        {"rules": 7},
        {"rules": [7]},
        {"rules": [{"variations": [1, 2], "ranges": [[0]]}]},
        {"rules": [{"variations": [1, 2], "namespace": ["a"]}]},
        {"rules": [{"variations": [1, 2], "coverage": "much"}]},
        {"rules": [{"variations": [1, 2], "meta": [7]}]},
    ],
)
def test_feature_that_cannot_be_read__is_named_and_the_others_work(rubbish: Any) -> None:
    rules = read_rules(payload(bad=rubbish, good={"defaultValue": "won"}), "mark")
    assert list(rules.features.problems) == ["bad"]
    found, _ = evaluate(rules, "good", "ada", {}, {}, None)
    assert (found.value, found.reason) == ("won", "rolled_out")
    missing, _ = evaluate(rules, "bad", "ada", {}, {}, None)
    assert (missing.value, missing.reason) == (None, "unknown_experiment")


def test_condition_with_a_mistake__holds_for_nobody_and_is_named() -> None:
    rule = {"condition": {"age": {"$unheard_of": 1}}, "variations": ["a", "b"], "key": "x"}
    rules = read_rules(payload(x={"defaultValue": None, "rules": [rule]}), "mark")
    found, _ = evaluate(rules, "x", "ada", {"age": 1}, {}, None)
    assert (found.value, found.reason) == (None, "not_in_segment")
    assert "condition.age.$unheard_of" in found.detail


def test_list_too_long_for_the_payload__is_said_to_be_the_servers() -> None:
    body = json.dumps({"features": {}, "assay": {"remote_only": {"big": "segment 3 lists 20000 users"}}})
    found, _ = evaluate(read_rules(body.encode(), "mark"), "big", "ada", {}, {}, None)
    assert (found.reason, found.detail) == (
        "remote_only",
        "only the server can evaluate it: segment 3 lists 20000 users",
    )


def test_changed__names_what_is_new_gone_or_other() -> None:
    before = read_rules(payload(same={"defaultValue": 1}, gone={"defaultValue": 1}, other={}), "1")
    after = read_rules(
        payload(same={"defaultValue": 1}, new={"defaultValue": None}, other={"rules": []}), "2"
    )
    assert changed(before, after) == ["gone", "new", "other"]
    assert changed(None, before) == ["gone", "other", "same"]
