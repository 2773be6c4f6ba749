"""`assay demo`: a simulated experiment whose true effect is known, beside what Assay measures of it."""

import random
import shlex
import sys
import tempfile
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from assay.bucketing.evaluate import evaluate
from assay.bucketing.ruleset import Experiment
from assay.catalog import experiments
from assay.catalog.checks import parse
from assay.catalog.database import Actor
from assay.catalog.inputs import ExperimentCreate
from assay.errors import Conflict
from assay.reports.build import build
from assay.reports.picture import read_spec
from assay.reports.question import ask
from assay.reports.report import Report
from assay.serving import serve
from assay.settings import Settings
from assay.stores.base import utc_now
from assay.stores.commands import perform
from assay.stores.embedded import EmbeddedStores

_ACTOR = Actor("demo")
_DAYS = 14
#: The truth of the simulation: who signs up, who buys, and who meets an error, by variant. Those who bought
#: in the two weeks before are likelier to buy again, and spend about as much.
_SIGN_UP = {"control": 0.100, "new-checkout": 0.116}
_BUYS = {"control": 1.0, "new-checkout": 1.08}
_ERROR = 0.12
_CAME_BEFORE, _BUYS_AGAIN, _BUYS_ANEW = 0.35, 0.5, 0.1
_MEDIAN_ORDER, _ORDER_SPREAD, _ORDER_NOISE = 30.0, 0.7, 0.3
_TRUE_LIFT = {
    "signup": _SIGN_UP["new-checkout"] / _SIGN_UP["control"] - 1.0,
    "revenue": _BUYS["new-checkout"] / _BUYS["control"] - 1.0,
    "errors": 0.0,
}

_DEFINITION = {
    "key": "demo-checkout",
    "name": "New checkout",
    "description": "A simulated experiment: the true effect is known.",
    "hypothesis": "The new checkout makes more visitors sign up.",
    "variants": [
        {"name": "control", "allocation": 0.5, "is_control": True},
        {"name": "new-checkout", "allocation": 0.5, "config": {"checkout": "new"}},
    ],
    "metrics": [
        "signup",
        {"name": "revenue", "type": "revenue", "event_type": "purchase", "lookback": "14d"},
        {
            "name": "errors",
            "type": "count",
            "event_type": "error",
            "direction": "decrease",
            "role": "guardrail",
            "margin": {"relative": 0.15},
        },
    ],
    "primary_metric": "signup",
    "status": "running",
}


