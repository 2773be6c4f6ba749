"""The catalog's rows of one experiment as the frozen picture that reports read."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import or_, select

from assay.catalog import breakers, editing, looks, phases, preregistration
from assay.catalog.database import ReadTx
from assay.catalog.durations import microseconds, minutes
from assay.catalog.tables import Experiment, Look, Override, Phase
from assay.reports.spec import (
    AnalysisSpec,
    BanditSpec,
    BreakerSpec,
    CapSpec,
    DeviationSpec,
    Direction,
    ExperimentSpec,
    FilterSpec,
    LookSpec,
    LookVerdict,
    MarginSpec,
    MetricSpec,
    MetricType,
    NeighbourSpec,
    PhaseSpec,
    Role,
    SourceSpec,
    VariantSpec,
)

#: Other experiments that are looked at for units in common.
MOST_NEIGHBOURS = 50


def read_spec(tx: ReadTx, reference: int | str) -> ExperimentSpec:
    """The picture of the experiment with this id or key. Raises `NotFound`."""
    experiment = editing.find(tx, reference)
    overridden = tx.scalars(select(Override.unit_id).where(Override.experiment_id == experiment.id))
    found = preregistration.deviations(tx, experiment) if experiment.plan_hash is not None else []
    made = looks.listed(tx, experiment.id)
    spec = spec_of(experiment, phases.listed(tx, experiment.id), overridden, found, made)
    return replace(spec, neighbours=_neighbours(tx, experiment))


def _neighbours(tx: ReadTx, experiment: Experiment) -> tuple[NeighbourSpec, ...]:
    """The experiments that were under way with this one, the latest first."""
    begun, ended = experiment.started_at, experiment.ended_at
    if begun is None:
        return ()
    others = select(Experiment).where(
        Experiment.id != experiment.id,
        Experiment.unit == experiment.unit,
        Experiment.started_at.is_not(None),
        or_(Experiment.ended_at.is_(None), Experiment.ended_at > begun),
    )
    if ended is not None:
        others = others.where(Experiment.started_at < ended)
    latest = others.order_by(Experiment.started_at.desc(), Experiment.id).limit(MOST_NEIGHBOURS)
    return tuple(
        NeighbourSpec(
            row.id,
            row.key,
            tuple((each.id, each.key) for each in sorted(row.variants, key=lambda each: not each.is_control)),
        )
        for row in tx.scalars(latest.options(*editing.whole()))
    )


def spec_of(
    experiment: Experiment,
    history: Sequence[Phase],
    overridden: Iterable[str],
    deviations: Iterable[Mapping[str, Any]] = (),
    made: Iterable[Look] = (),
) -> ExperimentSpec:
    """The picture that these rows make."""
    metrics = tuple(metric_spec(metric) for metric in experiment.metrics)
    return ExperimentSpec(
        id=experiment.id,
        key=experiment.key,
        name=experiment.name,
        status=experiment.status,
        created_at=experiment.created_at,
        variants=tuple(
            VariantSpec(row.id, row.key, row.name, row.allocation, row.is_control, row.enabled, row.removed)
            for row in experiment.variants
        ),
        description=experiment.description,
        unit=experiment.unit,
        phases=tuple(_phase(row) for row in history),
        started_at=experiment.started_at,
        ended_at=experiment.ended_at,
        metrics=metrics,
        target_sample_size=experiment.target_sample_size,
        significance_level=experiment.significance_level,
        power=experiment.power,
        minimum_detectable_effect=experiment.minimum_detectable_effect,
        winner_id=experiment.winner_id,
        excluded_units=frozenset(overridden),
        analysis=analysis_of(experiment),
        activation=_source(experiment.activation) if experiment.activation else None,
        hypothesis=experiment.hypothesis,
        plan_hash=experiment.plan_hash,
        deviations=tuple(
            DeviationSpec(each["field"], each["change"], each["from"], each["to"], each["at"], each["by"])
            for each in deviations
        ),
        looks=tuple(map(_look, made)),
        breaker=_breaker(experiment),
    )


def _breaker(experiment: Experiment) -> BreakerSpec | None:
    breaker, state = experiment.breaker, experiment.breaker_state or {}
    if breaker is None:
        return None
    since = state.get("since_phase", 0)
    if not breakers.is_tripped(experiment):
        return BreakerSpec(breaker["action"], breaker["false_trip_rate"], since)
    at = datetime.fromisoformat(state["tripped_at"])
    return BreakerSpec(state["action"], breaker["false_trip_rate"], since, at, state["reason"])


def _look(row: Look) -> LookSpec:
    return LookSpec(row.number, row.at, row.units, row.fraction, tuple(map(_look_verdict, row.verdicts)))


def _look_verdict(stored: Mapping[str, Any]) -> LookVerdict:
    ends = stored["interval"]
    return LookVerdict(**{**stored, "interval": None if ends is None else tuple(ends)})


def _phase(row: Phase) -> PhaseSpec:
    dealt = ((each["id"], each["allocation"] if each["enabled"] else 0.0) for each in row.allocations)
    return PhaseSpec(row.number, row.started_at, row.ended_at, tuple(dealt))


def metric_spec(stored: Mapping[str, Any]) -> MetricSpec:
    window = stored.get("window") or {}
    opens = microseconds(window.get("delay") or stored.get("from")) or 0
    length = microseconds(window.get("duration"))
    return MetricSpec(
        key=stored["key"],
        name=stored["name"],
        type=MetricType(stored["type"]),
        event_type=stored["event_type"],
        prop=stored["property"],
        direction=Direction(stored["direction"]),
        role=Role(stored["role"]),
        description=stored.get("description") or "",
        where=_filters(stored),
        fold=stored.get("fold"),
        denominator=_source(stored["denominator"]) if stored.get("denominator") else None,
        quantile=stored.get("quantile"),
        by_event=stored.get("level") == "event",
        zeros=bool(stored.get("zeros")),
        steps=tuple(_source(each) for each in stored.get("steps", ())),
        at_least=stored.get("at_least"),
        opens=opens,
        closes=microseconds(stored.get("to")) if length is None else opens + length,
        complete_only=bool(stored.get("complete_only")),
        lookback=microseconds(stored.get("lookback")),
        cap=_cap(stored["cap"]) if stored.get("cap") else None,
        margin=_margin(stored["margin"]) if stored.get("margin") else None,
        definition=stored.get("definition"),
        definition_version=stored.get("definition_version"),
        registered=stored.get("registered", True),
    )


def _source(stored: Mapping[str, Any]) -> SourceSpec:
    return SourceSpec(
        stored["event_type"], _filters(stored), stored.get("fold", "count"), stored.get("property")
    )


def _filters(stored: Mapping[str, Any]) -> tuple[FilterSpec, ...]:
    return tuple(_filter(each) for each in stored.get("where", ()))


def _filter(stored: Mapping[str, Any]) -> FilterSpec:
    if "value" not in stored:
        return FilterSpec(stored["property"], stored["op"])
    value = stored["value"]
    values = tuple(value) if isinstance(value, list) else (value,)
    return FilterSpec(stored["property"], stored["op"], values)


def _cap(stored: Mapping[str, Any]) -> CapSpec:
    low = stored.get("lower")
    if "value" in stored:
        return CapSpec(stored["value"], low)
    return CapSpec(stored["percentile"] / 100, None if low is None else low / 100, is_quantile=True)


def _margin(stored: Mapping[str, Any]) -> MarginSpec:
    relative = "relative" in stored
    return MarginSpec(stored["relative" if relative else "absolute"], is_relative=relative)


def _bandit(stored: Mapping[str, Any], state: Mapping[str, Any] | None) -> BanditSpec | None:
    if stored.get("method") != "bandit":
        return None
    return BanditSpec(
        timedelta(minutes=minutes(stored["reweight_every"])),
        stored["floor"],
        stored["sampling"],
        stored["ship_probability"],
        stored["ship_loss"],
        None if state is None else datetime.fromisoformat(state["next_at"]),
    )


def analysis_of(experiment: Experiment) -> AnalysisSpec:
    """How the experiment is judged, and when a bandit is next re-weighted."""
    stored = experiment.analysis
    dates = tuple(datetime.fromisoformat(each) for each in stored.get("look_dates", ()))
    usual = AnalysisSpec()
    return AnalysisSpec(
        method=stored.get("method", usual.method),
        alternative=stored.get("alternative", usual.alternative),
        correction=stored.get("correction", usual.correction),
        cuped=stored.get("cuped", usual.cuped),
        looks=len(dates) or stored.get("looks"),
        look_dates=dates,
        spending=stored.get("spending", usual.spending),
        spending_power=stored.get("spending_power", usual.spending_power),
        planned_units=stored.get("planned_units"),
        bandit=_bandit(stored, experiment.bandit_state),
    )
