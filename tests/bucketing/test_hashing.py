"""The hash against independent oracles, and what an experiment needs of it: uniform, independent, stable."""

import json
import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from growthbook.core import gbhash, getBucketRanges
from hypothesis import example, given
from hypothesis import strategies as st

from assay.bucketing.bulk import hash_many
from assay.bucketing.hashing import (
    bucket_ranges,
    choose,
    edges,
    fnv1a32,
    hash_unit,
    in_namespace,
    namespace_slot,
)

VECTORS = Path(__file__).parents[1] / "vectors"

# Any text a caller can send, lone surrogates included.
texts = st.text(st.characters(exclude_categories=()), max_size=40)
weights = st.lists(st.floats(0.01, 1), min_size=1, max_size=6).map(
    lambda given: [each / sum(given) for each in given]
)


def utf16_fnv(text: str) -> int:
    """FNV-1a over UTF-16 units, spelled out from its definition."""
    units = []
    for point in map(ord, text):
        if point < 0x10000:
            units.append(point)
        else:
            units += [0xD800 + ((point - 0x10000) >> 10), 0xDC00 + ((point - 0x10000) & 0x3FF)]
    value = 2166136261
    for unit in units:
        value = (value ^ unit) * 16777619 % 2**32
    return value


@given(texts)
@example("ÿ")
@example("Ā")
@example("😀")
@example("\ud800")
def test_fnv__any_text__agrees_with_the_definition(text: str) -> None:
    assert fnv1a32(text) == utf16_fnv(text)


@given(texts, texts, st.sampled_from([1, 2]))
def test_hash__any_text__agrees_with_the_sdk(seed: str, value: str, version: int) -> None:
    assert hash_unit(seed, value, version) == gbhash(seed, value, version)


@pytest.mark.parametrize("version", [-1, 0, 3, 99])
def test_hash__version_that_does_not_exist__none(version: int) -> None:
    assert hash_unit("seed", "unit", version) is None


def test_hash__emoji_and_umlauts__keep_their_places_for_ever() -> None:
    found = [hash_unit("checkout", each) for each in ("user-1", "Zoë", "用户", "👩‍💻")]
    assert found == [0.7893, 0.4951, 0.7413, 0.2988]


def test_hash__emoji_and_half_surrogate_pairs__agree_with_the_javascript_sdk() -> None:
    vectors = json.loads((VECTORS / "growthbook-javascript.json").read_text(encoding="utf-8"))["hash"]
    assert len(vectors) == 160
    assert sum(any(0xD800 <= ord(each) <= 0xDFFF for each in unit_id) for _, unit_id, *_ in vectors) > 40
    for seed, unit_id, version, bucket in vectors:
        assert hash_unit(seed, unit_id, version) == bucket, (seed, unit_id, version)
        assert version == 1 or hash_many(seed, [unit_id]).tolist() == [bucket]


@given(texts, st.lists(texts, max_size=30))
@example("", [])
@example("seed", ["", "\0", "a\0", "a", "Ā", "😀", "\ud83d", "x" * 300])
def test_hash_many__any_texts__same_as_one_by_one(seed: str, values: list[str]) -> None:
    assert hash_many(seed, values).tolist() == [hash_unit(seed, each) for each in values]


def test_hash_many__more_than_one_chunk__every_row_in_its_place() -> None:
    values = [f"u{number}" for number in range(40_000)]
    found = hash_many("seed", values)
    assert [found[at] for at in (0, 16_383, 16_384, 39_999)] == [
        hash_unit("seed", values[at]) for at in (0, 16_383, 16_384, 39_999)
    ]


@given(weights, st.floats(-1, 2))
def test_ranges__any_weights__disjoint_ordered_and_as_wide_as_the_coverage(
    shares: list[float], coverage: float
) -> None:
    ranges = bucket_ranges(len(shares), coverage, shares)
    assert ranges[0][0] == 0
    assert ranges[-1][1] <= 1 + 1e-12
    assert all(low <= high for low, high in ranges)
    assert all(before[1] <= after[0] + 1e-12 for before, after in pairwise(ranges))
    covered = sum(high - low for low, high in ranges)
    assert covered == pytest.approx(min(max(coverage, 0), 1) * sum(shares), abs=1e-12)


