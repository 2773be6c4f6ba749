"""Layers: slots taken, held, grown, rested; and that a unit is never in two experiments of one."""

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assay.bucketing.evaluate import Reason, evaluate
from assay.catalog import experiments, layers, lifecycle
from assay.catalog.checks import parse
from assay.catalog.editing import find
from assay.errors import AssayError, Conflict, Invalid, NotFound
from catalog.conftest import Catalog

LAYER = {"key": "page"}
FULL = (
    "Experiment c needs 50 % (5,000 of 10,000 slots) of layer page, of which 40 % (4,000 of 10,000 slots) is "
    "free; 60 % (6,000 of 10,000 slots) rest, the first until 23 Nov 2026, 13:00:00 UTC. Ask for less, or "
    "stop an experiment of the layer."
)


def step(catalog: Catalog, experiment: int | str, verb: str) -> None:
    with catalog.write() as tx:
        getattr(lifecycle, verb)(tx, find(tx, experiment))


def slots(catalog: Catalog, experiment: int | str) -> list[list[int]]:
    found = catalog.document(experiment)["layer"]
    assert found is not None
    return found["slots"]


def shown(catalog: Catalog, layer: int | str = "page") -> layers.LayerDocument:
    with catalog.read() as tx:
        (found,) = layers.listed(tx, [layers.find(tx, layer)], catalog.now)
    return found


def counts(catalog: Catalog, layer: int | str = "page") -> tuple[int, int, int]:
    found = shown(catalog, layer)
    return found["held"], found["washing_out"], found["free"]


def edit(catalog: Catalog, layer: int | str = "page", **fields: Any) -> None:
    with catalog.write() as tx:
        layers.edit(tx, layers.find(tx, layer), parse(layers.LayerEdit, fields))


def test_slots_are_taken_at_the_start_in_order_and_shown(catalog: Catalog) -> None:
    number = catalog.layer(**LAYER, name="Page", description="d")
    draft = catalog.create(key="a", layer={"key": "page", "share": 0.2})
    assert slots(catalog, draft) == []
    step(catalog, "a", "start")
    catalog.running(key="b", layer=number, traffic_allocation=0.3)
    assert (slots(catalog, "a"), slots(catalog, "b")) == ([[0, 2000]], [[2000, 5000]])
    found = shown(catalog)
    assert (found["key"], found["name"], found["unit"], found["wash_out"]) == (
        "page",
        "Page",
        "user_id",
        "7d",
    )
    assert (found["slots"], found["held"], found["washing_out"], found["free"]) == (10_000, 5000, 0, 5000)
    noon = "2026-11-21T12:00:00.000000Z"
    assert [tuple(each.values()) for each in found["stretches"]] == [
        (0, 2000, "held", draft, "a", noon, None),
        (2000, 5000, "held", draft + 1, "b", noon, None),
        (5000, 10_000, "free", None, None, None, None),
    ]
    assert [(each["key"], each["share"], each["slots"]) for each in found["experiments"]] == [
        ("a", 0.2, [[0, 2000]]),
        ("b", None, [[2000, 5000]]),
    ]


def test_a_unit_is_in_one_at_most_and_every_slot_belongs_to_somebody(catalog: Catalog) -> None:
    catalog.layer(**LAYER)
    keys = ["a", "b", "c"]
    for key, share in zip(keys, (0.2, 0.3, 0.5), strict=True):
        catalog.running(key=key, layer={"key": "page", "share": share})
    found: Counter[str] = Counter()
    for number in range(5000):
        user = f"user-{number}"
        decisions = {key: evaluate(catalog.compiled(key), user, user, {}) for key in keys}
        (inside,) = [key for key, each in decisions.items() if each.variant is not None]
        assert {each.reason for key, each in decisions.items() if key != inside} == {Reason.LAYER_EXCLUDED}
        found[inside] += 1
    assert [found[key] / 5000 for key in keys] == [pytest.approx(each, abs=0.03) for each in (0.2, 0.3, 0.5)]


