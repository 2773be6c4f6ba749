"""Numbers, times and states as people read them: no more digits than the uncertainty supports.

Rounding happens here alone, on the way to the page; nothing is computed from a rounded number.
"""

import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from markupsafe import Markup

from assay.reports.wording import decimals, p_text, spread
from assay.stats import Interval

MISSING = "–"
_MINUS = "−"


def number(value: float | None, uncertainty: float | None = None, *, signed: bool = False) -> str:
    """`1,234.5`, as exact as its uncertainty."""
    if value is None or not math.isfinite(value):
        return MISSING
    if abs(value) >= 1e15:
        return f"{value:.3g}".replace("-", _MINUS)
    shown = f"{value:{'+' if signed else ''},.{decimals(uncertainty, value)}f}"
    if float(shown.replace(",", "")) == 0.0:
        shown = shown.lstrip("+-")
    return shown.replace("-", _MINUS)


def percent(share: float | None, uncertainty: float | None = None, *, signed: bool = False) -> str:
    """`12.3 %`."""
    if share is None or not math.isfinite(share):
        return MISSING
    scaled = None if uncertainty is None else uncertainty * 100.0
    return f"{number(share * 100.0, scaled, signed=signed)} %"


def points(difference: float | None, uncertainty: float | None = None) -> str:
    """A difference of two shares, `+3.5 points`: in percent it would read like a lift."""
    if difference is None or not math.isfinite(difference):
        return MISSING
    scaled = None if uncertainty is None else uncertainty * 100.0
    return f"{number(difference * 100.0, scaled, signed=True)} points"


def points_range(interval: Interval | None) -> str:
    """`−0.4 to +7.3 points`."""
    if interval is None:
        return "no interval"
    around = spread(interval)
    scaled = None if around is None else around * 100.0
    low = "unbounded" if interval.low is None else number(interval.low * 100.0, scaled, signed=True)
    high = "unbounded" if interval.high is None else number(interval.high * 100.0, scaled, signed=True)
    return f"{low} to {high} points"


def lift(value: float | None, interval: Interval | None) -> str:
    """`+3.4 %`, as exact as its interval; without two ends no better known than that it is about as large."""
    return percent(value, spread(interval) or value, signed=True)


def lift_range(interval: Interval | None) -> str:
    """`−1.2 % to +3.4 %`; an open end is said."""
    if interval is None:
        return "no bounded interval"
    around = spread(interval)
    low = "unbounded" if interval.low is None else percent(interval.low, around, signed=True)
    high = "unbounded" if interval.high is None else percent(interval.high, around, signed=True)
    return f"{low} to {high}"


def amount_range(interval: Interval | None, *, share: bool) -> str:
    """The same for a value or a difference in its own unit."""
    if interval is None:
        return "no interval"
    around, show = spread(interval), percent if share else number
    low = "unbounded" if interval.low is None else show(interval.low, around)
    high = "unbounded" if interval.high is None else show(interval.high, around)
    return f"{low} to {high}"


def without(sentence: str, verdict: str, names: Iterable[str]) -> str:
    """A sentence below its verdict, which it need not say again; `names` are written as they are."""
    rest = sentence.removeprefix(f"{verdict}: ")
    if rest == sentence or rest.startswith(tuple(names)):
        return rest
    return rest[:1].upper() + rest[1:]


_LAST_SPACE = re.compile(r"(?<=[\d…]) (?=%|points\b)|(?<=\bp) (?=[=<>])|(?<=\bp [=<>]) ")


def kept(text: str) -> str:
    """A sentence whose numbers stay with their units at the end of a line."""
    return _LAST_SPACE.sub("\N{NO-BREAK SPACE}", text)


def p_value(p: float | None) -> str:
    """`0.023`, `< 0.001`; a dash where there is none."""
    return MISSING if p is None else p_text(p)


def chance(share: float | None) -> str:
    """A chance in percent, `97.3 %`; what is nearly sure is not written as if it were sure."""
    if share is None or not math.isfinite(share):
        return MISSING
    if share < 0.001:
        return "< 0.1 %"
    return "> 99.9 %" if share > 0.999 else percent(share, 0.01 if 0.01 < share < 0.99 else 0.001)


def count(value: float | None) -> str:
    """`12,345`."""
    return MISSING if value is None else f"{value:,.0f}"


