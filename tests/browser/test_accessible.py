"""Every page in light, dark and narrow: nothing serious for axe-core, nothing wider than the window."""

from collections.abc import Callable
from pathlib import Path

import pytest

from browser.conftest import PICTURES, Reader
from live import Server

PAGES = {
    "experiments": "/ui/experiments",
    "nothing-matches": "/ui/experiments?q=nothing",
    "result": "/ui/experiments/demo-checkout",
    "history": "/ui/experiments/demo-checkout/history",
    "past-reports": "/ui/experiments/demo-checkout/reports",
    "look": "/ui/experiments/demo-checkout/look",
    "new-experiment": "/ui/experiments/new",
    "edit-experiment": "/ui/experiments/demo-checkout/edit",
    "stop": "/ui/experiments/demo-checkout/do/stop",
    "metrics": "/ui/metrics",
    "new-metric": "/ui/metrics/new?begin=ratio",
    "segments": "/ui/segments",
    "new-segment": "/ui/segments/new",
    "layers": "/ui/layers",
    "new-layer": "/ui/layers/new",
    "holdouts": "/ui/holdouts",
    "new-holdout": "/ui/holdouts/new",
    "templates": "/ui/templates",
    "save-template": "/ui/experiments/demo-checkout/template",
    "events": "/ui/events",
    "audit": "/ui/audit",
    "keys": "/ui/keys",
    "revoke": "/ui/keys/1/revoke",
    "installation": "/ui/installation",
    "not-there": "/ui/experiments/not-there",
}
MODES = {
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 900}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 900}},
    "narrow": {"color_scheme": "light", "viewport": {"width": 360, "height": 740}},
    "vast": {"color_scheme": "dark", "viewport": {"width": 3840, "height": 2160}},
}


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_every_page(furnished: Server, reader: Callable[..., Reader], mode: str) -> None:
    someone = reader(furnished, reduced_motion="reduce", **MODES[mode])
    someone.watched.expected.add(404)
    serious = {}
    for name, path in PAGES.items():
        page = someone.open(path)
        page.locator("details").evaluate_all("all => all.forEach((each) => { each.open = true; })")
        if found := someone.findings():
            serious[name] = found
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, name
        if PICTURES:
            page.locator("details").evaluate_all("all => all.forEach((each) => { each.open = false; })")
            page.screenshot(path=Path(PICTURES) / f"{name}-{mode}.png", full_page=True)
    assert serious == {}


def test_the_door_and_an_empty_house(server: Server, reader: Callable[..., Reader]) -> None:
    someone = reader(server, None)
    someone.open("/ui/experiments")
    assert someone.findings() == []
    someone.sign_in(server.key)
    assert someone.findings() == []


def test_all_of_it_by_keyboard(furnished: Server, reader: Callable[..., Reader]) -> None:
    someone = reader(furnished)
    page = someone.open("/ui/experiments/demo-checkout")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("(document.activeElement.textContent || '').trim()"))
        ring = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert ring != "none" or page.evaluate("document.activeElement === document.body")
    assert {"Stop …", "Edit", "Refresh", "What these numbers are made of"} <= reached


def test_the_theme_that_is_chosen_stays(furnished: Server, reader: Callable[..., Reader]) -> None:
    page = reader(furnished, color_scheme="light").open("/ui/experiments")
    page.get_by_role("button", name="Switch between light and dark").click()
    assert page.locator("html").get_attribute("data-theme") == "dark"
    page.reload()
    assert page.locator("html").get_attribute("data-theme") == "dark"


def test_times_are_the_readers_own(furnished: Server, reader: Callable[..., Reader]) -> None:
    page = reader(furnished, timezone_id="Asia/Tokyo").open("/ui/audit")
    first = page.locator("time").first
    shown, title = first.inner_text(), first.get_attribute("title") or ""
    assert title.endswith("UTC")
    assert not shown.endswith("UTC")
    hours = [int(text.split(":")[0][-2:]) for text in (shown, title)]
    assert (hours[0] - hours[1]) % 24 == 9


def test_without_scripts_everything_is_there(furnished: Server, reader: Callable[..., Reader]) -> None:
    page = reader(furnished, java_script_enabled=False).page
    page.goto("/ui/experiments/demo-checkout")
    assert "UTC" in page.locator(".facts time").first.inner_text()
    page.get_by_role("link", name="Show the charts").click()
    assert page.locator("svg.chart").count() >= 4
    assert page.get_by_role("navigation", name="Main").count() == 1, (
        "a piece asked for by itself is a whole page"
    )
    assert page.goto("/favicon.ico").headers["content-type"].startswith("image/svg+xml")
