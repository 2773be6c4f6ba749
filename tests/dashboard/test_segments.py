"""What depends on a segment stands on its page, and keeps it from being deleted."""

from typing import Any

import pytest

from assay.catalog import experiments, lifecycle, segments, templates
from assay.catalog.checks import parse
from assay.catalog.database import Actor
from assay.catalog.inputs import ExperimentCreate
from assay.stores.base import utc_now
from dashboard.conftest import House
from dashboard.test_result_page import words

ON = {"id": {"$inGroup": "staff"}}


@pytest.fixture
def used(house: House) -> House:
    """A house with a list that is attached, named by conditions, by a segment and by a template."""
    with house.stores.database.writing(Actor("test"), utc_now()) as tx:
        staff = segments.create(tx, parse(segments.SegmentInput, {"name": "Our staff", "key": "staff"}))
        segments.create(tx, parse(segments.SegmentInput, {"name": "Lonely"}))
        segments.create(
            tx, parse(segments.SegmentInput, {"name": "Nearby", "rules": {"city": "B", "$not": ON}})
        )

        def make(name: str, **fields: Any) -> None:
            given = parse(ExperimentCreate, {"key": name.lower(), "name": name, "metrics": ["buy"], **fields})
            made = experiments.create(tx, given)
            if name == "Archived":
                lifecycle.stop(tx, made, winner=None, reason="")
                lifecycle.archive(tx, made)

        make("Attached", segments=[staff.id])
        make("Inside", condition={"$and": [{"a": 1}, ON]})
        make("Outside", condition={"id": {"$notInGroup": "staff"}})
        make("Archived", status="running", condition=ON)
        make("Other", condition={"id": "staff"})
        body = {"variants": [{"name": "control"}, {"name": "b"}], "metrics": ["buy"], "condition": ON}
        templates.create(tx, parse(templates.TemplateInput, {"name": "For staff", "body": body}))
    return house


def users_of(house: House, segment: int) -> str:
    """What stands under "Used by"."""
    page = house.ask("GET", f"/ui/segments/{segment}").text
    return words(page.partition("<h2>Used by</h2>")[2].partition("</section>")[0]).strip()


def test_whatever_depends_on_a_segment_is_listed(used: House) -> None:
    used.sign_in("viewer")
    said = users_of(used, 1)
    for each in (
        "Attached Draft",
        "Inside Draft names its list",
        "Outside Draft names its list",
        "Archived Archived names its list",
        "Nearby Segment names its list",
        "For staff Template",
    ):
        assert each in said
    assert "Other" not in said
    page = used.ask("GET", "/ui/segments/1").text
    for address in ("experiments/inside", "experiments/attached", "segments/3", "templates"):
        assert f'<a href="/ui/{address}">' in page
    assert users_of(used, 2).startswith("Nothing uses it.")


def test_what_is_used_is_not_deleted_and_the_page_says_by_whom(used: House) -> None:
    used.sign_in("editor")
    asked = words(used.ask("GET", "/ui/segments/1/delete").text)
    assert "It is used by Attached, Archived, Outside, Inside, Nearby : an experiment" in asked
    assert "No experiment can begin with the template For staff any more." in asked
    token = used.token("/ui/segments/1/delete")
    answer = used.ask("POST", "/ui/segments/1/delete", {"csrf": token})
    assert answer.status_code == 409
    assert (
        "The list of segment Our staff is named, as staff, by the condition of experiment outside, "
        "experiment inside, segment Nearby: change that first, or nobody would be on it."
    ) in words(answer.text)
    token = used.token("/ui/segments/2/delete")
    assert used.ask("POST", "/ui/segments/2/delete", {"csrf": token}).status_code == 303
