"""Times as callers write them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.events.timestamps import DAY, HOUR, MINUTE, SECOND, Moment, iso, micros, parse

AT = 1_705_314_900_000_000  # 2024-01-15T10:35:00Z


@pytest.mark.parametrize(
    ("written", "start", "length"),
    [
        ("2024-01-15T10:35:00", AT, SECOND),
        ("2024-01-15T10:35:00Z", AT, SECOND),
        ("2024-01-15 10:35:00", AT, SECOND),
        ("2024-01-15t10:35:00z", AT, SECOND),
        ("2024-01-15T12:35:00+02:00", AT, SECOND),
        ("2024-01-15T12:35:00+0200", AT, SECOND),
        ("2024-01-15T12:35:00+02", AT, SECOND),
        ("2024-01-15T10:35Z", AT, MINUTE),
        ("2024-01-15T10:35", AT, MINUTE),
        ("2024-01-15T10", AT - 35 * MINUTE, HOUR),
        ("2024-01-15", AT - AT % DAY, DAY),
        ("2024-01-15T10:35:00.123Z", AT + 123_000, 1_000),
        ("2024-01-15T10:35:00.123", AT + 123_000, 1_000),
        ("2024-01-15T12:35:00.123+02:00", AT + 123_000, 1_000),
        ("2024-01-15T10:35:00,5Z", AT + 500_000, 1),
        ("2024-01-15T10:35:00.5", AT + 500_000, 1),
        ("2024-01-15T10:35:00.123456Z", AT + 123_456, 1),
        ("2024-01-15T10:35:00.123456789Z", AT + 123_456, 1),
        (1_705_314_900, AT, SECOND),
        (1_705_314_900.0, AT, SECOND),
        (1_705_314_900.25, AT + 250_000, 1),
        (1_705_314_900_123, AT + 123_000, 1_000),
        (1_705_314_900_123.5, AT + 123_500, 1),
        (-5, -5 * SECOND, SECOND),
    ],
)
def test_a_time_stands_for_as_long_as_it_was_written(written: str | float, start: int, length: int) -> None:
    assert parse(written) == Moment(start, start + length - 1)


@pytest.mark.parametrize(
    "written",
    [
        "", "yesterday", "2024-13-01", "2024-02-30", "2024-01-15T25:00:00Z",
        "2024-01-15T10:35:60Z",
        "20240115",
        "2024-01-15T10:35:00 Europe/Berlin", "2024-01-15T10:35:00Zjunk", "２０２４-01-15",
        "2024-01-15T10:35:00+99:00", "0000-01-01", "2024-01-15T10:35:00.",
        "infinity", "now", 1e14, 10**30, -(10**30),
        1_705_314_900_000_000,
    ],
)  # fmt: skip
def test_what_is_no_time_is_nothing(written: str | float) -> None:
    assert parse(written) is None


@given(st.datetimes(), st.integers(-14 * 60, 14 * 60))
def test_iso_text_comes_back(moment: datetime, offset: int) -> None:
    if not 2 <= moment.year <= 9998:
        return  # in UTC it could be a year that has no text
    aware = moment.replace(tzinfo=timezone(timedelta(minutes=offset)))
    found = parse(aware.isoformat(timespec="microseconds"))
    assert found == Moment(micros(aware), micros(aware))
    assert parse(iso(micros(aware))) == found


@given(
    st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 12, 31)),  # noqa: DTZ001 - UTC is added
    st.sampled_from([("seconds", SECOND), ("milliseconds", 1_000), ("microseconds", 1)]),
)
def test_the_usual_spellings_say_what_they_say(moment: datetime, precision: tuple[str, int]) -> None:
    timespec, length = precision
    start = micros(moment) // length * length
    text = moment.isoformat(timespec=timespec)
    assert parse(f"{text}Z") == parse(f"{text}+00:00") == parse(text) == Moment(start, start + length - 1)


@pytest.mark.parametrize(
    "written",
    [
        "2024-01-15T07+01:00.123Z",
        "2024-01-15T07:+1:00.123Z",
        "2024-01-15T10:35:00.12٣Z",
        "2024-01-15T10:35:00.1_3Z",
        "2024-01-15T10:35:00.+12Z",
        "2024-02-30T10:35:00.123456Z",
        "2024-01-15T10:35:0٣Z",
        "2024-01-15T10:35:61Z",
    ],
)
def test_what_only_looks_usual_is_nothing(written: str) -> None:
    assert parse(written) is None


@given(st.text() | st.floats(allow_nan=False) | st.integers())
def test_parsing_is_total(written: str | float) -> None:
    found = parse(written)
    assert found is None or found.start <= found.end


def test_far_off_times_have_a_text() -> None:
    assert iso(10**30) == f"{10**30} µs"
    assert iso(AT + 5) == "2024-01-15T10:35:00.000005Z"
    moment = datetime(2024, 1, 15, 10, 35, tzinfo=UTC)
    assert micros(moment) == micros(moment.replace(tzinfo=None)) == AT
