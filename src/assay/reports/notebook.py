"""A Jupyter notebook that makes a report's headline again from user rows, with numpy and scipy alone.

The rows are in the notebook where they are few; otherwise the notebook fetches them, or reads them from a
file beside it. It knows nothing of this package: what it computes with is in its cells (`headline.py`).
"""

import json
from collections.abc import Iterator
from datetime import datetime
from importlib.resources import files
from typing import Any, Final
from urllib.parse import urlencode

from assay.errors import Conflict
from assay.eventstore.base import EventStore
from assay.reports.arms import SHARES, value_of
from assay.reports.audience import Audience
from assay.reports.build import EVERYBODY, build
from assay.reports.compare import contrasts
from assay.reports.export import Row, user_columns, users, written
from assay.reports.judging import bandit_information, planned_units
from assay.reports.question import Question
from assay.reports.report import Comparison, MetricReport, Report
from assay.reports.spec import ExperimentSpec, MetricType
from assay.reports.units import UnitTable
from assay.reports.views.common import iso
from assay.reports.views.judgement import judged_document
from assay.stats import Reason
from assay.stats.bayesian import DEFAULT_PRIOR
from assay.stats.contrast import Ratio

#: Most units whose rows are put into the notebook itself.
EMBEDDED: Final = 20_000
MEDIA: Final = "application/x-ipynb+json"
_HELD: Final = """\
UNITS = read(TEXT, NAMES)
for said in REPORT["comparisons"]:
    print(f"{said['treatment']} against {said['control']}, {REPORT['metric']}")
    if said["reason"] is not None:
        print(f"  The report has no test: {said['sentence']}")
        continue
    for name, (told, found) in compare(recomputed(UNITS, REPORT, said), said).items():
        print(f"  {name:15} report {told:.12g}   rows {found:.12g}")
print("The rows and the report agree.")"""
_FETCHED: Final = """\
import os
import pathlib
import urllib.request

# There are too many rows to be kept in here: they come from a file beside it, or from the API.
SERVER = os.environ.get("ASSAY_URL", "http://127.0.0.1:8000")
KEY = os.environ.get("ASSAY_KEY", "put a viewer key here")
FILE = pathlib.Path({file})
if not FILE.exists():
    asked = urllib.request.Request(SERVER + {address}, headers={{"Authorization": f"Bearer {{KEY}}"}})
    with urllib.request.urlopen(asked) as answer:
        FILE.write_bytes(answer.read())
TEXT = FILE.read_text()"""
_CELL: Final = "# %%"
_MARKDOWN: Final = "# %% [markdown]"


def notebook(
    store: EventStore,
    spec: ExperimentSpec,
    question: Question,
    now: datetime,
    audience: Audience = EVERYBODY,
) -> bytes:
    """The notebook in nbformat 4.5; its report and the rows in it are of one moment.

    `audience` is what the question must know of users.

    It is about the first metric that the question names, else about the primary one. Raises `Conflict` for a
    quantile, which is not made of one number for each unit, and `Unavailable`.
    """
    with store.one_moment():
        report = build(store, spec, question, now, audience)
        of = report.metrics[0] if question.metrics else report.primary
        if of.metric.type is MetricType.QUANTILE:
            raise Conflict(
                f"The metric {of.metric.key} is a quantile, which the notebook does not make again. Name "
                "another in `metrics`; what the quantile was made of is in the report under `quantiles`.",
                code="no_notebook",
            )
        table = UnitTable.of(report, [of])
        few = sum(report.units.values()) <= EMBEDDED
        rows = _csv(table, users(report, table, store)) if few else None
    return document(report, of, table, rows)


def document(report: Report, of: MetricReport, table: UnitTable, rows: str | None) -> bytes:
    """The notebook on a metric; without `rows`, a CSV file, it fetches them."""
    names = [f"{of.metric.key}.{column}" for column in table.columns[of.metric]]
    said = json.dumps(_said(report, of), allow_nan=False)
    given = [
        _markdown(_about(report, of)),
        *_cells(),
        _markdown("## What the report says"),
        _code(f"import json\n\nREPORT = json.loads({said!r})\nNAMES = {names!r}"),
        _markdown("## The rows"),
        _code(_fetched(report, of) if rows is None else f"TEXT = {rows!r}"),
        _code(_HELD),
    ]
    found = {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "cells": [{"id": f"cell-{place}", **cell} for place, cell in enumerate(given, 1)],
    }
    return json.dumps(found, ensure_ascii=False, indent=1, allow_nan=False).encode()


