"""Which units a segment holds, and who has which value of an attribute, on both catalogs."""

import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from assay.catalog import segments, users
from assay.catalog.checks import parse
from assay.catalog.tables import Assignment
from assay.errors import Invalid
from assay.eventstore.columns import UnitList
from assay.reports import audience
from assay.reports.audience import Attributed, Audience, read_attributes, read_audience
from assay.reports.picture import read_spec
from assay.reports.question import Question
from catalog.conftest import Catalog, catalog, lasting_url, opened, url

__all__ = ["catalog", "lasting_url", "opened", "url"]


def ids(units: UnitList | None) -> set[str]:
    assert units is not None
    found = units.text.split(units.separator) if units.units else []
    assert len(found) == len(set(found)) == units.units
    return set(found)


class People:
    """An experiment, and users of whom some are in it."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.experiment = catalog.running(metrics=["purchase"])

    def known(self, user_id: str, **attributes: Any) -> None:
        with self.catalog.write() as tx:
            users.put(tx, user_id, users.parse_user(attributes))

    def assign(self, *unit_ids: str, experiment: int | None = None) -> None:
        number = experiment or self.experiment
        with self.catalog.write() as tx:
            tx.add_all(
                Assignment(experiment_id=number, unit_id=each, variant_id=1, phase=1, assigned_at=0)
                for each in unit_ids
            )

    def segment(self, name: str, *members: str, rules: dict[str, Any] | None = None) -> int:
        with self.catalog.write() as tx:
            row = segments.create(tx, parse(segments.SegmentInput, {"name": name, "rules": rules}))
            if members:
                segments.add_members(tx, row, members)
            return row.id

    def ask(self, *dimensions: str, segment: str | int | None = None, **more: Any) -> Audience:
        question = Question(dimensions=dimensions, segment=None if segment is None else str(segment))
        with self.catalog.read() as tx:
            return read_audience(tx, replace(read_spec(tx, self.experiment), **more), question)


@pytest.fixture
def people(catalog: Catalog) -> People:
    return People(catalog)


def test_units__are_told_apart_by_what_is_stored_of_users(people: People) -> None:
    values = {
        "a": "de", "b": "de", "c": "de", "d": "fr", "e": "fr", "n1": 1, "n2": 1.0, "t": "1", "y": True,
        "l": ["x", {"k": 1}], "m": ["x", {"k": 1}], "zero": 0, "no": False, "big": 10**30,
    }  # fmt: skip
    for unit, value in values.items():
        people.known(unit, country=value, plan="free")
    people.known("null", country=None)
    people.known("none", plan="pro")
    people.known("outside", country="de")
    people.assign(*values, "null", "none", "stranger")
    [found] = people.ask("country").dimensions
    assert (found.attribute, found.distinct, ids(found.other)) == ("country", 9, set())
    told = [(each.label, each.value, ids(each.units)) for each in found.values]
    assert told[0] == ("value 1", "de", {"a", "b", "c"})
    by_units = {frozenset(units): value for _, value, units in told}
    assert by_units[frozenset({"n1", "n2"})] == 1
    assert by_units[frozenset({"t"})] == "1"
    assert by_units[frozenset({"y"})] is True
    assert by_units[frozenset({"zero"})] == 0
    assert by_units[frozenset({"no"})] is False
    assert by_units[frozenset({"l", "m"})] == '["x", {"k": 1}]'
    assert by_units[frozenset({"big"})] == "1" + "0" * 30
    assert list(found.groups) == [*(f"value {n}" for n in range(1, 10)), "other"]


def test_rare_values__are_one_group(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(5)
    counts = {f"v{n:02}": 14 - n for n in range(14)}
    units = {f"{value}-{n}": value for value, count in counts.items() for n in range(count)}
    for unit, value in units.items():
        people.known(unit, plan=value, seat=unit, one=value if counts[value] > 3 else None)
    people.assign(*rng.sample(sorted(units), len(units)))
    plan, one, seat = people.ask("plan", "one", "seat").dimensions
    assert [each.value for each in plan.values] == [f"v{n:02}" for n in range(10)]
    assert ids(plan.other) == {unit for unit, value in units.items() if counts[value] <= 4}
    assert (plan.distinct, seat.distinct) == (14, len(units))
    # Eleven values: the last of them is no rest, and is shown as what it is.
    assert (len(one.values), one.other.units) == (11, 0)
    assert Counter(len(ids(each.units)) for each in seat.values) == {1: 10}
    assert seat.other.units == len(units) - 10
    monkeypatch.setattr(audience, "MOST_DISTINCT", 12)
    monkeypatch.setattr(audience, "_PAGE", 7)
    [seat] = people.ask("seat").dimensions
    assert (seat.distinct, seat.other.units) == (12, len(units) - 10)


def test_long_values_and_strange_ids__are_whole(people: People) -> None:
    strange = ["\x1f\x1e", "a\x1f1\x1e", "a\x1f", "\x1eb", "ü", "  ", "x" * 200]
    for unit in strange:
        people.known(unit, essay="e" * 1_000 + unit)
    people.assign(*strange)
    [found] = people.ask("essay").dimensions
    assert {frozenset(ids(each.units)) for each in found.values} == {frozenset([unit]) for unit in strange}
    assert {each.value for each in found.values} == {"e" * 200 + "…"}


def test_a_segment__holds_whom_targeting_would_let_in(people: People) -> None:
    for unit in ("de1", "de2", "de3", "fr1", "fr2"):
        people.known(unit, country=unit[:2], age=int(unit[2]))
    people.assign("de1", "de2", "fr1", "fr2", "listed")
    german = people.segment("german", rules={"country": "de"})
    both = people.segment("both", "listed", "fr1", "not in it", rules={"age": {"$gt": 1}})
    nobody = people.segment("nobody", rules={"country": "it"})
    unknown = people.segment("without", rules={"country": {"$exists": False}})
    assert ids(people.ask(segment=german).members) == {"de1", "de2"}
    assert ids(people.ask(segment="both").members) == {"listed", "fr1", "de2", "fr2"}
    assert ids(people.ask(segment=nobody).members) == set()
    assert ids(people.ask(segment=unknown).members) == {"listed"}
    found = people.ask("country", segment=both)
    [country] = found.dimensions
    assert {each.value: ids(each.units) for each in country.values} == {"fr": {"fr1", "fr2"}, "de": {"de2"}}
    assert people.ask() == Audience()


def test_unknown_names__are_refused_with_those_there_are(people: People) -> None:
    with pytest.raises(Invalid, match="no user has any yet"):
        people.ask("country")
    with pytest.raises(Invalid, match="no segment has the id, key or name 'x'; there is none yet"):
        people.ask(segment="x")
    people.known("outside", country="de")
    people.known("inside", plan="pro")
    people.assign("inside")
    first, second = people.segment("Twin"), people.segment("Twin")
    with pytest.raises(Invalid, match=r"has 'contry'; there are: country, plan"):
        people.ask("contry")
    # Some user has it, though none of these units: nothing is misspelt.
    assert people.ask("country").dimensions[0].distinct == 0
    with pytest.raises(Invalid, match=r"there are: twin \(Twin\), twin-2 \(Twin\)"):
        people.ask(segment="99")
    with pytest.raises(Invalid, match="several are called 'Twin', as twin and twin-2"):
        people.ask(segment="Twin")
    for segment, key in ((first, "twin"), (second, "twin-2")):
        assert people.ask(segment=key) == people.ask(segment=segment)


def test_units_that_are_no_users__have_no_attributes(people: People) -> None:
    people.known("d1", country="de")
    people.assign("d1")
    [found] = people.ask("country", unit="device_id").dimensions
    assert (found.distinct, found.values, found.other.units) == (0, (), 0)
    german = people.segment("german", rules={"country": "de"})
    with pytest.raises(Invalid, match="device_id, and segments are of users"):
        people.ask(segment=german, unit="device_id")


def test_who_is_erased__is_in_no_group(people: People, catalog: Catalog) -> None:
    for unit in ("a", "b"):
        people.known(unit, email=f"{unit}@example.org")
    people.assign("a", "b")
    with catalog.read() as tx:
        before = audience.changed(tx)
    with catalog.write() as tx:
        users.erase(tx, "a")
    with catalog.read() as tx:
        assert audience.changed(tx) > before
    [found] = people.ask("email").dimensions
    assert [(each.value, ids(each.units)) for each in found.values] == [("b@example.org", {"b"})]


def test_every_attribute__is_counted_by_variant_and_phase(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audience, "MOST_VALUES", 2)
    monkeypatch.setattr(audience, "_PAGE", 3)
    arms = [each["id"] for each in people.catalog.document(people.experiment)["variants"]]
    for number in range(9):
        if number != 8:
            people.known(f"u{number}", browser="sfco"[number // 3], **({"age": 7} if number == 3 else {}))
        with people.catalog.write() as tx:
            tx.add(
                Assignment(
                    experiment_id=people.experiment,
                    unit_id=f"u{number}",
                    variant_id=arms[number % 2],
                    phase=1 + number // 5,
                    assigned_at=number,
                )
            )
    people.known("stranger", browser="s")

    def found(until: datetime | None = None, **more: Any) -> tuple[int, list[Attributed]]:
        with people.catalog.read() as tx:
            spec = replace(read_spec(tx, people.experiment), **more)
            return (known := read_attributes(tx, spec, until)).units, list(known.groups)

    low, high = arms
    units, groups = found()
    assert units == 9
    assert groups == [
        Attributed("age", "value", 7, ((high, 1, 1),)),
        Attributed("age", "none", None, ((low, 1, 3), (low, 2, 2), (high, 1, 1), (high, 2, 2))),
        Attributed("browser", "value", "f", ((low, 1, 1), (high, 1, 1), (high, 2, 1))),
        Attributed("browser", "value", "s", ((low, 1, 2), (high, 1, 1))),
        Attributed("browser", "other", None, ((low, 2, 1), (high, 2, 1))),
        Attributed("browser", "none", None, ((low, 2, 1),)),
    ]
    until = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=1)
    assert found(until, excluded_units=frozenset({"u0"})) == (
        1,
        [Attributed("browser", "value", "s", ((high, 1, 1),))],
    )
    assert found(unit="device_id") == (0, [])
    monkeypatch.setattr(audience, "MOST_LOCALISED", 4)
    assert found()[0] == 4
