"""Accepting events: what is taken is kept to the letter, what is not is named, and nothing raises."""

import contextlib
import json
import uuid
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from assay.errors import Invalid, Refused, TooLarge
from assay.events import identity
from assay.events.accept import AMOUNTS, accept_batch, accept_one
from assay.events.event import LARGEST_VALUE, Batch, Event, Limits, Rejected, encode
from assay.events.timestamps import SECOND, iso
from assay.eventstore import base

NOW = 1_790_000_000_000_000
EXPERIMENTS = {1: 1, "1": 1, "checkout": 1, 2: 2}


def resolve(written: int | str) -> int | None:
    return EXPERIMENTS.get(written)


def one(document: Any, **options: Any) -> Event | Rejected:
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    return accept_one(raw, NOW, resolve=resolve, **options)


def taken(document: Any, **options: Any) -> Event:
    found = one(document, **options)
    assert isinstance(found, Event), found
    return found


def refused(document: Any, **options: Any) -> Rejected:
    found = one(document, **options)
    assert isinstance(found, Rejected), found
    return found


def batch(document: Any, **options: Any) -> Batch:
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    return accept_batch(raw, NOW, resolve=resolve, **options)


def click(**fields: Any) -> dict[str, Any]:
    return {"user_id": "u", "type": "click", **fields}


# What is taken.


def test_the_least_event_gets_an_id_and_the_time() -> None:
    event = taken(click())
    made = uuid.UUID(event.e)
    assert (made.version, made.variant, str(made)) == (7, uuid.RFC_4122, event.e)
    assert int(event.e[:13].replace("-", ""), 16) == NOW // 1_000
    assert event == Event(event.e, "u", "click", NOW, NOW)


def test_every_field_is_kept() -> None:
    event = taken(
        b'{"user_id": "u", "event_name": "buy", "event_id": "Order 7", "timestamp": "2026-01-15T10:35:00",'
        b' "value": 5, "properties": { "price" : 1.50, "n": "\\u00e9" }, "experiment_id": "checkout",'
        b' "variant_id": "12", "units": {"account_id": "acme"}}'
    )
    assert event == Event(
        e=identity.canonical("Order 7"), u="u", t="buy", s=1_768_473_300 * SECOND, r=NOW,
        c=1_768_473_301 * SECOND - 1, o="Order 7", k=True, m={"account_id": "acme"}, v=5.0, a=5.0,
        p='{ "price" : 1.50, "n": "\\u00e9" }', x=1, y=12,
    )  # fmt: skip


def test_nulls_are_absent_fields() -> None:
    names = (
        "event_name",
        "event_id",
        "timestamp",
        "value",
        "properties",
        "experiment_id",
        "variant_id",
        "units",
    )
    event = taken(click(**dict.fromkeys(names)))
    assert event == Event(event.e, "u", "click", NOW, NOW)


@pytest.mark.parametrize(
    "canonical", ["0199aaaa-bbbb-7000-8000-000000000001", "6fae61db-a90b-4f35-889d-279fa5416fc4"]
)
def test_a_uuid_is_itself_in_any_case(canonical: str) -> None:
    lower, upper = taken(click(event_id=canonical)), taken(click(event_id=canonical.upper()))
    assert (lower.e, lower.o, lower.k) == (canonical, None, True)
    assert (upper.e, upper.o, upper.k) == (canonical, canonical.upper(), True)


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=200))
@example("6fae61dba90b4f35889d279fa5416fc4")
@example("{6fae61db-a90b-4f35-889d-279fa5416fc4}")
@example("1")
def test_any_other_text_is_an_id(text: str) -> None:
    first, second = taken(click(event_id=text)), taken(click(event_id=text))
    assert first.e == second.e == str(uuid.uuid5(identity.NAMESPACE, text))
    assert (first.o, first.k) == (text, True)


@pytest.mark.parametrize(
    ("fields", "amount"),
    [
        ({"value": 3, "properties": {"price": 9}}, 3.0),
        ({"properties": {"price": 9.5, "amount": 2}}, 2.0),
        ({"properties": {"value": "9", "price": True, "order_value": 4}}, 4.0),
        ({"properties": {"amount": 1e300, "total": 1e100}}, 1e100),
        ({"properties": {"revenue": 10**400, "total": 7}}, 7.0),
        ({"properties": {"other": 1}}, None),
        ({"value": 0, "properties": {"price": 9}}, 0.0),
        ({}, None),
    ],
)
def test_the_amount_is_the_value_or_the_first_number(fields: dict[str, Any], amount: float | None) -> None:
    assert taken(click(**fields)).a == amount


