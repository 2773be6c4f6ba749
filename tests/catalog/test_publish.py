"""What is compiled again, and what is taken over."""

import pytest
import structlog

from assay.bucketing.evaluate import Reason, decide, evaluate, explain
from assay.bucketing.payload import feature_of
from assay.bucketing.ruleset import Layer, Members, Ruleset, Status
from assay.catalog import keys, overrides, segments
from assay.catalog.checks import parse
from assay.catalog.editing import find
from assay.catalog.publish import Publisher
from assay.published import KeyRing, Published, Role
from catalog.conftest import HALVES, Catalog


def test_an_experiment_is_published_as_it_is_stored(catalog: Catalog) -> None:
    with catalog.write() as tx:
        segment = segments.create(
            tx, parse(segments.SegmentInput, {"name": "US", "rules": {"country": "US"}})
        )
    catalog.layer(key="l", unit="account_id")
    experiment = catalog.running(
        key="k",
        variants=[
            {"name": "b", "allocation": 0.25, "config": {"x": 1}},
            {"name": "control", "allocation": 0.75},
        ],
        traffic_allocation=0.5,
        unit="account_id",
        condition={"plan": "pro"},
        layer={"key": "l", "share": 0.5},
        segments=[segment.id],
    )
    found = catalog.compiled("k")
    assert found is catalog.compiled(experiment)
    assert (found.key, found.seed, found.status, found.unit) == ("k", "k", Status.RUNNING, "account_id")
    assert found.ranges == ((0.0, 0.125), (0.25, 0.625))
    assert found.control == 1
    assert found.variants[0].config == {"x": 1}
    assert found.layer == Layer.of("l", [(0, 5000)])
    assert found.condition is not None
    assert (found.condition({"plan": "pro"}), found.condition({"plan": "free"})) == (True, False)
    assert found.segments[0].matches("u", {"country": "US"})
    assert found.needs_attributes
    assert (found.phase, found.version, found.winner) == (1, 2, None)


def test_only_what_changed_is_compiled_again(catalog: Catalog) -> None:
    with catalog.write() as tx:
        segment = segments.create(tx, parse(segments.SegmentInput, {"name": "list"}))
        segments.add_members(tx, segment, ["u1"])
    plain, listed = catalog.running(name="plain"), catalog.running(name="listed", segments=[segment.id])
    before = {each: catalog.compiled(each) for each in (plain, listed)}
    catalog.edit(plain, description="new")
    assert catalog.compiled(plain) is not before[plain]
    assert catalog.compiled(listed) is before[listed]
    with catalog.write() as tx:
        segments.edit(tx, segments.find(tx, segment.id), parse(segments.SegmentEdit, {"description": "d"}))
    after = catalog.compiled(listed)
    assert after is not before[listed]
    assert after.segments[0].members is before[listed].segments[0].members
    with catalog.write() as tx:
        segments.add_members(tx, segments.find(tx, segment.id), ["u2"])
    members = catalog.compiled(listed).segments[0].members
    assert members is not None
    assert ("u1" in members, "u2" in members, "u3" in members) == (True, True, False)


def test_segments_that_nobody_uses_are_not_published(catalog: Catalog) -> None:
    with catalog.write() as tx:
        segment = segments.create(tx, parse(segments.SegmentInput, {"name": "list"}))
        segments.add_members(tx, segment, [f"u{at}" for at in range(20_000)])
    experiment = catalog.running(segments=[segment.id])
    members = catalog.compiled(experiment).segments[0].members
    assert members is not None
    assert len(members) == 20_000
    assert ("u19999" in members, "u20000" in members) == (True, False)
    catalog.edit(experiment, segments=[])
    assert catalog.compiled(experiment).segments == ()