def test_an_experiment_grows_into_free_slots_and_nobody_moves(catalog: Catalog) -> None:
    catalog.layer(**LAYER)
    catalog.running(key="a", layer="page", traffic_allocation=0.1)
    catalog.running(key="b", layer={"key": "page", "share": 0.2})
    users = [f"user-{number}" for number in range(2000)]
    before = {user: evaluate(catalog.compiled("a"), user, user, {}).variant for user in users}
    found = catalog.edit("a", traffic_allocation=0.3)
    assert found["layer"] is not None
    assert (found["layer"]["slots"], found["phase"]) == ([[0, 1000], [3000, 5000]], 2)
    assert catalog.compiled("a").coverage == 1.0
    grown = catalog.edit("b", layer={"key": "page", "share": 0.25})
    assert grown["layer"] is not None
    assert (grown["layer"]["slots"], grown["phase"]) == ([[1000, 3000], [5000, 5500]], 2)
    after = {user: evaluate(catalog.compiled("a"), user, user, {}).variant for user in users}
    assert all(after[user] == variant for user, variant in before.items() if variant is not None)
    assert sum(each is not None for each in after.values()) / 2000 == pytest.approx(0.3, abs=0.03)


def test_less_traffic_keeps_the_slots_for_those_who_are_in(catalog: Catalog) -> None:
    catalog.layer(**LAYER)
    catalog.running(key="a", layer="page", traffic_allocation=0.4)
    catalog.edit("a", traffic_allocation=0.1)
    assert slots(catalog, "a") == [[0, 4000]]
    assert catalog.compiled("a").coverage == pytest.approx(0.25)
    catalog.edit("a", traffic_allocation=0.5)
    assert slots(catalog, "a") == [[0, 5000]]
    assert catalog.compiled("a").coverage == 1.0
    catalog.running(key="b", layer={"key": "page", "share": 0.5}, traffic_allocation=0.2)
    assert slots(catalog, "b") == [[5000, 10_000]]
    assert catalog.compiled("b").coverage == 0.2
    with pytest.raises(Conflict) as caught:
        catalog.edit("b", layer={"key": "page", "share": 0.2})
    assert (caught.value.code, caught.value.errors[0].path) == ("layer_share_shrinks", "layer.share")
    assert slots(catalog, "b") == [[5000, 10_000]]


def test_slots_rest_before_they_are_used_again_and_those_that_rested_longest_come_first(
    catalog: Catalog,
) -> None:
    catalog.layer(**LAYER, wash_out="2d")
    for key in ("a", "b"):
        catalog.running(key=key, layer={"key": "page", "share": 0.3})
    catalog.later(hours=1)
    step(catalog, "b", "stop")
    catalog.later(hours=1)
    step(catalog, "a", "pause")
    assert counts(catalog) == (3000, 3000, 4000)
    step(catalog, "a", "stop")
    assert (slots(catalog, "a"), counts(catalog)) == ([], (0, 6000, 4000))
    resting = shown(catalog)["stretches"]
    assert [(each["state"], each["experiment_key"], each["until"]) for each in resting] == [
        ("washing_out", "a", "2026-11-23T14:00:00.000000Z"),
        ("washing_out", "b", "2026-11-23T13:00:00.000000Z"),
        ("free", None, None),
    ]
    with pytest.raises(Conflict) as caught:
        catalog.running(key="c", layer={"key": "page", "share": 0.5})
    assert (caught.value.code, caught.value.detail) == ("layer_full", FULL)
    assert caught.value.errors[0].path == "layer.share"
    with pytest.raises(NotFound):
        catalog.document("c")
    catalog.later(days=3)
    assert counts(catalog) == (0, 0, 10_000)
    # First those that nobody had, then those that b gave back an hour before a.
    catalog.running(key="c", layer={"key": "page", "share": 0.5})
    assert slots(catalog, "c") == [[3000, 4000], [6000, 10_000]]


def test_another_wash_out_holds_at_once_and_never_takes_slots_from_who_has_them(catalog: Catalog) -> None:
    catalog.layer(**LAYER)
    catalog.running(key="a", layer="page")
    step(catalog, "a", "stop")
    edit(catalog, wash_out="0m")
    assert counts(catalog) == (0, 0, 10_000)
    catalog.running(key="b", layer={"key": "page", "share": 0.5})
    edit(catalog, wash_out="30d")
    assert counts(catalog) == (5000, 5000, 0)
    assert shown(catalog)["stretches"][0]["experiment_key"] == "b"


