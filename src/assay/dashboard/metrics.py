"""Metric definitions: listed, made, changed version by version, put away, and which experiments use them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import select
from starlette.responses import Response

from assay.catalog import definitions, documents
from assay.catalog.checks import parse
from assay.catalog.database import ReadTx, WriteTx
from assay.catalog.measuring import USES, DefinitionInput
from assay.catalog.tables import Experiment, MetricDefinition, MetricVersion
from assay.dashboard import metric_fields
from assay.dashboard.differences import Change, changes
from assay.dashboard.experiments import number
from assay.dashboard.meaning import facts, meaning
from assay.dashboard.metric_fields import MetricLine
from assay.dashboard.pages import Visit, go, link, render
from assay.errors import AssayError, FieldError, Invalid, NotFound
from assay.reports.picture import metric_spec

_PAGE = 50
#: What one may begin with: a name for it, and the fields of a definition.
_BEGINNINGS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "conversion": (
        "Conversion",
        {"type": "conversion", "event_type": "purchase", "window": {"duration": "7d"}},
    ),
    "count": ("Events per user", {"type": "count", "event_type": "search", "lookback": "14d"}),
    "revenue": (
        "Revenue per user, steadied",
        {
            "type": "revenue",
            "event_type": "purchase",
            "property": "amount",
            "window": {"duration": "14d"},
            "lookback": "28d",
            "cap": {"percentile": 99.5},
        },
    ),
    "sum": ("Time spent per user", {"type": "sum", "event_type": "session", "property": "seconds"}),
    "mean": ("Average order", {"type": "mean", "event_type": "purchase", "property": "amount"}),
    "ratio": (
        "Orders per visit",
        {"type": "ratio", "event_type": "order", "denominator": {"event_type": "visit", "fold": "count"}},
    ),
    "quantile": (
        "Slow pages (guardrail)",
        {
            "type": "quantile",
            "event_type": "page",
            "property": "ms",
            "quantile": 0.95,
            "level": "event",
            "direction": "decrease",
            "role": "guardrail",
            "margin": {"relative": 0.05},
        },
    ),
    "retention": (
        "Back in the second week",
        {"type": "retention", "event_type": "visit", "from": "7d", "to": "14d"},
    ),
    "funnel": (
        "Checkout finished",
        {
            "type": "funnel",
            "steps": [{"event_type": "cart"}, {"event_type": "checkout"}, {"event_type": "pay"}],
            "window": {"duration": "24h"},
        },
    ),
    "threshold": ("Came three times", {"type": "threshold", "event_type": "visit", "at_least": 3}),
}


class Described(NamedTuple):
    """A definition, ready to be read."""

    row: MetricDefinition
    sentence: str
    users: int


class Version(NamedTuple):
    """One version: what it measured and what it changed."""

    row: MetricVersion
    sentence: str
    changes: Sequence[Change]


class User(NamedTuple):
    """An experiment that holds a copy, and of which version."""

    experiment: Experiment
    role: str
    version: int | None


def listed(visit: Visit) -> Response:
    """All definitions that match."""
    q, skip = visit.query.get("q")[:200], number(visit.query, "skip")
    archived = visit.query.get("archived") == "1"
    with visit.parts.database.reading() as tx:
        rows, total = definitions.page(tx, q=q or None, archived=archived, skip=skip, limit=_PAGE)
        users = definitions.users(tx, rows)
        put_away = bool(definitions.page(tx, archived=True, limit=1)[1])
    return render(
        visit,
        "metrics.html",
        metrics=[Described(row, sentence_of(row.key, row.body), len(users[row.id])) for row in rows],
        total=total,
        skip=skip,
        limit=_PAGE,
        q=q,
        archived=archived,
        put_away=put_away,
        types=dict(metric_fields.TYPES),
        address=lambda **query: link("metrics", q=q, archived=1 if archived else None, **query),
    )


def shown(visit: Visit) -> Response:
    """One definition: what it measures, how it came to, and where it is used."""
    asked = visit.query.get("version")
    with visit.parts.database.reading() as tx:
        row = definitions.find(tx, visit.place["metric"])
        past = definitions.versions(tx, row)
        users = _users(tx, row)
    at = int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 10 else row.version
    chosen = next((each for each in past if each.version == at), None)
    if chosen is None:
        raise NotFound(f"{row.key} has versions 1 to {row.version}; got {at}.", code="unknown_version")
    spec = metric_spec(_whole(row.key, chosen.body))
    return render(
        visit,
        "metric.html",
        metric=row,
        body=chosen.body,
        version=at,
        description=spec.description,
        sentence=meaning(spec),
        facts=facts(spec),
        role=chosen.body.get("role"),
        types=dict(metric_fields.TYPES),
        versions=_told(row.key, past),
        users=users,
    )


def create(visit: Visit) -> Response:
    """A new definition: from nothing, from an example, or from another definition."""
    if visit.method == "GET":
        return _form(visit, None, _beginning(visit))
    line = metric_fields.read(visit.form)
    changed = metric_fields.changed(visit.form, line)
    if changed is not None:
        return _form(visit, None, changed)
    ticket = visit.form.get("ticket")
    made = visit.tickets.get(ticket)
    if made is not None:
        return go(visit, link("metrics", made))  # the second click of two
    try:
        given = parse(DefinitionInput, _document(line))
        with visit.parts.database.writing(visit.actor, visit.now) as tx:
            key = definitions.create(tx, given).key
    except AssayError as error:
        return _form(visit, None, line, error)
    visit.tickets.put(ticket, key)
    return go(visit, link("metrics", key))


def edit(visit: Visit) -> Response:
    """A change of a definition, in a new version."""
    with visit.parts.database.reading() as tx:
        row = definitions.find(tx, visit.place["metric"])
        users = len(definitions.users(tx, [row])[row.id])
    if visit.method == "GET":
        return _form(visit, row, metric_fields.written({"key": row.key, **row.body}), users=users)
    line = metric_fields.read(visit.form)
    changed = metric_fields.changed(visit.form, line)
    if changed is not None:
        return _form(visit, row, changed, users=users)
    version = visit.form.get("version")
    try:
        document = _document(line)
        with visit.parts.database.writing(visit.actor, visit.now) as write:
            mine = definitions.find(write, str(row.id))
            expected = frozenset({int(version)}) if version.isascii() and version.isdigit() else None
            definitions.edit(write, mine, document, expected=expected)
            key = mine.key
    except AssayError as error:
        return _form(visit, row, line, error, users=users)
    return go(visit, link("metrics", key))


#: What can be done with a definition: the button, the question, and what follows.
STEPS: Mapping[str, tuple[str, str, str]] = {
    "archive": (
        "Archive",
        "Archive the metric?",
        "Experiments that have it keep it; no other can take it until it is restored.",
    ),
    "restore": ("Restore", "Restore the metric?", "Experiments can take it again."),
    "delete": (
        "Delete",
        "Delete the metric?",
        "One that an experiment or a template refers to is archived instead; any other is gone for good.",
    ),
}


def step(visit: Visit) -> Response:
    """Archive, restore or delete, after a question."""
    name = visit.place["step"]
    if name not in STEPS:
        raise NotFound("There is no such step.")
    with visit.parts.database.reading() as tx:
        row = definitions.find(tx, visit.place["metric"])
        users = _users(tx, row)
    problem, status = "", 200
    if visit.method == "POST":
        try:
            with visit.parts.database.writing(visit.actor, visit.now) as write:
                gone = _do(write, name, definitions.find(write, str(row.id)))
        except AssayError as error:
            problem, status = error.detail, error.status
        else:
            return go(visit, link("metrics") if gone else link("metrics", row.key))
    return render(
        visit, "metric_step.html", status=status, metric=row, step=STEPS[name], users=users, problem=problem
    )


def sentence_of(key: str, body: Mapping[str, Any]) -> str:
    """What a definition measures, in a sentence without its full stop."""
    return meaning(metric_spec(_whole(key, body)))


def _do(tx: WriteTx, name: str, row: MetricDefinition) -> bool:
    """Whether the definition is gone afterwards."""
    if name == "delete":
        return definitions.remove(tx, row) == "deleted"
    (definitions.put_away if name == "archive" else definitions.restore)(tx, row)
    return False


def _whole(key: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """A definition as a metric of an experiment that says nothing about its role."""
    return {**body, "key": key, "role": body.get("role") or "secondary"}


def _users(tx: ReadTx, row: MetricDefinition) -> list[User]:
    ids = definitions.users(tx, [row])[row.id]
    found = tx.scalars(select(Experiment).where(Experiment.id.in_(ids)).order_by(Experiment.id.desc()))
    return [
        User(each, metric["role"], metric.get("definition_version"))
        for each in found
        for metric in each.metrics
        if metric.get("definition") == row.key
    ]


def _told(key: str, past: Sequence[MetricVersion]) -> list[Version]:
    """The versions, newest first, each with what it changed in the one before."""
    found = []
    for each, before in zip(past, [*past[1:], None], strict=True):
        different = documents.difference(before.body, each.body) if before is not None else {}
        found.append(Version(each, sentence_of(key, each.body), changes(different)))
    return found


def _beginning(visit: Visit) -> MetricLine:
    """What the form of a new definition begins with."""
    copied, begun = visit.query.get("copy"), visit.query.get("begin")
    if copied:
        with visit.parts.database.reading() as tx:
            body = definitions.find(tx, copied).body
        return metric_fields.written({**body, "name": f"{body['name'][:193]} (copy)"})
    if begun in _BEGINNINGS:
        name, fields = _BEGINNINGS[begun]
        return metric_fields.written({"name": name, "direction": "increase", **fields})
    return metric_fields.blank()


def _document(line: MetricLine) -> dict[str, Any]:
    """The form as the catalog reads it, with null for all it says nothing of. Raises `Invalid`."""
    wrong: list[FieldError] = []
    found = metric_fields.document(line, "", wrong)
    if wrong:
        raise Invalid(f"{wrong[0].path}: {wrong[0].message}", errors=wrong)
    return {name: value for name, value in found.items() if name in _SENT or value not in (None, [])}


#: Fields that are null, or empty, where they are taken away.
_SENT = frozenset({"role", "description", "margin", "complete_only", "property"}.union(*USES.values()))


def _form(
    visit: Visit,
    row: MetricDefinition | None,
    line: MetricLine,
    problem: AssayError | None = None,
    users: int = 0,
) -> Response:
    problems, lost = metric_fields.beside(problem, set(metric_fields.names(line)), metric_fields.field_of)
    return render(
        visit,
        "metric_form.html",
        status=problem.status if problem else 200,
        metric=row,
        line=line,
        users=users,
        problems=problems,
        problem=lost,
        failed=problem is not None,
        ticket=visit.form.get("ticket"),
        beginnings=[(key, name) for key, (name, _) in _BEGINNINGS.items()],
        types=metric_fields.TYPES,
        roles=metric_fields.ROLES,
        operators=metric_fields.OPERATORS,
        folds=metric_fields.FOLDS,
    )
