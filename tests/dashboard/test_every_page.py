"""Every page of experiments in every state: what the text may hold, and where its links and forms lead."""

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from assay.catalog import experiments, layers, lifecycle, segments, users
from assay.catalog.checks import parse
from assay.catalog.database import Actor
from assay.catalog.editing import find
from assay.catalog.inputs import ExperimentCreate
from assay.dashboard.app import PAGES, Page
from assay.published import RIGHTS, Right, Role
from assay.stores.base import utc_now
from dashboard.conftest import House
from dashboard.test_result_page import told, words

HOSTILE = "<b>\u202eNobody</b> {{ 7*7 }} 🧪"
WHOLE = ("", "/history", "/reports", "/trend", "/ledger", "/statements", "/breakdown", "/headline")
FORMS = ("/edit", "/duplicate", "/look")
ROOMS = ("experiments", "metrics", "segments", "layers", "events", "audit", "installation", "arrivals")
#: What no page may say: numbers that are none, values of Python, and more digits than anybody can use.
WRONG = re.compile(
    r"\bNaN\b|\bnan\b|\bNone\b|\bundefined\b|\binf\b|\bTrue\b|\bFalse\b(?!-)|\d\.\d{7,}|\de[-+]\d\d\b"
    r"|datetime\.|<class |Decimal\(|object at 0x"
)


#: What a number is made of, to six digits, and statements as they were: where somebody has unfolded them.
_UNFOLDED = r'<table class="plain working">.*?</table>|<pre.*?</pre>'


@pytest.fixture
def full(house: House, tmp_path: Path) -> House:
    """A house with an experiment in each state and by each method."""
    told(house, tmp_path, "fixed")
    shares = [{"name": "control", "allocation": 0.5}, {"name": HOSTILE, "allocation": 0.5}]
    more: dict[str, dict[str, Any]] = {
        "draft": {},
        "nobody": {"status": "running"},
        "sequential": {"status": "running", "analysis": {"method": "always_valid"}},
        "bandit": {"status": "running", "analysis": {"method": "bandit"}},
        "stopped": {"status": "running"},
    }
    with house.stores.database.writing(Actor("test"), utc_now()) as tx:
        for key, given in more.items():
            document = {
                "key": key,
                "name": f"{key} {HOSTILE}",
                "variants": shares,
                "metrics": [HOSTILE, {"name": "spent", "type": "revenue", "event_type": "purchase"}],
                **given,
            }
            experiments.create(tx, parse(ExperimentCreate, document))
        users.create(tx, users.parse_user({"id": "u1", "plan": HOSTILE}))
        segments.create(tx, parse(segments.SegmentInput, {"name": HOSTILE, "rules": {"plan": "pro"}}))
        layers.create(tx, parse(layers.LayerInput, {"name": HOSTILE}))
        lifecycle.stop(tx, find(tx, "stopped"), winner=None, reason=HOSTILE)
    return house


def places(*, edits: bool) -> Iterator[str]:
    """Where to look."""
    yield from (f"/ui/{room}" for room in ROOMS)
    for key in ("fixed", "draft", "nobody", "sequential", "bandit", "stopped"):
        for piece in WHOLE + (FORMS if edits else ()):
            yield f"/ui/experiments/{key}{piece}"
    if edits:
        steps = {"draft": ("start", "delete"), "fixed": ("pause", "stop"), "stopped": ("archive",)}
        yield from (f"/ui/experiments/{key}/do/{step}" for key, of in steps.items() for step in of)


def page_of(method: str, address: str) -> Page:
    """The row of the table of pages that an address leads to."""
    path = address.partition("?")[0].partition("#")[0].removeprefix("/ui")
    for page in sorted(PAGES, key=lambda each: each.path.count("{")):
        pattern = re.sub(r"\{\w+\}", "[^/]+", page.path)
        if re.fullmatch(pattern, path) and method in page.methods:
            return page
    raise AssertionError(f"{method} {address} leads nowhere")


def offers(text: str, here: str) -> Iterator[tuple[str, str]]:
    """Where the links, forms and pieces of a page lead: method and address."""
    main = unescape(text.partition("<main")[2] or text)
    for address in re.findall(r'(?:href|hx-get)="(/ui/[^"]*)"', main):
        yield "GET", address
    for address in re.findall(r'hx-post="(/ui/[^"]*)"', main):
        yield "POST", address
    for form in re.findall(r"<form [^>]*>", main):
        method = "POST" if 'method="post"' in form else "GET"
        found = re.search(r'action="([^"]*)"', form)
        yield method, (found[1] if found else here)


@pytest.mark.parametrize("role", ["viewer", "editor"])
def test_nothing_is_offered_that_would_be_refused_and_no_text_is_a_slip(full: House, role: str) -> None:
    full.sign_in(role)
    rights = RIGHTS[Role(role)]
    wrong, refused = {}, {}
    for here in places(edits=Right.EDIT in rights):
        answer = full.ask("GET", here)
        assert answer.status_code in ({200, 422} if "breakdown" in here else {200}), (here, answer.text)
        said = words(re.sub(_UNFOLDED, "", answer.text, flags=re.DOTALL))
        if found := WRONG.findall(said):
            wrong[here] = found
        for method, address in offers(answer.text, here):
            if "/static/" in address:
                continue
            right = page_of(method, address).right
            if right is not None and right not in rights:
                refused.setdefault(here, []).append((method, address))
    assert wrong == {}
    assert refused == {}
