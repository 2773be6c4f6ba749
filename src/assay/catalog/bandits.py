"""Bandits: experiments that deal their traffic by what they have learnt, a phase for each split.

What is known of the variants is for the reports to say (`assay.reports.bandit`); here the shares change.
Units keep what they have. While something is wrong the split stays as it is, and the reason is on record.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from assay.catalog import documents
from assay.catalog.database import WriteTx
from assay.catalog.durations import minutes
from assay.catalog.editing import changing
from assay.catalog.tables import Experiment
from assay.errors import Invalid

#: Metrics that are no mean over units, whose posterior would be another one.
_NO_MEANS: Final = frozenset({"mean", "ratio", "quantile"})
#: Decimals of a share.
_DIGITS: Final = 4


def expect_sensible(experiment: Experiment) -> None:
    """Refuse a bandit that could not tell which variant is best, or deal its shares."""
    if not is_bandit(experiment):
        return
    primary = next((each for each in experiment.metrics if each["role"] == "primary"), None)
    if primary is None:
        raise Invalid.field("primary_metric", "is required of a bandit: it says which variant is best")
    if primary["type"] in _NO_MEANS:
        raise Invalid.field(
            "analysis.method",
            f"bandit needs a primary metric that is a share or a mean over units; {primary['key']} is a "
            f"{primary['type']} metric",
        )
    present = [each for each in experiment.variants if not each.removed]
    floor = experiment.analysis["floor"]
    if floor * len(present) >= 1.0:
        raise Invalid.field(
            "analysis.floor",
            f"must be less than {1.0 / len(present):.4g}, so that it leaves something to share out among "
            f"{len(present)} variants; got {floor:g}",
        )


def is_bandit(experiment: Experiment) -> bool:
    """Whether it re-weights its variants."""
    return experiment.analysis.get("method") == "bandit"


def hold(tx: WriteTx, experiment: Experiment, reason: str) -> None:
    """Leave the split as it is until the next time."""
    with changing(tx, experiment, "experiment.bandit_hold", reason):
        experiment.bandit_state = {**_times(tx, experiment), "held": reason, **_NOTHING}


def reweight(
    tx: WriteTx,
    experiment: Experiment,
    weights: Mapping[int, float],
    best: Mapping[int, float],
    losses: Mapping[int, float],
) -> None:
    """Deal new units these shares, by id of the variant, of what the variants named had together."""
    with changing(tx, experiment, "experiment.bandit_reweight"):
        dealt = {each.id: each for each in experiment.variants if each.id in weights}
        whole = sum(each.allocation for each in dealt.values())
        shares = {number: round(whole * weight, _DIGITS) for number, weight in weights.items()}
        largest = max(shares, key=lambda number: shares[number])
        shares[largest] = round(whole - sum(shares.values()) + shares[largest], 9)
        for number, share in shares.items():
            dealt[number].allocation = share
        experiment.bandit_state = {
            **_times(tx, experiment),
            "held": None,
            "weights": {dealt[number].key: share for number, share in shares.items()},
            "best": {dealt[number].key: value for number, value in best.items()},
            "losses": {dealt[number].key: value for number, value in losses.items()},
        }


_NOTHING: Final[Mapping[str, dict[str, float]]] = {"weights": {}, "best": {}, "losses": {}}


def _times(tx: WriteTx, experiment: Experiment) -> dict[str, str]:
    later = tx.now + timedelta(minutes=minutes(experiment.analysis["reweight_every"]))
    return {"at": documents.iso(tx.now), "next_at": documents.iso(later)}
