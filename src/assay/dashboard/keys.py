"""API keys: made, shown once, revoked."""

from datetime import timedelta

from sqlalchemy import select
from starlette.responses import Response

from assay.bucketing.ruleset import Status
from assay.catalog import keys
from assay.catalog.checks import parse
from assay.catalog.documents import iso
from assay.catalog.tables import ApiKey, Experiment, Tag
from assay.dashboard import plan_fields
from assay.dashboard.experiments import number
from assay.dashboard.pages import Form, Problems, Visit, go, link, render
from assay.errors import FieldError, Invalid, NotFound
from assay.published import Role

_PAGE = 50
_MOST_OFFERED = 500
#: What a client key can be limited to.
_LIMITS = ("experiments", "tags")
#: How long a key may live, in days; empty is for ever.
_LIVES = (("", "Never"), ("30", "After 30 days"), ("90", "After 90 days"), ("365", "After a year"))
_ABOUT = {
    Role.CLIENT: "assigns, evaluates and records events; never reads results",
    Role.VIEWER: "reads everything but keys",
    Role.EDITOR: "changes experiments, segments and metrics",
    Role.ADMIN: "everything, keys included",
}


def listed(visit: Visit) -> Response:
    """All keys; a form that makes one, and then its secret, this once."""
    if visit.method == "GET":
        return _page(visit)
    days = visit.form.get("expires")
    given: dict[str, object] = {"name": visit.form.get("name"), "role": visit.form.get("role")}
    if days in {"30", "90", "365"}:
        given["expires_at"] = iso(visit.now + timedelta(days=int(days)))
    try:
        wanted = parse(keys.KeyInput, given | _limits(visit.form))
        with visit.parts.database.writing(visit.actor, visit.now) as tx:
            row, secret = keys.create(tx, wanted)
    except Invalid as error:
        return _page(visit, problems={each.path.partition("[")[0]: each.message for each in error.errors})
    return _page(visit, made=row, secret=secret)


def _limits(form: Form) -> dict[str, list[str]]:
    """What the key is limited to; nothing said is no limit."""
    wrong: list[FieldError] = []
    named = {name: plan_fields.split(form.get(name), name, wrong) for name in _LIMITS}
    if wrong:
        raise Invalid(wrong[0].message, errors=wrong)
    return {name: words for name, words in named.items() if words}


def revoke(visit: Visit) -> Response:
    """End a key, after a question."""
    text = visit.place["key_id"]
    with visit.parts.database.reading() as tx:
        row = tx.get(ApiKey, int(text)) if text.isascii() and text.isdigit() and len(text) < 19 else None
    if row is None:
        raise NotFound("There is no such key.")
    if visit.method == "POST":
        if row.revoked_at is None:
            with visit.parts.database.writing(visit.actor, visit.now) as write:
                keys.revoke(write, row.id)
        return go(visit, link("keys"))
    own = visit.session is not None and visit.session.key.id == row.id
    return render(visit, "revoke.html", key=row, own=own)


def _page(
    visit: Visit,
    *,
    problems: dict[str, str] | None = None,
    made: ApiKey | None = None,
    secret: str = "",
) -> Response:
    skip = number(visit.query, "skip")
    with visit.parts.database.reading() as tx:
        rows, total = keys.page(tx, skip=skip, limit=_PAGE)
        numbers = {each for row in rows if row.scope for each in row.scope["experiments"]}
        named = tx.execute(
            select(Experiment.id, Experiment.key, Experiment.name).where(Experiment.id.in_(numbers))
        )
        limited = {each.id: (each.key, each.name) for each in named}
        newest = select(Experiment.key, Experiment.name).where(Experiment.status != Status.ARCHIVED)
        offered = [*tx.execute(newest.order_by(Experiment.id.desc()).limit(_MOST_OFFERED))]
        tags = list(tx.scalars(select(Tag.tag).distinct().order_by(Tag.tag).limit(_MOST_OFFERED)))
    return render(
        visit,
        "keys.html",
        status=422 if problems else 200,
        keys=rows,
        limited=limited,
        offered=offered,
        tags=[(tag, tag) for tag in tags],
        total=total,
        skip=skip,
        limit=_PAGE,
        roles=_ABOUT,
        lives=_LIVES,
        problems=Problems(problems or {}),
        given=visit.form,
        made=made,
        secret=secret,
        address=lambda **query: link("keys", **query),
    )
