"""In by a key, out by a button."""

import hmac
import secrets
from typing import Final

from starlette.responses import Response

from assay.dashboard.pages import ROOT, Visit, link, render
from assay.dashboard.sessions import LIFETIME
from assay.published import RIGHTS, Right

COOKIE: Final = "assay_session"
#: Holds what the sign-in form must send back: there is no session yet whose token it could carry.
_BEFORE: Final = "assay_sign_in"


def sign_in(visit: Visit) -> Response:
    """The form, and what becomes of it."""
    back = visit.query.get("next") or visit.form.get("next")
    back = back if ours(back) else link("experiments")
    if visit.method == "GET":
        if visit.session is not None:
            return Response(status_code=303, headers={"Location": back})
        return _form(visit, back)
    token = visit.cookies.get(_BEFORE, "")
    if not token or not hmac.compare_digest(token.encode(), visit.form.get("csrf").encode()):
        return _form(visit, back, "The form was open for too long, or cookies are off. Try once more.")
    secret = visit.form.get("key").removeprefix("Bearer ").strip().encode()
    key = visit.parts.published.keys.find(secret, visit.at) if 0 < len(secret) <= 400 else None
    if key is None:
        why = "This key is unknown, revoked or expired." if secret else "Enter an API key."
        return _form(visit, back, why)
    if Right.READ not in RIGHTS[key.role]:
        why = (
            f"The key {key.name} has the role {key.role}: it may assign and record, but see nothing. "
            "Use a viewer, editor or admin key."
        )
        return _form(visit, back, why)
    visit.parts.key_use.note(key, visit.at)
    response = Response(status_code=303, headers={"Location": back})
    keep(response, visit.sessions.begin(secret, key, visit.at), secure=visit.is_secure)
    response.delete_cookie(_BEFORE, path=ROOT)
    return response


def sign_out(visit: Visit) -> Response:
    """End the session in this browser."""
    response = Response(status_code=303, headers={"Location": link("sign-in")})
    sent = visit.form.get("csrf")
    if visit.session is None or hmac.compare_digest(sent.encode(), visit.session.csrf.encode()):
        response.delete_cookie(COOKIE, path=ROOT)
    return response


def keep(response: Response, cookie: str, *, secure: bool) -> None:
    """Give the browser the session."""
    response.set_cookie(
        COOKIE,
        cookie,
        max_age=LIFETIME // 1_000_000,
        path=ROOT,
        secure=secure,
        httponly=True,
        samesite="strict",
    )


def ours(address: str) -> bool:
    """Whether an address is a page of the dashboard, and not another site dressed up as one."""
    plain = address.startswith(f"{ROOT}/") and not address.startswith(f"{ROOT}/sign-")
    return plain and not set(address) & set("\\\r\n\t\0") and "//" not in address.partition("?")[0]


def _form(visit: Visit, back: str, problem: str = "") -> Response:
    token = secrets.token_urlsafe(24)
    response = render(
        visit, "sign_in.html", status=422 if problem else 200, back=back, problem=problem, token=token
    )
    response.set_cookie(
        _BEFORE, token, max_age=3600, path=ROOT, secure=visit.is_secure, httponly=True, samesite="strict"
    )
    return response
