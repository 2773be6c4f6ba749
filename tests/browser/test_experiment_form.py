"""Journeys through the form of an experiment, its templates and holdouts, in a browser."""

import re
from collections.abc import Callable

from playwright.sync_api import Page, expect

from browser.conftest import HOSTILE, Reader, told
from live import Server

Readers = Callable[..., Reader]


def unfold(page: Page, name: str) -> None:
    """Open a section by its heading, with the keyboard."""
    summary = page.locator("summary", has=page.get_by_role("heading", name=name, exact=True))
    summary.focus()
    page.keyboard.press("Enter")


def test_a_sequential_experiment_with_a_breaker_and_a_ramp(furnished: Server, reader: Readers) -> None:
    someone = reader(furnished)
    someone.watched.expected.add(422)
    page = someone.open("/ui/experiments/new")
    page.get_by_label("Name", exact=True).first.fill("Careful checkout")
    page.locator("#metric-0-event_type").fill("purchase")
    page.get_by_role("button", name="Add a metric").click()
    page.locator("#metric-1-event_type").fill("crash")
    page.locator("#metric-1-role").select_option("guardrail")
    page.locator("#metric-1-direction").select_option("decrease")

    expect(page.get_by_label("Group sequential")).to_be_hidden()
    unfold(page, "Analysis")
    expect(page.get_by_label("Looks", exact=True)).to_be_hidden()
    page.get_by_label("Group sequential").check()
    page.get_by_label("Looks", exact=True).fill("4")
    expect(page.get_by_label("Least share of a variant")).to_be_hidden()
    expect(page.locator("#analysis .changed")).to_be_visible()
    page.get_by_label("Its value now").fill("10")
    page.get_by_label("Smallest lift worth finding").fill("5")
    expect(page.locator("#answer")).to_contain_text("by a test of 4 looks")
    expect(page.locator("#answer")).to_contain_text("on average")

    unfold(page, "Rollout")
    page.get_by_role("button", name="Add a step").click()
    page.locator("#ramp-0-traffic_allocation").fill("50")
    page.locator("#ramp-0-after").fill("soon")
    page.get_by_role("button", name="Add a step").click()
    expect(page.locator("#ramp-1-traffic_allocation")).to_be_visible()
    assert page.locator("#ramp-0-after").input_value() == "soon", "a new step loses nothing typed before"
    page.get_by_role("button", name="Remove step 2").click()
    expect(page.locator("#ramp-1-traffic_allocation")).to_have_count(0)
    page.get_by_label("Act by itself when a guardrail is harmed").check()
    page.get_by_label("False-trip rate, %").fill("1")
    page.get_by_role("button", name="Create draft").last.click()
    expect(page.get_by_role("alert")).to_contain_text("Not saved")
    expect(page.locator("#rollout")).to_have_attribute("open", "")
    expect(page.locator("#ramp-0-after-problem")).to_contain_text("such as 7d")
    assert page.locator("#ramp-0-after").get_attribute("aria-describedby") == "ramp-0-after-problem"
    page.locator("#ramp-0-after").fill("12h")
    page.get_by_role("button", name="Create draft").last.click()
    expect(page.locator("#ramp-0-traffic_allocation-problem")).to_contain_text("more than traffic_allocation")
    page.get_by_label("Traffic, %").first.fill("10")
    page.get_by_role("button", name="Create draft").last.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Careful checkout")
    with furnished.client() as client:
        document = told(client, "GET", "/api/v1/experiments/careful-checkout")
    assert document["analysis"]["method"] == "group_sequential"
    assert document["analysis"]["looks"] == 4
    assert document["ramp"] == [{"traffic_allocation": 0.5, "after": "12h"}]
    assert document["circuit_breaker"] == {"action": "pause", "false_trip_rate": 0.01}
    assert document["guardrail_metrics"] == ["crash"]

    page.get_by_role("link", name="Start …").click()
    expect(page.get_by_text("begins with 10 % of the traffic; the ramp opens 50 %")).to_be_visible()
    expect(page.get_by_text("circuit breaker pauses it")).to_be_visible()
    page.get_by_role("button", name="Start").click()
    page.wait_for_url("**/careful-checkout")
    page.get_by_role("link", name="Edit").click()
    unfold(page, "Advanced")
    expect(page.get_by_label("Key", exact=True)).to_have_attribute("readonly", "")
    unfold(page, "Analysis")
    expect(page.get_by_text("kept in the history as a deviation and said in the report")).to_be_visible()


