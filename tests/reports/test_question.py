"""Parameters become a question, or a refusal that names the parameter."""

import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.errors import Invalid
from assay.reports.question import Question, ask, known_only

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def at(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc, arg-type]


def test_nothing_asked__is_the_whole_experiment() -> None:
    assert ask({}, NOW) == Question()
    assert ask({"start_date": "", "event_type": None, "variant_id": ""}, NOW) == Question()
    assert hash(ask({}, NOW)) == hash(Question())


@pytest.mark.parametrize(
    ("written", "start", "end"),
    [
        ("2024-01-31", at(2024, 1, 31), at(2024, 1, 31, 23, 59, 59, 999999)),
        ("2024-01-31T23:59:59", at(2024, 1, 31, 23, 59, 59), at(2024, 1, 31, 23, 59, 59, 999999)),
        ("2024-01-31T10:30", at(2024, 1, 31, 10, 30), at(2024, 1, 31, 10, 30, 59, 999999)),
        ("2024-01-31T10:30:00.5Z", at(2024, 1, 31, 10, 30, 0, 500000), at(2024, 1, 31, 10, 30, 0, 500000)),
        ("2024-01-31T10:30:00.000001+02:00", at(2024, 1, 31, 8, 30, 0, 1), at(2024, 1, 31, 8, 30, 0, 1)),
        ("2024-01-31T10:30:00.000001 02:00", at(2024, 1, 31, 8, 30, 0, 1), at(2024, 1, 31, 8, 30, 0, 1)),
        ("2024-01-31 10:30:00.000001", at(2024, 1, 31, 10, 30, 0, 1), at(2024, 1, 31, 10, 30, 0, 1)),
    ],
)
def test_window__is_inclusive_and_as_coarse_as_written(written: str, start: datetime, end: datetime) -> None:
    assert ask({"start_date": written}, NOW).start == start
    assert ask({"end_date": written}, NOW).end == end
    assert ask({"start": written, "end": written}, NOW).end == end


def test_last_day__reaches_back_from_now() -> None:
    assert ask({"last_day": "1"}, NOW) == Question(start=NOW - timedelta(days=1))
    assert ask({"last_day": "30"}, NOW).start == NOW - timedelta(days=30)


def test_last_day__is_the_same_question_for_a_minute() -> None:
    asked = [ask({"last_day": "1"}, NOW + timedelta(seconds=seconds)) for seconds in (0, 59, 60)]
    assert asked[0] == asked[1]
    assert asked[2] == Question(start=NOW - timedelta(days=1) + timedelta(minutes=1))


def test_synonyms__are_one_parameter() -> None:
    assert ask({"group_by": "Day"}, NOW).grain == "day"
    assert ask({"aggregation": "hour"}, NOW).grain == "hour"
    assert ask({"by": "week", "group_by": "week"}, NOW).grain == "week"
    assert ask({"conversion_event_type": "buy"}, NOW).primary_event_type == "buy"
    assert ask({"metrics": "a, b,,a"}, NOW).metrics == ("a", "b")
    assert ask({"metric": "a"}, NOW).metrics == ("a",)
    assert ask({"cumulative": "false"}, NOW).cumulative is False
    assert ask({"confidence_level": 0.9, "significance_threshold": "0.01"}, NOW).threshold == 0.01


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"start_date": "yesterday"}, "start_date"),
        ({"start_date": "2024-13-01"}, "start_date"),
        ({"start_date": "0001-01-01T00:00:00.000001+23:00"}, "start_date"),
        ({"end_date": "1700000000"}, "end_date"),
        ({"start_date": "2024-02-02", "end_date": "2024-02-01"}, "start_date"),
        ({"start": "2024-02-02", "start_date": "2024-02-03"}, "start"),
        ({"last_day": "0"}, "last_day"),
        ({"last_day": "-1"}, "last_day"),
        ({"last_day": "1.5"}, "last_day"),
        ({"last_day": "9" * 5000}, "last_day"),
        ({"last_day": "٣"}, "last_day"),
        ({"last_day": "1", "start_date": "2024-01-01"}, "last_day"),
        ({"last_day": "1", "end_date": "2024-01-01"}, "last_day"),
        ({"group_by": "minute"}, "group_by"),
        ({"group_by": "day", "aggregation": "hour"}, "aggregation"),
        ({"event_type": "x" * 201}, "event_type"),
        ({"event_type": "a\0b"}, "event_type"),
        ({"primary_event_type": "\ud800"}, "primary_event_type"),
        ({"primary_event_type": 7}, "primary_event_type"),
        ({"metrics": ","}, "metrics"),
        ({"variant_id": "x" * 201}, "variant_id"),
        ({"confidence_level": "1"}, "confidence_level"),
        ({"confidence_level": "nan"}, "confidence_level"),
        ({"confidence_level": True}, "confidence_level"),
        ({"significance_threshold": "much"}, "significance_threshold"),
        ({"cumulative": "perhaps"}, "cumulative"),
    ],
)
def test_wrong__is_refused_by_name(given: dict[str, Any], path: str) -> None:
    with pytest.raises(Invalid) as refused:
        ask(given, NOW)
    assert [each.path for each in refused.value.errors] == [path]
    assert len(refused.value.detail) < 300


def test_unknown_parameters__are_refused() -> None:
    known_only(frozenset({"a"}), ["a"])
    with pytest.raises(Invalid, match="startdate: no such parameter; there are: start_date"):
        known_only(frozenset({"start_date"}), ["start_date", "startdate"])


@given(
    st.dictionaries(
        st.sampled_from(["start_date", "end_date", "last_day", "group_by", "variant_id", "metrics", "by"]),
        st.text() | st.integers() | st.floats() | st.none(),
    )
)
def test_anything__is_a_question_or_a_refusal(given: dict[str, Any]) -> None:
    with contextlib.suppress(Invalid):
        hash(ask(given, NOW))
