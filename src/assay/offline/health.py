"""Can the numbers be trusted? Each finding says what it looked at; all are made, whatever the others say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from assay.offline.request import Kind, Request
from assay.offline.units import Read
from assay.offline.wording import number, percent
from assay.stats.srm import SampleRatio

State = Literal["ok", "warning", "failed"]

#: Below these, chance says more than the variants do.
FEWEST_UNITS: Final = 100
FEWEST_SUCCESSES: Final = 10
#: Units in several variants: above this share the assignment itself is broken.
MOST_SEVERAL: Final = 0.01
#: A difference before the experiment that chance makes once in a thousand times.
IMBALANCE: Final = 0.001


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: its name, state and sentence, and the numbers behind it."""

    name: str
    state: State
    sentence: str
    inputs: Mapping[str, object]


def findings(
    request: Request,
    found: Read,
    order: Sequence[str],
    ratio: SampleRatio,
    balance: Mapping[tuple[str, str], float],
) -> tuple[Finding, ...]:
    """All checks, in the order in which they matter."""
    made = [_sample_ratio(order, ratio), _one_variant(found), _complete_rows(request, found)]
    made += _values(request, found)
    if request.covariates:
        made.append(_balance(balance))
    made.append(_enough_units(found))
    return tuple(made)


def _sample_ratio(order: Sequence[str], ratio: SampleRatio) -> Finding:
    counts = ", ".join(f"{name} {count:,}" for name, count in zip(order, ratio.counts, strict=True))
    wanted = ", ".join(f"{name} {number(count)}" for name, count in zip(order, ratio.expected, strict=True))
    inputs = {
        "counts": dict(zip(order, ratio.counts, strict=True)),
        "expected": dict(zip(order, ratio.expected, strict=True)),
        "method": ratio.method,
        "p_value": ratio.p_value,
        "threshold": ratio.threshold,
    }
    if not ratio.mismatch:
        return Finding(
            "sample_ratio", "ok", f"The arms have the sizes that were expected ({counts}).", inputs
        )
    return Finding(
        "sample_ratio",
        "failed",
        f"The arms have {counts} units where {wanted} were expected (p = {ratio.p_value:.2g}): units were "
        "lost or assigned wrongly, so do not trust the effects. If another split was meant, say it with "
        "--expected.",
        inputs,
    )


def _one_variant(found: Read) -> Finding:
    all_units = sum(found.units.values()) + found.several
    inputs = {"units": found.several, "of": all_units, "examples": list(found.examples)}
    if not found.several:
        return Finding("one_variant", "ok", "Every unit has one variant.", inputs)
    share = found.several / all_units
    sentence = (
        f"{found.several:,} units ({percent(share)}) have rows of several variants and are left out, "
        f"{', '.join(found.examples)} for example."
    )
    return Finding("one_variant", "failed" if share > MOST_SEVERAL else "warning", sentence, inputs)


def _complete_rows(request: Request, found: Read) -> Finding:
    inputs = {"rows": found.rows, "left_out": found.left_out}
    if not found.left_out:
        return Finding("complete_rows", "ok", f"All {found.rows:,} rows name a unit and a variant.", inputs)
    return Finding(
        "complete_rows",
        "warning",
        f"{found.left_out:,} of {found.rows:,} rows have no {request.unit!r} or no {request.variant!r} "
        "and are left out.",
        inputs,
    )


def _values(request: Request, found: Read) -> list[Finding]:
    made = []
    for metric in request.metrics:
        empty = found.without_value.get(metric.name, 0)
        if empty:
            taken = request.missing == "zero" and metric.aggregate in {"sum", "any", "count"}
            what = "count as 0" if taken else "are left out of this metric"
            made.append(
                Finding(
                    "values",
                    "warning",
                    f"{empty:,} units have no value of {metric.name} and {what}.",
                    {"metric": metric.name, "units": empty},
                )
            )
        arms = found.whole[metric.name].values()
        if metric.kind is Kind.CONVERSION and arms:
            fewest = min(min(arm.successes or 0, arm.units - (arm.successes or 0)) for arm in arms)
            if fewest < FEWEST_SUCCESSES:
                made.append(
                    Finding(
                        "few_conversions",
                        "warning",
                        f"{metric.name} has an arm with only {fewest} units that did, or did not, convert: "
                        "its numbers move with every single one.",
                        {"metric": metric.name, "fewest": fewest},
                    )
                )
    for column, gaps in found.gaps.items():
        if gaps:
            made.append(
                Finding(
                    "covariate_gaps",
                    "ok",
                    f"{gaps:,} units have no {column}; they are adjusted by a level of their own.",
                    {"covariate": column, "units": gaps},
                )
            )
    return made


def _balance(balance: Mapping[tuple[str, str], float]) -> Finding:
    inputs = {
        "p_values": [
            {"covariate": column, "treatment": treatment, "p_value": p}
            for (column, treatment), p in balance.items()
        ],
        "threshold": IMBALANCE,
    }
    worst = min(balance, key=lambda key: balance[key], default=None)
    if worst is None or balance[worst] > IMBALANCE:
        return Finding("balance", "ok", "The arms were alike before, as far as the covariates tell.", inputs)
    return Finding(
        "balance",
        "failed",
        f"The arms differed in {worst[0]} before anything could have an effect ({worst[1]}, p = "
        f"{balance[worst]:.2g}): the assignment was not random, or {worst[0]} was measured too late.",
        inputs,
    )


def _enough_units(found: Read) -> Finding:
    fewest = min(found.units.values())
    inputs = {"fewest_units": fewest, "wanted": FEWEST_UNITS}
    if fewest >= FEWEST_UNITS:
        return Finding("enough_units", "ok", f"Every variant has at least {FEWEST_UNITS} units.", inputs)
    return Finding(
        "enough_units",
        "warning",
        f"The smallest variant has {number(fewest)} units: below {FEWEST_UNITS}, chance decides easily.",
        inputs,
    )
