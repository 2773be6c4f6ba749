"""What is asked of a report: a hashable question, refined from request parameters by small pure steps.

Each step reads the parameters it knows and names the one that is wrong. Empty text counts as absent, so
that a form may send all of its fields.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import reduce
from typing import Literal, get_args

from assay.errors import FieldError, Invalid
from assay.events.timestamps import parse

Grain = Literal["hour", "day", "week", "month"]
GRAINS: tuple[Grain, ...] = get_args(Grain)
Raw = Mapping[str, object]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST_NAME = 200
#: Attributes that one report tells units apart by; each costs a scan.
MOST_DIMENSIONS = 5
_MOST_DAYS = 36_500
#: No stored name can hold these, and the store cannot be asked for them.
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
#: A plus sign in a query string arrives as a space.
_LOST_PLUS = re.compile(r"(?<=\d) (?=\d\d:?\d\d$)")


@dataclass(frozen=True, slots=True)
class Question:
    """What to report on.

    `start` narrows events, `end` narrows events and assignments; both are inclusive. `metrics` None means
    all that the experiment declares. `event_type` narrows the counts of events, and is the conversion
    where `primary_event_type` names no other. `variant` is an id, key or name. `threshold` and
    `confidence_level` stand in for the experiment's own significance level where given. `counts` and
    `grain` ask for events by type and for a series over time, `sql` for the statements themselves. `segment`
    (id or name) narrows all units to its members; `dimensions` are attributes of users by whose values units
    are told apart.
    """

    start: datetime | None = None
    end: datetime | None = None
    metrics: tuple[str, ...] | None = None
    event_type: str | None = None
    primary_event_type: str | None = None
    variant: str | None = None
    grain: Grain | None = None
    cumulative: bool = True
    confidence_level: float | None = None
    threshold: float | None = None
    counts: bool = False
    sql: bool = False
    segment: str | None = None
    dimensions: tuple[str, ...] = ()

    @property
    def is_narrowed(self) -> bool:
        """Whether a filter leaves out part of the experiment, so that no decision can rest on the answer."""
        return self.start is not None or self.end is not None or self.segment is not None

    @property
    def looks_at_users(self) -> bool:
        """Whether the answer depends on what is known of users."""
        return self.segment is not None or bool(self.dimensions)


def ask(raw: Raw, now: datetime) -> Question:
    """The question that these parameters ask. Raises `Invalid` naming the parameter that is wrong."""
    given = {name: value for name, value in raw.items() if value not in (None, "")}
    return reduce(lambda question, step: step(question, given, now), _STEPS, Question())


def known_only(names: frozenset[str], sent: Iterable[str]) -> None:
    """Refuse parameters that nobody reads: a misspelt filter would answer another question than was asked."""
    unknown = sorted(set(sent) - names)
    if unknown:
        known = ", ".join(sorted(names))
        errors = [FieldError(name, f"no such parameter; there are: {known}") for name in unknown]
        raise Invalid(f"{unknown[0]}: {errors[0].message}", code="unknown_parameter", errors=errors)


def _window(question: Question, raw: Raw, now: datetime) -> Question:
    begin, finish = _one_of(raw, "start_date", "start"), _one_of(raw, "end_date", "end")
    start = end = None
    if begin is not None:
        start = _moment(*begin)[0]
    if finish is not None:
        end = _moment(*finish)[1]
    if "last_day" in raw:
        clash = begin or finish
        if clash is not None:
            raise Invalid.field("last_day", f"cannot be combined with {clash[0]}: send one or the other")
        # From a full minute on, so that whoever asks again within it asks the same, which is kept.
        minute = now.replace(second=0, microsecond=0)
        start = minute - timedelta(days=_whole(raw, "last_day", 1, _MOST_DAYS))
    if begin is not None and start is not None and end is not None and start > end:
        raise Invalid.field(begin[0], f"{raw[begin[0]]} lies after the end of the window")
    return replace(question, start=start, end=end)


def _wanted(question: Question, raw: Raw, _now: datetime) -> Question:
    found = _one_of(raw, "metrics", "metric")
    if found is None:
        return question
    name, value = found
    parts = value if isinstance(value, (list, tuple)) else str(value).split(",")
    names = tuple(dict.fromkeys(_name(name, str(part).strip()) for part in parts if str(part).strip()))
    if not names:
        raise Invalid.field(name, "names no metric")
    return replace(question, metrics=names)


def _conversion(question: Question, raw: Raw, _now: datetime) -> Question:
    found = _one_of(raw, "primary_event_type", "conversion_event_type")
    event_type = raw.get("event_type")
    return replace(
        question,
        event_type=None if event_type is None else _name("event_type", event_type),
        primary_event_type=None if found is None else _name(*found),
    )


def _arm(question: Question, raw: Raw, _now: datetime) -> Question:
    if "variant_id" not in raw:
        return question
    return replace(question, variant=_name("variant_id", str(raw["variant_id"])))


def _grouping(question: Question, raw: Raw, _now: datetime) -> Question:
    found = _one_of(raw, "group_by", "aggregation", "by")
    grain: Grain | None = None
    if found is not None:
        name, value = found
        grain = next((each for each in GRAINS if each == str(value).lower()), None)
        if grain is None:
            raise Invalid.field(name, f"{value!r} is not one of {', '.join(GRAINS)}")
    return replace(question, grain=grain, cumulative=_truth(raw, "cumulative", default=True))


def _levels(question: Question, raw: Raw, _now: datetime) -> Question:
    return replace(
        question,
        confidence_level=_share(raw, "confidence_level"),
        threshold=_share(raw, "significance_threshold"),
    )


def _parts(question: Question, raw: Raw, _now: datetime) -> Question:
    value, segment = raw.get("dimension", ()), raw.get("segment")
    given = value if isinstance(value, (list, tuple)) else (value,)
    names = tuple(dict.fromkeys(_name("dimension", each) for each in given))
    if len(names) > MOST_DIMENSIONS:
        raise Invalid.field("dimension", f"at most {MOST_DIMENSIONS} at once; got {len(names)}")
    return replace(
        question,
        dimensions=names,
        segment=None if segment is None else _name("segment", str(segment)),
    )


def _statements(question: Question, raw: Raw, _now: datetime) -> Question:
    return replace(question, sql=_truth(raw, "sql", default=False))


_STEPS: tuple[Callable[[Question, Raw, datetime], Question], ...] = (
    _window,
    _wanted,
    _conversion,
    _arm,
    _grouping,
    _levels,
    _statements,
    _parts,
)


def _one_of(raw: Raw, *names: str) -> tuple[str, object] | None:
    """The parameter that is given under one of several names; synonyms must not contradict each other."""
    given = [name for name in names if name in raw]
    for other in given[1:]:
        if raw[other] != raw[given[0]]:
            raise Invalid.field(other, f"contradicts {given[0]}={raw[given[0]]}: they mean the same")
    return (given[0], raw[given[0]]) if given else None


def _moment(name: str, value: object) -> tuple[datetime, datetime]:
    """First and last instant of the time as written: a date is a day, a minute is sixty seconds."""
    if isinstance(value, datetime):
        return value, value
    text = str(value).strip()
    read = parse(_LOST_PLUS.sub("+", text) if "T" in text.upper() else text)
    try:
        if read is not None:
            return _EPOCH + timedelta(microseconds=read[0]), _EPOCH + timedelta(microseconds=read[1])
    except OverflowError:  # a zone shifts it out of the calendar
        pass
    raise Invalid.field(name, f"{text[:50]!r} is not a date (2026-11-21) or a time (2026-11-21T07:49:53Z)")


def _name(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise Invalid.field(name, f"must be text, got {value!r}")
    if not 0 < len(value) <= _LONGEST_NAME or _UNSTORABLE.search(value):
        raise Invalid.field(
            name, f"must have 1 to {_LONGEST_NAME} characters, none of them NUL or half a pair"
        )
    return value


def _whole(raw: Raw, name: str, low: int, high: int) -> int:
    text = str(raw[name]).strip()
    # Digits of other scripts are numbers to Python, and so are twenty thousand nines.
    if not re.fullmatch(r"[+-]?\d{1,9}", text, re.ASCII) or not low <= int(text) <= high:
        raise Invalid.field(name, f"must be a whole number from {low} to {high}, got {text[:50]!r}")
    return int(text)


def _share(raw: Raw, name: str) -> float | None:
    value = raw.get(name)
    if value is None:
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(str(value))
    except ValueError:
        number = math.nan
    if not 0.0 < number < 1.0:
        raise Invalid.field(name, f"must lie strictly between 0 and 1, got {value!r}")
    return number


def _truth(raw: Raw, name: str, *, default: bool) -> bool:
    value = str(raw.get(name, default)).lower()
    if value not in ("true", "false", "1", "0", "yes", "no"):
        raise Invalid.field(name, f"must be true or false, got {raw[name]!r}")
    return value in ("true", "1", "yes")
