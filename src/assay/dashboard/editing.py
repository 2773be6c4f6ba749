"""The form of an experiment, made anew, changed, or copied; each error stands beside its field."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import select
from starlette.responses import Response

from assay.bucketing.ruleset import Status
from assay.catalog import definitions, experiments, layers, prerequisites, segments, templates
from assay.catalog.checks import parse
from assay.catalog.database import ReadTx
from assay.catalog.editing import LIVE, find
from assay.catalog.inputs import ExperimentCreate, ExperimentEdit
from assay.catalog.tables import Experiment, Template
from assay.dashboard import experiment_fields, metric_fields, plan_fields, sections, targeting
from assay.dashboard.calculator import read_number
from assay.dashboard.experiment_fields import NEW, Typed, VariantLine
from assay.dashboard.metric_fields import MetricLine
from assay.dashboard.metrics import sentence_of
from assay.dashboard.pages import Visit, go, link, render
from assay.errors import AssayError, Invalid, NotFound

_MOST_LISTED = 500


class Copied(NamedTuple):
    """What a metric is a copy of: the definition in the version chosen, and the versions there are."""

    name: str
    sentence: str
    versions: Sequence[tuple[str, str]]


class Holding(NamedTuple):
    """A holdout that keeps units out of an experiment, or will when it starts."""

    key: str
    name: str
    covers: bool


def create(visit: Visit) -> Response:
    """A new experiment, as a draft."""
    if visit.method == "GET":
        return _page(visit, _beginning(visit), None)
    typed = experiment_fields.read(visit.form, NEW)
    changed = _lines_changed(visit, typed)
    if changed is not None:
        return _page(visit, changed, None)
    ticket = visit.form.get("ticket")
    made = visit.tickets.get(ticket)
    if made is not None:
        return go(visit, link("experiments", made))  # the second click of two
    typed = experiment_fields.without_blanks(typed)
    try:
        given = parse(ExperimentCreate, experiment_fields.document(typed))
        with visit.parts.database.writing(visit.actor, visit.now) as tx:
            key = experiments.create(tx, given, status=Status.DRAFT).key
    except AssayError as error:
        return _page(visit, typed, None, error)
    visit.tickets.put(ticket, key)
    return go(visit, link("experiments", key))


def _beginning(visit: Visit) -> Typed:
    """What a new form holds: nothing much, or what a template says."""
    chosen = visit.query.get("template")
    if not chosen:
        return NEW
    with visit.parts.database.reading() as tx:
        row = templates.find_template(tx, chosen)
        typed = experiment_fields.of(templates.drafted(tx, row, visit.now))
    return typed._replace(fields={**typed.fields, "name": "", "key": "", "start_at": "", "end_at": ""})


def duplicate(visit: Visit) -> Response:
    """The form of a new experiment, filled in from another."""
    with visit.parts.database.reading() as tx:
        typed = experiment_fields.of(find(tx, visit.place["key"]))
    name = f"{typed.fields['name'][:193]} (copy)"
    fields = {**typed.fields, "name": name, "key": "", "start_at": "", "end_at": ""}
    lines = [each._replace(id="") for each in typed.variants]
    return _page(visit, typed._replace(fields=fields, variants=lines), None)


def edit(visit: Visit) -> Response:
    """A change of an experiment."""
    with visit.parts.database.reading() as tx:
        experiment = find(tx, visit.place["key"])
    stored = experiment_fields.of(experiment)
    if visit.method == "GET":
        return _page(visit, stored, experiment)
    typed = experiment_fields.read(visit.form, stored)
    changed = _lines_changed(visit, typed)
    if changed is not None:
        return _page(visit, changed, experiment)
    typed = experiment_fields.without_blanks(typed)
    version = visit.form.get("version")
    try:
        given = parse(ExperimentEdit, experiment_fields.only_changed(typed, experiment))
        with visit.parts.database.writing(visit.actor, visit.now) as write:
            row = find(write, str(experiment.id))
            expected = frozenset({int(version)}) if version.isascii() and version.isdigit() else None
            experiments.edit(write, row, given, expected=expected)
            key = row.key
    except AssayError as error:
        return _page(visit, typed, experiment, error)
    return go(visit, link("experiments", key))


def _page(
    visit: Visit, typed: Typed, experiment: Experiment | None, problem: AssayError | None = None
) -> Response:
    known = experiment_fields.names(typed)
    problems, lost = metric_fields.beside(
        experiment_fields.in_fields(problem), known, experiment_fields.field_of
    )
    counted: dict[str, Any] = {"found": None, "preview_problem": ""}
    if visit.form.get("count-users"):
        counted = targeting.count(visit, typed.condition, "condition")
    with visit.parts.database.reading() as tx:
        listed = _listed(tx, typed, experiment)
    return render(
        visit,
        "experiment_form.html",
        status=problem.status if problem else 200,
        typed=typed,
        fields=typed.fields,
        plan=typed.plan,
        experiment=experiment,
        started=experiment is not None and experiment.started_at is not None,
        ended=experiment is not None and experiment.started_at is not None and experiment.status not in LIVE,
        problems=problems,
        problem=lost,
        failed=problem is not None,
        sections=sections.of(typed, problems, visit.form, dict(listed["layers"])),
        plan_fields=plan_fields,
        rule_operators=targeting.OPERATORS,
        turn_failed=visit.form.get("turn") == "condition"
        and visit.form.get("condition-side") == typed.condition.side,
        action=link("experiments", experiment.key, "edit") if experiment else link("experiments", "new"),
        **counted,
        **listed,
        types=metric_fields.TYPES,
        roles=metric_fields.ROLES,
        operators=metric_fields.OPERATORS,
        folds=metric_fields.FOLDS,
        ticket=visit.form.get("ticket"),
        split=[(each.name, _share(each.share), each.enabled) for each in typed.variants],
    )


def _listed(tx: ReadTx, typed: Typed, experiment: Experiment | None) -> dict[str, Any]:
    """What one can choose among, with what is chosen already, however many there are."""
    available = segments.page(tx, limit=_MOST_LISTED)[0]
    shown = {str(each.id) for each in available}
    attached = experiment.segments if experiment else ()
    exclusive = [(each.key, each.name) for each in layers.page(tx, limit=_MOST_LISTED)[0]]
    chosen = typed.fields["layer-key"]
    if chosen and chosen not in dict(exclusive):
        exclusive.append((chosen, chosen))
    others = select(Experiment.key, Experiment.name).where(
        Experiment.status != Status.ARCHIVED, Experiment.holdout.is_(None)
    )
    if experiment is not None:
        others = others.where(Experiment.id != experiment.id)
    return {
        "segments": [*available, *(each for each in attached if str(each.id) not in shown)],
        "layers": exclusive,
        "library": definitions.page(tx, limit=_MOST_LISTED)[0],
        "copied": [_copied(tx, line) for line in typed.metrics],
        "others": [*tx.execute(others.order_by(Experiment.id.desc()).limit(_MOST_LISTED))],
        "holdouts": _holdouts(tx, typed, experiment),
        "beginnings": [] if experiment else _templates(tx),
    }


def _templates(tx: ReadTx) -> list[Template]:
    return templates.page(tx, limit=_MOST_LISTED)[0]


def _holdouts(tx: ReadTx, typed: Typed, experiment: Experiment | None) -> list[Holding]:
    """Holdouts that cover an experiment, or, before it starts, those that will if nothing changes."""
    if experiment is not None and experiment.holdout is not None:
        return []
    if experiment is not None and experiment.started_at is not None:
        covering = [each.parent for each in experiment.prerequisites if each.holdout]
        return [Holding(each.key, each.name, covers=True) for each in covering]
    running = select(Experiment).where(
        Experiment.holdout.is_not(None),
        Experiment.status.in_(LIVE),
        Experiment.unit == typed.fields["unit"],
    )
    meant = experiment or Experiment(layer_id=None)
    return [
        Holding(each.key, each.name, covers=prerequisites.covers(each, meant))
        for each in tx.scalars(running.order_by(Experiment.id))
    ]


def _share(text: str) -> float:
    try:
        return max(0.0, read_number(text, "") / 100.0) if text else 0.0
    except Invalid:
        return 0.0


def _lines_changed(visit: Visit, typed: Typed) -> Typed | None:
    """The form with a line more or less, if that is what was asked for."""
    form = visit.form
    if form.has("add-variant"):
        return typed._replace(variants=[*typed.variants, VariantLine(share="0")])
    if form.has("add-metric"):
        return typed._replace(metrics=[*typed.metrics, metric_fields.blank("secondary")])
    if form.has("add-definition"):
        return _taken(visit, typed)
    for noun in ("variant", "metric"):
        gone = form.get(f"remove-{noun}")
        if gone.isascii() and gone.isdigit():
            lines = [line for place, line in enumerate(getattr(typed, f"{noun}s")) if place != int(gone)]
            return typed._replace(variants=lines) if noun == "variant" else typed._replace(metrics=lines)
    plan = plan_fields.changed(form, typed.plan)
    if plan is not None:
        return typed._replace(plan=plan, fields=plan_fields.begun(form, typed.fields))
    condition = targeting.changed(form, typed.condition, "condition")
    if condition is not None:
        return typed._replace(condition=condition)
    for place, line in enumerate(typed.metrics):
        changed = metric_fields.changed(form, line, f"metric-{place}-")
        if changed is not None:
            return typed._replace(metrics=[*typed.metrics[:place], changed, *typed.metrics[place + 1 :]])
    return None


def _taken(visit: Visit, typed: Typed) -> Typed:
    """The form with a copy of the chosen definition, in the place of a metric nothing was said of."""
    chosen = visit.form.get("pick")
    if not chosen:
        return typed
    with visit.parts.database.reading() as tx:
        row = definitions.find(tx, chosen)
    copy = metric_fields.written(
        {**row.body, "definition": row.key, "definition_version": row.version, "key": None}
    )
    kept = [line for line in typed.metrics if not line.is_blank]
    decided = any(line.fields["role"] == "primary" for line in kept)
    role = copy.fields["role"] or ("secondary" if decided else "primary")
    return typed._replace(metrics=[*kept, copy._replace(fields={**copy.fields, "role": role})])


def _copied(tx: ReadTx, line: MetricLine) -> Copied | None:
    """What a line is a copy of; None for one of its own, or where the definition is gone."""
    if not line.is_copy:
        return None
    try:
        row = definitions.find(tx, line.fields["definition"])
        text = line.fields["definition_version"]
        at = int(text) if text.isascii() and text.isdigit() else row.version
        body = definitions.version_of(tx, row, at).body
    except NotFound:
        return None
    numbers = range(row.version, 0, -1)
    versions = [(str(each), f"{each}, the newest" if each == row.version else str(each)) for each in numbers]
    return Copied(row.name, sentence_of(row.key, body), versions)