def test_a_full_layer_refuses_to_grow_and_nothing_is_half_stored(catalog: Catalog) -> None:
    catalog.layer(**LAYER)
    catalog.running(key="a", layer="page", traffic_allocation=0.6)
    catalog.running(key="b", layer={"key": "page", "share": 0.3})
    before = catalog.document("a")
    with pytest.raises(Conflict) as caught:
        catalog.edit("a", traffic_allocation=0.8, description="more")
    assert (caught.value.code, caught.value.errors[0].path) == ("layer_full", "traffic_allocation")
    assert "needs 20 % (2,000 of 10,000 slots) more of layer page, of which 10 %" in caught.value.detail
    assert catalog.document("a") == before
    assert counts(catalog) == (9000, 0, 1000)


def test_a_planned_start_without_room_says_why_it_did_not_happen(catalog: Catalog) -> None:
    catalog.layer(**LAYER)
    catalog.running(key="a", layer="page")
    start = (catalog.now + timedelta(hours=1)).isoformat()
    catalog.create(key="b", layer="page", start_at=start)
    assert lifecycle.tick(catalog.database, catalog.later(hours=2)) == 1
    found = catalog.document("b")
    assert found["status"] == "draft"
    assert found["schedule_error"] is not None
    assert "needs 100 %" in found["schedule_error"]


def test_a_started_experiment_stays_in_its_layer(catalog: Catalog) -> None:
    catalog.layer(**LAYER)
    catalog.layer(key="other")
    catalog.running(key="a", layer="page", traffic_allocation=0.5)
    catalog.running(key="outside")
    for key, wanted in (("a", None), ("a", "other"), ("outside", "page")):
        with pytest.raises(Conflict) as caught:
            catalog.edit(key, layer=wanted)
        assert caught.value.code == "experiment_running"
    # What was answered may be sent back.
    assert catalog.edit("a", layer=catalog.document("a")["layer"])["version"] == 2
    with pytest.raises(Invalid) as wrong:
        catalog.edit("a", layer={"key": "page", "slots": [[5, 6]]})
    assert wrong.value.errors[0].path == "layer.slots"
    draft = catalog.create(layer="page")
    assert catalog.edit(draft, layer="other")["layer"] is not None
    assert catalog.edit(draft, layer=None)["layer"] is None


def test_all_experiments_of_a_layer_have_its_unit(catalog: Catalog) -> None:
    catalog.layer(**LAYER, unit="account_id")
    with pytest.raises(Invalid) as caught:
        catalog.create(layer="page")
    assert (caught.value.code, caught.value.errors[0].path) == ("layer_unit", "unit")
    draft = catalog.create(layer="page", unit="account_id")
    with pytest.raises(Invalid):
        catalog.edit(draft, unit="user_id")
    with pytest.raises(Invalid) as fixed:
        edit(catalog, unit="user_id")
    assert fixed.value.errors[0].path == "unit"


@pytest.mark.parametrize("layer", ["nowhere", 7, {"id": 1, "key": "other"}])
def test_a_layer_that_is_not_there_is_named(catalog: Catalog, layer: object) -> None:
    catalog.layer(**LAYER)
    catalog.layer(key="other")
    with pytest.raises(Invalid) as caught:
        catalog.create(layer=layer)
    assert caught.value.errors[0].path.startswith("layer")


def test_a_layer_goes_when_nothing_needs_it(catalog: Catalog) -> None:
    number = catalog.layer(**LAYER)
    running = catalog.running(key="a", layer="page", traffic_allocation=0.5)
    draft = catalog.create(key="b", layer="page")

    def remove() -> None:
        with catalog.write() as tx:
            layers.remove(tx, layers.find(tx, "page"))

    with pytest.raises(Conflict, match="experiments a, b"):
        remove()
    catalog.edit(draft, layer=None)
    with catalog.write() as tx:
        lifecycle.put_away(tx, find(tx, running))
        experiments.remove(tx, find(tx, running), purge=True)
    # A purge does not undo what was tried on the units.
    assert counts(catalog) == (0, 5000, 5000)
    assert shown(catalog)["stretches"][0]["experiment_key"] is None
    with pytest.raises(Conflict, match="rest until 2026-11-28"):
        remove()
    catalog.later(days=8)
    remove()
    with pytest.raises(NotFound):
        shown(catalog, number)
    assert catalog.layer(**LAYER) != number


