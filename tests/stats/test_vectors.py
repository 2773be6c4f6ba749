"""Every known answer, through the public functions.

`ASSAY_STATISTICS_VECTORS` names another file of the same format. Without it the shared file is read when it
is there, and our copy of it otherwise.
"""

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from assay.stats.tails import normal_sf
from stats.vector_calls import CALLS, COMPATIBILITY

HERE = Path(__file__).parents[1]
SHARED = Path(__file__).parents[2].parent / "shared" / "vectors" / "statistics.json"
COPY = HERE / "vectors" / "statistics.json"

# HC2 errors weight each unit's squared residual by its leverage. That needs fourth-order sums, which the
# inputs of these vectors (sums, squares, products) do not determine: moments give the same estimator without
# leverages.
NOT_IN_THE_INPUTS = frozenset({"se_hc2", "ancova_se_hc2", "lin_se_hc2"})
LEVERAGE_TOLERANCE = 0.02

# The reference for detectable effects is an iterative solver that stops early: at its own answer its own
# power function misses the target in the fourth digit. `test_oracles.py` holds ours to that power function
# instead.
EARLY_STOP = {"std_effect_z": 2e-5, "std_effect_t": 3e-4}

# The reference for group-sequential limits integrates the inside of the limits, so tail areas carry an error
# of about 1.1e-14. Where that is more than the limit's tolerance (the area beyond z = 7 is 1e-12), areas are
# compared.
AREA_ERROR = 2e-14


def _file() -> Path:
    named = os.environ.get("ASSAY_STATISTICS_VECTORS")
    if named:
        return Path(named)
    return SHARED if SHARED.exists() else COPY


def _vectors() -> list[Any]:
    groups = json.loads(_file().read_text())["groups"]
    return [pytest.param(vector, id=vector["id"]) for vectors in groups.values() for vector in vectors]


def _number(value: Any) -> Any:
    return float(value) if value in ("inf", "-inf", "nan") else value


def _differences(got: Any, expected: Any, rtol: float, atol: float, path: str) -> list[str]:
    """What is wrong, as sentences; empty when everything is within tolerance."""
    if isinstance(expected, list):
        if not isinstance(got, list) or len(got) != len(expected):
            return [f"{path}: {got!r} has another shape than {expected!r}"]
        return [
            wrong
            for i, (a, b) in enumerate(zip(got, expected, strict=True))
            for wrong in _differences(a, b, rtol, atol, f"{path}[{i}]")
        ]
    expected = _number(expected)
    if expected is None or isinstance(expected, (bool, str)):
        return [] if got == expected else [f"{path}: {got!r} instead of {expected!r}"]
    if math.isnan(expected):
        # Where a reference has no answer we have none either, and say so.
        return [] if got is None else [f"{path}: {got!r} where the reference has nothing"]
    if got is None or isinstance(got, (bool, str)):
        return [f"{path}: {got!r} instead of {expected!r}"]
    if math.isinf(expected):
        return [] if got == expected else [f"{path}: {got!r} instead of {expected!r}"]
    away = abs(got - expected)
    return [] if away <= atol + rtol * abs(expected) else [f"{path}: {got!r} instead of {expected!r}"]


def _within_area(got: list[float | None], expected: list[float]) -> list[float | None]:
    """Our limits, with the reference's value where both cut off the same area up to the reference's error."""
    return [
        theirs
        if ours is not None and theirs > 6.0 and abs(normal_sf(ours) - normal_sf(theirs)) < AREA_ERROR
        else ours
        for ours, theirs in zip(got, expected, strict=True)
    ]


@pytest.mark.parametrize("vector", _vectors())
def test_vector__through_public_functions__is_within_its_tolerance(vector: dict[str, Any]) -> None:
    expected, tolerance = vector["expected"], vector["tol"]
    got = CALLS[vector["group"]](vector["params"], vector["inputs"])
    missing = sorted(set(expected) - set(got))
    assert not missing, f"no answer for {missing}"
    wrong = []
    for name, value in expected.items():
        rtol = LEVERAGE_TOLERANCE if name in NOT_IN_THE_INPUTS else tolerance["rtol"]
        rtol = max(rtol, EARLY_STOP.get(name, 0.0)) if vector["group"] == "mde_means" else rtol
        answer = _within_area(got[name], value) if name == "z_bounds" else got[name]
        wrong += _differences(answer, value, rtol, tolerance["atol"], name)
    assert not wrong, "; ".join(wrong)


def test_compatibility__only_foreign_behaviour_is_declared_so() -> None:
    assert all(name.startswith("gb_") or name == "lift_delta_welch" for name in COMPATIBILITY)
    assert set(CALLS) >= COMPATIBILITY


def test_copy__is_the_shared_file() -> None:
    if not SHARED.exists():
        pytest.skip("the shared vectors are not beside this checkout")
    assert json.loads(COPY.read_text()) == json.loads(SHARED.read_text())
