"""Designs and simulations for people: a sentence, then a table."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from assay.offline.design import Answer
from assay.offline.simulate import RULES, Population, RuleResult, Trial
from assay.offline.wording import number, percent, signed_number, signed_percent


def show_design(found: Answer, console: Console) -> None:
    """Print the answer of `assay power`."""
    console.print(sentence(found), markup=False, highlight=False, soft_wrap=True)
    if found.reason is not None:
        return
    table = Table(title=f"Detected with a power of {percent(found.table_power)}", title_justify="left")
    timed = found.question.daily is not None
    for name in ("days", "units", "difference", "relative")[not timed :]:
        table.add_column(name, justify="right")
    for row in found.table:
        lift = "–" if row.lift is None else signed_percent(row.lift)
        days = () if row.days is None else (f"{row.days:,}",)
        table.add_row(*days, f"{row.units:,}", _difference(found, row.difference), lift)
    console.print()
    console.print(table)


def sentence(found: Answer) -> str:
    """The answer in words."""
    if found.reason is not None or found.difference is None or found.power is None or found.units is None:
        return f"There is no answer. {found.reason.sentence if found.reason else ''}".strip()
    design, question = found.question.design, found.question
    effect = _difference(found, found.difference)
    if found.lift is not None:
        effect = f"{signed_percent(found.lift)} ({effect})"
    arms = f"{found.control:,} control, {found.treatment:,} treatment"
    if question.treatments > 1:
        arms += f" in each of {question.treatments}"
    what = {
        "units": f"{found.units:,} units ({arms}) detect {effect} with a power of {percent(found.power)}",
        "effect": f"{found.units:,} units detect {effect} with a power of {percent(found.power)}",
        "power": f"{found.units:,} units detect {effect} with a power of {percent(found.power)}",
    }[found.found]
    sides = "two-sided" if design.alternative == "two-sided" else "one-sided"
    said = f"{what}: {design.test.replace('_', '-')} test, {sides}, alpha {design.alpha:g}."
    if found.days is not None:
        said += f" That takes {found.days:,} {'day' if found.days == 1 else 'days'}."
    if design.test != "fixed" and found.expected_units is not None:
        said += f" With this effect it stops after {found.expected_units:,} units on average"
        said += f" ({found.expected_days:,} days)." if found.expected_days is not None else "."
        if found.usual_units is not None:
            said += f" A fixed test needs {found.usual_units:,}."
    return said


def _difference(found: Answer, difference: float) -> str:
    if found.question.proportion:
        return f"{signed_number(difference * 100.0)} points"
    return signed_number(difference)


@contextmanager
def progress(runs: int) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, moved on by the number of runs that are done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("simulating", total=runs)
        yield lambda done: bar.advance(task, done)


def show_simulation(
    name: str, population: Population, trial: Trial, results: Sequence[RuleResult], console: Console
) -> None:
    """Print what every rule did to one metric."""
    by_rule = {each.rule: each for each in results}
    naive, sequential = by_rule["peeking"], by_rule["group-sequential"]
    console.print(
        f"{name}: of experiments without an effect, peeking {trial.looks} times with the fixed test calls "
        f"{percent(naive.false_positives.rate)}, the group-sequential rule "
        f"{percent(sequential.false_positives.rate)} (wanted: at most {percent(trial.alpha)}).",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    origin = "real units" if population.values is not None else "drawn units"
    table = Table(
        title=f"{trial.runs:,} experiments of {population.units:,} {origin}, mean {number(population.mean)}, "
        f"effect {signed_percent(trial.lift)}, seed {trial.seed}",
        title_justify="left",
    )
    for column in ("rule", "false alarms", "power", "coverage", "units used"):
        table.add_column(column, justify="left" if column == "rule" else "right")
    for each in results:
        table.add_row(
            f"{each.rule}: {RULES[each.rule]}",
            f"{percent(each.false_positives.rate)} ± {percent(2.0 * each.false_positives.error)}",
            percent(each.power.rate),
            "–" if each.coverage is None else percent(each.coverage.rate),
            percent(each.used),
        )
    console.print(table)
