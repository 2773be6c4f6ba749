"""A report's headline made again from one row for each unit, with numpy and scipy alone.

Nothing imports this file: from the first line with `# %%` on it is the code of the notebook that `…/export`
gives (`assay.reports.notebook`), so that it must not know anything of this package. `# %%` begins a cell.
"""

# %% [markdown]
# ## Reading the rows
#
# One row for each unit: its variant, the phase in which it was assigned, and the numbers of the metric. Units
# that the metric leaves out, as those whose window is not over, have none.

# %%
import csv
import io
import math
from typing import Any

import numpy as np
from scipy import optimize, stats


def read(text: str, names: list[str]) -> dict[str, Any]:
    """The columns of the file, those of the metric without its name before them."""
    rows = [row for row in csv.DictReader(io.StringIO(text)) if all(row[name] for name in names)]
    found: dict[str, Any] = {
        name: np.array([int(row[name]) for row in rows]) for name in ("variant_id", "phase")
    }
    for name in names:
        found[name.rsplit(".", 1)[1]] = np.array([float(row[name]) for row in rows])
    return found


# %% [markdown]
# ## Who may be compared
#
# While an experiment ramps from 90/10 to 50/50 its baseline drifts, too. Within a stretch of equal split the
# arms are comparable; the difference is taken there and averaged. Units that came while one of the arms was
# closed have nobody to be compared with.


# %%
def strata(units: dict[str, Any], shares: dict[str, dict[str, float]], arms: tuple[int, int]) -> list[Any]:
    """Pairs (control, treatment) of row numbers, for each split between the two arms."""
    splits: dict[float, list[int]] = {}
    for phase in sorted({int(each) for each in units["phase"]}):
        low, high = (shares[str(phase)][str(arm)] for arm in arms)
        splits.setdefault(round(high / (low + high), 9) if low + high else 0.0, []).append(phase)

    def pair(phases: list[int]) -> tuple[Any, Any]:
        here = np.isin(units["phase"], phases)
        low, high = (np.flatnonzero(here & (units["variant_id"] == arm)) for arm in arms)
        return low, high

    def joined(pairs: list[Any]) -> tuple[Any, Any]:
        low, high = (np.concatenate([each[side] for each in pairs]) for side in (0, 1))
        return low, high

    fair = [pair(phases) for split, phases in sorted(splits.items()) if 0.0 < split < 1.0]
    if not fair or not min(map(len, joined(fair))):
        return [pair([each for phases in splits.values() for each in phases])]
    large = sorted((each for each in fair if min(map(len, each)) >= 2), key=lambda each: -sum(map(len, each)))
    small = [each for each in fair if min(map(len, each)) < 2]
    return [joined([large[0], *small]), *large[1:]] if large else [joined(fair)]


# %% [markdown]
# ## The difference
#
# Least squares of the metric on what was known of each unit before its assignment, within arms and strata
# (CUPED: Deng, Xu, Kohavi & Walker 2013), averaged over the strata (Miratrix, Sekhon & Yu 2013). A ratio
# stands by its delta method (Deng, Knoblich & Lu 2018). Without covariates, strata and ratios this is Welch's
# test.


# %%
def arm(units: dict[str, Any], cells: list[Any], weights: Any, names: list[str]) -> tuple[Any, list[Any]]:
    """The values of metric and covariates in one arm, and each unit's share in them, cell by cell."""
    values, columns = [], []
    for name in names:
        parts = [[units[one][cell] for cell in cells] for one in name.split("/")]
        means = [sum(w * part.mean() for w, part in zip(weights, each, strict=True)) for each in parts]
        if len(parts) == 1:
            values.append(means[0])
            columns.append(parts[0])
        else:
            values.append(means[0] / means[1])
            pairs = zip(*parts, strict=True)
            columns.append([(above - values[-1] * below) / means[1] for above, below in pairs])
    shares = [np.column_stack(each) for each in zip(*columns, strict=True)]
    return np.array(values), [each - each.mean(axis=0) for each in shares]


