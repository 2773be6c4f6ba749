"""API keys: made, shown once, revoked."""

from datetime import timedelta

from starlette.responses import Response

from assay.catalog import keys
from assay.catalog.checks import parse
from assay.catalog.documents import iso
from assay.catalog.tables import ApiKey
from assay.dashboard.experiments import number
from assay.dashboard.pages import Problems, Visit, go, link, render
from assay.errors import Invalid, NotFound
from assay.published import Role

_PAGE = 50
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
        wanted = parse(keys.KeyInput, given)
        with visit.parts.database.writing(visit.actor, visit.now) as tx:
            row, secret = keys.create(tx, wanted)
    except Invalid as error:
        return _page(visit, problems={each.path: each.message for each in error.errors})
    return _page(visit, made=row, secret=secret)


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
    return render(
        visit,
        "keys.html",
        status=422 if problems else 200,
        keys=rows,
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