def test_what_happens_to_a_layer_is_on_record(catalog: Catalog) -> None:
    number = catalog.layer(**LAYER, name="Page")
    edit(catalog, wash_out="1d", name="Page")
    edit(catalog)
    with pytest.raises(Conflict):
        catalog.layer(**LAYER)
    running = catalog.running(layer="page", traffic_allocation=0.5)
    entries = catalog.rows("SELECT action, changes FROM audit WHERE noun = 'layer' ORDER BY id")
    assert [each[0] for each in entries] == ["layer.create", "layer.edit"]
    assert entries[1][1].replace(" ", "") == '{"wash_out":{"from":"7d","to":"1d"}}'
    (started,) = catalog.rows("SELECT changes FROM audit WHERE action = 'experiment.start'")
    assert "5000" in started[0]
    held = catalog.rows("SELECT layer_id, experiment_id, low, high FROM layer_slots")
    assert held == [(number, running, 0, 5000)]
    with catalog.read() as tx:
        found, total = layers.page(tx, q="AG")
    assert ([each.key for each in found], total) == (["page"], 1)


steps = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "grow", "stop", "pause", "resume", "purge", "wait"]),
        st.integers(0, 4),
        st.sampled_from([0.0, 0.0001, 0.05, 0.2, 0.3333, 0.5, 1.0]),
        st.booleans(),
    ),
    min_size=4,
    max_size=12,
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(played=steps, wash_out=st.sampled_from(["0m", "1d"]))
def test_whatever_happens_no_unit_is_in_two_experiments_of_a_layer(
    catalog: Catalog, played: list[tuple[str, int, float, bool]], wash_out: str
) -> None:
    layer = catalog.layer(wash_out=wash_out)
    alive: list[int] = []
    owned: dict[int, set[int]] = {}
    freed: dict[int, Any] = {}
    rest = timedelta(days=1 if wash_out == "1d" else 0)
    for verb, pick, share, explicit in played:
        catalog.later(hours=5)
        chosen = alive[pick % len(alive)] if alive else None
        try:
            if verb == "add":
                given = {"id": layer, "share": share} if explicit and share else layer
                alive.append(catalog.running(layer=given, traffic_allocation=share))
            elif verb == "wait":
                catalog.later(hours=13)
            elif chosen is None:
                continue
            elif verb == "grow":
                mine = {"layer": {"id": layer, "share": share}} if explicit and share else {}
                catalog.edit(chosen, traffic_allocation=share, **mine)
            elif verb == "purge":
                with catalog.write() as tx:
                    lifecycle.put_away(tx, find(tx, chosen))
                    experiments.remove(tx, find(tx, chosen), purge=True)
                alive.remove(chosen)
            else:
                step(catalog, chosen, verb)
                if verb == "stop":
                    alive.remove(chosen)
        except AssayError as error:
            assert isinstance(error, Conflict), error  # noqa: PT017 - refused for a reason, never broken
        now = {
            each: {slot for low, high in slots(catalog, each) for slot in range(low, high)} for each in alive
        }
        for each in owned.keys() - now.keys():
            freed.update(dict.fromkeys(owned[each], catalog.now))
        for each, mine in now.items():
            assert owned.get(each, set()) <= mine, "an experiment under way never loses a slot"
            for slot in mine - owned.get(each, set()):
                assert slot not in freed or freed[slot] + rest <= catalog.now, "it has not rested"
            compiled = catalog.compiled(each).layer
            assert compiled is not None
            assert sum(high - low for low, high in compiled.slots) == len(mine)
        every = [slot for mine in now.values() for slot in mine]
        assert len(every) == len(set(every)), "two experiments have the same slot"
        owned = now
        assert counts(catalog, layer)[0] == len(every)