def difference(
    units: dict[str, Any], pairs: list[Any], value: str, covariates: list[str]
) -> dict[str, float]:
    """Treatment minus control, its standard error and its degrees of freedom."""
    sizes = np.array([sum(map(len, pair)) for pair in pairs], dtype=float)
    weights = sizes / sizes.sum()
    names = [value, *covariates]
    low, of_low = arm(units, [pair[0] for pair in pairs], weights, names)
    high, of_high = arm(units, [pair[1] for pair in pairs], weights, names)
    within = np.vstack([*of_low, *of_high])
    scale = np.sqrt((within**2).sum(axis=0))
    used = [at for at in range(1, len(names)) if scale[at] > 0.0]
    theta, rank = np.zeros(len(covariates)), 0
    if used:
        slopes, _, rank, _ = np.linalg.lstsq(within[:, used] / scale[used], within[:, 0], rcond=1e-5)
        theta[np.array(used) - 1] = slopes / scale[used]
    lost = int(rank) if len(pairs) == 1 else 0
    parts, dfs = [], []
    for w, *cells in zip(weights, of_low, of_high, strict=True):
        for cell in cells:
            left = cell[:, 0] - cell[:, 1:] @ theta
            parts.append(w**2 * (left**2).sum() / (len(left) - 1) / len(left))
            dfs.append(len(left) - 1 - lost)
    variance = float(sum(parts))
    return {
        "control": float(low[0]),
        "difference": float(high[0] - low[0] - (high[1:] - low[1:]) @ theta),
        "standard_error": math.sqrt(variance),
        "df": 1.0 / sum((part / variance) ** 2 / df for part, df in zip(parts, dfs, strict=True))
        if variance
        else math.nan,
    }


# %% [markdown]
# ## The methods
#
# Each gives the interval, and a p-value where it has one.


# %%
def ends(estimate: float, reach: float, alternative: str) -> tuple[float | None, float | None]:
    """The interval; a one-sided one is open at the other end."""
    low, high = estimate - reach, estimate + reach
    return None if alternative == "less" else low, None if alternative == "greater" else high


def tail(statistic: float, alternative: str, law: Any) -> float:
    """The p-value of a statistic."""
    area = {"greater": law.sf(statistic), "less": law.cdf(statistic)}
    return float(area.get(alternative, 2.0 * law.sf(abs(statistic))))


def critical(alpha: float, alternative: str, law: Any) -> float:
    """The multiple of the standard error that an interval reaches."""
    return float(law.isf(alpha / 2.0 if alternative == "two-sided" else alpha))


def student(found: dict[str, float], alpha: float, alternative: str) -> dict[str, Any]:
    """Welch's test, and its like with covariates and strata."""
    law = stats.t(found["df"])
    reach = critical(alpha, alternative, law) * found["standard_error"]
    p = tail(found["difference"] / found["standard_error"], alternative, law)
    return {**found, "interval": ends(found["difference"], reach, alternative), "p_value": p}


def pooled(low: Any, high: Any, alpha: float, alternative: str) -> dict[str, Any]:
    """The score test of two shares, and the interval that inverts it (Farrington & Manning 1990)."""
    n, m, x, y = len(low), len(high), low.sum(), high.sum()
    gap, share = y / m - x / n, (x + y) / (n + m)
    error = math.sqrt(share * (1.0 - share) * (1.0 / n + 1.0 / m))

    def score(d: float) -> float:
        # The likeliest control rate if the treatment's is d higher: the root of a cubic, by its angle.
        a, b = float(n + m), (2.0 * n + m) * d - (n + m) - (x + y)
        c, e = (n * d - (n + m) - 2.0 * x) * d + x + y, x * d * (1.0 - d)
        third = b / (3.0 * a)
        v = third**3 - b * c / (6.0 * a * a) + e / (2.0 * a)
        u = math.copysign(math.sqrt(max(third**2 - c / (3.0 * a), 0.0)), v)
        angle = (math.pi + math.acos(min(max(v / u**3 if u else 0.0, -1.0), 1.0))) / 3.0
        p = min(max(2.0 * u * math.cos(angle) - third, 0.0, -d), 1.0, 1.0 - d)
        q = min(max(p + d, 0.0), 1.0)
        variance = p * (1.0 - p) / n + q * (1.0 - q) / m
        if variance <= 0.0:
            return math.copysign(1e8, gap - d) if gap != d else 0.0
        return float(min(max((gap - d) / math.sqrt(variance), -1e8), 1e8))

    z = stats.norm.isf(alpha / 2.0 if alternative == "two-sided" else min(2.0 * alpha, 0.999) / 2.0)
    exact = {"xtol": 1e-15, "rtol": 1e-14}
    bottom = -1.0 if score(-1.0) <= z else optimize.brentq(lambda d: score(d) - z, -1.0, gap, **exact)
    top = 1.0 if score(1.0) >= -z else optimize.brentq(lambda d: score(d) + z, gap, 1.0, **exact)
    return {
        "difference": gap,
        "standard_error": error,
        "interval": (None if alternative == "less" else bottom, None if alternative == "greater" else top),
        "p_value": tail(gap / error, alternative, stats.norm),
    }