@given(weights, st.floats(0, 1))
def test_ranges__any_weights__equal_to_the_sdks_to_the_last_bit(shares: list[float], coverage: float) -> None:
    assert list(bucket_ranges(len(shares), coverage, shares)) == getBucketRanges(
        len(shares), coverage, shares
    )


@pytest.mark.parametrize(
    ("given_weights", "expected"),
    [
        ([0.5], ((0.0, 0.5), (0.5, 1.0))),
        ([0.2, 0.2], ((0.0, 0.5), (0.5, 1.0))),
        ([0.38, 0.6], ((0.0, 0.5), (0.5, 1.0))),
        ([0.42, 0.6], ((0.0, 0.5), (0.5, 1.0))),
        ([float("nan"), 1.0], ((0.0, 0.5), (0.5, 1.0))),
        (None, ((0.0, 0.5), (0.5, 1.0))),
    ],
)
def test_ranges__weights_that_make_no_sense__equal_shares(
    given_weights: list[float] | None, expected: tuple[tuple[float, float], ...]
) -> None:
    assert bucket_ranges(2, 1, given_weights) == expected


def test_ranges__coverage_that_is_not_a_number__nobody() -> None:
    assert bucket_ranges(2, float("nan"), None) == ((0.0, 0.0), (0.5, 0.5))


@given(weights, st.floats(0, 1), st.floats(0, 1), st.integers(0, 9_999))
def test_coverage_raised__nobody_inside_moves(shares: list[float], one: float, other: float, at: int) -> None:
    small, large = sorted((one, other))
    before = choose(at / 10_000, edges(bucket_ranges(len(shares), small, shares)))
    after = choose(at / 10_000, edges(bucket_ranges(len(shares), large, shares)))
    assert before in (-1, after)


@given(weights, st.floats(0, 1), st.integers(0, 9_999))
def test_choose__any_ranges__the_one_that_holds_the_place(
    shares: list[float], coverage: float, at: int
) -> None:
    ranges = bucket_ranges(len(shares), coverage, shares)
    holding = [index for index, (low, high) in enumerate(ranges) if low <= at / 10_000 < high]
    assert [choose(at / 10_000, edges(ranges))] == (holding or [-1])


@pytest.mark.parametrize("prefix", ["", "user-", "Kundin-Ä", "用户"])
def test_hash__consecutive_ids__uniform(prefix: str) -> None:
    counts = np.histogram(hash_many("pricing", [f"{prefix}{at}" for at in range(100_000)]), 100, (0, 1))[0]
    statistic = float(((counts - 1_000) ** 2 / 1_000).sum())
    assert statistic < 161.3  # chi-square with 99 degrees of freedom is larger once in 10,000 times


def test_hash__a_million_users__all_10_000_places_alike() -> None:
    places = np.rint(hash_many("pricing", [f"user-{at}" for at in range(1_000_000)]) * 10_000).astype(int)
    counts = np.bincount(places, minlength=10_000)
    statistic = float(((counts - 100) ** 2 / 100).sum())
    assert len(counts) == 10_000
    assert 9_478 < statistic < 10_535  # chi-square with 9,999 degrees of freedom: beyond once in 5,000 times


def test_hash__two_seeds__say_nothing_about_each_other() -> None:
    ids = [f"user-{at}" for at in range(100_000)]
    table = np.histogram2d(hash_many("one", ids), hash_many("two", ids), 10, [[0, 1], [0, 1]])[0]
    expected = np.outer(table.sum(1), table.sum(0)) / table.sum()
    statistic = float(((table - expected) ** 2 / expected).sum())
    assert statistic < 137.3  # chi-square with 81 degrees of freedom is larger once in 10,000 times


@given(texts, texts, st.floats(0, 1))
def test_namespace__two_slots_that_share_a_border__each_unit_in_exactly_one(
    unit_id: str, key: str, border: float
) -> None:
    first, second = in_namespace(unit_id, (key, 0, border)), in_namespace(unit_id, (key, border, 1))
    assert first is not second
    assert first is (namespace_slot(unit_id, key) < border)


def test_namespace__slot__does_not_decide_the_variant() -> None:
    generator = random.Random(5)
    ids = [str(generator.getrandbits(64)) for _ in range(20_000)]
    inside = [each for each in ids if in_namespace(each, ("layer", 0, 0.5))]
    first_half = float((hash_many("experiment", inside) < 0.5).mean())
    assert first_half == pytest.approx(0.5, abs=4 * 0.5 / 100)  # four standard errors of 10,000 units
