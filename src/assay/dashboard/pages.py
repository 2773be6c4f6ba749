"""Requests and answers of the dashboard: who visits, what they may do, and how a page is put together."""

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from http import HTTPStatus
from importlib import resources
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from assay.catalog.database import Actor
from assay.dashboard import wording
from assay.dashboard.parts import Parts, moment
from assay.dashboard.sessions import Session, Sessions
from assay.dashboard.tickets import Tickets
from assay.errors import AssayError
from assay.published import Right
from assay.reports.question import Question
from assay.reports.report import Report
from assay.reports.snapshots import Snapshot

ROOT: Final = "/ui"
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_FILES = Path(str(resources.files("assay.dashboard"))) / "static"
#: What may be asked for, by name: nothing else is ever opened.
STATIC: Final[Mapping[str, Path]] = {
    file.relative_to(_FILES).as_posix(): file for file in sorted(_FILES.rglob("*")) if file.is_file()
}


@dataclass(frozen=True)
class Form:
    """What a form sent, in order; a name may come several times."""

    pairs: tuple[tuple[str, str], ...] = ()

    def get(self, name: str, otherwise: str = "") -> str:
        """The last value under this name, without the blanks around it."""
        return next((value.strip() for key, value in reversed(self.pairs) if key == name), otherwise)

    def all(self, name: str) -> list[str]:
        """All values under this name."""
        return [value.strip() for key, value in self.pairs if key == name]

    def has(self, name: str) -> bool:
        """Whether anything came under this name."""
        return any(key == name for key, _ in self.pairs)


@dataclass(frozen=True)
class Visit:
    """One request to a page, by somebody who may make it.

    `session` None is an anonymous reader. `partial` says that only a piece of a page will be shown.
    """

    parts: Parts
    session: Session | None
    rights: frozenset[Right]
    at: int
    method: str
    url: str
    origin: str
    place: Mapping[str, str]
    query: Form
    form: Form
    partial: bool
    theme: str
    cookies: Mapping[str, str]
    sessions: Sessions
    tickets: Tickets
    request_id: str | None = None
    resumed_after: str = ""

    @property
    def now(self) -> datetime:
        """When this is."""
        return moment(self.at)

    @property
    def is_secure(self) -> bool:
        """Whether the browser speaks TLS to us, or to the proxy in front."""
        return self.origin.startswith("https:")

    @property
    def actor(self) -> Actor:
        """Whom the audit log names."""
        key = self.session.key if self.session else None
        return Actor(
            name=key.name if key else "anonymous",
            key_id=key.id if key is not None and key.id else None,
            request_id=self.request_id,
        )

    def snapshot(self, reference: str) -> Snapshot:
        """The report on an experiment that pages show, with its age. Raises `NotFound`, `Unavailable`."""
        kept = self.parts.snapshots
        return kept.get(reference, Question(), self.now, max_age=kept.max_age)

    def kept_report(self, reference: str) -> Report | None:
        """The same report, if nothing need be computed for it."""
        kept = self.parts.snapshots
        found = kept.found(reference, Question(), self.now, kept.max_age)
        return None if found is None else found.report

    def still_may(self) -> bool:
        """Whether the key they came with is in force still; anonymous readers stay."""
        session = self.session
        if session is None:
            return True
        return self.parts.published.keys.find(session.secret, self.parts.clock()) is not None

    @property
    def edits(self) -> bool:
        """Whether they may change experiments and segments."""
        return self.session is not None and Right.EDIT in self.rights

    @property
    def administers(self) -> bool:
        """Whether they may make and revoke keys."""
        return self.session is not None and Right.ADMIN in self.rights


class Problems(dict[str, str]):
    """What is wrong with each field of a form; nothing with those that are not named."""

    def __missing__(self, _name: str) -> str:
        return ""


Handler = Callable[[Visit], Response]


@cache
def versioned(name: str) -> str:
    """The address of a static file, different whenever its content is."""
    digest = hashlib.sha256(STATIC[name].read_bytes()).hexdigest()[:12]
    return f"{ROOT}/static/{digest}/{name}"


def link(*steps: object, **query: object) -> str:
    """An address of the dashboard; what is None or empty in the query is left out."""
    path = "/".join([ROOT, *(quote(str(step), safe="") for step in steps)])
    asked = {name: value for name, value in query.items() if value not in (None, "", False)}
    return f"{path}?{urlencode(asked)}" if asked else path


@cache
def templates() -> Environment:
    """The templates, which escape everything and refuse names that are not there."""
    found = Environment(
        loader=PackageLoader("assay.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    found.globals |= {
        "static": versioned,
        "link": link,
        "states": wording.STATES,
        "verdicts": wording.VERDICTS,
        "health_words": wording.HEALTH,
        "check_words": wording.CHECKS,
        "role_words": wording.ROLES,
        "method_words": wording.METHODS,
        "once": lambda: secrets.token_urlsafe(12),
    }
    found.filters |= {
        "count": wording.count,
        "percent": wording.percent,
        "share": wording.share_text,
        "when": wording.time_tag,
        "words": wording.words,
        "figure": wording.figure,
        "kept": wording.kept,
        "without": wording.without,
        "share_whole": lambda share: f"{int(share * 100.0)} %",
        "json": lambda value: json.dumps(value, ensure_ascii=False, indent=2, default=str),
    }
    return found


def render(visit: Visit, template: str, *, status: int = 200, **context: Any) -> Response:
    """A page, or the piece of one; a piece asked for by itself, as without scripts, gets a page around it."""
    if template.startswith("_") and not visit.partial:
        template, context = "piece.html", {**context, "piece": template}
    text = templates().get_template(template).render(visit=visit, now=visit.now, **context)
    return HTMLResponse(text, status)


def go(visit: Visit, address: str) -> Response:
    """Lead the browser to another page after a form; what was sent is not sent again by going back."""
    if visit.partial:
        return Response(status_code=204, headers={"HX-Redirect": address})
    return Response(status_code=303, headers={"Location": address})


def refusal(visit: Visit, error: AssayError) -> Response:
    """An error as a page that says what happened and what to do."""
    try:
        title = _TITLES.get(error.status) or HTTPStatus(error.status).phrase.capitalize()
    except ValueError:
        title = "That did not work"
    name = "_problem.html" if visit.partial else "problem.html"
    return render(
        visit, name, status=error.status, title=title, detail=error.detail, help=_HELP.get(error.status)
    )


_TITLES = {
    403: "Your key may not do this",
    404: "There is nothing here",
    409: "That cannot be done now",
    412: "Somebody else was quicker",
    422: "Something in the request is not right",
    500: "Something went wrong on our side",
    503: "Not available right now",
}
_HELP = {
    403: "Sign in with a key of another role, or ask whoever administers this installation.",
    404: "The address may be mistyped, or what was here has been deleted.",
    409: "Go back and load the page again: it may have changed in the meantime.",
    412: "Go back, load the page again, and repeat the change on what is there now.",
    500: "The log of the server has the details. Try again; if it stays, report it.",
    503: "Try again in a few seconds.",
}
