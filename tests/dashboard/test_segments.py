"""What depends on a segment stands on its page, and keeps it from being deleted."""

from typing import Any

import pytest
from sqlalchemy import update

from assay.catalog import experiments, lifecycle, segments, templates
from assay.catalog.checks import parse
from assay.catalog.database import Actor
from assay.catalog.inputs import ExperimentCreate
from assay.catalog.tables import Experiment, Segment
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


def test_a_rule_that_is_not_understood_any_more_is_said_where_it_counts(used: House) -> None:
    broken, wrong = {"$or": {"plan": "pro"}}, {"tags": {"$size": True}}
    with used.stores.database.writing(Actor("test"), utc_now()) as tx:
        tx.record("experiment.edit", "experiment", 2)
        again = {"version": Experiment.version + 1}  # as an earlier version stored them
        tx.execute(update(Experiment).where(Experiment.key == "inside").values(condition=wrong, **again))
        attached = segments.create(tx, parse(segments.SegmentInput, {"name": "Broken", "rules": {"a": 1}}))
        given = {
            "key": "under",
            "name": "Under",
            "metrics": ["buy"],
            "segments": [attached.id],
            "status": "running",
        }
        experiments.create(tx, parse(ExperimentCreate, given))
        tx.execute(update(Segment).where(Segment.id == attached.id).values(rules=broken, version=2))
    used.sign_in("editor")
    draft = used.ask("GET", "/ui/experiments/inside")
    assert "The condition is not understood by this version of Assay. Until it is saved anew" in words(
        draft.text
    )
    assert "What is wrong: condition.tags.$size must be a number" in words(draft.text)
    assert '<a href="/ui/experiments/inside/edit">Write it anew</a>' in draft.text
    under = used.ask("GET", "/ui/experiments/under")
    assert "The rule of the segment Broken is not understood" in words(under.text)
    assert f'<a href="/ui/segments/{attached.id}/edit">Write it anew</a>' in under.text
    segment = used.ask("GET", f"/ui/segments/{attached.id}")
    assert "The rule is not understood by this version of Assay." in words(segment.text)
    assert "not understood" not in used.ask("GET", "/ui/experiments/outside").text
    for form in ("/ui/experiments/inside/edit", f"/ui/segments/{attached.id}/edit", "/ui/segments/1"):
        assert used.ask("GET", form).status_code == 200, "what mends it opens, and the others go on"
    token = used.token("/ui/segments/2/delete")
    assert used.ask("POST", "/ui/segments/2/delete", {"csrf": token}).status_code == 303
    used.sign_in("viewer")
    assert "Write it anew" not in used.ask("GET", "/ui/experiments/under").text