def test_the_address_may_name_the_experiment() -> None:
    assert taken(click(), experiment_id=2).x == 2
    assert taken(click(experiment_id=2), experiment_id=2).x == 2
    assert refused(click(experiment_id="checkout"), experiment_id=2).path == "experiment_id"


# What is refused: field, value and reason.


def refusal(accept: Callable[..., Any], body: bytes) -> Refused:
    """What the caller of a single event would be told."""
    try:
        found = accept(body, NOW, resolve=resolve, limits=Limits(event_bytes=10**6))
    except Refused as error:
        return error
    return (found.rejected[0] if isinstance(found, Batch) else found).error()


@pytest.mark.parametrize(
    ("document", "path", "code", "words"),
    [
        ({"type": "x"}, "user_id", "missing_field", "user_id is missing"),
        ({"user_id": "u"}, "type", "missing_field", "type (or event_name) is missing"),
        (click(user_id=5), "user_id", "invalid", "must be a text, got 5"),
        (click(user_id=""), "user_id", "invalid", "must not be empty"),
        (click(user_id="a\0b"), "user_id", "invalid", 'NUL, got "a\\u0000b"'),
        (click(user_id="x" * 201), "user_id", "too_long", "has 201 characters; 200 are allowed"),
        (click(type="x" * 201), "type", "too_long", "201 characters"),
        (click(type=""), "type", "invalid", "must not be empty"),
        (click(event_name="other"), "event_name", "invalid", '"click" and "other"'),
        (click(event_id=""), "event_id", "invalid", "must not be empty"),
        (click(event_id="\0"), "event_id", "invalid", "NUL"),
        (click(event_id=["x"]), "event_id", "invalid", 'must be a text, got ["x"]'),
        (click(colour="red"), "colour", "unknown_field", '"colour" is not a field of an event'),
        (click(timestamp="soon"), "timestamp", "invalid_timestamp", 'got "soon"'),
        (click(timestamp=True), "timestamp", "invalid", "got true"),
        (click(timestamp="1999-12-31T23:59:59Z"), "timestamp", "timestamp_too_old", "1999"),
        (click(timestamp="0001-01-01"), "timestamp", "timestamp_too_old", "0001"),
        (click(timestamp=iso(NOW + 300 * SECOND + 1)), "timestamp", "timestamp_in_future", "5 minutes ahead"),
        (click(value="9.99"), "value", "invalid", 'must be a finite number, got "9.99"'),
        (click(value=True), "value", "invalid", "got true"),
        (click(value=2e100), "value", "invalid", "between -1e100 and 1e100, got 2e+100"),
        (click(value=10**400), "value", "invalid", "between -1e100 and 1e100"),
        (click(properties=[1]), "properties", "invalid", "must be an object, got [1]"),
        (click(properties="x"), "properties", "invalid", 'must be an object, got "x"'),
        (click(properties=dict.fromkeys(map(str, range(101)))), "properties", "too_many_properties", "101"),
        (click(properties={"n" * 201: 1}), "properties.nnn", "too_long", "201 characters"),
        (click(experiment_id="nope"), "experiment_id", "unknown_experiment", '"nope" is not known'),
        (click(experiment_id=10**30), "experiment_id", "unknown_experiment", "is not known"),
        (click(experiment_id=1.5), "experiment_id", "invalid", "got 1.5"),
        (click(variant_id="blue"), "variant_id", "invalid", 'got "blue"'),
        (click(variant_id=-1), "variant_id", "invalid", "got -1"),
        (click(variant_id=10**30), "variant_id", "invalid", "got 1000"),
        (click(units=[]), "units", "invalid", "must be an object"),
        (click(units={"account": 5}), "units.account", "invalid", "must be a text, got 5"),
        (click(units={"account": ""}), "units.account", "invalid", "must not be empty"),
        (click(units={"": "x"}), "units", "invalid", "must not be empty"),
        (click(units={f"u{index}": "x" for index in range(101)}), "units", "too_many_units", "101"),
        ([], "", "invalid", "must be an object, got []"),
        (5, "", "invalid", "must be an object, got 5"),
        (None, "", "invalid", "must be an object, got null"),
    ],
)  # fmt: skip
def test_a_refusal_names_field_and_value(document: Any, path: str, code: str, words: str) -> None:
    found = refused(document)
    assert found.path.startswith(path)
    assert found.code == code
    assert words in found.message
    error = found.error()
    assert (error.status, error.code) == (422, code)
    assert [named.path for named in error.errors] == ([found.path] if found.path else [])
    [listed] = batch([document]).rejected
    assert (listed.index, listed.code, listed.message) == (0, found.code, found.message)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "empty"),
        (b"  \n", 400, "empty"),
        (b"{", 400, "not valid JSON"),
        (b'{"user_id": "u"} trailing', 400, "not valid JSON"),
        (b'{"user_id": "\xff"}', 400, "not valid UTF-8: byte 0xff at position 13"),
        (b'{"user_id": "u", "type": "t", "value": NaN}', 422, "value: must be a finite number, got NaN"),
        (
            b'{"user_id": "u", "type": "t", "value": -Infinity}',
            422,
            "must be a finite number, got -Infinity",
        ),
        (b'{"user_id": "u", "type": "\\ud800"}', 422, "type: must not contain half a surrogate pair"),
        (b'{"user_id": "u", "properties": {"a": [0, NaN]}}', 422, "properties.a[1]: must be a finite number"),
        (b'{"user_id": "u", "type": "t", "properties": ' + b"[" * 100_000, 422, "nested too deeply"),
        (b"[" * 100_000, 422, "nested too deeply"),
        (b'{"\\udc00": 1}', 422, "half a surrogate pair in a name"),
    ],
)
def test_a_body_that_cannot_be_read_is_one_error(body: bytes, status: int, words: str) -> None:
    for accept in (accept_one, accept_batch):
        error = refusal(accept, body)
        assert error.status == status
        assert words in error.detail


