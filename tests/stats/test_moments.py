"""Moments: exact from every source, merging in any order, and honest about lost digits."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.stats import Moments, Reason, compare, total, with_indicator

OFFSETS = st.sampled_from([0.0, 1.0, -1e3, 1e6, 1e9, -1e9])
VALUES = st.lists(st.floats(-100, 100, allow_nan=False).map(lambda x: round(x, 3)), min_size=1, max_size=30)


def exact(values: list[float]) -> tuple[Fraction, Fraction]:
    """Mean and sum of squared deviations in rational arithmetic."""
    parts = [Fraction(value) for value in values]
    mean = sum(parts, Fraction(0)) / len(parts)
    return mean, sum(((part - mean) ** 2 for part in parts), Fraction(0))


def assert_equal(found: Moments, values: list[float], tolerance: float = 1e-12) -> None:
    mean, m2 = exact(values)
    assert found.count == len(values)
    largest = max(abs(Fraction(value)) for value in values)
    assert abs(Fraction(found.means[0]) + Fraction(found.carries[0]) - mean) <= tolerance * largest
    # Relative to the spread itself, not to the offset: one part in 1e12 of M2 (or of a squared unit in the
    # last place).
    floor = Fraction(2.0**-52) * largest
    assert abs(Fraction(found.comoments[0][0]) - m2) <= tolerance * m2 + len(values) * floor**2


@settings(max_examples=300, deadline=None)
@given(VALUES, OFFSETS)
def test_from_arrays__any_offset__is_exact_to_twelve_digits(values: list[float], offset: float) -> None:
    data = [value + offset for value in values]
    assert_equal(Moments.from_arrays({"y": data}), data)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(VALUES, OFFSETS), min_size=1, max_size=6), st.randoms())
def test_addition__any_split_any_order__equals_the_whole(
    parts: list[tuple[list[float], float]], random: object
) -> None:
    chunks = [[value + offset for value in values] for values, offset in parts]
    whole = [value for chunk in chunks for value in chunk]
    pieces = [Moments.from_arrays({"y": chunk}) for chunk in chunks]
    random.shuffle(pieces)  # type: ignore[attr-defined]
    assert_equal(total(pieces), whole)
    backwards = pieces[-1]
    for piece in reversed(pieces[:-1]):
        backwards = piece + backwards
    assert_equal(backwards, whole)


@settings(max_examples=200, deadline=None)
@given(VALUES, OFFSETS)
def test_addition__unit_by_unit_at_a_billion__keeps_the_variance(values: list[float], offset: float) -> None:
    data = [value + offset for value in values]
    assert_equal(total(Moments.from_arrays({"y": [value]}) for value in data), data)


def test_addition__empty_is_neutral_and_columns_must_agree() -> None:
    some = Moments.from_arrays({"y": [1.0, 2.0]})
    assert Moments.empty() + some == some
    assert some + Moments.empty() == some
    with pytest.raises(ValueError, match="cannot add moments"):
        some + Moments.empty(("x",))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=2, max_size=30))
def test_sources__sums_arrays_and_database__agree(pairs: list[tuple[int, int]]) -> None:
    x, y = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    direct = Moments.from_arrays({"x": x, "y": y})
    summed = Moments.from_sums(
        len(pairs),
        {"x": int(x.sum()), "y": int(y.sum())},
        {("x", "x"): int(x @ x), ("y", "x"): int(x @ y), ("y", "y"): int(y @ y)},
    )
    cover = np.cov(x, y)
    stored = Moments.from_centred(
        len(pairs),
        {"x": float(x.mean()), "y": float(y.mean())},
        {("x", "x"): cover[0, 0], ("x", "y"): cover[0, 1], ("y", "y"): cover[1, 1]},
    )
    for other in (summed, stored):
        np.testing.assert_allclose(other.means, direct.means, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(other.matrix(), direct.matrix(), rtol=1e-9, atol=1e-9)
    assert summed.flaw is None


def test_from_centred__nulls_of_a_single_row__are_zero() -> None:
    found = Moments.from_centred(1, {"y": 4.0}, {("y", "y"): None})
    assert (found.count, found.means, found.comoments) == (1, (4.0,), ((0.0,),))
    with pytest.raises(ValueError, match="is missing"):
        Moments.from_centred(2, {"y": 1.0, "x": 2.0}, {("y", "y"): 1.0, ("x", "x"): 1.0})


def test_raw_sums__mean_a_billion_times_the_spread__are_flagged_and_never_tested() -> None:
    rng = np.random.default_rng(5)
    values = 1e9 + rng.normal(size=1000)
    raw = Moments.from_sum(1000, float(values.sum()), float((values**2).sum()))
    assert raw.flaw is Reason.PRECISION_LOSS
    assert raw.comoments[0][0] >= 0.0
    found = compare(raw, raw)
    assert (found.p_value, found.interval, found.reason) == (None, None, Reason.PRECISION_LOSS)
    assert (raw + Moments.from_arrays({"y": [1.0]})).flaw is Reason.PRECISION_LOSS
    shifted = values - 1e9
    good = Moments.from_sums(
        1000,
        {"y": float(shifted.sum())},
        {("y", "y"): float((shifted**2).sum())},
        shift={"y": 1e9},
    )
    assert good.flaw is None
    assert good.variance() == pytest.approx(float(values.var(ddof=1)), rel=1e-9)


def test_raw_sums__integers_beyond_2_53__stay_exact() -> None:
    n = 2**60
    found = Moments.from_sums(n, {"y": 3 * n // 4}, {("y", "y"): 3 * n // 4})
    assert found.flaw is None
    assert found.count == n
    assert found.means == (0.75,)
    assert found.variance() == pytest.approx(0.1875, rel=1e-15)


def test_raw_sums__contradiction__is_refused() -> None:
    with pytest.raises(ValueError, match="contradict"):
        Moments.from_sum(10, 10, 5)
    with pytest.raises(ValueError, match="is missing"):
        Moments.from_sums(2, {"x": 1, "y": 1}, {("x", "x"): 1, ("y", "y"): 1})


def test_transform_and_select__agree_with_the_arrays() -> None:
    rng = np.random.default_rng(7)
    a, b = rng.normal(1e6, 1.0, 200), rng.normal(5.0, 2.0, 200)
    found = Moments.from_arrays({"a": a, "b": b})
    net = found.transform({"net": {"a": 1.0, "b": -2.0}, "twice": {"a": 2.0}}, {"net": -1e6})
    direct = Moments.from_arrays({"net": a - 2.0 * b - 1e6, "twice": 2.0 * a})
    np.testing.assert_allclose(net.means, direct.means, rtol=1e-12)
    np.testing.assert_allclose(net.matrix(), direct.matrix(), rtol=1e-9)
    swapped = found.select("b", "a")
    assert swapped.means == (found.means[1], found.means[0])
    assert swapped.comoments[0] == (found.comoments[1][1], found.comoments[1][0])
    with pytest.raises(ValueError, match="no such columns"):
        found.transform({"c": {"z": 1.0}})


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Moments(-1, ("y",), (0.0,), ((0.0,),)), "must not be negative"),
        (lambda: Moments(1, ("y", "y"), (0.0, 0.0), ((0.0, 0.0), (0.0, 0.0))), "columns repeat"),
        (lambda: Moments(1, ("y",), (0.0, 1.0), ((0.0,),)), "need 1 means"),
        (lambda: Moments.from_counts(3, 4), "between 0 and 3"),
        (lambda: Moments.from_arrays({"y": [1.0, math.nan]}), "finite"),
        (lambda: Moments.from_arrays({"y": [[1.0]]}), "one-dimensional"),
    ],
)
def test_wrong_input__is_refused_with_its_reason(build: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()  # type: ignore[operator]


def test_gaps__become_zero_with_an_indicator() -> None:
    filled, missing = with_indicator([1.0, math.nan, 3.0])
    assert filled.tolist() == [1.0, 0.0, 3.0]
    assert missing.tolist() == [0.0, 1.0, 0.0]
