"""Templates that experiments begin with: made from an experiment, listed, and let go."""

from collections.abc import Mapping
from typing import NamedTuple

from starlette.responses import Response

from assay.catalog import templates
from assay.catalog.checks import parse
from assay.catalog.editing import find
from assay.catalog.tables import Experiment, Template
from assay.catalog.templates import TemplateInput
from assay.dashboard import experiment_fields, sections
from assay.dashboard.experiments import number
from assay.dashboard.metric_fields import beside
from assay.dashboard.pages import Form, Problems, Visit, go, link, render
from assay.errors import AssayError, Invalid

_PAGE = 50
_FIELDS = ("name", "key", "description")


class Shown(NamedTuple):
    """A template, what it sets in a few lines, and why it cannot be used where that is so."""

    row: Template
    lines: tuple[str, ...]
    problem: str


def listed(visit: Visit) -> Response:
    """All templates."""
    skip = number(visit.query, "skip")
    found = []
    with visit.parts.database.reading() as tx:
        rows, total = templates.page(tx, skip=skip, limit=_PAGE)
        for row in rows:
            try:
                typed = experiment_fields.of(templates.drafted(tx, row, visit.now))
            except Invalid as error:
                found.append(Shown(row, (), error.detail))
                continue
            arms = ", ".join(each.name for each in typed.variants)
            measured = ", ".join(each.fields["name"] for each in typed.metrics) or "none"
            said = sections.of(typed, Problems(), Form())
            lines = (f"Variants: {arms}", f"Metrics: {measured}", said["analysis"].line, said["rollout"].line)
            found.append(Shown(row, lines, ""))
    return render(
        visit,
        "templates.html",
        templates=found,
        total=total,
        skip=skip,
        limit=_PAGE,
        address=lambda **query: link("templates", **query),
    )


def create(visit: Visit) -> Response:
    """A template of an experiment as it is, under a name."""
    with visit.parts.database.reading() as tx:
        experiment = find(tx, visit.place["key"])
    if visit.method == "GET":
        return _form(visit, experiment, {"name": experiment.name, "key": "", "description": ""})
    typed = {name: visit.form.get(name) for name in _FIELDS}
    try:
        said = {name: text for name, text in typed.items() if text or name == "name"}
        given = parse(TemplateInput, {**said, "experiment": experiment.id})
        with visit.parts.database.writing(visit.actor, visit.now) as write:
            templates.create(write, given)
    except AssayError as error:
        return _form(visit, experiment, typed, error)
    return go(visit, link("templates"))


def delete(visit: Visit) -> Response:
    """Remove a template, after a question."""
    with visit.parts.database.reading() as tx:
        row = templates.find_template(tx, visit.place["template"])
    if visit.method == "POST":
        with visit.parts.database.writing(visit.actor, visit.now) as write:
            templates.remove(write, templates.find_template(write, row.id))
        return go(visit, link("templates"))
    return render(visit, "template_delete.html", beginning=row)


def _form(
    visit: Visit, experiment: Experiment, typed: Mapping[str, str], problem: AssayError | None = None
) -> Response:
    problems, lost = beside(problem, set(_FIELDS), lambda path: path)
    return render(
        visit,
        "template_form.html",
        status=problem.status if problem else 200,
        experiment=experiment,
        typed=typed,
        problems=problems,
        problem=lost,
    )
