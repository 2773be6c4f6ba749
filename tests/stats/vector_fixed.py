"""Known answers of fixed-horizon methods: means, ratios, covariates, strata, proportions, margins."""

import math
from collections.abc import Mapping
from typing import Any

from assay import stats as s

Vector = Mapping[str, Any]
Answer = dict[str, Any]


def side(params: Vector) -> Any:
    """The alternative, under whichever of its names."""
    name = params.get("alternative", "two-sided")
    return {"larger": "greater", "smaller": "less"}.get(name, name)


def arm(given: Vector) -> s.Moments:
    return s.Moments.from_sum(given["n"], given["sum"], given["sum_squares"])


def count(given: Vector) -> s.Count:
    return s.Count(given["n"], int(given["sum"]))


def arms(inputs: Vector) -> tuple[s.Moments, s.Moments]:
    return arm(inputs["control"]), arm(inputs["treatment"])


def counts(inputs: Vector) -> tuple[s.Count, s.Count]:
    return count(inputs["control"]), count(inputs["treatment"])


def ends(interval: s.Interval | None) -> list[float] | None:
    if interval is None:
        return None
    low, high = interval
    return [-math.inf if low is None else low, math.inf if high is None else high]


def covariate_arm(given: Vector) -> s.Moments:
    sums, products = {"y": given["sum"]}, {("y", "y"): given["sum_squares"]}
    if "cov_sums" in given:
        k = len(given["cov_sums"])
        for i in range(k):
            sums[f"x{i}"] = given["cov_sums"][i]
            products["y", f"x{i}"] = given["main_cov_products"][i]
            for j in range(i, k):
                products[f"x{i}", f"x{j}"] = given["cov_cross_products"][i][j]
    else:
        sums["x0"] = given["cov_sum"]
        products["y", "x0"] = given["main_cov_sum_products"]
        products["x0", "x0"] = given["cov_sum_squares"]
    return s.Moments.from_sums(given["n"], sums, products)


def ratio_arm(given: Vector) -> s.Moments:
    names = [name for name in ("num", "den", "num_pre", "den_pre") if f"{name}_sum" in given]
    products = {}
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            products[a, b] = given[f"{a}_{b}_sum_products"]
        products[a, a] = given[f"{a}_sum_squares"]
    return s.Moments.from_sums(given["n"], {name: given[f"{name}_sum"] for name in names}, products)


def plain(found: s.Effect) -> Answer:
    return {
        "estimate": found.estimate,
        "se": found.standard_error,
        "t": found.statistic,
        "z": found.statistic,
        "df": found.df,
        "p_value": found.p_value,
        "log10_p_value": found.log10_p_value,
        "ci": ends(found.interval),
        "lift": found.lift.value,
    }


def relative(given: s.Contrast, method: Any, params: Vector) -> Answer:
    """The lift as an effect in its own right: the delta method's test and interval."""
    alpha = params.get("alpha", 0.05)
    base = s.infer(given, alpha=alpha, lift=method)
    lift = base.lift
    assert lift.value is not None
    assert lift.standard_error is not None
    # The lift's own test is the test of a contrast with the lift's estimate and variance.
    own = given._replace(
        estimate=lift.value,
        variance=lift.standard_error**2,
        control=1.0,
        control_variance=0.0,
        covariance=0.0,
    )
    tested = s.infer(own, alpha=alpha)
    return {
        "estimate": lift.value,
        "se": lift.standard_error,
        "ci": ends(lift.interval),
        "p_value": tested.p_value,
    }


def welch(params: Vector, inputs: Vector) -> Answer:
    return plain(s.compare(*arms(inputs), alpha=params.get("alpha", 0.05), alternative=side(params)))


def student(params: Vector, inputs: Vector) -> Answer:
    found = s.infer(s.adjust(*arms(inputs), "y", (), spread="pooled"), alternative=side(params))
    return plain(found)


def lift_delta(params: Vector, inputs: Vector) -> Answer:
    return relative(s.contrast(*arms(inputs)), "delta", params)


def lift_fieller(params: Vector, inputs: Vector) -> Answer:
    reference: Any = "normal" if params.get("critical") == "normal" else "t"
    lift = s.compare(*arms(inputs), alpha=params["alpha"], reference=reference).lift
    return {
        "lift": lift.value,
        "g": lift.g,
        "bounded": lift.interval is not None,
        "lift_ci": ends(lift.interval),
    }


