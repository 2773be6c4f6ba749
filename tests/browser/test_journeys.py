"""Journeys through the dashboard as somebody with a mouse and a keyboard makes them."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from browser.conftest import HOSTILE, Reader, key_of, told
from live import Server, until

Readers = Callable[..., Reader]


def test_from_nothing_to_a_stopped_experiment(server: Server, reader: Readers) -> None:
    someone = reader(server)
    page = someone.page
    expect(page.get_by_role("heading", name="Create an experiment")).to_be_visible()
    expect(page.locator("pre").first).to_contain_text(f"{server.url}/api/v1/experiments")
    page.get_by_text("Python", exact=True).first.click()
    expect(page.locator("pre:visible").first).to_contain_text("import httpx")

    page.get_by_role("link", name="Create it here").click()
    page.get_by_label("Name", exact=True).first.fill("Blue button")
    page.get_by_label("Hypothesis").fill("Blue is seen sooner.")
    page.get_by_label("Event type").fill("signup")
    page.get_by_label("Its value now").fill("10")
    page.get_by_label("Smallest lift worth finding").fill("10")
    page.get_by_label("New users a day").fill("2000")
    expect(page.locator("#answer")).to_contain_text("users, about")
    page.get_by_role("button", name="Use as the planned sample").click()
    planned = page.get_by_label("Planned sample").input_value()
    assert 29_000 < int(planned) < 30_500  # two arms of 14,751 by the unpooled formula
    page.get_by_role("button", name="Create draft").last.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Blue button")
    expect(page.get_by_text("Before it starts")).to_be_visible()

    page.get_by_role("link", name="Start …").click()
    expect(page.get_by_text("each keeps the variant they get")).to_be_visible()
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("heading", name="Connect the application")).to_be_visible()

    with server.client() as client:
        for number in range(40):
            told(client, "GET", f"/api/v1/experiments/blue-button/assignment/u{number}")
        events = [{"user_id": f"u{number}", "type": "signup"} for number in range(0, 40, 3)]
        told(client, "POST", "/api/v1/events", events)
    page.get_by_role("link", name="Refresh").click()
    expect(page.locator(".verdict")).to_contain_text("from 40 units")
    expect(page.locator(".scorecard")).to_contain_text("signup")
    page.get_by_text("What these numbers are made of").click()
    expect(page.get_by_text("Share of units with at least one of the “signup” events")).to_be_visible()
    expect(page.locator("#charts svg.chart:visible").first).to_be_visible()
    expect(page.locator("section", has=page.get_by_role("heading", name="Event ledger"))).to_contain_text(
        "Counted"
    )

    page.get_by_role("link", name="Stop …").click()
    page.get_by_label("treatment").check()
    page.get_by_label("Why").fill("Enough seen.")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Stopped")
    expect(page.get_by_text("Enough seen.")).to_be_visible()
    page.get_by_role("link", name="History").click()
    expect(page.locator(".timeline")).to_contain_text("Experiment: stop")


def test_a_first_run_by_calls_shows_what_has_arrived(server: Server, reader: Readers) -> None:
    page = reader(server).page
    arrived = page.locator(".arrivals .done")
    expect(page.locator(".arrivals .awaited")).to_have_count(3)
    with server.client() as client:
        document = {
            "key": "first-experiment",
            "name": "My first experiment",
            "variants": [{"name": "control", "allocation": 0.5}, {"name": "treatment", "allocation": 0.5}],
            "metrics": ["signup"],
            "status": "running",
        }
        told(client, "POST", "/api/v1/experiments", document)
        told(client, "GET", "/api/v1/experiments/first-experiment/assignment/user-1")
        told(client, "POST", "/api/v1/events", {"user_id": "user-1", "type": "signup"})
    expect(arrived).to_have_count(3)
    expect(arrived.last).to_contain_text("signup of user-1")
    page.get_by_role("link", name="See its result").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("My first experiment")
    expect(page.locator(".verdict")).to_contain_text("from 1 unit")
    expect(page.locator("section", has=page.get_by_role("heading", name="Health"))).to_contain_text("Not yet")


def test_a_look_is_made_by_hand_once_for_the_same_data(furnished: Server, reader: Readers) -> None:
    with furnished.client() as client:
        document = {
            "key": "looked-at",
            "name": "Looked at",
            "variants": [{"name": "control", "allocation": 0.5}, {"name": "treatment", "allocation": 0.5}],
            "metrics": ["signup"],
            "analysis": {"method": "group_sequential", "looks": 3},
            "target_sample_size": 300,
            "status": "running",
        }
        told(client, "POST", "/api/v1/experiments", document)
        for number in range(24):
            told(client, "GET", f"/api/v1/experiments/looked-at/assignment/look-{number}")
    page = reader(furnished).open("/ui/experiments/looked-at")
    looks = page.locator("section", has=page.get_by_role("heading", name="Looks", exact=True))
    expect(looks).to_contain_text("No look has been made yet.")
    for notice in ("The look was made.", "Nothing new has come since the last look: that one stands."):
        page.get_by_role("link", name="Look now …").click()
        expect(page.locator(".follows")).to_contain_text("what is spent does not come back")
        page.get_by_role("button", name="Look now").click()
        expect(looks.get_by_role("status")).to_have_text(notice)
        expect(looks.locator("tbody")).to_have_count(1)
    expect(looks.locator("tbody")).to_contain_text("24")


def test_a_result_is_read_for_a_segment_and_says_so(furnished: Server, reader: Readers) -> None:
    members = [f"user-{number:06}" for number in range(0, 3000, 3)]
    with furnished.client() as client:
        made = told(client, "POST", "/api/v1/segments", {"name": "Early birds", "key": "early-birds"})
        told(client, "POST", f"/api/v1/segments/{made['id']}/users", {"user_ids": members})
    page = reader(furnished).open("/ui/experiments/demo-checkout")
    page.get_by_label("Units", exact=True).select_option("in “Early birds”")
    note = page.get_by_role("note")
    expect(note).to_contain_text("only units in the segment “Early birds”, 1,000 of 3,000")
    expect(page.get_by_label("Units", exact=True)).to_have_value("Early birds")
    expect(page.locator(".verdict .sentence")).to_contain_text("the whole experiment decides")
    page.goto("/ui/experiments/demo-checkout?segment=early-birds")  # a link that names the key
    expect(page.get_by_label("Units", exact=True)).to_have_value("Early birds")
    expect(note).to_contain_text("“Early birds”")
    note.get_by_role("link", name="Show all units").click()
    expect(page.locator(".verdict")).to_contain_text("from 3,000 units")
    with furnished.client() as client:
        told(client, "DELETE", f"/api/v1/segments/{made['id']}")


def test_wrong_input_is_said_beside_its_field_and_nothing_typed_is_lost(
    furnished: Server, reader: Readers
) -> None:
    someone = reader(furnished)
    someone.watched.expected.add(422)
    page = someone.open("/ui/experiments/new")
    page.get_by_label("Name", exact=True).first.fill("Half a plan")
    page.get_by_role("heading", name="Advanced").click()
    page.get_by_label("Key", exact=True).fill("not a key!")
    page.locator("#variant-0-share").fill("lots")
    expect(page.locator("[data-total]")).to_contain_text("must be 100 % at the start")
    page.locator("#variant-1-config").fill("{broken")
    page.get_by_role("button", name="Write as JSON").click()
    page.locator("#condition").fill('{"age": {"$near": 3}}')
    page.get_by_role("button", name="Create draft").last.click()
    expect(page.get_by_role("alert")).to_contain_text("Not saved")
    expect(page.locator("#variant-0-share-problem")).to_contain_text("must be a number")
    expect(page.locator("#variant-1-config-problem")).to_contain_text("is not JSON")
    page.locator("#variant-0-share").fill("50")
    page.locator("#variant-1-config").fill("")
    page.get_by_role("button", name="Create draft").last.click()
    expect(page.locator("#key-problem")).to_contain_text("must be letters, digits")
    assert page.get_by_label("Name", exact=True).first.input_value() == "Half a plan"
    page.get_by_label("Key", exact=True).fill("half-a-plan")
    page.get_by_role("button", name="Create draft").last.click()
    expect(page.locator("#condition-problem")).to_contain_text("$near")
    page.locator("#condition").fill("")
    page.get_by_role("button", name="Add a variant").click()
    page.locator("#variant-2-name").fill("third")
    page.locator("#variant-2-share").fill("10")
    expect(page.locator("[data-total]")).to_contain_text("110 %")
    page.get_by_role("button", name="Remove variant 3").click()
    expect(page.locator("#variant-2-name")).to_have_count(0)
    page.get_by_role("button", name="Create draft").last.click()
    expect(page).to_have_url(re.compile("/ui/experiments/half-a-plan$"))


def test_a_metric_is_defined_taken_and_defined_otherwise(furnished: Server, reader: Readers) -> None:
    someone = reader(furnished)
    someone.watched.expected.add(422)
    page = someone.open("/ui/metrics/new")
    page.get_by_label("Name", exact=True).fill("Orders per visit")
    page.get_by_label("Event type", exact=True).fill("order")
    expect(page.get_by_label("Divided by events of type")).to_be_hidden()
    page.get_by_label("Measures").select_option("ratio")
    page.get_by_label("Divided by events of type").fill("visit")
    page.get_by_label("Role in experiments").select_option("guardrail")
    expect(page.get_by_label("Better is")).to_have_value("")  # which way is harm is asked, not assumed
    page.get_by_label("Better is").select_option("more")
    page.get_by_label("Tolerated harm, % of control").fill("much")
    page.get_by_role("button", name="Create").last.click()
    expect(page.locator("#margin-relative-problem")).to_contain_text("must be a number")
    page.get_by_label("Tolerated harm, % of control").fill("2")
    page.get_by_role("button", name="Add a test to test", exact=True).click()
    page.get_by_label("Property", exact=True).last.fill("country")
    page.get_by_label("Test", exact=True).select_option("in")
    page.get_by_label("Value", exact=True).fill("DE, AT")
    page.get_by_role("button", name="Create").last.click()
    expect(page.locator(".sentence")).to_contain_text("“order” events where “country” is one of DE, AT")
    expect(page.locator(".facts")).to_contain_text("up to 2 % of the control's value")

    page = someone.open("/ui/experiments/new")
    page.get_by_label("Name", exact=True).first.fill("Fewer steps")
    page.get_by_label("Event type", exact=True).fill("signup")
    page.get_by_label("From the library").select_option("Orders per visit")
    page.get_by_role("button", name="Take it").click()
    second = page.get_by_role("group", name="Metric 2", exact=True)
    expect(second).to_contain_text("from the library")
    expect(second.get_by_label("Role")).to_have_value("guardrail")
    second.get_by_text("Window, lookback and cap").click()
    second.get_by_label("Counts for").fill("7d")
    page.get_by_role("button", name="Create draft").last.click()
    expect(page.get_by_text("Orders per visit (guardrail)")).to_be_visible()
    page = someone.open("/ui/metrics/orders-per-visit")
    expect(page.get_by_role("link", name="Fewer steps")).to_be_visible()


def test_an_untouched_edit_changes_nothing_and_a_late_one_is_told(furnished: Server, reader: Readers) -> None:
    someone = reader(furnished)
    with furnished.client() as client:
        before = told(client, "GET", "/api/v1/experiments/demo-checkout")
    page = someone.open("/ui/experiments/demo-checkout/edit")
    page.get_by_role("button", name="Save").last.click()
    page.wait_for_url("**/demo-checkout")
    with furnished.client() as client:
        assert told(client, "GET", "/api/v1/experiments/demo-checkout") == before
        page = someone.open("/ui/experiments/demo-checkout/edit")
        told(client, "PATCH", "/api/v1/experiments/demo-checkout", {"owner": "somebody else"})
    someone.watched.expected.add(412)
    page.get_by_label("Owner").fill("me")
    page.get_by_role("button", name="Save").last.click()
    expect(page.get_by_role("alert")).to_contain_text("read it again")


def test_a_form_sent_twice_makes_one_experiment(furnished: Server, reader: Readers) -> None:
    someone = reader(furnished)
    page = someone.open("/ui/experiments/new")
    page.get_by_label("Name", exact=True).first.fill("Only once")
    sent = page.evaluate(
        """async () => {
            const form = document.querySelector('form[data-experiment]');
            const body = new URLSearchParams(new FormData(form));
            const send = () => fetch(form.action, {method: 'POST', body});
            return [(await send()).url, (await send()).url];
        }"""
    )
    assert sent[0] == sent[1] == f"{furnished.url}/ui/experiments/only-once"
    with furnished.client() as client:
        assert told(client, "GET", "/api/v1/experiments?q=Only once")["total"] == 1
    page.goto("/ui/experiments/only-once/do/start")
    page.get_by_role("button", name="Start").click()
    page.wait_for_url("**/only-once")
    page.go_back()
    page.reload()
    expect(page.get_by_text("this step is not possible from here")).to_be_visible()


def test_the_door_opens_to_keys_that_may_read(furnished: Server, reader: Readers) -> None:
    someone = reader(furnished, None)
    someone.watched.expected.add(422)
    page = someone.page
    page.goto("/ui/audit?noun=key")
    assert page.url == f"{furnished.url}/ui/sign-in?next=%2Fui%2Faudit%3Fnoun%3Dkey"
    page.get_by_label("API key").fill("assay_wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("unknown, revoked or expired")
    page.get_by_label("API key").fill(key_of(furnished, "client"))
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("may assign and record, but see nothing")
    page.get_by_label("API key").fill(furnished.key)
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(f"{furnished.url}/ui/audit?noun=key")
    cookie = next(each for each in page.context.cookies() if each["name"] == "assay_session")
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/ui")
    assert furnished.key not in cookie["value"]
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("API key")).to_be_visible()
    page.goto("/ui/keys")
    expect(page.get_by_label("API key")).to_be_visible()


def test_a_session_ends_with_its_key_and_leads_back_after_the_door(
    furnished: Server, reader: Readers
) -> None:
    secret = key_of(furnished, "editor")
    someone = reader(furnished, None).sign_in(secret)
    page = someone.open("/ui/segments/new")
    page.get_by_label("Name").fill("Germans")
    with furnished.client() as client:
        keys = told(client, "GET", "/api/v1/auth/keys")["keys"]
        told(client, "DELETE", f"/api/v1/auth/keys/{keys[0]['id']}")
    page.get_by_role("button", name="Create").last.click()
    expect(page).to_have_url(f"{furnished.url}/ui/sign-in?next=%2Fui%2Fsegments%2Fnew")
    page.get_by_label("API key").fill(furnished.key)
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(f"{furnished.url}/ui/segments/new")


def test_a_viewer_sees_no_button_that_would_be_refused(furnished: Server, reader: Readers) -> None:
    someone = reader(furnished, "viewer")
    someone.watched.expected.add(403)
    for path in (
        "/ui/experiments",
        "/ui/experiments/demo-checkout",
        "/ui/metrics",
        "/ui/segments",
        "/ui/audit",
        "/ui/events",
    ):
        page = someone.open(path)
        names = page.get_by_role("link").or_(page.get_by_role("button")).all_inner_texts()
        refused = [
            each
            for each in names
            if re.search(r"^(New (experiment|segment|metric)|Edit|Stop|Pause …|Duplicate|Delete|Keys)", each)
        ]
        assert refused == []
    for path in (
        "/ui/keys",
        "/ui/experiments/new",
        "/ui/experiments/demo-checkout/do/stop",
        "/ui/metrics/new",
        "/ui/segments/new",
    ):
        page.goto(path)
        expect(page.get_by_role("heading", level=1)).to_have_text("Your key may not do this")


def test_keys_are_shown_once_and_revoked_after_a_question(furnished: Server, reader: Readers) -> None:
    someone = reader(furnished)
    page = someone.open("/ui/keys")
    page.get_by_label("Name").fill("Checkout service")
    page.get_by_role("button", name="Make key").click()
    secret = page.locator("pre code").inner_text()
    with furnished.client(secret) as client:
        assert client.get("/api/v1/experiments/demo-checkout/assignment/user-000001").status_code == 200
    page = someone.open("/ui/keys")
    assert secret not in page.content()
    page.get_by_role("link", name="Revoke Checkout service").click()
    page.get_by_role("button", name="Revoke").click()
    expect(page.get_by_role("row", name=re.compile("Checkout service"))).to_contain_text("Revoked")
    with furnished.client(secret) as client:
        until(
            lambda: client.get("/api/v1/experiments/demo-checkout/assignment/x").status_code == 401, "revoked"
        )


def test_segments_are_made_filled_and_let_go(furnished: Server, reader: Readers) -> None:
    someone = reader(furnished)
    someone.watched.expected.update({409, 422})
    with furnished.client() as client:
        for user, country, plan in (("anna", "DE", "pro"), ("bert", "AT", "free"), ("carl", "FR", "pro")):
            told(client, "POST", "/api/v1/users", {"id": user, "age": 30, "country": country, "plan": plan})
    page = someone.open("/ui/segments/new")
    page.get_by_label("Name").fill("Adults")
    page.get_by_role("button", name="Write as JSON").click()
    page.get_by_label("Condition (JSON)").fill('{"age": {"$gte": }')
    page.get_by_role("button", name="Create").last.click()
    expect(page.locator("#rules-problem")).to_contain_text("is not JSON (line 1")
    page.get_by_label("Condition (JSON)").fill('{"age": {"$gte": 18}, "country": {"$in": ["DE", "AT"]}}')
    page.get_by_role("button", name="Show as rows").click()
    expect(page.get_by_label("Value", exact=True).last).to_have_value("DE, AT")
    expect(page.locator(".preview")).to_contain_text("2 of 3 known users match")
    page.get_by_role("button", name="And …").click()
    expect(page.get_by_label("And attribute")).to_have_count(2)
    page.get_by_label("And attribute").last.fill("plan")
    page.get_by_label("Test", exact=True).last.select_option("is not")
    page.get_by_label("Value", exact=True).last.fill("free")
    expect(page.locator(".preview")).to_contain_text("1 of 3 known users match")
    page.get_by_role("button", name="Create").last.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Adults")
    page.get_by_label("Or read them from a file").set_input_files(
        files=[{"name": "users.txt", "mimeType": "text/plain", "buffer": b"anna\r\nbert\r\n"}]
    )
    expect(page.get_by_text("2 ids were read.")).to_be_visible()
    page.get_by_role("button", name="Put on the list").click()
    expect(page.locator(".members")).to_contain_text("bert")
    page.get_by_role("button", name="Remove anna").click()
    expect(page.locator(".members")).not_to_contain_text("anna")
    page.get_by_role("link", name="Delete …").click()
    page.get_by_role("button", name="Delete").click()
    page.wait_for_url("**/ui/segments")
    expect(page.locator("main")).not_to_contain_text("Adults")


def test_events_appear_as_they_arrive(furnished: Server, reader: Readers) -> None:
    someone = reader(furnished)
    page = someone.open("/ui/events?user=live-1")
    expect(page.locator("#live-state")).to_have_text("Live")
    with furnished.client() as client:
        told(client, "POST", "/api/v1/events", {"user_id": "live-1", "type": "<b>bold</b>", "value": 2.5})
        told(client, "POST", "/api/v1/events", {"user_id": "other", "type": "unseen"})
    expect(page.locator("#live tr")).to_have_count(1)
    expect(page.locator("#live")).to_contain_text("<b>bold</b>")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#live-state")).to_have_text("Paused")


def test_an_open_stream_does_not_keep_a_server_from_ending(server: Server, reader: Readers) -> None:
    someone = reader(server)
    page = someone.open("/ui/events")
    expect(page.locator("#live-state")).to_have_text("Live")
    assert server.stop() == 0
    page.goto("about:blank")
    someone.watched.wrong.clear()


@pytest.mark.parametrize("width", [1280, 360])
def test_names_of_an_attacker_are_text_everywhere(furnished: Server, reader: Readers, width: int) -> None:
    with furnished.client() as client:
        for place, name in enumerate(HOSTILE):
            key = f"hostile-{place}-{width}"
            told(client, "POST", "/api/v1/segments", {"name": name, "description": name})
            told(
                client,
                "POST",
                "/api/v1/experiments",
                {
                    "key": key,
                    "name": name,
                    "hypothesis": name,
                    "description": name,
                    "owner": name,
                    "tags": [name[:100]],
                    "status": "running",
                    "variants": [
                        {"name": "control", "allocation": 0.5},
                        {"name": name, "allocation": 0.5, "config": {"text": name}},
                    ],
                    "metrics": [{"name": name, "event_type": name}],
                },
            )
            for number in range(20):
                user = f"{name[:150]}{number}"
                told(client, "POST", f"/api/v1/experiments/{key}/assign", {"user_id": user})
                told(client, "POST", "/api/v1/events", {"user_id": user, "type": name})
    someone = reader(furnished, viewport={"width": width, "height": 800})
    for place, name in enumerate(HOSTILE):
        key = f"hostile-{place}-{width}"
        for path in ("", "/edit", "/history", "/do/stop", "/duplicate"):
            page = someone.open(f"/ui/experiments/{key}{path}")
            shown = page.locator("main").inner_text() + " ".join(
                page.locator("input, textarea").evaluate_all("all => all.map((each) => each.value)")
            )
            assert name in shown, path
            assert "owned" not in page.title() or "script" in page.title()
            assert not re.search(r"\bNaN\b|\bNone\b|\bundefined\b", shown), path
            overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert overflow <= 0, (path, overflow)
    for path in ("/ui/experiments", "/ui/segments", "/ui/audit", "/ui/events", "/ui/experiments/new"):
        page = someone.open(path)
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, path
