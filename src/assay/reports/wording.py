"""Numbers as people read them in a sentence. The API's own numbers are never rounded."""

import math
from typing import Final

from assay.stats import Interval, Verdict

#: More decimals than these say nothing to anybody.
_MOST_DECIMALS: Final = 6


def percent(share: float) -> str:
    """`34.9 %`; small shares keep two digits that mean something."""
    shown = f"{share * 100:.1f}" if abs(share) >= 0.01 or share == 0.0 else f"{share * 100:.2g}"
    return f"{shown} %".replace("-", "−")


def setting(share: float) -> str:
    """A share that somebody chose, as they would write it: `95 %`, `0.5 %`."""
    return f"{share * 100.0:.6g} %"


def chance(share: float) -> str:
    """A probability, `97.3 %`; what is nearly sure is not written as if it were sure."""
    if share > 0.999:
        return "> 99.9 %"
    return "< 0.1 %" if share < 0.001 else percent(share)


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


def p_text(p: float) -> str:
    """`0.023`, `< 0.001`: two digits that mean something, and none that a p-value cannot have."""
    if p < 0.001:
        return "< 0.001"
    if p > 0.995:
        return "> 0.99"
    return f"{p:.4f}" if p < 0.00995 else f"{p:.3f}" if p < 0.0995 else f"{p:.2f}"


def p_value(p: float | None) -> str:
    """`p = 0.023`, `p < 0.001`."""
    if p is None:
        return "no p-value"
    shown = p_text(p)
    return f"p {shown}" if shown[0] in "<>" else f"p = {shown}"


def decimals(uncertainty: float | None, value: float | None = None) -> int:
    """Decimals for two significant digits of the uncertainty; for three of the value where none is known."""
    measure = abs(uncertainty) if uncertainty else abs(value or 0.0)
    if not measure or not math.isfinite(measure):
        return 0
    wanted = (1 if uncertainty else 2) - math.floor(math.log10(measure))
    return max(0, min(_MOST_DECIMALS, wanted))


def spread(ends: Interval | None) -> float | None:
    """The uncertainty an interval stands for: a quarter of its width; None where it has no two ends."""
    if ends is None or ends.low is None or ends.high is None:
        return None
    return (ends.high - ends.low) / 4.0


def change(found: Verdict) -> str:
    """How large the effect is: relative where a lift exists, in the metric's own unit elsewhere; unsigned."""
    if found.lift is not None:
        return f"{_fixed(abs(found.lift) * 100.0, _scaled(found.lift_interval, 100.0))} %"
    return _fixed(abs(found.difference or 0.0), spread(found.interval))


def interval(found: Verdict) -> str:
    """The interval that belongs to `change`, both ends signed: `95 % interval −1.2 % to +3.4 %`."""
    level = f"{100.0 * (1.0 - found.alpha):.4g} % interval"
    if found.lift is not None:
        ends = found.lift_interval
        return f"{level} {_ends(ends, 100.0, ' %')}" if ends else "no bounded interval"
    return f"{level} {_ends(found.interval, 1.0, '')}" if found.interval else "no interval"


def _scaled(ends: Interval | None, scale: float) -> float | None:
    around = spread(ends)
    return None if around is None else around * scale


def _fixed(value: float, uncertainty: float | None, *, signed: bool = False) -> str:
    """A number with as many digits as its uncertainty supports, and a minus sign that is one."""
    shown = f"{value:{'+' if signed else ''},.{decimals(uncertainty, value)}f}"
    if not float(shown.replace(",", "")):
        shown = shown.lstrip("+-")
    return shown.replace("-", "−")


def _ends(ends: Interval, scale: float, unit: str) -> str:
    around = _scaled(ends, scale)
    low = None if ends.low is None else _fixed(ends.low * scale, around, signed=True)
    high = None if ends.high is None else _fixed(ends.high * scale, around, signed=True)
    return f"{'unbounded' if low is None else low + unit} to {'unbounded' if high is None else high + unit}"
