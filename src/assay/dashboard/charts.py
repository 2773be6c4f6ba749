"""Charts as pure functions: data in, SVG out. Colours, dashes and dark mode are the style sheet's.

Each chart says in its label what it shows, tells its series apart by shape and dash as well as by colour, and
stands beside a table with the same numbers. Text inside a `<title>` is what a pointer shows.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from markupsafe import Markup, escape

#: Shapes that tell series apart without colour, drawn around the origin.
_SHAPES = (
    "M0-4.5 4.5 0 0 4.5-4.5 0Z",
    "M-3.6-3.6h7.2v7.2h-7.2Z",
    "M0-4.6 4.4 3.4h-8.8Z",
    "M0 4.6 4.4-3.4h-8.8Z",
)
_DOT = "M-3.6 0a3.6 3.6 0 1 0 7.2 0a3.6 3.6 0 1 0-7.2 0Z"
SERIES = 6


class Span(NamedTuple):
    """A stretch of values that a chart shows, and where it lies in pixels."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Where a value lies, kept inside the chart."""
        share = (min(max(value, self.low), self.high) - self.low) / ((self.high - self.low) or 1.0)
        return round(self.start + share * (self.end - self.start), 2)

    def holds(self, value: float) -> bool:
        """Whether a value is inside."""
        return self.low <= value <= self.high


class Estimate(NamedTuple):
    """A value with its interval; an end that is None is unbounded."""

    value: float | None
    low: float | None
    high: float | None


class Moment(NamedTuple):
    """An estimate as of a time, and what a pointer shows there."""

    at: datetime
    estimate: Estimate
    tip: str


class Line(NamedTuple):
    """One series: its name, and a value and a tip at each time."""

    name: str
    points: Sequence[tuple[datetime, float | None, str]]


class Part(NamedTuple):
    """A stretch from one share of a whole to another: whose it is by its place, or nobody's, and its tip."""

    low: float
    high: float
    place: int | None
    fades: bool
    tip: str


class Frame(NamedTuple):
    """Outer size of a chart in pixels; it is drawn at just this size, so that its text stays readable."""

    width: int
    height: int


WIDE, NARROW = Frame(580, 260), Frame(330, 240)


def ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers from `low` to `high`."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low]
    raw = (high - low) / max(1, count)
    base = 10.0 ** math.floor(math.log10(raw))
    step = next(each * base for each in (1.0, 2.0, 2.5, 5.0, 10.0) if each * base >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(place * step, 12) for place in range(first, last + 1)]