def _about(report: Report, of: MetricReport) -> str:
    part = "" if report.question.segment is None else f", segment `{report.question.segment}` alone,"
    return (
        f"# {report.spec.name}: {of.metric.name}\n\n"
        f"> {report.decision.sentence}\n\n"
        f"The report on `{report.spec.key}`{part} of {iso(report.computed_at)}, made again from one row "
        "for each unit with numpy and scipy alone: every treatment's effect, interval and p-value on "
        f"`{of.metric.key}` by the method `{report.judged_as.analysis.method}`. The last cell stops where "
        "the rows say anything else than the report, to nine digits."
    )


def _said(report: Report, of: MetricReport) -> Row:
    """What the rows are held against, and what the plan says."""
    spec = report.judged_as
    value = value_of(of.metric)
    phases = sorted({phase for by_phase in of.tallies.values() for phase in by_phase})
    return {
        "experiment": spec.key,
        "computed_at": iso(report.computed_at),
        "metric": of.metric.key,
        "value": "/".join(value) if isinstance(value, Ratio) else value.column,
        "share": of.metric.type in SHARES,
        "method": "always_valid" if spec.analysis.method == "bandit" else spec.analysis.method,
        "planned_units": planned_units(spec),
        "shares": {
            str(phase): {
                str(arm.id): share for arm, share in zip(spec.variants, spec.weights(phase), strict=True)
            }
            for phase in phases
        },
        "comparisons": [_compared(report, of, each) for each in of.comparisons],
    }


def _compared(report: Report, of: MetricReport, each: Comparison) -> Row:
    judged, spec = each.judged, report.judged_as
    if judged is None:
        raise ValueError("the comparisons of a report are judged")
    before = spec.looks[-1].verdict(of.metric.key, each.treatment.id) if spec.looks else None
    said: dict[str, Any] = judged_document(each, judged, spec, report.blank(of))
    if judged.numbers.interval is None and said["reason"] is None:
        said |= {"reason": "waiting", "sentence": said["waiting"] or ""}
    adjusted = judged.adjusted_p_value
    fraction = None
    if spec.analysis.method == "bandit":
        fraction = bandit_information(spec, of.metric, each, contrasts(spec, of, each).plain)
    return {
        **said,
        "prior": None if judged.numbers.lift_reason is Reason.BASELINE_NOT_SEPARATED else DEFAULT_PRIOR.sd,
        "fraction": fraction,
        "previous_p": 1.0 if before is None or before.p_value is None else before.p_value,
        "rejected_in_family": adjusted is not None and adjusted <= report.alpha,
    }


def _cells() -> Iterator[Row]:
    """The cells of the file beside this one."""
    text = (files(__package__) / "headline.py").read_text(encoding="utf-8")
    _, *parts = ("\n" + text).split(f"\n{_CELL}")
    for part in parts:
        body = (_CELL + part).strip()
        if body.startswith(_MARKDOWN):
            lines = body.removeprefix(_MARKDOWN).strip().splitlines()
            yield _markdown("\n".join(line.removeprefix("#").removeprefix(" ") for line in lines))
        else:
            yield _code(body.removeprefix(_CELL).strip())


def _csv(table: UnitTable, rows: Iterator[Row]) -> str:
    return b"".join(written(user_columns(table), rows, "csv")).decode()


def _fetched(report: Report, of: MetricReport) -> str:
    """The cell that gets the rows: those of the moment when it runs, up to the end of the report."""
    asked = {"rows": "users", "metrics": of.metric.key, "end": report.end.isoformat()}
    if report.question.start is not None:
        asked["start"] = report.question.start.isoformat()
    if report.question.segment is not None:
        asked["segment"] = report.question.segment
    address = f"/api/v1/experiments/{report.spec.key}/export?{urlencode(asked)}"
    return _FETCHED.format(address=repr(address), file=repr(f"{report.spec.key}-users.csv"))


def _markdown(text: str) -> Row:
    return {"cell_type": "markdown", "metadata": {}, "source": text.splitlines(keepends=True)}


def _code(text: str) -> Row:
    return {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {},
        "outputs": [],
        "source": text.splitlines(keepends=True),
    }