def run(settings: Settings, *, users: int, seed: int, serve_after: bool) -> int:
    """Fill an empty data directory with the experiment, show its report, and serve it; the exit code."""
    console = Console()
    stores = EmbeddedStores(settings)
    stores.open()
    try:
        if len(stores.published.ruleset):
            raise Conflict(
                f"{settings.data} holds experiments already: the demo wants a new directory.",
                code="not_empty",
            )
        console.print(f"Simulating {users:,} users over {_DAYS} days …")
        _simulate(stores, users, random.Random(seed))  # noqa: S311 - a simulation
        report = _report(stores)
        secret = stores.first_key()
    finally:
        stores.close()
    _show(console, report)
    console.print(
        _where_to_look(settings, secret, serve_after=serve_after),
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    sys.stdout.flush()
    return serve(settings) if serve_after else 0


def _where_to_look(settings: Settings, secret: str | None, *, serve_after: bool) -> str:
    """The data, the key, and the commands to start with."""
    kept = settings.data / "admin.key"
    experiment = f"http://{settings.host}:{settings.port}/api/v1/experiments/demo-checkout"
    lines = [f"\nThe data are in {settings.data}."]
    if secret is not None:
        lines.append(f"The admin key is {secret} (kept in {kept}).")
    lines.append("Where to look:\n")
    if not serve_after:
        lines.append(f"  assay serve --data {shlex.quote(str(settings.data))} --port {settings.port}")
    if settings.admin_secrets or not kept.exists():
        lines.append("  KEY=the-key  # the one in API_TOKEN or ADMIN_TOKEN")
    else:
        lines.append(f"  KEY=$(cat {shlex.quote(str(kept))})")
    lines += [f'  curl -H "Authorization: Bearer $KEY" {experiment}/{view}' for view in ("report", "results")]
    lines.append(f"  http://{settings.host}:{settings.port}/docs\n")
    return "\n".join(lines)


def _simulate(stores: EmbeddedStores, users: int, rng: random.Random) -> None:
    """Create the experiment two weeks ago, and import who came since, what they did, and had done before."""
    started = utc_now() - timedelta(days=_DAYS)
    with stores.database.writing(_ACTOR, started) as tx:
        experiments.create(tx, parse(ExperimentCreate, {**_DEFINITION, "target_sample_size": users}))
    experiment = stores.published.ruleset.by_key["demo-checkout"]
    with tempfile.TemporaryDirectory() as directory:
        files = {name: Path(directory, f"{name}.ndjson") for name in ("before", "assignments", "events")}
        with (
            files["before"].open("wb") as before,
            files["assignments"].open("wb") as who,
            files["events"].open("wb") as what,
        ):
            for earlier, row, done in _visitors(experiment, users, started, rng):
                before.writelines(msgspec.json.encode(each) + b"\n" for each in earlier)
                who.write(msgspec.json.encode(row) + b"\n")
                what.writelines(msgspec.json.encode(each) + b"\n" for each in done)
        for name, path in files.items():
            request: dict[str, object] = {"kind": "events", "path": str(path)}
            if name != "before":  # what was done before belongs to no experiment
                request |= {"kind": name, "experiment": experiment.key}
            perform(stores, {"do": "import", "request": request}, _quiet)


def _quiet(_message: dict[str, Any]) -> None:
    """The demo has nothing to say about its own import."""


def _visitors(
    experiment: Experiment, users: int, started: datetime, rng: random.Random
) -> Iterator[tuple[list[dict[str, Any]], dict[str, Any], list[dict[str, Any]]]]:
    """Each user's purchases of before, assignment, by the real bucketing, and events."""
    span = timedelta(days=_DAYS).total_seconds() - 3 * 3600
    for number in range(users):
        user_id = f"user-{number:06d}"
        variant = evaluate(experiment, user_id, user_id, {}).variant
        if variant is None:
            continue
        at = started + timedelta(seconds=rng.uniform(0, span))
        taste = _MEDIAN_ORDER * rng.lognormvariate(0, _ORDER_SPREAD)
        came_before = rng.random() < _CAME_BEFORE
        before = [_event(user_id, "purchase", at - timedelta(days=rng.uniform(1, 13)), taste)]
        done = []
        if rng.random() < _SIGN_UP[variant.key]:
            done.append(_event(user_id, "signup", at + timedelta(seconds=rng.uniform(20, 3600))))
        if rng.random() < _BUYS[variant.key] * (_BUYS_AGAIN if came_before else _BUYS_ANEW):
            spent = taste * rng.lognormvariate(0, _ORDER_NOISE)
            done.append(_event(user_id, "purchase", at + timedelta(seconds=rng.uniform(60, 7200)), spent))
        if rng.random() < _ERROR:
            done.append(_event(user_id, "error", at + timedelta(seconds=rng.uniform(1, 3600))))
        assigned = {"user_id": user_id, "variant": variant.key, "assigned_at": at.isoformat()}
        yield before if came_before else [], assigned, done


def _event(user_id: str, kind: str, at: datetime, value: float | None = None) -> dict[str, Any]:
    """One event as an import reads it."""
    spent = {} if value is None else {"value": round(value, 2)}
    return {"user_id": user_id, "type": kind, "timestamp": at.isoformat(), **spent}


def _report(stores: EmbeddedStores) -> Report:
    stores.drain.flush()
    now = utc_now()
    with stores.database.reading() as tx:
        spec = read_spec(tx, "demo-checkout")
    return build(stores.store, spec, ask({}, now), now)


def _show(console: Console, report: Report) -> None:
    """The report as a table, beside the truth."""
    table = Table(title=f"{report.spec.name}: {report.decision.text}", title_justify="left", expand=False)
    for name in ("metric", "control", "new-checkout", "lift", "interval", "p", "true lift"):
        table.add_column(name, justify="left" if name == "metric" else "right")
    for metric in report.metrics:
        for each in metric.comparisons:
            found = each.judged.numbers if each.judged is not None else None
            if found is None:
                continue
            interval = found.lift_interval
            bounds = (
                "–"
                if interval is None or interval.low is None or interval.high is None
                else f"{interval.low:+.1%} … {interval.high:+.1%}"
            )
            form = "{:.2%}" if metric.metric.type.value == "conversion" else "{:.3f}"
            table.add_row(
                metric.metric.name,
                "–" if found.control is None else form.format(found.control),
                "–" if found.treatment is None else form.format(found.treatment),
                "–" if found.lift is None else f"{found.lift:+.1%}",
                bounds,
                "–" if found.p_value is None else f"{found.p_value:.4f}",
                f"{_TRUE_LIFT[metric.metric.key]:+.0%}",
            )
    console.print(table)
