"""Numbers as people read them. The document's own numbers are never rounded."""

from collections.abc import Callable

from assay.stats import Interval


def percent(share: float, *, signed: bool = False) -> str:
    """`34.9 %`; small shares keep two digits that mean something."""
    sign = "+" if signed and share > 0.0 else ""
    shown = f"{share * 100:,.1f}" if abs(share) >= 0.01 or share == 0.0 else f"{share * 100:.2g}"
    return f"{sign}{shown} %"


def number(value: float, *, signed: bool = False) -> str:
    """`1,794.34`; whole numbers as they are, four significant digits below one hundred."""
    sign = "+" if signed and value > 0.0 else ""
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e15):
        return f"{sign}{int(value):,}"
    return f"{sign}{value:,.2f}" if 100.0 <= abs(value) < 1e15 else f"{sign}{value:.4g}"


def signed_percent(share: float) -> str:
    """`+34.9 %`."""
    return percent(share, signed=True)


def signed_number(value: float) -> str:
    """`+1,794.34`."""
    return number(value, signed=True)


def ends(interval: Interval | None, show: Callable[[float], str]) -> str:
    """`+1.2 % to +3.4 %`; a side that is open on purpose says so, no interval is a dash."""
    if interval is None:
        return "–"
    if interval.low is None:
        return "any" if interval.high is None else f"at most {show(interval.high)}"
    if interval.high is None:
        return f"at least {show(interval.low)}"
    return f"{show(interval.low)} to {show(interval.high)}"


def p_value(p: float | None, log10_p: float | None = None) -> str:
    """`0.0234`; what is smaller than 0.0001 by its power of ten."""
    if p is None:
        return "–"
    if p >= 1e-4:
        return f"{p:.3g}"
    if p > 0.0:
        return f"{p:.1e}"
    return f"1e{log10_p:.0f}" if log10_p is not None else "0"
