"""The steps of an experiment's life, each with a page that says what it will do before it is done."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from starlette.responses import Response

from assay.bucketing.ruleset import Status
from assay.catalog import breakers, experiments, lifecycle
from assay.catalog.database import WriteTx
from assay.catalog.editing import expect_version, find
from assay.catalog.tables import Experiment
from assay.dashboard.pages import Visit, go, link, render
from assay.errors import AssayError, NotFound
from assay.reports import launch
from assay.reports.wording import setting


class Step(NamedTuple):
    """One step: what its button says, the question, what follows from it, and what it does."""

    button: str
    question: str
    follows: Callable[[Experiment], Sequence[str]]
    act: Callable[[WriteTx, Experiment], object]
    tone: str
    done: str


def possible(experiment: Experiment) -> list[str]:
    """The steps that the state of an experiment allows, the likeliest first."""
    again = ("resume",) if breakers.has_stopped(experiment) else ()
    steps = [*again, *_BY_STATE[Status(experiment.status)]]
    return steps if experiment.holdout is None else [each for each in steps if each != "pause"]


def step(visit: Visit) -> Response:
    """Ask, and when answered, do it."""
    name = visit.place["step"]
    chosen = STEPS.get(name)
    if chosen is None:
        raise NotFound(f"An experiment has no step {name!r}.")
    with visit.parts.database.reading() as tx:
        experiment = find(tx, visit.place["key"])
    back = link("experiments", experiment.key)
    if visit.method == "POST":
        if name not in possible(experiment) and experiment.status == chosen.done:
            return go(visit, back)  # the second click of two
        try:
            return _do(visit, name, chosen, back)
        except AssayError as error:
            with visit.parts.database.reading() as tx:
                experiment = find(tx, visit.place["key"])
            return _ask(visit, name, chosen, experiment, error)
    return _ask(visit, name, chosen, experiment)


def _do(visit: Visit, name: str, chosen: Step, back: str) -> Response:
    with visit.parts.database.writing(visit.actor, visit.now) as tx:
        experiment = find(tx, visit.place["key"])
        version = visit.form.get("version")
        expect_version(experiment.version, frozenset({int(version)}) if version.isdigit() else None)
        if name == "stop":
            winner = visit.form.get("winner")
            lifecycle.stop(
                tx,
                experiment,
                winner=int(winner) if winner.isascii() and winner.isdigit() else None,
                reason=visit.form.get("reason")[:10_000],
            )
        else:
            chosen.act(tx, experiment)
    return go(visit, link("experiments") if name == "delete" else back)


def _ask(
    visit: Visit, name: str, chosen: Step, experiment: Experiment, problem: AssayError | None = None
) -> Response:
    kept = visit.kept_report(str(experiment.id)) if experiment.started_at else None
    parts = visit.parts
    starts = name == "start" and name in possible(experiment) and experiment.holdout is None
    items = launch.examined(parts.database, parts.store, experiment.id, visit.now) if starts else []
    return render(
        visit,
        "step.html",
        status=problem.status if problem else 200,
        experiment=experiment,
        variants=[each for each in experiment.variants if not each.removed],
        name=name,
        step=chosen,
        follows=chosen.follows(experiment),
        items=items,
        allowed=name in possible(experiment),
        problem=problem.detail if problem else "",
        advice=kept.decision.text if kept and name == "stop" else "",
        suggested=kept.decision.winner.id if kept and kept.decision.winner else None,
    )


def _starting(experiment: Experiment) -> list[str]:
    if experiment.holdout is not None:
        return [
            "From now on its units enter no experiment that it covers and that starts while it runs.",
            "Its share, key and unit, and what it covers, are fixed from here.",
        ]
    said = [
        "From now on the application's users are assigned; each keeps the variant they get.",
        "The plan is frozen: hypothesis, metrics, method, planned sample. A later change is a deviation.",
        "Key, unit and bucketing are fixed from here; metrics added later are labelled exploratory.",
        _judged(experiment),
    ]
    if experiment.ramp:
        steps = ", ".join(f"{each['traffic_allocation'] * 100.0:.4g} %" for each in experiment.ramp)
        said.append(
            f"It begins with {experiment.coverage * 100.0:.4g} % of the traffic; the ramp opens {steps} "
            "while nothing speaks against it."
        )
    if experiment.breaker:
        does = "stops" if experiment.breaker["action"] == "stop" else "pauses"
        said.append(f"The circuit breaker {does} it once harm to a guardrail is shown.")
    if not experiment.metrics:
        said.append("It has no metric: there will be assignments, but nothing to decide by.")
    return said


def _judged(experiment: Experiment) -> str:
    """When its method says something one may act on."""
    planned, method = experiment.target_sample_size, experiment.analysis.get("method", "fixed")
    if method in {"group_sequential", "always_valid"}:
        return "Its verdict changes at looks alone, and may be acted on at each of them."
    if method == "bandit":
        return "New users are dealt by what is learnt; intervals hold at every moment, and are wide."
    if method == "bayesian":
        return "Its chances hold under their prior; stopping as soon as they look good errs often."
    if planned:
        return (
            f"The result is judged when the planned {planned:,} unit{' is' if planned == 1 else 's are'} in: "
            "looking earlier is free, deciding earlier is not."
        )
    return (
        "No sample size is planned: a fixed-horizon test that is read again and again errs more often than "
        f"its level of {setting(experiment.significance_level)} says. Plan one with the calculator."
    )


def _pausing(_experiment: Experiment) -> list[str]:
    return [
        "Nobody new comes in. Whoever is in keeps their variant, and their events go on counting.",
        "Both arms lose the same days, so the comparison stays fair; it only takes longer.",
    ]


def _resuming(experiment: Experiment) -> list[str]:
    said = ["New users come in again, by the same split as before."]
    if breakers.is_tripped(experiment):
        said += [
            f"The circuit breaker has tripped: {(experiment.breaker_state or {})['reason']}",
            "It watches again from now on, and counts users alone who come after.",
        ]
    return said


def _stopping(experiment: Experiment) -> list[str]:
    if experiment.holdout is not None:
        return [
            "Its units are let into the experiments that it covers. This cannot be undone.",
            "Events from now on do not count for its result any more.",
        ]
    method = experiment.analysis.get("method", "fixed")
    said = [
        "Events from now on do not count any more, and nobody new comes in. This cannot be undone.",
        "With a winner, everybody gets its configuration from now on; without, nobody is served a variant.",
    ]
    if method in {"group_sequential", "always_valid"}:
        return [*said, "Its method allows to stop at a look whose verdict says so; the error rate holds."]
    if method == "bandit":
        return said
    if experiment.target_sample_size:
        return [
            *said,
            "Stopped because it looks good, before the planned sample is in, chance findings are likelier.",
        ]
    return [
        *said,
        "Stopping at the moment a result looks good makes chance findings likelier than the level says.",
    ]


def _archiving(_experiment: Experiment) -> list[str]:
    return ["It leaves the list; its page, its report and its data stay. It can no longer be changed."]


def _deleting(_experiment: Experiment) -> list[str]:
    return ["The draft is removed for good. Nobody was ever assigned, so nothing else is lost."]


STEPS: dict[str, Step] = {
    "start": Step("Start", "Start the experiment?", _starting, lifecycle.start, "primary", "running"),
    "pause": Step("Pause", "Pause the experiment?", _pausing, lifecycle.pause, "primary", "paused"),
    "resume": Step("Resume", "Let users in again?", _resuming, lifecycle.resume, "primary", "running"),
    "stop": Step("Stop", "Stop the experiment for good?", _stopping, lifecycle.stop, "danger", "stopped"),
    "archive": Step(
        "Archive", "Put the experiment away?", _archiving, lifecycle.archive, "primary", "archived"
    ),
    "delete": Step("Delete", "Delete the draft?", _deleting, experiments.remove, "danger", "deleted"),
}
_BY_STATE = {
    Status.DRAFT: ("start", "delete"),
    Status.RUNNING: ("stop", "pause"),
    Status.PAUSED: ("resume", "stop"),
    Status.STOPPED: ("archive",),
    Status.ARCHIVED: (),
}