def always_valid(
    found: dict[str, float], alpha: float, alternative: str, fraction: float, before: float
) -> dict[str, Any]:
    """The confidence sequence of Waudby-Smith et al. (2024), tuned to the planned number of units.

    `fraction` is the share of them that is in, `before` the smallest p-value of the looks so far.
    """
    level = -2.0 * math.log(alpha if alternative == "two-sided" else min(2.0 * alpha, 0.999))
    k = fraction * (level + math.log1p(level))
    z = found["difference"] / found["standard_error"]
    growth = z * z * k / (2.0 * (k + 1.0))
    if alternative == "two-sided":
        inside, log_p = 0.5 * math.log1p(k) - math.log(alpha), min(0.0, 0.5 * math.log1p(k) - growth)
    else:
        inside, log_p = math.log1p(math.sqrt(k + 1.0) / (2.0 * alpha)), math.log(0.5)
        if (z if alternative == "greater" else -z) > 0.0:
            log_p = min(log_p, 0.5 * math.log1p(k) - math.log(2.0) - math.log(math.expm1(growth)))
    reach = math.sqrt(2.0 * (k + 1.0) / k * inside) * found["standard_error"]
    interval = ends(found["difference"], reach, alternative)
    return {**found, "interval": interval, "p_value": min(before, math.exp(log_p))}


def posterior(found: dict[str, float], alpha: float, prior: float | None) -> dict[str, Any]:
    """Normal likelihood and a normal prior around no effect; `prior` is its standard deviation as a lift.

    There is none where the control cannot be told from zero, so that a lift says nothing of the difference.
    """
    data = found["standard_error"] ** -2
    belief = (prior * abs(found["control"])) ** -2 if prior is not None else 0.0
    mean, sd = found["difference"] * data / (data + belief), (data + belief) ** -0.5
    interval = ends(mean, critical(alpha, "two-sided", stats.norm) * sd, "two-sided")
    return {"difference": mean, "standard_error": sd, "interval": interval, "p_value": None}


def recomputed(units: dict[str, Any], report: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
    """One treatment against the control, by the experiment's method and at the level the report names."""
    pairs = strata(units, report["shares"], (said["control_id"], said["treatment_id"]))
    alpha, alternative = said["significance_level"], said["alternative"]
    method, covariates = report["method"], said["covariates"]
    found = difference(units, pairs, report["value"], covariates)
    if method == "bayesian":
        return posterior(found, alpha, said["prior"])
    if method == "always_valid":
        # Where the split follows the data each comparison has a clock of its own.
        fraction = said["fraction"] or len(units["phase"]) / report["planned_units"]
        return always_valid(found, alpha, alternative, fraction, said["previous_p"])
    if method == "group_sequential":
        # The limit comes of the plan and of the looks so far, not of the data.
        reach = said["limit"] * found["standard_error"]
        return {**found, "interval": ends(found["difference"], reach, alternative), "p_value": None}
    if report["share"] and len(pairs) == 1 and not covariates:
        low, high = (units[report["value"]][side] for side in pairs[0])
        made = pooled(low, high, alpha, alternative)
    else:
        made = student(found, alpha, alternative)
    return rejected(made) if said["rejected_in_family"] else made


def rejected(made: dict[str, Any]) -> dict[str, Any]:
    """Step-wise corrections reject more than equally wide intervals show: a rejection ends them at zero."""
    low, high = made["interval"]
    if made["difference"] > 0.0:
        return {**made, "interval": (None if low is None else max(low, 0.0), high)}
    return {**made, "interval": (low, None if high is None else min(high, 0.0))}


# %% [markdown]
# ## Held against the report


# %%
def compare(made: dict[str, Any], said: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """What the report says and what was found, by name. Raises `AssertionError` where they differ."""
    told = said["interval"] or {"low": None, "high": None}
    numbers = [
        ("difference", said["difference"], made["difference"]),
        ("standard error", said["standard_error"], made["standard_error"]),
        ("low end", told["low"], made["interval"][0]),
        ("high end", told["high"], made["interval"][1]),
    ]
    if made["p_value"] is not None:
        numbers.append(("p-value", said["p_value"], made["p_value"]))
    size = max(abs(said["standard_error"]), abs(said["difference"]))
    for name, one, other in numbers:
        same = one is None and other is None
        if one is not None and other is not None:
            # A difference near zero is no less exact than its standard error.
            same = abs(one - other) <= 1e-9 * (abs(one) if name == "p-value" else size)
        if not same:
            raise AssertionError(f"{name}: the report says {one!r}, the rows {other!r}")
    return {name: (one, other) for name, one, other in numbers if one is not None}