def lift_log(params: Vector, inputs: Vector) -> Answer:
    reference: Any = "t" if params.get("use_t", True) else "normal"
    found = s.compare(*arms(inputs), alpha=params["alpha"], reference=reference, lift="log")
    return plain(found) | {
        "lift_ci": ends(found.lift.interval),
        "abs_effect": found.estimate,
        "abs_ci": ends(found.interval),
    }


def ratio(params: Vector, inputs: Vector) -> Answer:
    pair = ratio_arm(inputs["control"]), ratio_arm(inputs["treatment"])
    given = s.contrast(*pair, s.Ratio("num", "den"))
    if params["difference"] == "relative":
        return relative(given, "delta", params)
    found = s.infer(given, alpha=params["alpha"], lift="log")
    return plain(found) | {"lift_ci_log": ends(found.lift.interval)}


def cuped_ratio(params: Vector, inputs: Vector) -> Answer:
    pair = ratio_arm(inputs["control"]), ratio_arm(inputs["treatment"])
    given = s.adjust(
        *pair, s.Ratio("num", "den"), [s.Ratio("num_pre", "den_pre")], theta="joint", baseline="adjusted"
    )
    found = s.infer(given, alpha=params["alpha"], lift="log")
    return plain(found) | {
        "control_adj": given.control_shown,
        "treatment_adj": given.treatment_shown,
        "lift_ci_log": ends(found.lift.interval),
    }


def cuped_single(params: Vector, inputs: Vector) -> Answer:
    pair = covariate_arm(inputs["control"]), covariate_arm(inputs["treatment"])
    if "estimator" in params:
        pooled = s.adjust(*pair, "y", ["x0"], spread="pooled")
        own = s.infer(s.adjust(*pair, "y", ["x0"]))
        found = s.infer(pooled)
        return {
            "theta_within": pooled.theta[0],
            "estimate": found.estimate,
            "se_homoskedastic": found.standard_error,
            "p_homoskedastic": found.p_value,
            "se_hc2": own.standard_error,
        }
    baseline: Any = "adjusted" if "adjusted" in params.get("lift", "") else "raw"
    given = s.adjust(*pair, "y", ["x0"], theta="joint", baseline=baseline)
    if params.get("difference") == "relative":
        return relative(given, "delta", params)
    found = s.infer(given, alpha=params.get("alpha", 0.05), lift="log")
    return plain(found) | {
        "theta": given.theta[0],
        "control_adj_mean": given.control_shown,
        "treatment_adj_mean": given.treatment_shown,
        "lift_ci_log": ends(found.lift.interval),
    }


def cuped_multi(params: Vector, inputs: Vector) -> Answer:
    pair = covariate_arm(inputs["control"]), covariate_arm(inputs["treatment"])
    names = [f"x{i}" for i in range(params["k"])]
    within = s.adjust(*pair, "y", names)
    pooled = s.adjust(*pair, "y", names, spread="pooled")
    lin = s.adjust(*pair, "y", names, theta="interacted")
    joint = s.adjust(*pair, "y", names, theta="joint")
    return {
        "ancova_estimate": within.estimate,
        "ancova_theta": list(within.theta),
        "ancova_se_homoskedastic": pooled.standard_error,
        "ancova_se_hc2": within.standard_error,
        "lin_estimate": lin.estimate,
        "lin_se_hc2": lin.standard_error,
        "joint_theta": list(joint.theta),
        "joint_theta_estimate": joint.estimate,
        "joint_theta_welch_p": s.infer(joint).p_value,
    }


def cuped_lin(params: Vector, inputs: Vector) -> Answer:
    pair = covariate_arm(inputs["control"]), covariate_arm(inputs["treatment"])
    given = s.adjust(*pair, "y", ["x0"], theta="interacted")
    return {
        "estimate": given.estimate,
        "se_hc2": given.standard_error,
        "theta_control": given.theta[0],
        "theta_treatment": given.theta[1],
    }


def cuped_linearised(params: Vector, inputs: Vector) -> Answer:
    pair = covariate_arm(inputs["control"]), covariate_arm(inputs["treatment"])
    given = s.adjust(*pair, "y", ["x0"])
    lift = s.relative(given, 1.96)
    return {"theta_within": given.theta[0], "lift": lift.value, "se": lift.standard_error}


def pooled_z(params: Vector, inputs: Vector) -> Answer:
    return plain(s.two_proportions(*counts(inputs), alternative=side(params)))


def unpooled_z(params: Vector, inputs: Vector) -> Answer:
    return plain(
        s.two_proportions(
            *counts(inputs),
            alpha=params["alpha"],
            alternative=side(params),
            method="unpooled",
        )
    )