def test_a_list_that_a_condition_names_is_published_with_it(catalog: Catalog) -> None:
    def add(*user_ids: str) -> None:
        with catalog.write() as tx:
            segments.add_members(tx, segments.find(tx, "vip"), user_ids)

    with catalog.write() as tx:
        segments.create(tx, parse(segments.SegmentInput, {"name": "vip"}))
        rules = {"id": {"$notInGroup": "vip"}}
        others = segments.create(tx, parse(segments.SegmentInput, {"name": "others", "rules": rules}))
    catalog.running(name="plain")
    catalog.running(name="named", condition={"id": {"$inGroup": "vip"}})
    catalog.running(name="ruled", segments=[others.id])
    catalog.running(name="below", prerequisites=[{"experiment": "named"}])
    keys = ("plain", "named", "ruled", "below")

    def inside(user: str) -> tuple[bool, bool]:
        named, ruled = (evaluate(catalog.compiled(each), user, user, {}) for each in ("named", "ruled"))
        assert catalog.compiled("below").requires[0].parent is catalog.compiled("named")
        return named.reason is Reason.ASSIGNED, ruled.reason is Reason.ASSIGNED

    assert inside("ann") == (False, True)
    before = [catalog.compiled(each) for each in keys]
    add("ann")
    assert (inside("ann"), inside("bob")) == ((True, False), (False, True))
    after = [catalog.compiled(each) for each in keys]
    assert [old is new for old, new in zip(before, after, strict=True)] == [True, False, False, False]
    catalog.edit("plain", description="d")
    assert [catalog.compiled(each) for each in keys[1:]] == after[1:]
    assert all(catalog.compiled(each) is after[at] for at, each in enumerate(keys) if at)
    add(*(f"u{number}" for number in range(Members.SMALL)))
    assert (inside("ann"), inside("u9999"), inside("bob")) == ((True, False), (True, False), (False, True))
    catalog.edit("named", condition={"country": "DE"})
    assert dict(catalog.compiled("named").groups) == {}


def test_a_stored_rule_that_is_refused_holds_for_nobody_and_holds_nothing_back(catalog: Catalog) -> None:
    with catalog.write() as tx:
        given = {"name": "ruled", "rules": {"plan": "pro"}}
        ruled = segments.create(tx, parse(segments.SegmentInput, given))
        segments.add_members(tx, ruled, ["ann"])
    broken = catalog.running(key="broken", condition={"plan": "pro"})
    catalog.running(key="below", prerequisites=[{"experiment": "broken"}])
    catalog.running(key="segmented", segments=[ruled.id])
    catalog.running(key="fine", condition={"plan": "pro"})
    # As an earlier version stored them.
    catalog.rows("UPDATE experiments SET condition = ? WHERE id = ?", '{"tags": {"$size": true}}', broken)
    catalog.rows("UPDATE segments SET rules = ? WHERE id = ?", '{"$or": {"plan": "pro"}}', ruled.id)
    published = Published(Ruleset(), KeyRing([]))
    with structlog.testing.capture_logs() as logged, catalog.read() as tx:
        Publisher(published).publish(tx, catalog.now)
    found = published.ruleset
    told = {each["of"]: each["reason"] for each in logged if each["log_level"] == "error"}
    assert told.keys() == {f"experiment {broken}", f"segment {ruled.id}"}
    assert "condition.tags.$size must be a number" in told[f"experiment {broken}"]
    assert found.refused() == [f"experiment {broken}", f"segment {ruled.id}"]
    assert {
        (key, user): str(decide(found.by_key[key], user, user, {"plan": "pro", "tags": ["x"]}).reason)
        for key in ("broken", "below", "segmented", "fine")
        for user in ("ann", "bob")
    } == {
        ("broken", "ann"): "not_in_segment",
        ("broken", "bob"): "not_in_segment",
        ("below", "ann"): "prerequisite",
        ("below", "bob"): "prerequisite",
        ("segmented", "ann"): "assigned",  # who is on the list stays
        ("segmented", "bob"): "not_in_segment",
        ("fine", "ann"): "assigned",
        ("fine", "bob"): "assigned",
    }
    feature = feature_of(found.by_key["broken"])
    assert feature is not None
    assert feature.definition is not None
    assert feature.definition["rules"][0]["condition"] == {"$not": {}}
    told_of = explain(found.by_key["broken"], "bob", "bob", {"plan": "pro"}).as_document()
    assert told_of["refused_rules"] == [told[f"experiment {broken}"]]
    assert not told_of["condition_clause"]["holds"]