def common_span(estimates: Iterable[Estimate], start: float, end: float) -> Span:
    """One scale for many intervals, with zero in it; one far wider than the others is cut, not obeyed."""
    found = [each for each in estimates if each.value is not None]
    reaches = sorted(
        max(abs(end_) for end_ in (each.low, each.high, each.value) if end_ is not None) for each in found
    )
    if not reaches or reaches[-1] == 0.0:
        return Span(-0.1, 0.1, start, end)
    middle = reaches[len(reaches) // 2]
    limit = min(reaches[-1], 4.0 * middle) if middle else reaches[-1]
    ends = [end_ for each in found for end_ in (each.low, each.high, each.value) if end_ is not None]
    low, high = max(min(0.0, *ends), -limit), min(max(0.0, *ends), limit)
    room = 0.06 * (high - low)
    return Span(low - room, high + room, start, end)


def interval(estimate: Estimate, span: Span, tone: str, label: str, *, margin: float | None = None) -> Markup:
    """One interval on the common scale: a bar, its point, the line of no effect; arrows where it goes on."""
    zero = span.at(0.0)
    parts = [f'<line class="zero" x1="{zero}" x2="{zero}" y1="0" y2="32"/>']
    if margin is not None and span.holds(margin):
        at = span.at(margin)
        parts.append(f'<line class="margin" x1="{at}" x2="{at}" y1="2" y2="30"/>')
    if estimate.value is not None:
        low = span.low if estimate.low is None else estimate.low
        high = span.high if estimate.high is None else estimate.high
        left, right = span.at(low), span.at(high)
        parts.append(f'<line class="bar" x1="{left}" x2="{right}" y1="16" y2="16"/>')
        parts += [
            _end(left, cut=estimate.low is None or low < span.low, way=-1),
            _end(right, cut=estimate.high is None or high > span.high, way=1),
        ]
        if span.holds(estimate.value):
            parts.append(
                f'<path class="point" transform="translate({span.at(estimate.value)} 16)" d="{_SHAPES[0]}"/>'
            )
    return Markup(
        '<svg class="interval tone-{}" viewBox="0 0 {} 32" role="img" aria-label="{}">{}</svg>'
    ).format(tone, f"{span.end + span.start:g}", label, _drawn(parts))


def _end(x: float, *, cut: bool, way: int) -> str:
    if cut:
        return f'<path class="cut" d="M{x - 6 * way} 10 {x} 16 {x - 6 * way} 22"/>'
    return f'<line class="cap" x1="{x}" x2="{x}" y1="11" y2="21"/>'


def chances(better: float, unclear: float, worse: float, label: str) -> Markup:
    """The chances of three verdicts as parts of one bar: worse, unclear, better from left to right."""
    parts, at = [], 0.0
    for name, share in (("worse", worse), ("unclear", unclear), ("better", better)):
        width = round(120.0 * share, 2)
        if width > 0.0:
            parts.append(f'<rect class="{name}" x="{round(at, 2):g}" width="{width:g}" height="12"/>')
        at += width
    return Markup('<svg class="chances" viewBox="0 0 120 12" role="img" aria-label="{}">{}</svg>').format(
        label, _drawn(parts)
    )


def slots(parts: Sequence[Part], label: str) -> Markup:
    """A whole and whose its stretches are: what fades is hatched, what is nobody's is ground."""
    drawn = []
    for part in parts:
        kind = (
            "rest" if part.place is None else f"part s{part.place % SERIES}{' fades' if part.fades else ''}"
        )
        x, width = round(1000.0 * part.low, 2), round(1000.0 * (part.high - part.low), 2)
        drawn.append(
            Markup('<rect class="{}" x="{}" width="{}" height="24"><title>{}</title></rect>').format(
                kind, f"{x:g}", f"{width:g}", part.tip
            )
        )
        if part.fades:
            drawn += [
                Markup('<path class="hatch" d="M{} 24 {} 0"/>').format(
                    f"{at:g}", f"{min(at + 12, x + width):g}"
                )
                for at in _every(x, x + width, 16.0)
            ]
    return Markup(
        '<svg class="slots" viewBox="0 0 1000 24" preserveAspectRatio="none" role="img"'
        ' aria-label="{}">{}</svg>'
    ).format(label, Markup("").join(drawn))


def _every(low: float, high: float, step: float) -> list[float]:
    return [round(low + step * place, 2) for place in range(int((high - low) / step) + 1)]


def interval_axis(span: Span, form: Callable[[float], str]) -> Markup:
    """The scale above a column of intervals."""
    marks = [
        each for each in ticks(span.low, span.high, 4) if span.start + 14 <= span.at(each) <= span.end - 14
    ]
    drawn = "".join(
        f'<line class="tick" x1="{span.at(each)}" x2="{span.at(each)}" y1="18" y2="24"/>'
        f'<text x="{span.at(each)}" y="13" text-anchor="middle">{escape(form(each))}</text>'
        for each in marks
    )
    return Markup('<svg class="interval-axis" viewBox="0 0 {} 24" aria-hidden="true">{}</svg>').format(
        f"{span.end + span.start:g}", _drawn([drawn])
    )


def over_time(points: Sequence[Moment], form: Callable[[float], str], label: str, frame: Frame) -> Markup:
    """An effect as it stood at each time, in its band, around the line of no effect."""
    drawn = [each for each in points if each.estimate.value is not None]
    if not drawn:
        return Markup("")
    ends = [each.estimate for each in drawn]
    settled = ends[len(ends) // 4 :]
    limit = 1.6 * max(_reach(each) for each in settled) or 0.1
    low = max(-limit, min(0.0, *(_low(each) for each in ends)))
    high = min(limit, max(0.0, *(_high(each) for each in ends)))
    room = 0.08 * ((high - low) or 0.1)
    y = Span(low - room, high + room, frame.height - 30, 10)
    x, days = _time_span([each.at for each in drawn], frame)
    upper = [f"{x.at(each.at.timestamp())} {y.at(_high(each.estimate, y.high))}" for each in drawn]
    lower = [f"{x.at(each.at.timestamp())} {y.at(_low(each.estimate, y.low))}" for each in reversed(drawn)]
    centre = [f"{x.at(each.at.timestamp())} {y.at(each.estimate.value or 0.0)}" for each in drawn]
    body = [
        _grid(x, y, days, form),
        f'<path class="band" d="M{" ".join([*upper, *lower])}Z"/>'
        if len(drawn) > 1
        else _single(drawn[0], x, y),
        f'<line class="zero" x1="{x.start}" x2="{x.end}" y1="{y.at(0.0)}" y2="{y.at(0.0)}"/>',
        f'<path class="line s1" d="M{" ".join(centre)}"/>',
        f'<path class="mark s1" transform="translate({centre[-1].replace(" ", ",")})" d="{_SHAPES[0]}"/>',
        _columns([(x.at(each.at.timestamp()), each.tip) for each in drawn], x, frame),
    ]
    return _svg(frame, label, body)


def lines(series: Sequence[Line], form: Callable[[float], str], label: str, frame: Frame) -> Markup:
    """Several series over time, from zero, each with its own colour, dash and mark."""
    times = sorted({at for line in series for at, value, _ in line.points if value is not None})
    if not times:
        return Markup("")
    highest = max((value for line in series for _, value, _ in line.points if value is not None), default=0.0)
    lowest = min((value for line in series for _, value, _ in line.points if value is not None), default=0.0)
    y = Span(min(0.0, lowest), (highest or 1.0) * 1.08, frame.height - 30, 10)
    x, days = _time_span(times, frame)
    body = [_grid(x, y, days, form)]
    tips: dict[datetime, list[str]] = {at: [] for at in times}
    for place, line in enumerate(series):
        known = [(at, value, tip) for at, value, tip in line.points if value is not None]
        spots = [f"{x.at(at.timestamp())} {y.at(value)}" for at, value, _ in known]
        if not spots:
            continue
        style = f"s{place % SERIES}"
        body.append(f'<path class="line {style}" d="M{" ".join(spots)}"/>')
        marked = spots if len(spots) <= 31 else spots[-1:]
        body += [
            f'<path class="mark {style}" transform="translate({spot.replace(" ", ",")})" d="{shape(place)}"/>'
            for spot in marked
        ]
        for at, _, tip in known:
            tips[at].append(tip)
    body.append(_columns([(x.at(at.timestamp()), "\n".join(tips[at])) for at in times], x, frame))
    return _svg(frame, label, body)


def shape(place: int) -> str:
    """The mark of the series at this place."""
    return (_DOT, *_SHAPES)[place % (len(_SHAPES) + 1)]


def key_mark(place: int) -> Markup:
    """A piece of line with its mark, for the key beside a chart."""
    return Markup(
        '<svg class="key" viewBox="0 0 34 14" aria-hidden="true"><path class="line s{0}" d="M1 7 33 7"/>'
        '<path class="mark s{0}" transform="translate(17,7)" d="{1}"/></svg>'
    ).format(place % SERIES, shape(place))


def allocation(shares: Sequence[tuple[str, float, bool]]) -> Markup:
    """The split as one bar; what is switched off is hatched, what nobody gets stays empty."""
    x, drawn = 0.0, []
    names = []
    for place, (name, share, on) in enumerate(shares):
        width = max(0.0, min(share, 1.0 - x / 100.0)) * 100.0
        names.append(f"{name} {share * 100.0:.4g} %{'' if on else ', off'}")
        drawn.append(
            f'<rect class="part s{place % SERIES}{"" if on else " off"}" x="{x:.3f}" width="{width:.3f}"'
            f' height="10"><title>{escape(names[-1])}</title></rect>'
        )
        x += width
    return Markup(
        '<svg class="allocation" viewBox="0 0 100 10" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<rect class="rest" x="0" y="0" width="100" height="10"/>{}</svg>'
    ).format("Split: " + "; ".join(names), _drawn(drawn))


def _reach(each: Estimate) -> float:
    return max(abs(end) for end in (each.low, each.high, each.value) if end is not None)


def _low(each: Estimate, otherwise: float | None = None) -> float:
    low = each.low if each.low is not None else otherwise
    return low if low is not None else (each.value or 0.0)


def _high(each: Estimate, otherwise: float | None = None) -> float:
    high = each.high if each.high is not None else otherwise
    return high if high is not None else (each.value or 0.0)


def _single(only: Moment, x: Span, y: Span) -> str:
    at = x.at(only.at.timestamp())
    top, bottom = y.at(_high(only.estimate, y.high)), y.at(_low(only.estimate, y.low))
    return f'<line class="whisker" x1="{at}" x2="{at}" y1="{top}" y2="{bottom}"/>'


def _time_span(times: Sequence[datetime], frame: Frame) -> tuple[Span, list[datetime]]:
    """The horizontal scale, and the moments to name on it."""
    first, last = times[0].timestamp(), times[-1].timestamp()
    if first == last:
        first, last = first - 43_200.0, last + 43_200.0
    x = Span(first, last, 58, frame.width - 14)
    most = max(2, int((x.end - x.start) // 78))
    if len(times) <= most:
        return x, list(times)
    step = -(-len(times) // most)
    return x, [times[place] for place in range(0, len(times), step)]


def _grid(x: Span, y: Span, days: Sequence[datetime], form: Callable[[float], str]) -> str:
    rows = "".join(
        f'<line class="grid" x1="{x.start}" x2="{x.end}" y1="{y.at(each)}" y2="{y.at(each)}"/>'
        f'<text x="{x.start - 8}" y="{y.at(each) + 4}" text-anchor="end">{escape(form(each))}</text>'
        for each in ticks(y.low, y.high, 5)
    )
    alone = len(days) == 1 and days[0].timestamp() % 86_400 != 0
    by_hour = alone or (len(days) > 1 and days[1].timestamp() - days[0].timestamp() < 80_000)
    names = []
    for place, day in enumerate(days):
        at = x.at(day.timestamp())
        anchor = "end" if at > x.end - 20 else "start" if at < x.start + 4 and place == 0 else "middle"
        there = day.astimezone(UTC)
        text = f"{there:%-d %b %H:%M}" if by_hour else f"{there:%-d %b}"
        names.append(f'<text x="{at}" y="{y.start + 20:g}" text-anchor="{anchor}">{text}</text>')
    return rows + "".join(names)


def _columns(spots: Sequence[tuple[float, str]], x: Span, frame: Frame) -> str:
    """Invisible columns under the pointer, each saying what is there."""
    drawn = []
    for place, (at, tip) in enumerate(spots):
        left = x.start if place == 0 else (spots[place - 1][0] + at) / 2.0
        right = x.end if place == len(spots) - 1 else (at + spots[place + 1][0]) / 2.0
        drawn.append(
            f'<g class="column"><rect x="{left:.1f}" y="10" width="{max(1.0, right - left):.1f}"'
            f' height="{frame.height - 40}"/><line x1="{at}" x2="{at}" y1="10" y2="{frame.height - 30}"/>'
            f"<title>{escape(tip)}</title></g>"
        )
    return "".join(drawn)


def _svg(frame: Frame, label: str, body: Sequence[str]) -> Markup:
    return Markup(
        '<svg class="chart" viewBox="0 0 {0} {1}" width="{0}" height="{1}" role="img" aria-label="{2}">'
        "{3}</svg>"
    ).format(frame.width, frame.height, label, _drawn(body))


def _drawn(parts: Sequence[str]) -> Markup:
    """Pieces of a drawing: numbers of ours, and texts that were escaped where they were put in."""
    return Markup("".join(parts))  # noqa: S704