def one_proportion(params: Vector, inputs: Vector) -> Answer:
    names: dict[str, Any] = {"beta": "clopper_pearson", "normal": "wald", "jeffreys": "jeffreys"}
    method = names.get(params["method"], params["method"])
    found = s.one_proportion(count(inputs), alpha=params["alpha"], method=method)
    if found.reason is s.Reason.ZERO_VARIANCE:
        # Wald's interval has collapsed to a point there: the reference shows it, we do not.
        return {"ci": [found.value, found.value]}
    return {"ci": ends(found.interval)}


def proportion_difference(params: Vector, inputs: Vector) -> Answer:
    # The reference's score interval has a slip in its constrained estimate; ours is `score`.
    names: dict[str, Any] = {
        "newcomb": "newcombe",
        "score": "score_statsmodels",
        "agresti-caffo": "agresti_caffo",
    }
    method = names.get(params["method"], params["method"])
    return {"ci": ends(s.difference_interval(*counts(inputs), alpha=params["alpha"], method=method))}


def proportion_ratio(params: Vector, inputs: Vector) -> Answer:
    method: Any = params["method"].replace("-", "_")
    lift = s.ratio_interval(*counts(inputs), alpha=params["alpha"], method=method)
    return {"lift": lift.value, "lift_ci": ends(lift.interval)}


def proportion_exact(params: Vector, inputs: Vector) -> Answer:
    which = side(params)
    return {
        "fisher_p": s.exact_proportions(*counts(inputs), method="fisher", alternative=which).p_value,
        "barnard_pooled_p": s.exact_proportions(*counts(inputs), method="barnard", alternative=which).p_value,
        "boschloo_p": s.exact_proportions(*counts(inputs), method="boschloo", alternative=which).p_value,
    }


def contingency(params: Vector, inputs: Vector) -> Answer:
    found = s.contingency(
        *counts(inputs),
        method=params["method"].replace("-", "_"),
        correction=params["correction"],
    )
    return {"p_value": found.p_value, "chi2": found.statistic, "statistic": found.statistic}


def non_inferiority(params: Vector, inputs: Vector) -> Answer:
    control, treatment = counts(inputs)
    direction: Any = params["direction"].split()[0]
    given = s.count_contrast(control, treatment)
    if "absolute_margin" in params:
        margin = params["absolute_margin"]
        return {
            "p_score_FarringtonManning": s.score_non_inferiority(
                control, treatment, margin, direction=direction, method="score_uncorrected_statsmodels"
            ).p_value,
            "p_wald": s.non_inferiority(given, margin, direction=direction, reference="normal").p_value,
        }
    # The reference takes the margin times the control mean as a constant: an absolute margin.
    margin = params["relative_margin"] * control.rate
    found = s.non_inferiority(
        given, margin, direction=direction, alpha=params.get("alpha", 0.05), reference="normal"
    )
    return {"null_hypothesis": found.null, "p_value": found.p_value, "ci": ends(found.interval)}


def equivalence(params: Vector, inputs: Vector) -> Answer:
    low, high = params["margin"]
    alpha = params.get("alpha", 0.05)
    if "sum_squares" not in inputs["control"]:
        method: Any = params.get("method", "agresti-caffo").replace("-", "_")
        found = s.equivalence(
            s.count_contrast(*counts(inputs), method=method), low, high, alpha=alpha, reference="normal"
        )
    elif params.get("usevar") == "pooled":
        found = s.equivalence(s.adjust(*arms(inputs), "y", (), spread="pooled"), low, high, alpha=alpha)
    else:
        found = s.equivalence(s.contrast(*arms(inputs)), low, high, alpha=alpha)
    return {
        "p_lower": found.p_lower,
        "p_upper": found.p_upper,
        "p_value": found.p_value,
        "ci": ends(found.interval),
        f"ci{100.0 * (1.0 - 2.0 * alpha):.6g}": ends(found.interval),
    }


def post_strat(params: Vector, inputs: Vector) -> Answer:
    strata = [(arm(each["control"]), arm(each["treatment"])) for each in inputs["strata"]]
    found = s.infer(s.stratify(strata, "y"), alpha=params["alpha"], reference="normal")
    return plain(found) | {"p_value_normal": found.p_value, "ci_normal": ends(found.interval)}


def gb_post_strat(params: Vector, inputs: Vector) -> Answer:
    strata = [(arm(each["control"]), arm(each["treatment"])) for each in inputs["strata"]]
    given = s.stratify(strata, "y", super_population=True)
    if params.get("difference") == "relative":
        return relative(given, "delta", params)
    return plain(s.infer(given, alpha=params.get("alpha", 0.05)))