def figure(value: object) -> str:
    """Any number as it stands among inputs, lists of them, and names with them; text as it is."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if abs(value) >= 1e-3 or value == 0.0:
            return number(value, 0.01 * value)
        return f"{value:.{1 - math.floor(math.log10(abs(value)))}f}"
    if isinstance(value, Mapping):
        return (
            ", ".join(f"{words(str(name)).lower()} {figure(each)}" for name, each in value.items()) or "none"
        )
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ", ".join(figure(each) for each in value) or "none"
    return MISSING if value is None else str(value)


def share_text(fraction: float) -> str:
    """An allocation as somebody would write it: `33.3 %`."""
    return f"{round(fraction * 100.0, 2):g} %"


def tick(value: float) -> str:
    """A round number on a scale: `12,000`, `0.25`."""
    shown = f"{value:,.0f}" if abs(value) >= 1000.0 else f"{round(value, 9):g}"
    return shown.replace("-", _MINUS)


def share_tick(share: float) -> str:
    """The same for a share: `7.5 %`."""
    return f"{tick(round(share * 100.0, 9))} %"


def lift_tick(lift: float) -> str:
    """The same for a lift, signed."""
    return f"+{share_tick(lift)}" if lift > 0.0 else share_tick(lift)


def days(span: timedelta) -> str:
    """`13 days`, `5 hours`, `under an hour`."""
    hours = span.total_seconds() / 3600.0
    if hours < 1.0:
        return "under an hour"
    if hours < 48.0:
        return f"{int(hours)} hour{'' if int(hours) == 1 else 's'}"
    return f"{int(hours / 24.0)} days"


def ago(then: datetime, now: datetime) -> str:
    """`just now`, `5 minutes ago`."""
    seconds = max(0.0, (now - then).total_seconds())
    if seconds < 5.0:
        return "just now"
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        whole = int(seconds // size)
        if whole:
            return f"{whole} {unit}{'' if whole == 1 else 's'} ago"
    return "just now"


def utc(moment: datetime) -> str:
    """`21 Nov 2026, 07:49 UTC`."""
    return f"{moment.astimezone(UTC):%-d %b %Y, %H:%M} UTC"


def time_tag(moment: datetime | None, form: str = "minute") -> str:
    """A `<time>` that the browser turns into the reader's own zone; UTC stays in its title.

    `form` is `minute`, `second` or `day`.
    """
    if moment is None:
        return MISSING
    there = moment.astimezone(UTC)
    full = f"{there:%-d %b %Y, %H:%M:%S} UTC"
    shown = {"day": f"{there:%-d %b %Y}", "second": full}.get(form, utc(there))
    return Markup('<time datetime="{}" title="{}" data-form="{}">{}</time>').format(
        there.strftime("%Y-%m-%dT%H:%M:%SZ"), full, form, shown
    )


#: What each state is called, and in which tone.
STATES: Mapping[str, tuple[str, str]] = {
    "draft": ("Draft", "quiet"),
    "running": ("Running", "good"),
    "paused": ("Paused", "careful"),
    "stopped": ("Stopped", "plain"),
    "archived": ("Archived", "quiet"),
}
VERDICTS: Mapping[str, tuple[str, str]] = {
    "ship": ("Ship it", "good"),
    "roll_back": ("Do not ship", "bad"),
    "keep_running": ("Keep running", "plain"),
    "inconclusive": ("No clear result", "quiet"),
    "fix": ("Fix first", "bad"),
    "not_started": ("Not started", "quiet"),
}
CHECKS: Mapping[str, str] = {
    "sample_ratio": "Sample ratio",
    "sample_ratio_assigned": "Sample ratio of all assigned",
    "one_variant": "One variant for each unit",
    "events_arrive": "Events arrive",
    "before_assignment": "Events before assignment",
    "unassigned_events": "Events without assignment",
    "late_events": "Events after the end",
    "duplicates": "Repeated events",
    "reversals": "Events taken back",
    "exposure_drop": "Units keep coming",
    "events_stop": "Events keep coming",
    "balance": "Alike before",
    "novelty": "Effect over time",
    "interactions": "Other experiments",
    "enough_power": "Enough power",
    "steady_split": "Steady split",
    "planned_sample": "Planned sample",
    "enough_units": "Enough units",
    "enough_days": "Enough days",
}
HEALTH: Mapping[str, tuple[str, str]] = {
    "ok": ("OK", "good"),
    "warning": ("Warning", "careful"),
    "waiting": ("Not yet", "quiet"),
    "failed": ("Failed", "bad"),
    "unknown": ("Not checked", "quiet"),
}
#: How an experiment is judged.
METHODS: Mapping[str, str] = {
    "fixed": "fixed horizon",
    "group_sequential": "group sequential",
    "always_valid": "always valid",
    "bayesian": "Bayesian",
    "bandit": "bandit",
}
ROLES: Mapping[str, str] = {
    "primary": "Primary",
    "secondary": "Secondary",
    "guardrail": "Guardrail",
    "exploratory": "Exploratory",
    "ad_hoc": "Ad hoc",
}


def words(code: str) -> str:
    """A code word as words: `sample_ratio` as `Sample ratio`."""
    return code.replace("_", " ").replace(".", ": ").capitalize()
