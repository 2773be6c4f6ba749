"""Two stores that were told the same answer the same."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from assay.eventstore.base import Arm, Bucket, EventFilter, EventStore, Measure, Scope
from assay.eventstore.columns import Column, Filter, Fold, Operator, Source
from assay.eventstore.duckdb import DuckdbStore
from assay.eventstore.postgres import PostgresStore
from contracts.event_store import DAY, HOUR, NOW, Feed, event

#: Texts that some reader of JSON takes, with the property `a`.
DOCUMENTS = [
    '{"a": 1.5}',
    '{"a":-0.0}',
    '{"a": 1e400}',
    '{"a": -1e400000}',
    '{"a": 1e-400}',
    '{"a": 1E2}',
    '{"a": 0.1e1}',
    '{"a": 123456789012345678901234567890}',
    '{"a": 9007199254740993}',
    '{"a": 1e100}',
    '{"a": 1.0000001e100}',
    '{"a": ' + "9" * 400 + "}",
    '{"a": 0.' + "0" * 400 + "1}",
    '{"a": "7"}',
    '{"a": "x\\u0000y"}',
    '{"b": "x\\u0000y", "a": 4}',
    '{"b": "\\\\u0000", "a": "\\\\u0000"}',
    '{"b": "\\ud83d\\ude00", "a": "\\ud83d\\ude00"}',
    '{"\\u0061": 3}',
    '{"\\u0061": 5, "a": 6}',
    '{"a": 1, "a": 1.10}',
    '{"b": {"a": 9}, "a": 2}',
    '{"b": {"a": 9}}',
    '{"b": "\\"a\\":8", "a": 16}',
    '{"b": "a", "c": ["a", "a"], "a": 32}',
    '{"a": [1]}',
    '{"a": {"a": 1}}',
    '{"a": true}',
    '{"a": false}',
    '{"a": null}',
    '{"a": ""}',
    ' {\t"a"\n:\r64 } ',
    '{"a": ' + "[" * 900 + "]" * 900 + ', "é": "😀"}',
    '{"b": [' + "{}," * 4_000 + '{"a": 1}], "a": 128}',
    '{"é": "😀", "a": "😀"}',
    "{}",
]
WANTED: list[Any] = [
    *(None, True, False, "", "7", "x\0y", "\\u0000", "😀", 1, 1.5, 0, 100, 9007199254740992, 1e100),
]


@pytest.fixture
def stores(tmp_path: Path, postgres_url: str) -> Iterator[tuple[DuckdbStore, PostgresStore]]:
    embedded = DuckdbStore(tmp_path / "events.duckdb", memory="256MiB", threads=2)
    server = PostgresStore(postgres_url, memory="256MiB")
    server.prepare()
    yield embedded, server
    embedded.close()
    server.close()


def close(found: list[Arm], expected: list[Arm]) -> None:
    assert [arm[:3] for arm in found] == [arm[:3] for arm in expected]
    for arm, wanted in zip(found, expected, strict=True):
        for key, moments in wanted.measures.items():
            same = arm.measures[key]
            assert (same.count, same.converters, same.events) == (
                moments.count,
                moments.converters,
                moments.events,
            )
            assert same.total == pytest.approx(moments.total, rel=1e-9, abs=1e-9)
            assert same.means == pytest.approx(moments.means, rel=1e-9, abs=1e-9)
            for row, right in zip(same.covariance, moments.covariance, strict=True):
                assert row == pytest.approx(right, rel=1e-9, abs=1e-9)


@pytest.mark.slow
def test_ten_thousand_rows_give_the_same_answers(stores: tuple[EventStore, EventStore]) -> None:
    chance = random.Random(20_261_121)
    users = [f"u{number}" for number in range(3_000)]
    sent = []
    for number in range(10_000):
        properties = {"price": round(chance.lognormvariate(3, 1), 2), "plan": chance.choice(["a", "b", None])}
        sent.append(
            event(
                chance.choice(users),
                chance.choice(["purchase", "click", "view"]),
                at=NOW + chance.randrange(9 * DAY),
                e=f"{number:032x}",
                a=chance.choice([None, chance.lognormvariate(3, 2), -5.0]),
                p=properties,
                **({"x": chance.choice([1, 2])} if chance.random() < 0.2 else {}),
                **({"y": chance.choice([10, 11])} if chance.random() < 0.2 else {}),
                **({"m": {"account": f"u{chance.randrange(50)}"}} if chance.random() < 0.5 else {}),
            )
        )
    assigned = [(user, 10 + chance.randrange(2), NOW + chance.randrange(4 * DAY)) for user in users[:2_500]]
    for store in stores:
        feed = Feed(store)
        for phase in range(2):
            for at in range(4):
                rows = [
                    (user, variant)
                    for user, variant, since in assigned
                    if since % 2 == phase and (since - NOW) // DAY == at
                ]
                feed.assign(*rows, phase=phase, at=NOW + at * DAY)
        for start in range(0, len(sent), 2_000):
            feed.events(*sent[start : start + 2_000])
    embedded, server = stores
    measures = [
        Measure("purchases", "purchase"),
        Measure("all", ""),
        Measure("price", "purchase", "price"),
        Measure("plan a", "view", "price", (("plan", "a"),)),
        Measure("no plan", "click", None, (("plan", None),)),
    ]
    for scope in (
        Scope(1),
        Scope(1, unit="account"),
        Scope(1, ended_at=NOW + 5 * DAY, excluded_units=frozenset(users[:100])),
        Scope(1, events_from=NOW + DAY, until=NOW + 3 * DAY, event_type="purchase"),
    ):
        close(server.moments(scope, measures), embedded.moments(scope, measures))
        for found, expected in zip(server.event_counts(scope), embedded.event_counts(scope), strict=True):
            assert found[:4] == expected[:4]
            assert found.amount == pytest.approx(expected.amount, rel=1e-9)
        for bucket in Bucket:
            points = zip(
                server.series(scope, measures[2], bucket),
                embedded.series(scope, measures[2], bucket),
                strict=True,
            )
            for point, right in points:
                assert point[:7] == right[:7]
                assert point.total == pytest.approx(right.total, rel=1e-9)
        fates = [
            [(entry.type, entry.reason, entry.count, len(entry.samples)) for entry in store.ledger(scope)]
            for store in stores
        ]
        assert fates[0] == fates[1]
    for which in (
        EventFilter(),
        EventFilter(experiment_id=1, variant_id=11),
        EventFilter(user_ids=tuple(users[:5]), types=("view", "click"), start=NOW + HOUR),
    ):
        pages: list[list[Any]] = []
        for store in stores:
            first, after = store.events(which, 40)
            second, _ = store.events(which, 40, after)
            pages.append([*first, *second])
        assert pages[0] == pages[1]


def test_any_json_is_read_the_same(stores: tuple[EventStore, EventStore]) -> None:
    for store in stores:
        feed = Feed(store)
        feed.assign(*((f"u{place}", place) for place in range(len(DOCUMENTS))))
        feed.events(*(event(f"u{place}", p=text) for place, text in enumerate(DOCUMENTS)))
    measures = [Measure("number", "purchase", "a"), Measure("other", "purchase", "é")]
    measures += [Measure(repr(wanted), "purchase", equals=(("a", wanted),)) for wanted in WANTED]
    measures.append(Measure("face", "purchase", equals=(("é", "😀"),)))
    embedded, server = (store.moments(Scope(1), measures) for store in stores)
    for arm, expected in zip(server, embedded, strict=True):
        for key, wanted in expected.measures.items():
            found = arm.measures[key]
            assert (found.events, found.total) == (wanted.events, wanted.total), (
                key,
                DOCUMENTS[arm.variant_id][:80],
            )


def test_columns_read_any_json_the_same(stores: tuple[EventStore, EventStore]) -> None:
    for store in stores:
        feed = Feed(store)
        feed.assign(*((f"u{place}", place) for place in range(len(DOCUMENTS))))
        feed.events(*(event(f"u{place}", p=text) for place, text in enumerate(DOCUMENTS)))
    orders = (Operator.LT, Operator.LE, Operator.GT, Operator.GE)
    tests = [Filter("a", op, wanted) for wanted in WANTED for op in (Operator.EQ, Operator.NE)]
    tests += [Filter("a", op, wanted) for wanted in ("", "7", "\\", "😀", 0, 1.5, 1e100) for op in orders]
    tests += [Filter("a", Operator.EXISTS), Filter("a", Operator.NOT_EXISTS), Filter("é", Operator.EQ, "😀")]
    columns = [Column("sum", Source("purchase"), Fold.SUM, "a")]
    columns += [Column(repr(one), Source("purchase", (one,)), Fold.COUNT) for one in tests]
    blocks = [(column.key,) for column in columns]
    embedded, server = (store.columns(Scope(1), columns, blocks) for store in stores)
    for cell, expected in zip(server, embedded, strict=True):
        assert cell.unreadable == expected.unreadable, DOCUMENTS[cell.variant_id][:80]
        for block in blocks:
            found, wanted = cell.blocks[block], expected.blocks[block]
            assert found == wanted, (block, DOCUMENTS[cell.variant_id][:80])


def test_no_stored_text_makes_a_question_fail(postgres_url: str) -> None:
    texts = [
        '{"a": "\\ud83d", "b": 1}',
        '{"b": 2, "c": "\\ude00\\ud83d\\ud83d\\ude00"}',
        '{"b": 4',
        "[1, 2]",
        '"b"',
        "",
        "nonsense \\",
        '{"a": ' + "[" * 100_000 + "]" * 100_000 + ', "b": 8}',
        '{"b":' * 50_000,
        '{"a": "' + "[" * 2_000 + '", "b": 16}',
    ]
    store = PostgresStore(postgres_url)
    store.prepare()
    Feed(store).assign(("a", 10))
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        for text in texts:  # as they would come from somewhere that looks at nothing
            connection.execute(
                "INSERT INTO events (event_id, keyed, user_id, units, type, occurred_at, counts_until, "
                "received_at, properties) VALUES (gen_random_uuid(), false, 'a', %s, 't', %s, %s, %s, %s)",
                [text, NOW, NOW, NOW, text],
            )
    [arm] = store.moments(Scope(1), [Measure("b", "t", "b"), Measure("one", "t", equals=(("b", 1),))])
    assert (arm.measures["b"].events, arm.measures["b"].total) == (len(texts), 19.0)
    assert arm.measures["one"].events == 1
    number = Column("b", Source("t"), Fold.SUM, "b")
    above = Column("above", Source("t", (Filter("b", Operator.GT, "a"),)), Fold.COUNT)
    [cell] = store.columns(Scope(1), [number, above], [("b",), ("b", "above")])
    assert cell.blocks["b", "above"].totals == (19.0, 0.0)
    assert store.moments(Scope(1, unit="b"), [Measure("b", "t", "b")])[0].measures["b"].events == 0
    assert json.dumps([entry.count for entry in store.ledger(Scope(1))]) == f"[{len(texts)}, {len(texts)}]"
    store.close()
