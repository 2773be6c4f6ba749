"""Numbers as people read them in a sentence. The API's own numbers are never rounded."""

import math
from collections.abc import Callable

from assay.stats import Interval, Verdict


def percent(share: float) -> str:
    """`34.9 %`; small shares keep two digits that mean something."""
    shown = f"{share * 100:.1f}" if abs(share) >= 0.01 or share == 0.0 else f"{share * 100:.2g}"
    return f"{shown} %"


def number(value: float) -> str:
    """`1,794.34`; four significant digits below one hundred."""
    return f"{value:,.2f}" if 100.0 <= abs(value) < 1e15 else f"{value:.4g}"


def duration(days: float) -> str:
    """`5 days`, `1.5 days`, `less than a day`."""
    if days < 1.0:
        return "less than a day"
    # Rounded down: what is not yet a week must not read like one.
    tenths = int(days * 10.0) / 10.0
    return f"{tenths:g} day{'' if tenths == 1.0 else 's'}"


def p_value(p: float | None, log10_p: float | None = None) -> str:
    """`p = 0.0234`; what no double can hold by its power of ten."""
    if p is None:
        return "no p-value"
    if p < 1e-4:
        power = log10_p if log10_p is not None else math.log10(p) if p > 0.0 else -300.0
        return f"p < {10.0 ** -min(300, int(-power)):.0e}"
    return f"p = {p:.3g}"


def change(found: Verdict) -> str:
    """How large the effect is: relative where a lift exists, in the metric's own unit elsewhere; unsigned."""
    if found.lift is not None:
        return percent(abs(found.lift))
    return number(abs(found.difference or 0.0))


def interval(found: Verdict) -> str:
    """The interval that belongs to `change`, signed."""
    level = f"{100.0 * (1.0 - found.alpha):.4g} % interval"
    if found.lift is not None:
        return (
            f"{level} {_ends(found.lift_interval, percent)}" if found.lift_interval else "no bounded interval"
        )
    return f"{level} {_ends(found.interval, number)}" if found.interval else "no interval"


def _ends(ends: Interval, show: Callable[[float], str]) -> str:
    low = "unbounded" if ends.low is None else show(ends.low)
    high = "unbounded" if ends.high is None else show(ends.high)
    return f"{low} to {high}"
