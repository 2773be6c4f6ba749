"""Which public call answers which group of known answers.

Each function takes the parameters and inputs of one vector and returns numbers under the vector's own names.
Groups in `COMPATIBILITY` describe other engines' behaviour; ours is reachable by an option.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from assay import stats as s

Vector = Mapping[str, Any]
Answer = dict[str, Any]
COMPATIBILITY = frozenset({"lift_delta_welch"})
CORRECTIONS: dict[str, Any] = {
    "bonferroni": "bonferroni",
    "sidak": "sidak",
    "holm": "holm",
    "holm-sidak": "holm_sidak",
    "simes-hochberg": "hochberg",
    "hochberg": "hochberg",
    "hommel": "hommel",
    "fdr_bh": "benjamini_hochberg",
    "fdr_by": "benjamini_yekutieli",
}


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
    return {"ci": ends(s.one_proportion(count(inputs), alpha=params["alpha"], method=method).interval)}


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
        given = s.count_contrast(*counts(inputs), method="agresti_caffo")
        return {"p_value": s.equivalence(given, low, high, alpha=alpha, reference="normal").p_value}
    found = s.equivalence(s.contrast(*arms(inputs)), low, high, alpha=alpha)
    return {
        "p_lower": found.p_lower,
        "p_upper": found.p_upper,
        "p_value": found.p_value,
        "ci90": ends(found.interval),
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


def bayes_normal(params: Vector, inputs: Vector) -> Answer:
    wanted = params.get("prior", {"proper": False})
    prior = s.Prior(wanted["mean"], wanted["sd"]) if wanted["proper"] else None
    found = s.bayes(
        s.contrast(*arms(inputs)),
        prior=prior,
        scale=params["difference"],
        level=params.get("level", 0.95),
        lower_is_better=params.get("lower_is_better", False),
    )
    return {
        "posterior_mean": found.mean,
        "posterior_sd": found.sd,
        "chance_to_win": found.chance_to_win,
        "credible_interval": ends(found.interval),
        "risk_control": found.loss_control,
        "risk_treatment": found.loss_treatment,
    }


def bayes_loss(params: Vector, inputs: Vector) -> Answer:
    found = s.normal_posterior(inputs["posterior_mean"], inputs["posterior_sd"])
    return {
        "expected_loss_if_ship_treatment": found.loss_treatment,
        "expected_loss_if_keep_control": found.loss_control,
        "chance_to_win": found.chance_to_win,
    }


def bayes_beta(params: Vector, inputs: Vector) -> Answer:
    a, b = params["prior"].removeprefix("Beta(").removesuffix(")").split(",")
    found = s.beta_binomial(*counts(inputs), prior=(float(a), float(b)), level=params["level"])
    return {
        "chance_to_win": found.chance_to_win,
        "expected_loss_choose_treatment": found.loss_treatment,
        "expected_loss_choose_control": found.loss_control,
        "control_interval": ends(found.control_interval),
        "treatment_interval": ends(found.treatment_interval),
    }


def bayes_gamma(params: Vector, inputs: Vector) -> Answer:
    pair = [(inputs[name]["n"], inputs[name]["sum"]) for name in ("control", "treatment")]
    found = s.gamma_poisson(pair[0], pair[1])
    return {
        "chance_to_win": found.chance_to_win,
        "expected_loss_choose_treatment": found.loss_treatment,
        "expected_loss_choose_control": found.loss_control,
    }


def bandit(params: Vector, inputs: Vector) -> Answer:
    posteriors = [
        s.Normal(mean, sd)
        for mean, sd in zip(inputs["posterior_means"], inputs["posterior_sds"], strict=True)
    ]
    found = s.bandit_weights(posteriors, floor=params["min_weight"])
    return {"prob_best": list(found.best), "weights_with_floor": list(found.weights)}


def bootstrap(params: Vector, inputs: Vector) -> Answer:
    values = inputs["control_values"], inputs["treatment_values"]
    if "method" not in params:
        return {"ideal_bootstrap_se_of_mean_diff": s.ideal_error(*values)}
    name = params["statistic"]
    name = name.replace("median", "p50")
    quantile = name.removeprefix("rel_").startswith("p")
    found = s.bootstrap(
        *values,
        np.random.default_rng(20261121),
        statistic=s.quantile_statistic(float(name.removeprefix("rel_")[1:]) / 100)
        if quantile
        else s.mean_statistic,
        name=name,
        relative=name.startswith("rel_"),
        method=params["method"],
        draws="multinomial",
        resamples=100_000,
        alpha=params["alpha"],
    )
    return {"ci": ends(found.interval), "bootstrap_se": found.standard_error}


def mann_whitney(params: Vector, inputs: Vector) -> Answer:
    found = s.mann_whitney(
        inputs["control_values"],
        inputs["treatment_values"],
        alternative=side(params),
        method=params["method"],
    )
    return {"U_treatment": found.u, "p_value": found.p_value}


def cluster_ratio(params: Vector, inputs: Vector) -> Answer:
    k = inputs["n_clusters"]
    clusters = s.Moments.from_sums(
        k,
        {"S": inputs["S_sum"], "N": inputs["N_sum"]},
        {
            ("S", "S"): inputs["S_sum_squares"],
            ("N", "N"): inputs["N_sum_squares"],
            ("S", "N"): inputs["S_N_sum_products"],
        },
    )
    found = s.arm_interval(clusters, s.Ratio("S", "N"))
    assert found.standard_error is not None
    variance = found.standard_error**2
    return {
        "mean": found.value,
        "variance_ddof1": variance,
        "variance_cluster_robust_no_correction": variance * (k - 1) / k,
    }


def quantile_arm(given: Vector, alpha: float) -> s.QuantileArm:
    clusters = None
    if "n_clusters" in given:
        clusters = s.Moments.from_sums(
            given["n_clusters"],
            {"below": given["main_sum"], "events": given["denominator_sum"]},
            {
                ("below", "below"): given["main_sum_squares"],
                ("events", "events"): given["denominator_sum_squares"],
                ("below", "events"): given["main_denominator_sum_product"],
            },
        )
    return s.quantile_arm(
        given.get("quantile", given.get("nu")),
        given["n"],
        given["quantile_hat"],
        given["quantile_lower"],
        given["quantile_upper"],
        grid=given["n_star"],
        clusters=clusters,
        alpha=alpha,
    )


def quantile_deng(params: Vector, inputs: Vector) -> Answer:
    pair = [quantile_arm(inputs[name], params["alpha"]) for name in ("control", "treatment")]
    given = s.quantile_contrast(pair[0], pair[1], count="events")
    if params["difference"] == "relative":
        return relative(given, "delta", params)
    return plain(s.infer(given, alpha=params["alpha"]))


def quantile_exact(params: Vector, inputs: Vector) -> Answer:
    return {"ci": ends(s.quantile_interval(inputs["values"], inputs["p"], alpha=params["alpha"]).interval)}


def quantile_point(params: Vector, inputs: Vector) -> Answer:
    return {"quantile": s.quantile(inputs["values"], inputs["p"], method=params["method"])}


def winsorize(params: Vector, inputs: Vector) -> Answer:
    if "limits" in params:
        found = s.winsorise(inputs["values"], *params["limits"])
    else:
        limit = s.pooled_cap([inputs["values"]], params["q"], method=params["method"])
        found = s.cap(inputs["values"], **{"low" if params.get("side") == "lower" else "high": limit})
    values = found.values
    return {
        "values": list(values),
        "cap": found.low if params.get("side") == "lower" else found.high,
        "sum": float(values.sum()),
        "sum_squares": float((values**2).sum()),
    }


def multiple(params: Vector, inputs: Vector) -> Answer:
    found = s.correct(
        inputs["p_values"], method=CORRECTIONS[params["method"]], alpha=params.get("alpha", 0.05)
    )
    return {"adjusted": list(found.p_values), "reject": list(found.rejected)}


def hte_meta(params: Vector, inputs: Vector) -> Answer:
    found = s.heterogeneity(inputs["segment_effects"], inputs["segment_variances"])
    return {
        "fixed_effect": found.fixed,
        "fixed_se": found.fixed_error,
        "random_effect": found.random,
        "random_se": found.random_error,
        "tau2_DL": found.tau2,
        "Q": found.q,
        "Q_p": found.p_value,
        "I2": found.i2,
    }


def hte_interaction(params: Vector, inputs: Vector) -> Answer:
    cells = {name: arm(cell) for name, cell in inputs["cells"].items()}
    found = s.interaction(
        s.contrast(cells["seg0_c"], cells["seg0_t"]), s.contrast(cells["seg1_c"], cells["seg1_t"])
    )
    return {"interaction": found.estimate, "se": found.standard_error, "z_p": found.p_value}


def power_means(params: Vector, inputs: Vector) -> Answer:
    common: dict[str, Any] = {
        "ratio": inputs.get("ratio_treatment_to_control", 1.0),
        "alpha": params["alpha"],
        "alternative": side(params),
    }
    n, effect = inputs["n_control"], inputs["std_effect"]
    return {
        "power_t": s.power_means(effect, n, **common),
        "power_z": s.power_means(effect, n, reference="normal", **common),
    }


def sample_size_means(params: Vector, inputs: Vector) -> Answer:
    common = {"ratio": params.get("ratio", 1), "alpha": params["alpha"], "power": params["power"]}
    return {
        "n_per_arm_t": s.sample_size_means(inputs["std_effect"], **common),
        "n_per_arm_z": s.sample_size_means(inputs["std_effect"], reference="normal", **common),
    }


def mde_means(params: Vector, inputs: Vector) -> Answer:
    common = {"alpha": params["alpha"], "power": params["power"]}
    return {
        "std_effect_t": s.detectable_means(inputs["n_per_arm"], **common),
        "std_effect_z": s.detectable_means(inputs["n_per_arm"], reference="normal", **common),
    }


def mde_relative(params: Vector, inputs: Vector) -> Answer:
    baseline = s.Baseline(inputs["mean"], inputs["variance"])
    found = s.detectable_lift_delta(
        baseline, inputs["n_per_arm"], alpha=params["alpha"], power=params["power"]
    )
    return {"mde": found}


def power_proportions(params: Vector, inputs: Vector) -> Answer:
    return {
        "power": s.power_proportions(
            inputs["baseline"], inputs["absolute_diff"], inputs["n_per_arm"], alpha=params["alpha"]
        )
    }


def sample_size_proportions(params: Vector, inputs: Vector) -> Answer:
    def size(formula: Any) -> float:
        return s.sample_size_proportions(
            inputs["baseline"],
            inputs["absolute_mde"],
            alpha=params["alpha"],
            power=params["power"],
            formula=formula,
        )

    return {
        "evan_miller_per_arm": size("baseline_null"),
        "pooled_null_per_arm": size("pooled_null"),
        "statsmodels_onetail_fn": size("pooled_null"),
        "unpooled_per_arm": size("unpooled"),
        "cohen_h_per_arm": size("cohen_h"),
    }


def power_allocation(params: Vector, inputs: Vector) -> Answer:
    ratio_, sd = inputs["ratio"], math.sqrt(inputs["variance"])
    common: dict[str, Any] = {
        "ratio": ratio_,
        "alpha": params["alpha"],
        "power": params["power"],
        "reference": "t" if params["use_t"] else "normal",
        "welch": True,
    }
    n = s.sample_size_means(inputs["rel_effect"] * inputs["mean"] / sd, **common)
    mde = s.detectable_means(10_000 / (1.0 + ratio_), **common)
    return {"n_total": math.ceil(n * (1.0 + ratio_)), "rel_mde_at_10000": mde * sd / inputs["mean"]}


def power_sequential(params: Vector, inputs: Vector) -> Answer:
    mean, variance, n, lift = (inputs[name] for name in ("mean", "variance", "n_per_arm", "lift"))
    control = s.Moments.from_mean(n, mean, variance)
    treatment = s.Moments.from_mean(n, mean * (1.0 + lift), variance)
    error = s.compare(control, treatment).lift.standard_error
    assert error is not None
    reach, power = s.always_valid_last_look(
        lift, error, 2 * n, planned=params["tuning_n"], alpha=params["alpha"]
    )
    return {"half_width": reach, "power_lower_bound": power}


def seq_asympcs(params: Vector, inputs: Vector) -> Answer:
    alpha, tuning = params["alpha"], params["tuning_n"]
    if inputs["control"].get("type") == "proportion":
        given = s.count_contrast(*counts(inputs))
    else:
        given = s.contrast(*arms(inputs))
    if params["difference"] == "relative":
        lift = s.relative(given, 1.0, method="delta")
        estimate, error = lift.value, lift.standard_error
    else:
        estimate, error = given.estimate, given.standard_error
    assert estimate is not None
    assert error is not None
    rho2 = s.tuned_rho2(tuning, alpha)
    found = s.mixture(estimate, error, given.units * rho2, alpha=alpha)
    return {
        "estimate": estimate,
        "se": error,
        "rho": math.sqrt(rho2),
        "ci": ends(found.interval),
        "p_value": found.p_value,
    }


def seq_one_sided(params: Vector, inputs: Vector) -> Answer:
    found = s.always_valid(
        s.contrast(*arms(inputs)),
        planned=params["tuning_n"],
        alpha=params["alpha"],
        alternative=side(params),
        burn_in=0.0,
    )
    assert found.interval is not None
    return {
        "lower_bound": found.interval.low,
        "upper_bound": found.interval.high,
        "p_value": found.p_value,
        "estimate": found.estimate,
    }


def seq_fieller(params: Vector, inputs: Vector) -> Answer:
    found = s.always_valid(
        s.contrast(*arms(inputs)), planned=params["tuning_n"], alpha=params["alpha"], burn_in=0.0
    )
    return {
        "multiplier": found.critical,
        "g": found.lift.g,
        "bounded": found.lift.interval is not None,
        "lift_ci": ends(found.lift.interval),
        "p_value": found.p_value,
    }


def seq_msprt(params: Vector, inputs: Vector) -> Answer:
    variance = inputs["variance_of_estimate"]
    found = s.mixture(
        inputs["estimate"], math.sqrt(variance), params["tau2"] / variance, alpha=params["alpha"]
    )
    return {"always_valid_p": found.p_value, "ci": ends(found.interval)}


def seq_multiplier(params: Vector, inputs: Vector) -> Answer:
    rho2 = s.tuned_rho2(params["tuning_n"], params["alpha"])
    return {
        "half_width_over_se": s.multiplier(inputs["n_total"] * rho2, params["alpha"]),
        "rho_eppo": 1.0 / rho2,
        "rho2_asympcs": rho2,
    }


def seq_linear(params: Vector, inputs: Vector) -> Answer:
    y, t = np.array(inputs["y"]), np.array(inputs["t"])
    pair = [s.Moments.from_arrays({"y": y[t == side]}) for side in (0.0, 1.0)]
    # The reference has one degree of freedom less than the t statistic of the same regression.
    found = s.linear_model(pair[0], pair[1], phi=params["phi"], alpha=params["alpha"], df=y.size - 3)
    return {"estimate": found.estimate, "ci": ends(found.interval), "p_value": found.p_value}


def normal_mixture(params: Vector, inputs: Vector) -> Answer:
    v, at = inputs["intrinsic_time_v"], params["alpha_opt"]
    two = s.mixture_rho(params["v_opt"], at)
    one = s.mixture_rho(params["v_opt"], at, one_sided=True)
    if "s" in inputs:
        return {
            "log_e_two_sided": s.normal_log_mixture(inputs["s"], v, two),
            "log_e_one_sided": s.normal_log_mixture(inputs["s"], v, one, one_sided=True),
        }
    return {
        "two_sided_bound": s.normal_bound(v, params["alpha"], two),
        "one_sided_bound": s.normal_bound(v, params["alpha"], one, one_sided=True),
    }


def confseq_gamma(bound: Callable[..., float]) -> Callable[[Vector, Vector], Answer]:
    def call(params: Vector, inputs: Vector) -> Answer:
        rho = s.mixture_rho(params["v_opt"], params.get("alpha_opt", 0.05), one_sided=True)
        return {"bound": bound(inputs["intrinsic_time_v"], params["alpha"], rho, params["c"])}

    return call


def confseq_stitching(params: Vector, inputs: Vector) -> Answer:
    found = s.stitched_bound(
        inputs["intrinsic_time_v"],
        params["alpha"],
        params["v_min"],
        scale=params["c"],
        s=params["s"],
        eta=params["eta"],
    )
    return {"bound": found}


def confseq_bernoulli(params: Vector, inputs: Vector) -> Answer:
    return {"ci": ends(s.bernoulli_interval(count(inputs), alpha=params["alpha"], t_opt=params["t_opt"]))}


def group_sequential(params: Vector, inputs: Vector) -> Answer:
    name = params["spending"]
    spending: Any = "pocock" if "pocock" in name else "power" if "power" in name else "obrien_fleming"
    phi = params.get("phi", params.get("rho", params.get("power", 1.0)))
    found = s.boundaries(
        inputs["information_fractions"],
        alpha=params["alpha"],
        sides=params["sides"],
        spending=spending,
        power=phi,
    )
    return {"z_bounds": list(found.z), "cumulative_alpha": list(found.spent)}


def sequential_constants(params: Vector, inputs: Vector) -> Answer:
    looks, alpha = inputs["looks"], params["alpha"]
    pocock = s.classical_constant(looks, alpha=alpha, kind="pocock")
    obf = s.classical_constant(looks, alpha=alpha, kind="obrien_fleming")
    return {
        "pocock_constant": pocock,
        "obrien_fleming_constant": obf,
        "published_pocock": round(pocock, 3),
        "published_obf": round(obf, 3),
    }


def sequential_inflation(params: Vector, inputs: Vector) -> Answer:
    looks, alpha, power = inputs["looks"], params["alpha"], params["power"]
    pocock = s.inflation(looks, alpha=alpha, power=power, kind="pocock")
    obf = s.inflation(looks, alpha=alpha, power=power, kind="obrien_fleming")
    return {
        "pocock_inflation": pocock,
        "obf_inflation": obf,
        "published_pocock": round(pocock, 3),
        "published_obf": round(obf, 3),
    }


def peeking(params: Vector, inputs: Vector) -> Answer:
    return {"type_I_error": s.peeking_error(inputs["looks"], alpha=params["alpha"])}


def srm(method: Any) -> Callable[[Vector, Vector], Answer]:
    def call(params: Vector, inputs: Vector) -> Answer:
        phase = s.Phase(tuple(inputs["counts"]), tuple(inputs["weights"]))
        found = s.sample_ratio([phase], method=method)
        return {"chi2": found.statistic, "p_value": found.p_value, "log10_p_value": found.log10_p_value}

    return call


def srm_sequential(params: Vector, inputs: Vector) -> Answer:
    logs, running, p_value = [], [], 1.0
    for look in inputs["cumulative_counts"]:
        found = s.sequential_sample_ratio(
            [s.Phase(tuple(look), tuple(inputs["weights"]))],
            previous_p=p_value,
            concentration=params["dirichlet_concentration_k"],
        )
        p_value = found.p_value
        logs.append(found.log_bayes_factor)
        running.append(p_value)
    return {"log_bayes_factor_by_look": logs, "running_p": running}


def merge(params: Vector, inputs: Vector) -> Answer:
    parts = [
        s.Moments.from_mean(part["n"], part["mean"], part["m2"] / part["n"], ddof=0)
        for part in inputs["parts"]
    ]
    found = s.total(parts)
    return {"n": found.count, "mean": found.mean(), "variance": found.variance()}


def cancellation(params: Vector, inputs: Vector) -> Answer:
    found = s.Moments.from_sums(
        inputs["n"],
        {"y": inputs["centred_sum"]},
        {("y", "y"): inputs["centred_sum_squares"]},
        shift={"y": inputs["offset"]},
    )
    raw = s.Moments.from_sum(inputs["n"], inputs["raw_sum"], inputs["raw_sum_squares_float64"])
    # Raw sums either still hold the variance, or say that they do not.
    if raw.flaw is None:
        assert math.isclose(raw.variance() or 0.0, found.variance() or 0.0, rel_tol=1.0 / 64.0)
    else:
        assert raw.flaw is s.Reason.PRECISION_LOSS
        assert s.compare(raw, raw).p_value is None
    return {"variance": found.variance(), "mean": found.mean()}


def degenerate(params: Vector, inputs: Vector) -> Answer:
    found = s.compare(*arms(inputs))
    reason = "ok" if found.reason is None else found.reason.value
    return {
        "status": "insufficient_data" if reason == "no_data" else reason,
        "estimate": found.estimate,
        "abs_estimate": found.estimate,
        "p_value": found.p_value,
        "abs_p_value": found.p_value,
        "ci": ends(found.interval),
        "lift": found.lift.value,
        "lift_ci": ends(found.lift.interval),
    }


CALLS: dict[str, Callable[[Vector, Vector], Answer]] = {
    "bandit_thompson_normal": bandit,
    "bayes_beta_binomial": bayes_beta,
    "bayes_gamma_poisson": bayes_gamma,
    "bayes_normal": bayes_normal,
    "bayes_normal_loss": bayes_loss,
    "bootstrap_two_sample": bootstrap,
    "cluster_ratio_variance": cluster_ratio,
    "confseq_bernoulli": confseq_bernoulli,
    "confseq_gamma_exponential": confseq_gamma(s.gamma_exponential_bound),
    "confseq_gamma_poisson": confseq_gamma(s.gamma_poisson_bound),
    "confseq_normal_mixture": normal_mixture,
    "confseq_stitching": confseq_stitching,
    "cuped_lin": cuped_lin,
    "cuped_multi": cuped_multi,
    "cuped_ratio": cuped_ratio,
    "cuped_relative_linearised": cuped_linearised,
    "cuped_single": cuped_single,
    "degenerate_contract": degenerate,
    "equivalence_tost": equivalence,
    "gb_post_strat": gb_post_strat,
    "group_sequential_bounds": group_sequential,
    "group_sequential_constants": sequential_constants,
    "group_sequential_inflation": sequential_inflation,
    "hte_interaction": hte_interaction,
    "hte_meta": hte_meta,
    "lift_delta_welch": lift_delta,
    "lift_fieller": lift_fieller,
    "lift_log_ratio": lift_log,
    "mann_whitney": mann_whitney,
    "mde_means": mde_means,
    "mde_relative_delta": mde_relative,
    "moment_merge": merge,
    "multiple_testing": multiple,
    "non_inferiority": non_inferiority,
    "peeking_inflation": peeking,
    "post_strat": post_strat,
    "power_means": power_means,
    "power_proportions": power_proportions,
    "power_ratio_allocation": power_allocation,
    "power_sequential_single_look": power_sequential,
    "prop_contingency": contingency,
    "prop_diff_ci": proportion_difference,
    "prop_exact": proportion_exact,
    "prop_one_sample_ci": one_proportion,
    "prop_ratio_ci": proportion_ratio,
    "prop_ztest_pooled": pooled_z,
    "prop_ztest_unpooled": unpooled_z,
    "quantile_cluster_deng": quantile_deng,
    "quantile_deng": quantile_deng,
    "quantile_exact_ci": quantile_exact,
    "quantile_point": quantile_point,
    "ratio_delta": ratio,
    "sample_size_means": sample_size_means,
    "sample_size_proportions": sample_size_proportions,
    "seq_asympcs": seq_asympcs,
    "seq_asympcs_one_sided_exact": seq_one_sided,
    "seq_lift_fieller": seq_fieller,
    "seq_linear_model": seq_linear,
    "seq_msprt": seq_msprt,
    "seq_multiplier": seq_multiplier,
    "srm_chi2": srm("chi_square"),
    "srm_exact_binomial": srm("exact"),
    "srm_sequential": srm_sequential,
    "student_t_pooled": student,
    "variance_cancellation": cancellation,
    "welch_t": welch,
    "welch_t_one_sided": welch,
    "winsorize": winsorize,
}
