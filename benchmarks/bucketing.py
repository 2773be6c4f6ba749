"""P9: one evaluation in process, without I/O, against the GrowthBook Python SDK in the same run."""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

from growthbook import Experiment as SdkExperiment
from growthbook import GrowthBook

from assay.bucketing.conditions import compile_condition
from assay.bucketing.evaluate import evaluate
from assay.bucketing.ruleset import Experiment, Status, Variant
from benchmarks.paths import Plan
from benchmarks.table import Line, table

_USERS = 10_000
_CONDITION = {"country": {"$in": ["US", "DE"]}}
_SPLIT: dict[str, Any] = {
    "variations": [0, 1],
    "key": "checkout",
    "seed": "checkout",
    "hashVersion": 2,
    "weights": [0.5, 0.5],
    "coverage": 0.8,
}

User = tuple[str, dict[str, Any]]
Evaluate = Callable[[list[User]], list[int | None]]


def _ours(condition: dict[str, Any] | None) -> Evaluate:
    experiment = Experiment.compile(
        id=1,
        key="checkout",
        name="Checkout",
        status=Status.RUNNING,
        variants=[Variant(0, "control", "Control", 0.5), Variant(1, "red", "Red", 0.5)],
        coverage=0.8,
        condition=compile_condition(condition) if condition else None,
    )

    def run(users: list[User]) -> list[int | None]:
        found: list[int | None] = []
        for user_id, attributes in users:
            variant = evaluate(experiment, user_id, user_id, attributes).variant
            found.append(None if variant is None else variant.id)
        return found

    return run


def _sdk_feature(users: list[User]) -> list[int | None]:
    """A client for each user, which asks for a feature: what a web application does for a request."""
    features = {"checkout": {"defaultValue": None, "rules": [{**_SPLIT, "condition": _CONDITION}]}}
    return [
        GrowthBook(attributes=attributes, features=features).eval_feature("checkout").value
        for _, attributes in users
    ]


def _sdk_experiment(condition: dict[str, Any] | None) -> Evaluate:
    """One client for all users, no features, no tracking: the least it can be asked to do."""
    client = GrowthBook(attributes={})
    experiment = SdkExperiment(**_SPLIT, condition=condition)

    def run(users: list[User]) -> list[int | None]:
        found: list[int | None] = []
        for _, attributes in users:
            client.set_attributes(attributes)
            result = client.run(experiment)
            found.append(result.variationId if result.inExperiment else None)
        return found

    return run


def bucketing(plan: Plan) -> str:
    """New users through an experiment of two variants; every answer must be the same on both sides.

    Processor time, not the clock, so that what else runs on the machine is left out.
    """
    users = [
        (f"user-{at}", {"id": f"user-{at}", "country": ("US", "DE", "FR")[at % 3], "age": at % 80})
        for at in range(_USERS)
    ]
    contestants: dict[str, tuple[Evaluate, str]] = {
        "GrowthBook SDK": (_sdk_feature, ""),
        "the same, least work": (_sdk_experiment(_CONDITION), ""),
        "the same, no condition": (_sdk_experiment(None), ""),
        "assay": (_ours(_CONDITION), "≥ 20 ×, ≤ 3 µs"),
        "assay, no condition": (_ours(None), "≤ 1.5 µs"),
    }
    seen: dict[str, list[float]] = {name: [] for name in contestants}
    answers: dict[str, list[int | None]] = {}
    for turn in range(plan.rounds + 1):
        for name, (run, _) in contestants.items():
            began = time.process_time()
            answers[name] = run(users)
            if turn:  # the first turn warms up
                seen[name].append(_USERS / (time.process_time() - began))
    if not answers["assay"] == answers["the same, least work"] == answers["GrowthBook SDK"]:
        raise AssertionError("with a condition, somebody gets another variant from the SDK")
    if answers["assay, no condition"] != answers["the same, no condition"]:
        raise AssertionError("without a condition, somebody gets another variant from the SDK")
    lines = [
        Line(name, seen[name], {"µs each": f"{1e6 / median(seen[name]):.2f}"}, goal=goal)
        for name, (_, goal) in contestants.items()
    ]
    return table("P9 · evaluation in process", "evaluations/s", lines, yardstick="GrowthBook SDK")
