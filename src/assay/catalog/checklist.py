"""What is worth a look before an experiment starts: warnings, never walls.

Only the control plane loads this room: it computes with `assay.stats`.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple, TypedDict

from sqlalchemy import select

from assay.catalog import metrics, slots
from assay.catalog.database import ReadTx
from assay.catalog.documents import percent
from assay.catalog.durations import minutes
from assay.catalog.editing import LIVE, whole
from assay.catalog.groups import listed
from assay.catalog.metrics import StoredMetric
from assay.catalog.tables import Experiment, Segment
from assay.errors import Unavailable
from assay.stats import Baseline, Design, detectable

#: How far back "lately" reaches.
LATELY = timedelta(days=7)
#: The share of the traffic that gets something new at first.
FIRST_SHARE = 0.2
_MOST_TYPES = 20
_MOST_NAMES = 5
_AMOUNTS = {"sum", "revenue", "mean", "quantile"}
_SHARES = {"conversion", "retention", "funnel", "threshold"}


class Item(TypedDict):
    """One thing that was looked at; `ok` is null where it could not be.

    `sentence` is for people; `field` names the experiment's field that is worth a look, null where none is.
    """

    name: str
    ok: bool | None
    field: str | None
    sentence: str
    inputs: dict[str, Any]


class Arrived(NamedTuple):
    """The latest events of one type: how many, which properties any of them has, how many have an amount."""

    events: int
    properties: frozenset[str]
    amounts: int


#: The latest events of a type in the last days; may raise `Unavailable`.
Arrivals = Callable[[str], Arrived]


def examine(tx: ReadTx, experiment: Experiment, arrivals: Arrivals, now: datetime) -> list[Item]:
    """Every item of the checklist, the most important first."""
    return [
        _primary(experiment),
        _power(experiment),
        _metric(experiment, arrivals),
        _margins(experiment),
        _targeting(tx, experiment),
        _layer(tx, experiment, now),
        _first_share(experiment),
        *([_ramp(experiment, now)] if experiment.ramp else []),
    ]


def event_types(experiment: Experiment) -> list[str]:
    """The types of events that are looked for: the first of those that the metrics read."""
    read = [each.event_type for each in _read(experiment.metrics)]
    activation = experiment.activation
    return list(dict.fromkeys([*([activation["event_type"]] if activation else []), *read]))[:_MOST_TYPES]


def unknown(name: str, sentence: str, error: Unavailable, inputs: dict[str, Any]) -> Item:
    """An item that could not be looked at."""
    said = f"{sentence} {error.detail}"
    return {"name": name, "ok": None, "field": None, "sentence": said, "inputs": inputs}


def warnings(items: Iterable[Item]) -> list[Item]:
    """The items that somebody should look at."""
    return [each for each in items if not each["ok"]]


def _primary(experiment: Experiment) -> Item:
    key = metrics.primary(experiment.metrics)
    inputs = {"primary_metric": key, "hypothesis": bool(experiment.hypothesis)}
    if key is None:
        return _warning(
            "plan",
            "primary_metric",
            "No primary metric is chosen: say which number decides before anybody sees it.",
            inputs,
        )
    deciding = next(each["name"] for each in experiment.metrics if each["key"] == key)
    if not experiment.hypothesis:
        return _warning(
            "plan",
            "hypothesis",
            f"{deciding} decides. Write down a hypothesis: what is expected of it, and why.",
            inputs,
        )
    return _fine("plan", f"{deciding} decides.", inputs)


def _power(experiment: Experiment) -> Item:
    """What the metric must be like for the planned sample to show the planned effect."""
    planned = experiment.analysis.get("planned_units") or experiment.target_sample_size
    effect = experiment.minimum_detectable_effect
    inputs: dict[str, Any] = {
        "planned_units": planned,
        "minimum_detectable_effect": effect,
        "power": experiment.power,
    }
    if planned is None or effect is None:
        missing = {
            "target_sample_size": planned is None and "planned sample",
            "minimum_detectable_effect": effect is None and "smallest lift worth finding",
        }
        field = next(name for name, lacks in missing.items() if lacks)
        lacking = " and no ".join(lacks for lacks in missing.values() if lacks)
        return _warning(
            "power",
            field,
            f"There is no {lacking}, so nobody can tell how long the experiment has to run.",
            inputs,
        )
    shares = [each.allocation for each in experiment.variants if not each.removed and each.allocation > 0]
    control = next(
        (each.allocation for each in experiment.variants if each.is_control and not each.removed), 0.0
    )
    others = sorted(shares)
    if control in others:
        others.remove(control)
    if not others or not control:
        return _warning(
            "power", "variants", "There is nothing to compare: one variant gets all of the traffic.", inputs
        )
    pair = planned * (control + others[0])
    design = _design(experiment, ratio=others[0] / control)
    smallest = detectable(Baseline(1.0, 1.0), pair, power=experiment.power, design=design).difference
    if not smallest:
        return _warning(
            "power",
            "power",
            f"A power of {_percent(experiment.power)} is what chance alone gives at a significance level of "
            f"{_percent(experiment.significance_level)}: choose one well above it.",
            inputs,
        )
    return _judged(experiment, effect / smallest, inputs)


def _judged(experiment: Experiment, spread: float, inputs: dict[str, Any]) -> Item:
    """`spread` is the largest ratio of standard deviation to mean at which the sample suffices."""
    key = metrics.primary(experiment.metrics)
    kind = next((each["type"] for each in experiment.metrics if each["key"] == key), "conversion")
    planned, effect, power = (
        inputs[name] for name in ("planned_units", "minimum_detectable_effect", "power")
    )
    says = (
        f"The planned {planned:,} unit{_s(planned)} can show a lift of {_percent(effect)} with a chance of "
        f"{_percent(power)}, provided that"
    )
    more = "That is a lot to ask: plan a larger sample, or look for a larger lift."
    if kind in _SHARES:
        least = 1 / (1 + spread * spread)
        inputs["least_share"] = least
        enough, says = least <= 0.5, f"{says} at least {_percent(least)} of the control's units convert."
    else:
        inputs["largest_spread"] = spread
        enough = spread >= 1
        says = f"{says} the standard deviation over units is at most {_three_digits(spread)} times the mean."
    return (
        _fine("power", says, inputs)
        if enough
        else _warning("power", "target_sample_size", f"{says} {more}", inputs)
    )


def _design(experiment: Experiment, *, ratio: float) -> Design:
    analysis = experiment.analysis
    method = analysis.get("method", "fixed")
    looks = analysis.get("looks") or len(analysis.get("look_dates", ()))
    return Design(
        test=method if method in {"group_sequential", "always_valid"} else "fixed",
        alpha=experiment.significance_level,
        alternative=analysis.get("alternative", "two-sided"),
        ratio=ratio,
        looks=min(looks, 50) or 28,
        spending=analysis.get("spending", "obrien_fleming"),
        spending_power=analysis.get("spending_power", 1.0),
    )


def _metric(experiment: Experiment, arrivals: Arrivals) -> Item:
    """Whether events of every metric came lately, with the property that is added up."""
    wanted = _read(experiment.metrics)
    types = event_types(experiment)
    inputs: dict[str, Any] = {"event_types": types, "days": LATELY.days}
    try:
        seen = {event_type: arrivals(event_type) for event_type in types}
    except Unavailable as error:
        return unknown("metric", "Whether events arrive could not be looked at.", error, inputs)
    silent = [event_type for event_type in types if not seen[event_type].events]
    here = [(each, seen[each.event_type]) for each in wanted if each.event_type in seen]
    bare = [
        (each.event_type, each.prop)
        for each, found in here
        if each.prop and found.events and each.prop not in found.properties
    ]
    worthless = [each.event_type for each, found in here if each.adds and found.events and not found.amounts]
    inputs |= {
        "without_events": silent,
        "without_property": [f"{event_type}.{prop}" for event_type, prop in bare],
        "without_amount": worthless,
    }
    said = []
    if silent:
        said.append(f"No event of type {_listed(silent, 'or')} has arrived in the last {LATELY.days} days.")
    said += [f"The latest events of type {event_type} have no property {prop}." for event_type, prop in bare]
    if worthless:
        said.append(f"The latest events of type {_listed(worthless)} carry no amount to add up.")
    if not types:
        return _warning("metric", "metrics", "There is no metric: nothing will be measured.", inputs)
    if said:
        said.append("Check what the application sends.")
        return _warning("metric", "metrics", " ".join(said), inputs)
    return _fine("metric", "Events of every metric have arrived lately.", inputs)


class _Read(NamedTuple):
    event_type: str
    prop: str | None = None
    adds: bool = False
    """Whether the amount as it was recorded is added up."""


def _read(found: Sequence[StoredMetric]) -> list[_Read]:
    """What the metrics read of events."""
    read: list[_Read] = []
    for metric in found:
        steps = metric.get("steps")
        if steps:
            read += [_Read(each["event_type"]) for each in steps]
        else:
            adds = metric["type"] in _AMOUNTS or metric.get("fold") == "sum"
            read.append(_Read(metric["event_type"], metric["property"], adds and not metric["property"]))
        below = metric.get("denominator")
        if below:
            prop = below.get("property")
            read.append(_Read(below["event_type"], prop, below["fold"] == "sum" and not prop))
    return read


def _margins(experiment: Experiment) -> Item:
    guards = metrics.guardrails(experiment.metrics)
    without = [each for each in experiment.metrics if each["key"] in guards and not each.get("margin")]
    inputs = {"guardrails": guards, "without_margin": [each["key"] for each in without]}
    if without:
        has = "has" if len(without) == 1 else "have"
        return _warning(
            "guardrails",
            "metrics",
            f"{_listed(each['name'] for each in without)} {has} no margin: say how much worse is still "
            "tolerable. Without it a guardrail can only show harm, never that there is none.",
            inputs,
        )
    said = "Every guardrail has a margin." if guards else "There is no guardrail."
    return _fine("guardrails", said, inputs)


def _targeting(tx: ReadTx, experiment: Experiment) -> Item:
    ids = [each.id for each in experiment.segments]
    rows = list(tx.scalars(select(Segment).where(Segment.id.in_(ids)))) if ids else []
    empty = [each.name for each in rows if not each.member_count and not each.rules]
    named = [each for each in listed(tx, [experiment.condition]) if not each.member_count]
    inputs = {
        "traffic_allocation": experiment.coverage,
        "segments": ids,
        "empty_segments": empty,
        "empty_lists": [each.key for each in named],
        "condition": experiment.condition is not None,
    }
    if experiment.coverage == 0:
        return _warning(
            "targeting",
            "traffic_allocation",
            "It takes 0 % of the traffic, so nobody can enter: open it to a share of the users.",
            inputs,
        )
    if rows and len(empty) == len(rows):
        return _warning(
            "targeting",
            "segments",
            f"Nobody is in the segment{_s(len(empty))} {_listed(empty)}, so nobody can enter.",
            inputs,
        )
    if named:
        return _warning(
            "targeting",
            "condition",
            f"Nobody is on {'a list' if len(named) == 1 else 'lists'} that the condition names: "
            f"{_listed(each.name for each in named)}. So “is on the list” holds for nobody, and “is not on "
            "the list” for everybody.",
            inputs,
        )
    wanted = [
        *(["are in its segments"] if rows else []),
        *(["meet its condition"] if experiment.condition is not None else []),
    ]
    who = f"Only those who {' and '.join(wanted)} can enter." if wanted else "Everybody can enter."
    return _fine("targeting", who, inputs)


def _layer(tx: ReadTx, experiment: Experiment, now: datetime) -> Item:
    """Room in the layer, and experiments under way with the same units and the same primary metric."""
    others = tx.scalars(
        select(Experiment)
        .where(
            Experiment.status.in_(LIVE), Experiment.id != experiment.id, Experiment.unit == experiment.unit
        )
        .order_by(Experiment.id)
        .options(*whole())
    )
    mine = _deciding(experiment)
    apart = experiment.layer_id
    shared = [
        other
        for other in others
        if (apart is None or other.layer_id != apart) and mine is not None and mine == _deciding(other)
    ]
    inputs = {"layer": experiment.layer, "same_metric": [each.key for each in shared]}
    lacking = slots.shortage(tx, experiment, now)
    if lacking is not None:
        return _warning("layer", "layer", f"It cannot start as it is: it {lacking}.", inputs)
    if shared:
        return _warning(
            "layer",
            "layer",
            "Under way with the same units and the same events deciding: "
            f"{_listed(each.name for each in shared)}. Put them into one layer if they could get in each "
            "other's way.",
            inputs,
        )
    return _fine("layer", "No experiment under way has the same units and the same events deciding.", inputs)


def _deciding(experiment: Experiment) -> str | None:
    key = metrics.primary(experiment.metrics)
    return next((each["event_type"] for each in experiment.metrics if each["key"] == key), None)


def _first_share(experiment: Experiment) -> Item:
    present = [each for each in experiment.variants if not each.removed and each.enabled]
    new = experiment.coverage * sum(each.allocation for each in present if not each.is_control)
    inputs = {"share_with_something_new": new}
    gets = f"{_percent(new)} of the eligible units get something new"
    if new > FIRST_SHARE + 1e-9:
        return _warning(
            "first_share",
            "traffic_allocation",
            f"{gets} at once: begin with 10 to 20 % of the traffic, look for faults for a day, then open it.",
            inputs,
        )
    return _fine("first_share", f"{gets}.", inputs)


def _ramp(experiment: Experiment, now: datetime) -> Item:
    """Steps still to come whose time has passed, or will have when the step before them opens."""
    opened = (experiment.ramp_state or {"opened": 0})["opened"]
    reached, at_once = now, []
    for number, step in enumerate(experiment.ramp or ()):
        if number < opened:
            continue
        if step.get("at"):
            at = datetime.fromisoformat(step["at"])
            if at <= reached:
                at_once.append((number, step))
            reached = max(at, reached)
        else:
            reached += timedelta(minutes=minutes(step["after"]))
    inputs = {"ramp": experiment.ramp, "at_once": [number for number, _ in at_once]}
    if at_once:
        one = len(at_once) == 1
        steps = _listed(
            f"{number + 1} (to {_percent(step['traffic_allocation'])} of the traffic)"
            for number, step in at_once
        )
        return _warning(
            "ramp",
            f"ramp[{at_once[0][0]}]",
            f"Step{_s(len(at_once))} {steps} of the ramp {'opens' if one else 'open'} at once, because the "
            f"time given has passed when {'its' if one else 'their'} turn comes. Give a later time, or how "
            "long after the step before.",
            inputs,
        )
    return _fine("ramp", "Every step has time before it.", inputs)


def _warning(name: str, field: str, sentence: str, inputs: dict[str, Any]) -> Item:
    return {"name": name, "ok": False, "field": field, "sentence": sentence, "inputs": inputs}


def _fine(name: str, sentence: str, inputs: dict[str, Any]) -> Item:
    return {"name": name, "ok": True, "field": None, "sentence": sentence, "inputs": inputs}


def _percent(share: float) -> str:
    """`11.2 %`, `0.0533 %`, `1,000 %`; `99.99 %`, because nearly all is not all."""
    shown = percent(share)
    least = min(shown, 100 - shown) if shown < 100 else shown
    decimals = 1 if least <= 0 else max(1, 2 - math.floor(math.log10(least)))
    return f"{shown:,.{decimals}f}".rstrip("0").rstrip(".") + " %"


def _three_digits(value: float) -> str:
    """`2.79`, `27,900`."""
    return f"{Decimal(f'{value:.3g}'):,f}"


def _s(count: int) -> str:
    return "" if count == 1 else "s"


def _listed(names: Iterable[str], last: str = "and") -> str:
    """`A`, `A and B`, `A, B and C`; of many the first, and how many more."""
    found = list(names)
    if len(found) > _MOST_NAMES:
        found = [*found[:_MOST_NAMES], f"{len(found) - _MOST_NAMES} more"]
    return f" {last} ".join(filter(None, [", ".join(found[:-1]), found[-1]]))