@pytest.mark.parametrize(
    ("raw", "path", "words"),
    [
        (b'{"user_id": "u", "type": "t", "properties": {"a": 1e999}}', "properties.a", "beyond the largest"),
        (b'{"user_id": "u", "type": "t", "properties": {"a": "\xff"}}', "", "not valid UTF-8"),
        (b'{"user_id": "u", "type": "t", "value": 1e999}', "value", "beyond the largest"),
    ],
)
def test_a_wrong_event_leaves_its_neighbours_alone(raw: bytes, path: str, words: str) -> None:
    good = json.dumps(click()).encode()
    for found in (
        batch(b"[%b,%b,%b]" % (good, raw, good)),
        batch(b'{"events": [%b,%b,%b]}' % (good, raw, good)),
        batch(b"\n".join((good, b"", raw, good, b"")), lines=True),
    ):
        assert len(found.events) == 2
        [rejected] = found.rejected
        assert (rejected.index, rejected.path) == (1, path)
        assert words in rejected.message


def test_lines_are_read_one_by_one() -> None:
    good = json.dumps(click()).encode()
    found = batch(b"\n".join((good, b"{broken", b"  ", b'["x"]', good + b"\r")), lines=True)
    assert len(found.events) == 2
    assert [(one.index, one.code) for one in found.rejected] == [(1, "invalid_json"), (2, "invalid")]


# Shapes and limits of a whole request.


def test_shapes_of_a_body() -> None:
    found = [batch(click()), batch([click()] * 3), batch({"events": [click()] * 2})]
    assert [(len(one.events), one.single) for one in found] == [(1, True), (3, False), (2, False)]
    assert batch([]) == Batch([], [], single=False)
    assert batch({"type": "x"}).single
    assert batch({"type": "x"}).rejected[0].path == "user_id"


@pytest.mark.parametrize(
    ("document", "path", "words"),
    [
        ("text", "", 'got "text"'),
        (7, "", "got 7"),
        ({"events": [], "batch": 1}, "batch", "is not a field of a batch"),
        ({"events": {}}, "events", "must be an array of events, got {}"),
        ({"events": [click()], "sent_at": "noon"}, "sent_at", 'got "noon"'),
        ({"events": [click()], "sent_at": [1]}, "sent_at", "got [1]"),
    ],
)
def test_other_shapes_are_refused(document: Any, path: str, words: str) -> None:
    with pytest.raises(Invalid) as caught:
        batch(document)
    assert words in caught.value.detail
    assert [error.path for error in caught.value.errors] == ([path] if path else [])


def test_limits_are_named() -> None:
    small = Limits(body=400, events=2, event_bytes=100, properties=1, name=5)
    with pytest.raises(TooLarge, match="The body has 402 bytes; 400 are allowed"):
        batch("x" * 400, limits=small)
    for many in ([click()] * 3, {"events": [click()] * 3}):
        with pytest.raises(TooLarge, match="The request has 3 events; 2 are allowed"):
            batch(many, limits=small)
    with pytest.raises(TooLarge, match="3 events"):
        batch(b"\n".join([json.dumps(click()).encode()] * 3), lines=True, limits=small)
    large = click(properties={"x": "y" * 90})
    assert refused(large, limits=small).code == "too_large"
    assert refused(large, limits=small).error().status == 413
    for found in (batch([click(), large], limits=small), batch({"events": [click(), large]}, limits=small)):
        assert (len(found.events), [(one.index, one.code) for one in found.rejected]) == (
            1,
            [(1, "too_large")],
        )
    assert batch(large, limits=small).rejected[0].code == "too_large"
    assert refused(click(type="sixsix"), limits=small).code == "too_long"