def test_an_override_reaches_the_ruleset(catalog: Catalog) -> None:
    experiment = catalog.running()
    with catalog.write() as tx:
        overrides.put(tx, find(tx, experiment), "qa", parse(overrides.OverrideInput, {"variant": "b"}))
    assert dict(catalog.compiled(experiment).overrides) == {"qa": 1}
    with catalog.write() as tx:
        overrides.remove(tx, find(tx, experiment), "qa")
    assert dict(catalog.compiled(experiment).overrides) == {}


def test_a_thousand_experiments_are_published_at_once(catalog: Catalog) -> None:
    from assay.catalog import experiments
    from assay.catalog.inputs import ExperimentCreate

    given = parse(ExperimentCreate, {"name": "many", "variants": HALVES, "status": "running"})
    with catalog.write() as tx:
        for _ in range(1001):
            experiments.create(tx, given)
    assert len(catalog.published.ruleset) == 1001
    assert catalog.published.ruleset.find("many-1001") is not None
    first = catalog.compiled("many")
    catalog.edit("many-2", description="x")
    assert catalog.compiled("many") is first


def test_the_first_admin_key_is_made_once(catalog: Catalog) -> None:
    secret = keys.ensure_admin_key(catalog.database, catalog.now)
    assert secret is not None
    found = catalog.published.keys.find(secret.encode(), 0)
    assert found is not None
    assert (found.role, found.name) == (Role.ADMIN, "first admin key")
    assert keys.ensure_admin_key(catalog.database, catalog.now) is None
    with catalog.write() as tx:
        keys.revoke(tx, found.id)
    assert catalog.published.keys.find(secret.encode(), 0) is None
    assert keys.ensure_admin_key(catalog.database, catalog.now) is None


def test_keys_with_other_roles_do_not_stand_in_for_an_admin_key(catalog: Catalog) -> None:
    with catalog.write() as tx:
        client = keys.create(tx, parse(keys.KeyInput, {"name": "app"}))[0]
        keys.create(tx, parse(keys.KeyInput, {"name": "ed", "role": "editor"}))
        keys.revoke(tx, client.id)
    secret = keys.ensure_admin_key(catalog.database, catalog.now)
    assert secret is not None
    found = catalog.published.keys.find(secret.encode(), 0)
    assert found is not None
    assert found.role is Role.ADMIN
    assert keys.ensure_admin_key(catalog.database, catalog.now) is None


def test_expiry_is_published_to_the_microsecond(catalog: Catalog) -> None:
    with catalog.write() as tx:
        given = parse(
            keys.KeyInput, {"name": "k", "role": "Viewer", "expires_at": "2026-12-01T00:00:00.000001Z"}
        )
        _, secret = keys.create(tx, given)
    edge = 1_796_083_200_000_001
    assert catalog.published.keys.find(secret.encode(), edge - 1) is not None
    assert catalog.published.keys.find(secret.encode(), edge) is None


@pytest.mark.parametrize("table", ["experiments", "segments", "api_keys"])
def test_an_id_never_comes_back(catalog: Catalog, table: str) -> None:
    experiment = catalog.running()
    with catalog.write() as tx:
        segments.create(tx, parse(segments.SegmentInput, {"name": "s"}))
        keys.create(tx, parse(keys.KeyInput, {"name": "k"}))
    assert experiment == 1
    catalog.rows(f"DELETE FROM {table}")
    catalog.running()
    with catalog.write() as tx:
        segments.create(tx, parse(segments.SegmentInput, {"name": "s"}))
        keys.create(tx, parse(keys.KeyInput, {"name": "k"}))
    assert catalog.rows(f"SELECT max(id) FROM {table}") == [(2,)]
