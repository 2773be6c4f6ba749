"""Commands that need no server: analyze a file, plan an experiment, try a design on units from anywhere."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay.errors import Invalid

if TYPE_CHECKING:
    from assay.settings import Settings

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


_Test = Annotated[str, typer.Option(help="fixed (one look), group-sequential or always-valid.")]
_Alpha = Annotated[float, typer.Option(help="Chance of a false alarm that is accepted.")]
_OneSided = Annotated[bool, typer.Option("--one-sided", help="Ask only whether it is better.")]
_Looks = Annotated[int, typer.Option(help="Equally spaced looks of a sequential test.", min=1, max=1000)]
_Where = Annotated[str | None, typer.Option(help="Keep only rows for which this SQL condition holds.")]


@offline_app.command()
def power(
    baseline: Annotated[
        float | None, typer.Option(help="Share of units that convert today, as 0.05, for a yes/no metric.")
    ] = None,
    mean: Annotated[
        float | None, typer.Option(help="Mean of the metric today, for any other metric.")
    ] = None,
    sd: Annotated[float | None, typer.Option(help="Standard deviation of --mean over units.")] = None,
    numerator_mean: Annotated[float | None, typer.Option(help="For a ratio: mean of the upper.")] = None,
    numerator_sd: Annotated[float | None, typer.Option(help="Its standard deviation over units.")] = None,
    denominator_mean: Annotated[float | None, typer.Option(help="For a ratio: mean of the lower.")] = None,
    denominator_sd: Annotated[float | None, typer.Option(help="Its standard deviation over units.")] = None,
    correlation: Annotated[
        float, typer.Option(help="Correlation of numerator and denominator over units.", min=-1.0, max=1.0)
    ] = 0.0,
    past: Annotated[
        str | None, typer.Option("--from", help="File of past units to take the baseline from, with --unit.")
    ] = None,
    unit: Annotated[str | None, typer.Option(help="With --from: column of the unit.")] = None,
    metric: Annotated[str | None, typer.Option(help="With --from: column of a mean.")] = None,
    conversion: Annotated[str | None, typer.Option(help="With --from: column of a conversion.")] = None,
    ratio: Annotated[str | None, typer.Option(help="With --from: NUMERATOR/DENOMINATOR.")] = None,
    covariate: Annotated[
        _Many, typer.Option(help="With --from: column for CUPED, which makes the experiment smaller.")
    ] = None,
    where: _Where = None,
    lift: Annotated[float | None, typer.Option(help="Relative effect to detect: 0.05 is +5 %.")] = None,
    difference: Annotated[
        float | None, typer.Option(help="Absolute effect to detect, in the metric's unit.")
    ] = None,
    units: Annotated[
        int | None, typer.Option(help="Units of all arms: find the detectable effect, or the power.", min=4)
    ] = None,
    power: Annotated[
        float | None, typer.Option(help="Chance to find the effect.", show_default="0.8")
    ] = None,
    alpha: _Alpha = 0.05,
    one_sided: _OneSided = False,
    lower_is_better: Annotated[
        bool, typer.Option("--lower-is-better", help="With --units: look for the detectable decrease.")
    ] = False,
    split: Annotated[float, typer.Option(help="Treatment units for each control unit; 0.25 is 80/20.")] = 1.0,
    treatments: Annotated[
        int, typer.Option(help="Treatments beside the control; they share alpha.", min=1, max=20)
    ] = 1,
    daily: Annotated[float | None, typer.Option(help="Units that enter a day, all arms: gives days.")] = None,
    method: _Test = "fixed",
    looks: _Looks = 28,
    as_json: _Json = False,
) -> None:
    """How many units and days an experiment needs, what it can detect, or with which power.

    Give the baseline and two of effect, units and power: the third is found. Sizes are for the normal
    approximation, sequential ones by their exact crossing probabilities. Exit code 0, or 1 with a sentence.
    """
    from assay.offline import design
    from assay.offline import request as asked
    from assay.stats import Baseline, Design

    if sum(way is not None for way in (baseline, mean, numerator_mean, past)) != 1:
        raise Invalid(
            "Give one baseline: --baseline, or --mean with --sd, or the four numbers of a ratio, or --from."
        )
    proportion = baseline is not None
    if baseline is not None:
        known = design.rate_baseline(baseline)
    elif mean is not None:
        known = Baseline(mean, asked.needed("--sd", sd, "--mean") ** 2)
    elif numerator_mean is not None:
        above = numerator_mean, asked.needed("--numerator-sd", numerator_sd, "a ratio")
        below = (
            asked.needed("--denominator-mean", denominator_mean, "a ratio"),
            asked.needed("--denominator-sd", denominator_sd, "a ratio"),
        )
        known = design.ratio_baseline(above, below, correlation)
    else:
        one = asked.metrics_of(
            means=[metric] if metric else [],
            conversions=[conversion] if conversion else [],
            ratios=[ratio] if ratio else [],
        )
        covariates = tuple(dict.fromkeys(covariate or []))
        column = asked.needed("--unit", unit, "--from")
        known, proportion = design.past_baseline(
            asked.Request(str(past), column, None, one, covariates, where=where)
        )
    falls = lower_is_better or ((lift or difference or 1.0) < 0.0)
    test = asked.one_of("--method", method, tuple(asked.STATS_TESTS))
    found = design.answer(
        design.Question(
            known,
            proportion,
            Design(
                asked.STATS_TESTS[test],
                alpha,
                ("less" if falls else "greater") if one_sided else "two-sided",
                split,
                looks,
            ),
            treatments,
            difference,
            lift,
            units,
            power,
            daily,
        )
    )
    if as_json:
        _print_json(design.document(found))
    else:
        from rich.console import Console

        from assay.offline.plans import show_design

        show_design(found, Console())


@offline_app.command()
def simulate(
    file: Annotated[
        str | None, typer.Argument(help="File of real units to deal to the arms anew; none draws units.")
    ] = None,
    experiment: Annotated[
        str | None, typer.Option(help="Id or key of a stored experiment whose units are dealt anew.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="With --experiment: data directory.", show_default="./assay-data"),
    ] = None,
    unit: Annotated[str | None, typer.Option(help="With a file: column of the unit.")] = None,
    metric: Annotated[
        _Many,
        typer.Option(help="With a file: column of a mean; with --experiment: key of a metric. Repeatable."),
    ] = None,
    conversion: Annotated[_Many, typer.Option(help="With a file: column of yes/no. Repeatable.")] = None,
    where: _Where = None,
    baseline: Annotated[float | None, typer.Option(help="No file: share of units that convert.")] = None,
    mean: Annotated[float | None, typer.Option(help="No file: mean of a normal metric.")] = None,
    sd: Annotated[float | None, typer.Option(help="Its standard deviation.")] = None,
    units: Annotated[int, typer.Option(help="No file: units of both arms at the end.", min=1)] = 20_000,
    lift: Annotated[float, typer.Option(help="Relative effect for the power: 0.1 is +10 %.")] = 0.1,
    looks: Annotated[
        int, typer.Option(help="Equally spaced looks; 28 is four weeks of daily peeking.", min=1, max=365)
    ] = 28,
    runs: Annotated[
        int, typer.Option(help="Simulated experiments, with and without the effect.", min=1)
    ] = 2000,
    share: Annotated[float, typer.Option(help="Share of the units in the treatment.")] = 0.5,
    alpha: _Alpha = 0.05,
    one_sided: _OneSided = False,
    seed: Annotated[int, typer.Option(help="Same seed, same numbers, however many processes.", min=0)] = 1,
    jobs: Annotated[int, typer.Option(help="Processes; 0 takes all cores.", min=0)] = 0,
    as_json: _Json = False,
) -> None:
    """Try a design thousands of times: false alarms without an effect, power with one, by rule.

    On drawn units, on those of a file, or on those of a stored experiment, by every metric that it declares;
    one that looks back is there adjusted for the time before, too.

    Every rule sees the same experiments: one look at the end, peeking with the fixed test, group-sequential,
    always-valid, and a chance to win. Exit code 0, or 1 with a sentence.
    """
    import os

    from rich.console import Console

    from assay.offline import plans
    from assay.offline import request as asked
    from assay.offline import simulate as simulation

    trial = simulation.Trial(
        looks,
        runs,
        lift,
        alpha,
        share,
        ("greater" if lift > 0.0 else "less") if one_sided else "two-sided",
        seed,
    )
    if (file is not None or experiment is not None) and (baseline is not None or mean is not None):
        raise Invalid("With a file or an experiment its units are used; leave out --baseline and --mean.")
    if experiment is not None:
        if file is not None or unit is not None or conversion or where is not None:
            raise Invalid(
                "With --experiment its own units and metrics are used; leave out the file, --unit, "
                "--conversion and --where."
            )
        populations = _stored(experiment, metric or [], data)
    elif file is not None:
        wanted = asked.metrics_of(means=metric or [], conversions=conversion or [])
        request = asked.Request(file, asked.needed("--unit", unit, "a file"), None, wanted, where=where)
        populations = simulation.populations(request)
    else:
        populations = {"metric": simulation.imagined(baseline, mean, sd, units)}
    for name, population in populations.items():
        simulation.check(population, trial, name)
    cores = jobs or os.cpu_count() or 1
    with plans.progress(runs * len(populations)) as step:
        found = {
            name: simulation.simulate(population, trial, jobs=cores, progress=step)
            for name, population in populations.items()
        }
    if as_json:
        metrics = [
            simulation.document(name, populations[name], trial, results) for name, results in found.items()
        ]
        _print_json({"schema_version": 1, "metrics": metrics})
        return
    for name, results in found.items():
        plans.show_simulation(name, populations[name], trial, results, Console())


@offline_app.command()
def verify(
    file: Annotated[
        str | None, typer.Argument(help="A report as JSON: of the API, or of `assay report --json`.")
    ] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Compare the totals that are kept with the events, instead.")
    ] = False,
    data: Annotated[Path | None, typer.Option(help="With --rebuild: the data directory.")] = None,
) -> None:
    """Compute a report again from the statistics in it; exit code 1 where a number differs.

    With --rebuild, the totals of units that reports are answered from are computed again from the events, and
    those that differ are replaced.
    """
    if rebuild == (file is not None):
        raise Invalid("Name a report to verify, or --rebuild; one of the two.")
    if file is None:
        _rebuild(data)
        return
    from assay.reports.verify import verify as run

    try:
        document = json.loads(Path(file).read_bytes())
    except (OSError, ValueError) as problem:
        raise Invalid(f"{file} cannot be read as JSON: {problem}.") from problem
    if not isinstance(document, dict):
        raise Invalid(f"{file} holds no report, which is a JSON object.")
    found = run(document)
    for each in found.mismatches:
        print(f"{each.path}: the report says {each.said}, its statistics give {each.computed}")
    for sentence in dict.fromkeys(found.left_out):
        print(sentence)
    if found.mismatches:
        print(f"{len(found.mismatches)} of {found.compared} values differ.")
        raise typer.Exit(1)
    print(f"All {found.compared} values are what the report's own statistics give.")


def _rebuild(data: Path | None) -> None:
    from assay.stores.commands import run

    found: list[dict[str, Any]] = []
    run(_settings_of(data), {"do": "rebuild"}, found.append)
    differing = 0
    for one in (message["rebuilt"] for message in found):
        kept = json.loads(one["totals"])
        source = " ".join(
            part
            for part in (
                kept["source"]["event_type"] or "every type",
                kept["property"] or "",
                "(filtered)" if kept["source"]["where"] else "",
                "(in a window)" if kept["source"]["opens"] or kept["source"]["closes"] is not None else "",
            )
            if part
        )
        said = f"{one['differing']:,} differ, and were replaced" if one["differing"] else "all agree"
        print(f"experiment {one['experiment_id']}, {source}: {one['units']:,} units, {said}")
        differing += one["differing"]
    if differing:
        raise typer.Exit(1)
    print(f"{len(found)} totals that are kept are those of the events.")


def _settings_of(data: Path | None) -> "Settings":
    from assay import settings

    found = settings.load(data_dir=data)
    if found.postgres is None and not found.data.is_dir():
        raise Invalid(f"There is no data directory at {found.data}; name it with --data.")
    return found


def _stored(experiment: str, metrics: list[str], data: Path | None) -> dict[str, Any]:
    """The units of a stored experiment, from whoever owns the stores or by opening them."""
    from assay.offline.simulate import stored
    from assay.stores.commands import run

    messages: list[dict[str, Any]] = []
    run(
        _settings_of(data),
        {"do": "units", "experiment": experiment, "metrics": ",".join(metrics)},
        messages.append,
    )
    populations, lacking = stored(messages)
    for sentence in lacking:
        print(sentence, file=sys.stderr)
    return dict(populations)
