"""One benchmark, one table."""

from statistics import median
from typing import NamedTuple


class Line(NamedTuple):
    """One contestant: its value in each round, and what else is worth knowing."""

    contestant: str
    values: list[float]
    notes: dict[str, str] = {}  # noqa: RUF012 - never changed
    goal: str = ""


def number(value: float) -> str:
    """Three significant figures, and all digits before the point."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.3f}"


def table(title: str, unit: str, lines: list[Line], *, yardstick: str) -> str:
    """A Markdown table. The value is the median over the rounds, and the ratio that of the rounds' ratios."""
    base = next(line for line in lines if line.contestant == yardstick)
    names = list(dict.fromkeys(name for line in lines for name in line.notes))
    goals = any(line.goal for line in lines)
    head = [
        "contestant",
        f"{unit}, median",
        f"× {yardstick}",
        *(["goal"] if goals else []),
        "min",
        "max",
        *names,
    ]
    rows = [head, ["---", *["---:"] * (len(head) - 1)]]
    for line in lines:
        ratios = [value / other for value, other in zip(line.values, base.values, strict=True)]
        rows.append(
            [
                line.contestant,
                number(median(line.values)),
                f"{median(ratios):.2f}" if median(ratios) < 10 else f"{median(ratios):.0f}",
                *([line.goal] if goals else []),
                number(min(line.values)),
                number(max(line.values)),
                *(line.notes.get(name, "") for name in names),
            ]
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    text = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    return f"### {title}\n\n" + "\n".join(text) + "\n"
