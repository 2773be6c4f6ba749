"""A real browser before a real server, watched for errors and for requests that leave the house."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from live import Server, run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_AXE = Path(__file__).with_name("vendor") / "axe.min.js"
#: What an attacker might call things: markup, another reading direction, too much, and astral characters.
HOSTILE = (
    "<script>document.title='owned'</script>",
    "\u202egnp.exe \u200fright to left",
    "a name of two hundred characters " + "x" * 167,
    "🧪 rocket \"quotes\" & 'apostrophes' {{ 7*7 }}",
)
#: What htmx says of a request that ended because its page was left.
_LEFT = ("htmx:afterRequest", "htmx:sendError", "htmx:sendAbort")
# Long enough for a machine with other things to do; nothing waits longer than it must.
expect.set_options(timeout=60_000)
#: Where to leave pictures of the pages, for whoever wants to look at them.
PICTURES = os.environ.get("ASSAY_PICTURES")


@dataclass
class Watched:
    """What went wrong in the pages of one browser context."""

    origin: str
    wrong: list[str] = field(default_factory=list)
    #: Answers with an error that the test expects, so that the browser's word about them is none.
    expected: set[int] = field(default_factory=set)

    def watch(self, context: BrowserContext) -> None:
        """Listen to everything."""
        context.on("console", self._said)
        context.on("weberror", lambda error: self.wrong.append(f"error: {error.error}"))
        context.on("request", lambda request: self._asked(request.url))
        context.add_init_script(
            "addEventListener('securitypolicyviolation',"
            " (e) => console.error('CSP ' + e.violatedDirective + ' ' + e.blockedURI));"
        )

    def _said(self, message: ConsoleMessage) -> None:
        if message.type != "error" or message.text.startswith(_LEFT):
            return
        if any(f"status of {status}" in message.text for status in self.expected):
            return
        self.wrong.append(f"console: {message.text} ({message.location['url']})")

    def _asked(self, url: str) -> None:
        if not url.startswith((self.origin, "data:", "blob:", "about:")):
            self.wrong.append(f"left the house: {url}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium. For a module at a time: while it runs there is an event loop in this thread."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine; .ci/run installs Debian's")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_ARGUMENTS))
        yield running
        running.close()


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on the demo's experiment, with two weeks of data, shared by the tests of a module."""
    folder = tmp_path_factory.mktemp("furnished")
    made = run("demo", "--data", folder / "data", "--users", "3000", "--no-serve", cwd=folder)
    assert made.returncode == 0, made.stdout + made.stderr
    with Server(folder / "data") as running:
        yield running


class Reader:
    """Somebody at the dashboard."""

    def __init__(self, page: Page, server: Server, watched: Watched) -> None:
        self.page, self.server, self.watched = page, server, watched

    def sign_in(self, secret: str) -> "Reader":
        """Through the door, with this key."""
        self.page.goto("/ui/sign-in")
        self.page.get_by_label("API key").fill(secret)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_url("**/ui/experiments")
        return self

    def open(self, path: str) -> Page:
        """A page with everything that loads by itself."""
        self.page.goto(path)
        loading = self.page.locator(".loading")
        while waiting := loading.count():  # what is far down is loaded when it is scrolled to
            loading.evaluate_all("all => all[0]?.scrollIntoView()")
            expect(loading).not_to_have_count(waiting)
        self.page.evaluate("scrollTo(0, 0)")
        return self.page

    def findings(self) -> list[str]:
        """What axe-core finds serious or worse on the page as it stands."""
        self.page.evaluate(_AXE.read_text(encoding="utf-8"))
        found: list[dict[str, Any]] = self.page.evaluate(
            "async () => (await axe.run(document, {resultTypes: ['violations']})).violations"
        )
        return [
            f"{each['id']}: {node['target']} {node.get('failureSummary', '')[:300]}"
            for each in found
            if each["impact"] in {"serious", "critical"}
            for node in each["nodes"]
        ]


@pytest.fixture
def reader(browser: Browser) -> Iterator[Callable[..., Reader]]:
    """Makes readers; whatever went wrong on their pages fails the test."""
    made: list[tuple[BrowserContext, Watched]] = []

    def make(server: Server, role: str | None = "admin", **settings: Any) -> Reader:
        context = browser.new_context(base_url=server.url, **settings)
        context.set_default_timeout(60_000)
        watched = Watched(server.url)
        watched.watch(context)
        made.append((context, watched))
        someone = Reader(context.new_page(), server, watched)
        if role is not None:
            someone.sign_in(server.key if role == "admin" else key_of(server, role))
        return someone

    yield make
    for context, _ in made:
        context.close()
    assert [each for _, watched in made for each in watched.wrong] == []


def key_of(server: Server, role: str) -> str:
    """The secret of a new key with this role."""
    with server.client() as client:
        answer = client.post("/api/v1/auth/keys", json={"name": f"{role} key", "role": role})
    assert answer.status_code == 201, answer.text
    secret: str = answer.json()["key"]
    return secret


def told(client: httpx2.Client, method: str, path: str, body: Any = None) -> Any:
    """A call that must succeed, and its document."""
    answer = client.request(method, path, json=body)
    assert answer.status_code < 300, answer.text
    return answer.json() if answer.content else None
