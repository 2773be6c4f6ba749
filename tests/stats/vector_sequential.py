"""Known answers of sequential methods, sample ratios and moments."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from assay import stats as s
from stats.vector_fixed import Answer, Vector, arms, count, counts, ends, side


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
