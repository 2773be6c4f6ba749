"""Circuit breakers: what one has done to an experiment, and how a person takes it back.

Whether a guardrail is harmed is for the reports to find (`assay.reports.breaker`). A breaker trips once. Who
resumes the experiment has seen the evidence, so from then on units alone count that come after, in a phase of
their own: the same evidence does not trip it again, new evidence does, at the same rate of false trips.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from assay.bucketing.ruleset import Status
from assay.catalog.database import WriteTx
from assay.catalog.documents import iso
from assay.catalog.metrics import StoredMetric
from assay.catalog.tables import Experiment
from assay.errors import Invalid

#: Whose units of some phases alone cannot be told apart afterwards.
UNWATCHED: Final = frozenset({"quantile"})


def expect_guardrails(breaker: Mapping[str, Any] | None, metrics: Sequence[StoredMetric]) -> None:
    """Refuse a breaker that no metric can trip."""
    watched = [each for each in metrics if each["role"] == "guardrail" and each["type"] not in UNWATCHED]
    if breaker is not None and not watched:
        raise Invalid.field(
            "circuit_breaker",
            "needs a guardrail that is not a quantile: name a metric in guardrail_metrics, or give one the "
            "role guardrail",
            code="no_guardrail",
        )


def is_tripped(experiment: Experiment) -> bool:
    """Whether it has tripped, and nobody has resumed the experiment since."""
    state = experiment.breaker_state
    return state is not None and state["resumed_at"] is None


def has_stopped(experiment: Experiment) -> bool:
    """Whether it was the breaker that ended the experiment, which a person may take back."""
    state = experiment.breaker_state or {}
    stopped = experiment.status == Status.STOPPED
    return stopped and is_tripped(experiment) and bool(state["action"] == "stop")


def tripped(tx: WriteTx, experiment: Experiment, evidence: Mapping[str, Any], reason: str) -> None:
    """Keep what it tripped at; for use where the experiment changes its state for it."""
    state, breaker = experiment.breaker_state or {}, experiment.breaker or {}
    experiment.breaker_state = {
        "action": breaker["action"],
        "tripped_at": iso(tx.now),
        "reason": reason,
        "evidence": dict(evidence),
        "resumed_at": None,
        "resumed_by": None,
        "since_phase": state.get("since_phase", 0),
    }


def rearm(tx: WriteTx, experiment: Experiment) -> None:
    """Watch again, from the phase that has just begun."""
    experiment.breaker_state = {
        **(experiment.breaker_state or {}),
        "resumed_at": iso(tx.now),
        "resumed_by": tx.actor.name,
        "since_phase": experiment.phase,
    }
