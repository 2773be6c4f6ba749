"""Commands that need no server and no data directory: analyze a file, plan an experiment, try a design."""

import json
import sys
from typing import Annotated, Any

import typer

offline_app = typer.Typer()

_Many = list[str] | None
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document with unrounded numbers.")]


@offline_app.command()
def analyze(
    file: Annotated[
        str, typer.Argument(help="CSV, Parquet or NDJSON; or a pattern such as 'data/*.parquet'.")
    ],
    unit: Annotated[str, typer.Option(help="Column of who was randomised, user_id for example.")],
    variant: Annotated[str, typer.Option(help="Column of the variant.")],
    metric: Annotated[
        _Many, typer.Option(help="Column of numbers: the mean over units of each unit's total. Repeatable.")
    ] = None,
    conversion: Annotated[
        _Many, typer.Option(help="Column of yes/no or numbers: the share of units with any. Repeatable.")
    ] = None,
    count: Annotated[
        _Many, typer.Option(help="Column: filled rows for each unit; * counts all rows. Repeatable.")
    ] = None,
    ratio: Annotated[
        _Many, typer.Option(help="NUMERATOR/DENOMINATOR: a ratio of two totals. Repeatable.")
    ] = None,
    quantile: Annotated[
        _Many, typer.Option(help="LEVEL:COLUMN, as 0.95:latency: a quantile of the rows. Repeatable.")
    ] = None,
    covariate: Annotated[
        _Many, typer.Option(help="Column known before the experiment: less noise by CUPED. Repeatable.")
    ] = None,
    control: Annotated[
        str | None,
        typer.Option(help="The variant to compare with.", show_default="control, baseline, off, a, 0"),
    ] = None,
    aggregate: Annotated[
        _Many,
        typer.Option(
            help="sum, mean, count, any or max over the rows of a unit, for all --metric or as COLUMN=HOW.",
            show_default="sum; mean for covariates",
        ),
    ] = None,
    cap: Annotated[
        _Many, typer.Option(help="COLUMN=500 or COLUMN=99%: larger totals of a --metric count as this.")
    ] = None,
    winsorise: Annotated[
        _Many, typer.Option(help="COLUMN=1%: pull this share of units at either end to the nearest other.")
    ] = None,
    lower_is_better: Annotated[
        _Many, typer.Option(help="Name of a metric that should fall. Repeatable.")
    ] = None,
    segment: Annotated[
        _Many, typer.Option(help="Column to look at the effect by, behind a test of difference. Repeatable.")
    ] = None,
    where: Annotated[
        str | None, typer.Option(help="Keep only rows for which this SQL condition holds: country = 'DE'.")
    ] = None,
    expected: Annotated[
        str | None, typer.Option(help="Split that was meant: control=0.9,new=0.1.", show_default="equal")
    ] = None,
    missing: Annotated[
        str,
        typer.Option(
            help="A unit without any value counts as zero, or exclude leaves it out of the metric; "
            "under mean and max it is always left out."
        ),
    ] = "zero",
    method: Annotated[
        str, typer.Option(help="fixed (one look), group-sequential, always-valid or bayesian.")
    ] = "fixed",
    alpha: Annotated[float, typer.Option(help="Chance of a false alarm that is accepted.")] = 0.05,
    one_sided: Annotated[bool, typer.Option("--one-sided", help="Ask only whether it is better.")] = False,
    correction: Annotated[
        str,
        typer.Option(
            help="For several comparisons: holm, bonferroni, sidak, holm_sidak, hochberg, hommel, "
            "benjamini_hochberg, benjamini_yekutieli or none."
        ),
    ] = "holm",
    planned: Annotated[
        int | None, typer.Option(help="Units of all arms at the planned end, for sequential methods.", min=1)
    ] = None,
    looks: Annotated[
        str | None, typer.Option(help="Earlier group-sequential looks as shares of the plan: 0.25,0.5.")
    ] = None,
    final: Annotated[
        bool, typer.Option("--final", help="This group-sequential look is the last, planned size or not.")
    ] = False,
    memory: Annotated[
        str, typer.Option(help="Memory for the file; more goes to a temporary disk file.")
    ] = "1GiB",
    format: Annotated[  # noqa: A002 - the flag's name
        str | None, typer.Option(help="csv, parquet or ndjson.", show_default="by the suffix")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Analyze the result of an experiment in a file: effects, intervals, and whether to trust them.

    A file has one row for each unit, or several. Exit code 0: analysed. 1: it could not be, the sentence on
    standard error says why. 2: a wrong flag. 3: analysed, but a health check failed; do not act on it.
    """
    from assay.offline import request as asked
    from assay.offline.report import analyze as run

    metrics = asked.metrics_of(
        means=metric or [],
        conversions=conversion or [],
        counts=count or [],
        ratios=ratio or [],
        quantiles=quantile or [],
    )
    covariates = tuple(dict.fromkeys(covariate or []))
    metrics, of_covariates = asked.with_aggregates(metrics, covariates, aggregate or [])
    metrics = asked.with_limits(metrics, cap or [], winsorise or [])
    metrics = asked.with_directions(metrics, lower_is_better or [])
    found = run(
        asked.Request(
            path=file,
            unit=unit,
            variant=variant,
            metrics=metrics,
            covariates=covariates,
            covariate_aggregates=of_covariates,
            control=control,
            segments=tuple(dict.fromkeys(segment or [])),
            where=where,
            expected=asked.shares_of("--expected", expected),
            missing=asked.one_of("--missing", missing, asked.MISSING),
            judging=asked.Judging(
                method=asked.one_of("--method", method, asked.METHODS),
                alpha=alpha,
                one_sided=one_sided,
                correction=asked.one_of("--correction", correction, asked.CORRECTIONS),
                planned=planned,
                earlier=asked.fractions_of("--looks", looks),
                final=final,
            ),
            form=None if format is None else asked.one_of("--format", format, asked.FORMATS),
            memory=memory,
        )
    )
    if as_json:
        from assay.offline.document import document

        _print_json(document(found))
    else:
        from rich.console import Console

        from assay.offline.table import show

        show(found, Console())
    if not found.healthy:
        raise SystemExit(3)


def _print_json(document: dict[str, Any]) -> None:
    json.dump(document, sys.stdout, indent=2, ensure_ascii=False, allow_nan=False)
    print()
