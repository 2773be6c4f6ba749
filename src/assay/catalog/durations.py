"""Lengths of time as callers write them: `7d`, `24h`, `30m`."""

import re
from typing import Annotated

from pydantic import BeforeValidator

from assay.catalog.checks import refuse, shown

#: Minutes in each unit, the largest first.
_UNITS = {"d": 1440, "h": 60, "m": 1}
_WRITTEN = re.compile(r"([0-9]{1,7})([dhm])")
#: No window or lookback is longer: two years.
LONGEST_DAYS = 731


def minutes(text: str) -> int:
    """The length of a duration in minutes; `text` is one that was accepted."""
    found = _WRITTEN.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a duration")
    return int(found[1]) * _UNITS[found[2]]


def microseconds(text: str | None) -> int | None:
    """The same in microseconds; None for none."""
    return None if text is None else minutes(text) * 60_000_000


def _duration(value: object) -> object:
    """In the largest unit that says it exactly, so that `168h` and `7d` are one."""
    if not isinstance(value, str) or not _WRITTEN.fullmatch(value):
        raise refuse(f"must be a duration such as 7d, 24h or 30m; got {shown(value)}")
    length = minutes(value)
    if length > LONGEST_DAYS * 1440:
        raise refuse(f"must be at most {LONGEST_DAYS}d; got {shown(value)}")
    unit = next(unit for unit, size in _UNITS.items() if length % size == 0)
    return f"{length // _UNITS[unit]}{unit}"


#: A length of time, not negative.
Duration = Annotated[str, BeforeValidator(_duration)]