def test_a_large_batch_equals_its_events_alone() -> None:
    documents = [
        click(user_id=f"u{index}", event_id=str(index), properties={"x": "y" * 900}) for index in range(200)
    ]
    assert len(json.dumps(documents)) > Limits().event_bytes
    expected = [taken(document) for document in documents]
    assert batch(documents).events == batch({"events": documents}).events == expected


def test_sent_at_corrects_the_clock() -> None:
    wrong_clock = NOW - 86_400 * SECOND
    found = batch({"sent_at": iso(wrong_clock), "events": [click(timestamp=iso(wrong_clock - 5)), click()]})
    assert [event.s for event in found.events] == [NOW - 5, NOW]
    found = batch({"sent_at": iso(NOW - 10**15), "events": [click(timestamp=iso(NOW))]})
    assert found.rejected[0].code == "timestamp_in_future"


def test_a_refusal_says_whose_it_was() -> None:
    found = refused(click(type="buy", experiment_id="checkout", value="x"))
    assert (found.type, found.experiment_id) == ("buy", 1)
    assert json.loads(found.sample)["value"] == "x"
    assert refused(click(type="buy", experiment_id="nope")).experiment_id is None
    assert (
        refused({"user_id": "u" * 10_000}, limits=Limits(event_bytes=10**6)).sample
        == '{"user_id": "' + "u" * 287
    )


# Totality and round trip.

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    [
        "user_id",
        "type",
        "event_name",
        "event_id",
        "timestamp",
        "value",
        "properties",
        "experiment_id",
        "variant_id",
        "units",
        "events",
        "sent_at",
        "other",
    ]
)
REFUSALS = {400, 413, 422}


def try_everything(body: bytes) -> None:
    for lines in (False, True):
        try:
            found = accept_batch(body, NOW, resolve=resolve, lines=lines)
        except Refused as error:
            statuses, texts = [error.status], [error.detail]
        else:
            statuses = [rejected.error().status for rejected in found.rejected]
            texts = [encode(found.events), *(rejected.message for rejected in found.rejected)]
        assert REFUSALS.issuperset(statuses)
        assert all(isinstance(text.encode(), bytes) for text in texts)
    with contextlib.suppress(Refused):
        assert isinstance(accept_one(body, NOW, resolve=resolve), Event | Rejected)


@given(JSON | st.dictionaries(FIELDS, JSON) | st.lists(st.dictionaries(FIELDS, JSON), max_size=3))
def test_any_json_is_taken_or_refused(document: Any) -> None:
    try_everything(json.dumps(document).encode())
    try_everything(json.dumps(document, ensure_ascii=False).encode(errors="surrogatepass"))


@given(
    st.binary()
    | st.binary().map(lambda noise: b'{"user_id": "u", "type": "t", "properties": {' + noise + b"}}")
)
def test_any_bytes_are_taken_or_refused(body: bytes) -> None:
    try_everything(body)


def sendable(value: Any) -> bool:
    """Whether JSON can carry it: no NaN, no infinity, no half surrogate."""
    try:
        return bool(json.dumps(value, allow_nan=False, ensure_ascii=False).encode())
    except ValueError:
        return False


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=30)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"user_id": TEXT, "type": TEXT},
            optional={
                "event_id": TEXT,
                "value": st.floats(-LARGEST_VALUE, LARGEST_VALUE),
                "timestamp": st.integers(950_000_000, NOW // SECOND),
                "properties": st.dictionaries(st.text(max_size=50), JSON, max_size=4).filter(sendable),
                "experiment_id": st.sampled_from([1, 2, "checkout"]),
                "units": st.dictionaries(TEXT, TEXT, max_size=3),
            },
        ),
        min_size=1,
        max_size=5,
    )
)  # fmt: skip
@settings(max_examples=200)
def test_what_is_taken_is_kept_to_the_letter(documents: list[dict[str, Any]]) -> None:
    found = batch(documents)
    assert not found.rejected
    kept = msgspec.json.decode(f"[{encode(found.events)}]", type=list[Event])
    assert kept == found.events
    for document, event in zip(documents, kept, strict=True):
        assert (event.u, event.t, event.v) == (document["user_id"], document["type"], document.get("value"))
        if "event_id" in document:
            assert (event.o or event.e) == document["event_id"]
        assert event.p == (json.dumps(document["properties"]) if "properties" in document else None)
        assert (event.m or {}) == document.get("units", {})


def test_both_ends_of_the_log_agree() -> None:
    assert base.LARGEST_VALUE == LARGEST_VALUE
    assert len(AMOUNTS) == len(set(AMOUNTS))
