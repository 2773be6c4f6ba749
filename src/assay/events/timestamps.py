"""Reading the times callers write: ISO 8601 text, or a number since the epoch.

A clock that writes whole seconds says 10:00:00 for everything up to 10:00:00.999999. Such an event must not
be taken for earlier than an assignment made half a second into the same second, so a time is a pair: where it
begins, and the last microsecond it may mean. Naive times are UTC.
"""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = 1_000
SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

# Numbers below are seconds (the year 5138), above milliseconds (the year 1973).
_SECONDS_BELOW = 100_000_000_000
# The year 5138 again, in milliseconds: anything larger counts finer units than callers are asked for.
_MILLISECONDS_BELOW = 100_000_000_000_000

_ISO = re.compile(
    r"\d{4}-\d\d-\d\d"
    r"(?:[T ](?P<hour>\d\d)(?P<minute>:\d\d(?P<second>:\d\d(?:[.,](?P<fraction>\d{1,9}))?)?)?"
    r"(?:Z|[+-]\d\d(?::?\d\d)?)?)?",
    re.ASCII | re.IGNORECASE,
)

# Lengths of the usual spellings in UTC, `2026-11-21T07:49:53Z` with no, three or six digits of a fraction,
# and what their last digit counts.
_USUAL = {20: SECOND, 24: MILLISECOND, 27: 1}


_new = tuple.__new__  # a third of what calling a named tuple costs


class Moment(NamedTuple):
    """A time as written: µs since the epoch, and the last µs it may mean (`start` when it was exact)."""

    start: int
    end: int


def micros(moment: datetime) -> int:
    """µs since the epoch; a naive datetime is UTC."""
    gap = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - EPOCH
    return (gap.days * 86_400 + gap.seconds) * SECOND + gap.microseconds


def iso(at: int) -> str:
    """The text form of a time in µs: `2026-11-21T07:49:53.123456Z`; far-off ones as a bare number."""
    try:
        moment = (EPOCH + timedelta(microseconds=at)).replace(tzinfo=None)
        return f"{moment.isoformat(timespec='microseconds')}Z"
    except OverflowError:
        return f"{at} µs"


def parse(written: str | float) -> Moment | None:
    """The moment a caller wrote, or None when it cannot be read."""
    if not isinstance(written, str):
        return _parse_number(written)
    span = _USUAL.get(len(written))
    if span is not None and written[-1] == "Z" and written.isascii():
        start = _second(written[:19])
        if start is not None:
            if span == SECOND:
                return _new(Moment, (start, start + SECOND - 1))
            if written[19] == ".":
                fraction = written[20:-1]
                if fraction.isdigit():
                    start += int(fraction) * span
                    return _new(Moment, (start, start + span - 1))
    return _parse_text(written)


@lru_cache(maxsize=4_096)
def _second(text: str) -> int | None:
    """The start of a second written as `2026-11-21T07:49:53`: the events of a request share few of them."""
    if text[10] != "T" or text[13] != ":" or text[16] != ":":
        return None
    moment = _parse_text(text)
    return None if moment is None else moment.start


def _parse_text(text: str) -> Moment | None:
    # Most looks like `2026-11-21T07:49:53…`: two characters replace the regular expression.
    if not (19 <= len(text) <= 27 and text[10] == "T" and text[16] == ":" and text.isascii()):
        shape = _ISO.fullmatch(text)
        if shape is None:
            return None
        span = _span(shape)
        text = _plain(text, shape)
    elif text[19:20] not in {".", ","}:
        span = SECOND
    else:
        three = len(text) >= 23 and text[20:23].isdigit() and not text[23:24].isdigit()
        span = MILLISECOND if three else 1
    try:
        start = micros(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        return None
    return Moment(start, start + span - 1)


def _span(shape: re.Match[str]) -> int:
    """How long the stretch is that a time of this shape stands for, in µs."""
    if shape["hour"] is None:
        return DAY
    if shape["minute"] is None:
        return HOUR
    if shape["second"] is None:
        return MINUTE
    if shape["fraction"] is None:
        return SECOND
    return MILLISECOND if len(shape["fraction"]) == 3 else 1


def _plain(text: str, shape: re.Match[str]) -> str:
    """The spelling that `datetime.fromisoformat` reads: upper case, a point, at most six digits after it."""
    if shape["fraction"]:
        begin, end = shape.span("fraction")
        text = f"{text[: begin - 1]}.{text[begin : min(end, begin + 6)]}{text[end:]}"
    return text.upper()


def _parse_number(number: float) -> Moment | None:
    if not -_MILLISECONDS_BELOW < number < _MILLISECONDS_BELOW:
        return None
    seconds = abs(number) < _SECONDS_BELOW
    start = round(number * (SECOND if seconds else MILLISECOND))
    if number != int(number):
        return Moment(start, start)
    return Moment(start, start + (SECOND if seconds else MILLISECOND) - 1)
