"""A canonical report for people at a terminal: the decision, what is wrong, then the numbers."""

from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from assay.reports.wording import chance, decimals, p_value, percent

_SIGNS = {"ok": "ok", "warning": "warning", "failed": "FAILED", "unknown": "unknown"}
#: Kinds whose value is a share.
_SHARES = frozenset({"conversion", "retention", "funnel", "threshold"})
_Document = Mapping[str, Any]


def show(document: _Document, console: Console) -> None:
    """Print the report that `GET …/report` answers."""

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    about, decision = document["experiment"], document["decision"]
    say(f"{about['name']} ({about['key']}), {about['status']}, {document['total_units']:,} units")
    say(document["headline"])
    for each in document["health"]:
        if each["health"] != "ok":
            say(f"{_SIGNS[each['health']]:>8}  {each['sentence']}")
    for metric in document["metrics"]:
        console.print()
        _show_metric(metric, document["significance_level"], console, say)
    console.print()
    ahead = decision["progress"]
    if ahead is not None and ahead["planned_units"]:
        left = "" if ahead["days_left"] is None else f", about {ahead['days_left']:.0f} days left"
        say(f"{ahead['units']:,} of {ahead['planned_units']:,} planned units are in{left}.")
    plan = document["plan"]
    frozen = f", plan {plan['hash'][:12]}" if plan["hash"] else ""
    say(f"Method {plan['method']}, level {document['significance_level']:g}, {plan['alternative']}{frozen}.")
    say(f"Computed {document['computed_at']}.")


def _show_metric(metric: _Document, alpha: float, console: Console, say: Callable[[str], None]) -> None:
    role = "exploratory" if metric["exploratory"] else metric["role"]
    shares = metric["type"] in _SHARES
    level = f"{100.0 * (1.0 - alpha):.4g} % interval"
    title = f"{metric['name']} ({metric['type']}, {role})"
    arms = Table("variant", title=title, title_justify="left")
    for name in ("units", "value", level):
        arms.add_column(name, justify="right", no_wrap=True)
    for arm in metric["variants"]:
        around = arm["interval"]
        arms.add_row(
            arm["variant_name"],
            f"{arm['units']:,}",
            _value(arm["value"], around, shares=shares),
            _ends(around, shares=shares),
        )
    console.print(arms)
    levels = {each.get("significance_level", alpha) for each in metric["comparisons"]}
    wide = f"{100.0 * (1.0 - min(levels, default=alpha)):.4g} % interval"
    table = Table("treatment", "")
    for name in ("effect", wide if len(levels) == 1 else "interval", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in metric["comparisons"]:
        corrected = each.get("adjusted_p_value")
        p = corrected if corrected is not None else each["p_value"]
        wins = each.get("chance_to_win")
        tested = "–" if p is None else p_value(p)
        table.add_row(
            each["treatment"],
            "absolute",
            _value(each["difference"], each["interval"], shares=shares),
            _ends(each["interval"], shares=shares),
            tested if wins is None else f"wins with {chance(wins)}",
        )
        lift = each["lift"]
        table.add_row(
            "",
            "relative",
            _value(lift["value"], lift["interval"], shares=True),
            _ends(lift["interval"], shares=True),
            "",
        )
    if metric["comparisons"]:
        console.print(table)
    for each in metric["comparisons"]:
        for line in _notes(each):
            say(f"  {line}")
    for note in metric["notes"]:
        say(f"  {note['sentence']}")


def _notes(each: _Document) -> list[str]:
    said = []
    if each.get("variance_reduction") is not None:
        said.append(
            f"{each['treatment']}: the time before took away {percent(each['variance_reduction'])} "
            "of the variance."
        )
    margin = each.get("margin")
    if margin is not None and margin["passed"] is not None:
        kept = "within" if margin["passed"] else "not shown to be within"
        size = percent(margin["size"]) if margin["relative"] else f"{margin['size']:g}"
        said.append(f"{each['treatment']}: {kept} its margin of {size}.")
    sentences = (each.get("waiting"), each.get("sentence"))
    return [*said, *(f"{each['treatment']}: {sentence}" for sentence in sentences if sentence)]


def _value(value: float | None, around: _Document | None, *, shares: bool) -> str:
    if value is None:
        return "–"
    scale, unit = (100.0, " %") if shares else (1.0, "")
    return f"{value * scale:,.{_digits(around, value, scale)}f}{unit}"


def _ends(around: _Document | None, *, shares: bool) -> str:
    if around is None:
        return "–"
    scale, unit = (100.0, " %") if shares else (1.0, "")
    low, high = around["low"], around["high"]
    digits = _digits(around, low if low is not None else high, scale)
    shown = [None if end is None else f"{end * scale:,.{digits}f}{unit}" for end in (low, high)]
    if shown[0] is None:
        return "any" if shown[1] is None else f"at most {shown[1]}"
    return f"at least {shown[0]}" if shown[1] is None else f"{shown[0]} to {shown[1]}"


def _digits(around: _Document | None, value: float | None, scale: float) -> int:
    """As many as the uncertainty supports: an interval is some four standard errors wide."""
    spread = None
    if around is not None and around["low"] is not None and around["high"] is not None:
        spread = (around["high"] - around["low"]) / 4.0 * scale
    return decimals(spread, None if value is None else value * scale)
