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
#: The truth of the simulation: who signs up, and what those who then buy spend.
_SIGN_UP = {"control": 0.100, "new-checkout": 0.116}
_BUYS = 0.4
_MEDIAN_ORDER, _ORDER_SPREAD = 30.0, 0.8

_DEFINITION = {
    "key": "demo-checkout",
    "name": "New checkout",
    "description": "A simulated experiment: the true effect is known.",
    "hypothesis": "The new checkout makes more visitors sign up.",
    "variants": [
        {"name": "control", "allocation": 0.5, "is_control": True},
        {"name": "new-checkout", "allocation": 0.5, "config": {"checkout": "new"}},
    ],
    "metrics": ["signup", {"name": "revenue", "type": "revenue", "event_type": "purchase"}],
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
    """Create the experiment two weeks ago, and import who came since and what they did."""
    started = utc_now() - timedelta(days=_DAYS)
    with stores.database.writing(_ACTOR, started) as tx:
        experiments.create(tx, parse(ExperimentCreate, _DEFINITION))
    experiment = stores.published.ruleset.by_key["demo-checkout"]
    with tempfile.TemporaryDirectory() as directory:
        assignments, events = Path(directory, "assignments.ndjson"), Path(directory, "events.ndjson")
        with assignments.open("wb") as who, events.open("wb") as what:
            for row, done in _visitors(experiment, users, started, rng):
                who.write(msgspec.json.encode(row) + b"\n")
                what.writelines(msgspec.json.encode(each) + b"\n" for each in done)
        for kind, path in (("assignments", assignments), ("events", events)):
            request = {"kind": kind, "path": str(path), "experiment": experiment.key}
            perform(stores, {"do": "import", "request": request}, _quiet)


def _quiet(_message: dict[str, Any]) -> None:
    """The demo has nothing to say about its own import."""


def _visitors(
    experiment: Experiment, users: int, started: datetime, rng: random.Random
) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Each user's assignment, by the real bucketing, and events."""
    span = timedelta(days=_DAYS).total_seconds() - 3 * 3600
    for number in range(users):
        user_id = f"user-{number:06d}"
        variant = evaluate(experiment, user_id, user_id, {}).variant
        if variant is None:
            continue
        at = started + timedelta(seconds=rng.uniform(0, span))
        done: list[dict[str, Any]] = []
        if rng.random() < _SIGN_UP[variant.key]:
            signed = at + timedelta(seconds=rng.uniform(20, 3600))
            done.append({"user_id": user_id, "type": "signup", "timestamp": signed.isoformat()})
            if rng.random() < _BUYS:
                spent = round(_MEDIAN_ORDER * rng.lognormvariate(0, _ORDER_SPREAD), 2)
                bought = signed + timedelta(seconds=rng.uniform(60, 3600))
                done.append(
                    {"user_id": user_id, "type": "purchase", "timestamp": bought.isoformat(), "value": spent}
                )
        yield {"user_id": user_id, "variant": variant.key, "assigned_at": at.isoformat()}, done


def _report(stores: EmbeddedStores) -> Report:
    stores.drain.flush()
    now = utc_now()
    with stores.database.reading() as tx:
        spec = read_spec(tx, "demo-checkout")
    return build(stores.store, spec, ask({}, now), now)


def _show(console: Console, report: Report) -> None:
    """The report as a table, beside the truth."""
    control, treatment = _SIGN_UP["control"], _SIGN_UP["new-checkout"]
    truth = f"{treatment / control - 1:+.0%}"
    table = Table(title=f"{report.spec.name}: {report.decision.text}", title_justify="left", expand=False)
    for name in ("metric", "control", "new-checkout", "lift", "95 % interval", "p", "true lift"):
        table.add_column(name, justify="left" if name == "metric" else "right")
    for metric in report.metrics:
        for each in metric.comparisons:
            effect, lift = each.effect, each.effect.lift
            interval = lift.interval
            bounds = (
                "–"
                if interval is None or interval.low is None or interval.high is None
                else f"{interval.low:+.1%} … {interval.high:+.1%}"
            )
            form = "{:.2%}" if metric.metric.type.value == "conversion" else "{:.3f}"
            table.add_row(
                metric.metric.name,
                "–" if effect.control is None else form.format(effect.control),
                "–" if effect.treatment is None else form.format(effect.treatment),
                "–" if lift.value is None else f"{lift.value:+.1%}",
                bounds,
                "–" if effect.p_value is None else f"{effect.p_value:.4f}",
                truth,
            )
    console.print(table)
