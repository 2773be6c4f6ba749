"""The load's own eyes: a server that does other than it said is found out, by the answer or in the end."""

import math
from collections.abc import Callable, Iterator

import pytest

from live import Server
from load import (
    DOUBT,
    HALF,
    PLAIN,
    REFUSED,
    STORED,
    UNSENT,
    Assigned,
    Histogram,
    Ledger,
    Load,
    Traffic,
    check,
    traffic_on,
)


@pytest.fixture(scope="module")
def traffic(shared_server: Server) -> Traffic:
    """Mixed traffic that has been answered, and was found whole."""
    made = traffic_on(shared_server, 1)
    report = Load(made, connections=8).run(2)
    assert {kind for kind, _ in report.statuses} == {
        "repeat", "first", "assign", "event", "nameless", "duplicate", "eligibility", "batch", "bulk",
    }  # fmt: skip
    found = check(made, report)
    assert found.assignments == len(made.ledger.assignments)
    assert found.events == made.ledger.states.count(STORED) + made.ledger.unnamed_states.count(STORED)
    return made


@pytest.fixture
def ledger(traffic: Traffic) -> Iterator[Ledger]:
    """Its ledger, which the test may falsify."""
    ledger = traffic.ledger
    kept = dict(ledger.assignments), bytes(ledger.states), bytes(ledger.unnamed_states), ledger.users
    owner = ledger.owners[0]
    yield ledger
    ledger.assignments, ledger.states, ledger.unnamed_states = kept[0], bytearray(kept[1]), bytearray(kept[2])
    ledger.users = kept[3]
    ledger.owners[0] = owner


def another_variant(ledger: Ledger) -> str:
    place, (variant, at) = next(iter(ledger.assignments.items()))
    ledger.assignments[place] = (variant + 1, at)
    return f"was {(variant + 1, at)} and is {(variant, at)}"


def another_time(ledger: Ledger) -> str:
    place, (variant, _) = next(iter(ledger.assignments.items()))
    ledger.assignments[place] = (variant, "2026-01-01T00:00:00.000000Z")
    return "was (1, '2026-01-01T00:00:00.000000Z')" if variant == 1 else "2026-01-01T00:00:00.000000Z"


def somebody_unknown(ledger: Ledger) -> str:
    ledger.users = max(ledger.assigned)
    return f"{ledger.user(ledger.users)} is in {ledger.experiments[PLAIN].key} and was never sent"


def an_event_that_is_lost(ledger: Ledger) -> str:
    number = ledger.states.index(REFUSED)
    ledger.states[number] = STORED
    return f"event {ledger.event_id(number)} was acknowledged and is not there"


def an_event_that_was_refused(ledger: Ledger) -> str:
    number = ledger.states.index(STORED)
    ledger.states[number] = REFUSED
    return f"{ledger.event_id(number)} was refused and is there"


def a_nameless_event_that_was_refused(ledger: Ledger) -> str:
    number = ledger.unnamed_states.index(STORED)
    ledger.unnamed_states[number] = REFUSED
    return f"nameless event {number} was refused and is there"


def an_event_of_somebody_else(ledger: Ledger) -> str:
    ledger.owners[0] += 1
    return "is not what was sent"


@pytest.mark.parametrize(
    "falsify",
    [
        another_variant,
        another_time,
        somebody_unknown,
        an_event_that_is_lost,
        an_event_that_was_refused,
        a_nameless_event_that_was_refused,
        an_event_of_somebody_else,
    ],
)
def test_read_back__what_differs_is_named(
    traffic: Traffic, ledger: Ledger, falsify: Callable[[Ledger], str]
) -> None:
    expected = falsify(ledger)
    findings = ledger.verify(traffic.target)
    assert findings.count >= 1
    assert any(expected in said for said in findings.said), findings


def test_read_back__what_is_in_doubt_may_be_there_or_not(traffic: Traffic, ledger: Ledger) -> None:
    ledger.states[ledger.states.index(STORED)] = DOUBT
    ledger.states[ledger.states.index(REFUSED)] = DOUBT
    findings = ledger.verify(traffic.target)
    assert not findings, findings
    assert findings.doubtful == 1
    assert UNSENT not in ledger.states


def test_answer__is_judged_at_once(ledger: Ledger) -> None:
    user = ledger.assigned[0]
    variant, at = ledger.assignments[ledger.place(user, PLAIN)]
    plain = ledger.experiments[PLAIN]
    name, config = plain.variants[variant]
    other = next(each for each in plain.variants if each != variant)

    def told(**changed: object) -> Assigned:
        said = {
            "experiment_id": plain.id,
            "user_id": ledger.user(user),
            "assigned": True,
            "variant_id": variant,
            "variant": name,
            "variant_name": name,
            "config": config,
            "reason": "assigned",
            "assigned_variant_id": variant,
            "assigned_at": at,
            "assignment_timestamp": at,
        }
        return Assigned(**{**said, **changed})  # type: ignore[arg-type]

    assert ledger.judge(user, PLAIN, told()) is None
    for wrong in (
        told(user_id=ledger.user(user + 1)),
        told(experiment_id=ledger.experiments[HALF].id),
        told(config={"arm": 7}),
        told(variant_name="another"),
        told(variant_id=other, variant=plain.variants[other][0], variant_name=plain.variants[other][0]),
        told(assigned_at="2026-01-01T00:00:00.000000Z", assignment_timestamp="2026-01-01T00:00:00.000000Z"),
        told(assignment_timestamp="2026-01-01T00:00:00.000000Z"),
        told(assigned=False, variant_id=None, config=None),
    ):
        assert ledger.judge(user, PLAIN, wrong) is not None, wrong


def test_histogram__percentiles_within_two_percent() -> None:
    values = [int(1.003**i) + 1 for i in range(7000)]
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    for share in (0.01, 0.5, 0.9, 0.99, 0.999, 1.0):
        exact = values[math.ceil(share * len(values)) - 1] / 1e3
        assert exact <= histogram.percentile(share) <= exact * 1.02
    assert math.isnan(Histogram().percentile(0.5))