def test_a_bandit_and_what_is_wrong_with_it(furnished: Server, reader: Readers) -> None:
    someone = reader(furnished)
    someone.watched.expected.add(422)
    page = someone.open("/ui/experiments/new")
    page.get_by_label("Name", exact=True).first.fill("Headline")
    page.locator("#metric-0-event_type").fill("read")
    unfold(page, "Analysis")
    page.get_by_label("Bandit").check()
    expect(page.get_by_text("It learns from the primary metric")).to_be_visible()
    expect(page.get_by_label("Looks", exact=True)).to_be_hidden()
    page.get_by_label("Least share of a variant").fill("50")
    page.get_by_label("New shares every").fill("12h")
    page.get_by_role("button", name="Create draft").last.click()
    expect(page.locator("#analysis-floor-problem")).to_contain_text("must be less than 0.5")
    expect(page.get_by_label("New shares every")).to_have_value("12h")
    page.get_by_label("Least share of a variant").fill("10")
    page.get_by_role("button", name="Create draft").last.click()
    page.wait_for_url("**/headline")
    with furnished.client() as client:
        analysis = told(client, "GET", "/api/v1/experiments/headline")["analysis"]
    assert (analysis["method"], analysis["floor"], analysis["reweight_every"]) == ("bandit", 0.1, "12h")


def test_templates_and_holdouts_carry_names_of_an_attacker_as_text(
    furnished: Server, reader: Readers
) -> None:
    someone = reader(furnished, viewport={"width": 360, "height": 800})
    with furnished.client() as client:
        for place, name in enumerate(HOSTILE):
            body = {"name": name, "key": f"bad-{place}", "tags": [name[:100]], "metrics": [name]}
            told(client, "POST", "/api/v1/experiments", body)
            template = {
                "name": name,
                "key": f"bad-{place}",
                "experiment": f"bad-{place}",
                "description": name,
            }
            told(client, "POST", "/api/v1/templates", template)
            held = {"name": name, "key": f"held-{place}", "share": 0.01, "description": name}
            told(client, "POST", "/api/v1/holdouts", held)
            key = {"name": name, "role": "client", "experiments": [f"bad-{place}"], "tags": [name[:100]]}
            told(client, "POST", "/api/v1/auth/keys", key)
    for path in ("/ui/templates", "/ui/holdouts", "/ui/keys"):
        page = someone.open(path)
        shown = page.locator("main").inner_text()
        assert all(name in shown for name in HOSTILE), path
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, path
    for place, name in enumerate(HOSTILE):
        page = someone.open(f"/ui/experiments/new?template=bad-{place}")
        assert page.locator("#metric-0-event_type").input_value() == name
        for path in (f"/ui/holdouts/held-{place}", f"/ui/experiments/bad-{place}/template"):
            page = someone.open(path)
            assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, path
            assert "owned" not in page.title() or "script" in page.title()


def test_without_scripts_a_method_shows_its_fields_when_asked(furnished: Server, reader: Readers) -> None:
    page = reader(furnished, java_script_enabled=False).page
    page.goto("/ui/experiments/new")
    page.get_by_label("Name", exact=True).first.fill("By hand")
    unfold(page, "Analysis")
    page.get_by_label("Bandit").check()
    page.get_by_role("button", name="Show the fields of this method").click()
    expect(page.locator("#analysis")).to_have_attribute("open", "")
    expect(page.get_by_label("New shares every")).to_be_visible()
    expect(page.get_by_label("Name", exact=True).first).to_have_value("By hand")
    page.get_by_label("Event type", exact=True).fill("read")
    page.get_by_role("button", name="Create draft").last.click()
    expect(page).to_have_url(re.compile("/ui/experiments/by-hand$"))
