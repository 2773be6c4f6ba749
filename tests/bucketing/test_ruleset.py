"""Compiling: ranges that SDKs agree with, members by list or digest, experiments found by id or key."""

import dataclasses
from typing import Any

import pytest
from growthbook.core import getBucketRanges
from hypothesis import given
from hypothesis import strategies as st

from assay.bucketing.conditions import compile_condition
from assay.bucketing.ruleset import Experiment, Members, Ruleset, Segment, Status, Variant, shares


def arms(*allocations: float, off: tuple[int, ...] = (), removed: tuple[int, ...] = ()) -> list[Variant]:
    return [
        Variant(at + 1, f"v{at}", f"V{at}", share, enabled=at not in off, removed=at in removed)
        for at, share in enumerate(allocations)
    ]


def experiment(**given: Any) -> Experiment:
    return Experiment.compile(
        **{
            "id": 1,
            "key": "pricing",
            "name": "Pricing",
            "status": Status.RUNNING,
            "variants": arms(0.5, 0.5),
            **given,
        }
    )


percentages = st.lists(st.integers(1, 100), min_size=1, max_size=6).map(
    lambda given: [each / sum(given) for each in given]
)


@given(percentages, st.floats(0, 1))
def test_shares__all_on_and_all_given__the_sdks_ranges_to_the_last_bit(
    allocations: list[float], coverage: float
) -> None:
    assert list(shares(arms(*allocations), coverage)) == getBucketRanges(
        len(allocations), coverage, allocations
    )


@pytest.mark.parametrize(
    ("variants", "coverage", "expected"),
    [
        (arms(0.5, 0.3, 0.2, off=(0,)), 1.0, ((0, 0), (0, 0.6), (0.6, 1))),
        (arms(0.5, 0.3, 0.2, off=(1,)), 0.5, ((0, 0.5 * 5 / 7), (5 / 7, 5 / 7), (5 / 7, 5 / 7 + 1 / 7))),
        # The share of a removed variant is free, not given to the others.
        (arms(0.5, 0.3, 0.2, removed=(2,)), 1.0, ((0, 0.5), (0.5, 0.8), (0.8, 0.8))),
        (arms(0.4, 0.4), 1.0, ((0, 0.4), (0.4, 0.8))),
        (arms(0.4, 0.4, off=(0,)), 1.0, ((0, 0), (0, 0.8))),
        (arms(0.5, 0.5, off=(0, 1)), 1.0, ((0, 0), (0, 0))),
        (arms(0.0, 0.0), 1.0, ((0, 0), (0, 0))),
        (arms(0.9, 0.9), 1.0, ((0, 0.5), (0.5, 1))),
        (arms(0.51, 0.51), 1.0, ((0, 0.5), (0.5, 1))),
        (arms(0.9, 0.9, 0.2, off=(2,)), 1.0, ((0, 0.5), (0.5, 1), (1, 1))),
        (arms(0.5, 0.5), 7.0, ((0, 0.5), (0.5, 1))),
        (arms(0.5, 0.5), -1.0, ((0, 0), (0.5, 0.5))),
        ([], 1.0, ()),
    ],
)
def test_shares__variants_off_or_shares_free__by_value(
    variants: list[Variant], coverage: float, expected: tuple[tuple[float, float], ...]
) -> None:
    assert shares(variants, coverage) == tuple(pytest.approx(each, abs=1e-12) for each in expected)


def test_shares__ten_tenths__every_border_where_the_sum_of_tenths_lies() -> None:
    found = shares(arms(*[0.1] * 10), 1.0)
    assert found == tuple(getBucketRanges(10, 1, [0.1] * 10))


def test_shares__sum_a_little_above_one__taken_as_they_are_like_the_sdk() -> None:
    assert shares(arms(0.503, 0.502), 1.0) == tuple(getBucketRanges(2, 1, [0.503, 0.502]))


def test_compile__defaults__seed_is_the_key_and_the_first_variant_the_control() -> None:
    compiled = experiment()
    assert (compiled.seed, compiled.control, compiled.unit) == ("pricing", 0, "user_id")
    assert compiled.ranges == ((0.0, 0.5), (0.5, 1.0))
    assert dict(compiled.by_variant_id) == {1: 0, 2: 1}
    assert compiled.needs_attributes is False


def test_compile__control_that_says_so__wins_over_the_first() -> None:
    variants = [Variant(1, "a", "A", 0.5), Variant(2, "b", "B", 0.5, is_control=True)]
    assert experiment(variants=variants).control == 1


def test_compile__seed_given__kept() -> None:
    assert experiment(seed="other").seed == "other"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"condition": compile_condition({"a": 1})}, True),
        ({"segments": [Segment(1, "s", compile_condition({"a": 1}))]}, True),
        ({"segments": [Segment(1, "s", None, Members(["u"]))]}, False),
    ],
)
def test_needs_attributes__only_where_a_rule_reads_them(given: dict[str, Any], expected: bool) -> None:
    assert experiment(**given).needs_attributes is expected


def test_compile__override_or_winner_without_a_variant__left_out() -> None:
    compiled = experiment(overrides={"ann": 1, "bob": 2, "eve": -1}, winner=2)
    assert dict(compiled.overrides) == {"ann": 1}
    assert compiled.winner is None
    assert experiment(winner=1).winner == 1


def test_experiment__compiled__cannot_be_changed() -> None:
    overrides = {"ann": 0}
    compiled = experiment(overrides=overrides)
    overrides["bob"] = 1
    assert dict(compiled.overrides) == {"ann": 0}
    with pytest.raises(dataclasses.FrozenInstanceError):
        compiled.coverage = 0.5  # type: ignore[misc]
    with pytest.raises(TypeError):
        compiled.by_variant_id[3] = 0  # type: ignore[index]


@pytest.mark.parametrize("size", [0, 1, Members.SMALL, Members.SMALL + 1, 30_000])
def test_members__list_or_digests__exactly_those_who_are_in(size: int) -> None:
    members = Members(f"user-{at}" for at in range(size))
    assert len(members) == size
    assert all(f"user-{at}" in members for at in range(0, size, 97))
    assert not any(f"user-{at}" in members for at in range(size, size + 2_000))
    assert "\ud800" not in members
    assert 7 not in members


def test_members__given_twice__counted_once() -> None:
    assert len(Members(["a", "a", "😀"])) == 2
    assert len(Members([f"{at % 15_000}" for at in range(40_000)])) == 15_000


def test_segment__rule_or_list__either_is_enough() -> None:
    segment = Segment(1, "s", compile_condition({"country": "US"}), Members(["ann"]))
    assert segment.matches("ann", {}) is True
    assert segment.matches("bob", {"country": "US"}) is True
    assert segment.matches("bob", {"country": "DE"}) is False
    assert Segment(2, "nobody").matches("ann", {}) is False


def test_ruleset__references__by_id_digits_or_key() -> None:
    one, two = experiment(), experiment(id=20, key="10-off")
    rules = Ruleset([one, two], version=7, published_at=123)
    assert (rules.version, rules.published_at, len(rules)) == (7, 123, 2)
    assert list(rules) == [one, two]
    found = [rules.find(each) for each in (1, "1", "pricing", "020", 20, "10-off")]
    assert found == [one, one, one, two, two, two]
    assert [rules.find(each) for each in (0, -1, "2", "", "Pricing", "٢٠", "9" * 5_000)] == [None] * 7
    assert list(Ruleset()) == []
