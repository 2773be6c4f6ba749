"""Known answers of posteriors, resampling, quantiles, multiplicity, segments and design."""

import math
from typing import Any

import numpy as np

from assay import stats as s
from stats.vector_fixed import Answer, Vector, arm, arms, counts, ends, plain, relative, side

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
    values = inputs["control_values"], inputs["treatment_values"]
    method = params["method"]
    if method == "auto":
        # The reference is exact for up to eight values in an arm, when none are tied.
        few = min(map(len, values)) <= 8 and len({*values[0], *values[1]}) == sum(map(len, values))
        method = "exact" if few else "asymptotic"
    found = s.mann_whitney(*values, alternative=side(params), method=method)
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
    found = s.quantile_interval(inputs["values"], inputs["p"], alpha=params["alpha"])
    # A limit that the sample is too small for is absent, not infinite.
    return {"ci": list(found.interval) if found.interval else [None, None]}


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
    common: dict[str, Any] = {
        "ratio": params.get("ratio", inputs.get("ratio_treatment_to_control", 1)),
        "alpha": params["alpha"],
        "power": params["power"],
        "alternative": side(params),
    }
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
            inputs["baseline"],
            inputs["absolute_diff"],
            inputs["n_per_arm"],
            alpha=params["alpha"],
            alternative=side(params),
        )
    }


def sample_size_proportions(params: Vector, inputs: Vector) -> Answer:
    def size(formula: Any) -> float:
        return s.sample_size_proportions(
            inputs["baseline"],
            inputs["absolute_mde"],
            alpha=params["alpha"],
            power=params["power"],
            alternative=side(params),
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
