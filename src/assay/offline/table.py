"""An analysis for people: the headline, what is wrong with it, then the numbers."""

from rich.console import Console
from rich.table import Table

from assay.offline.report import Analysis, Comparison, MetricResult, Segmented
from assay.offline.request import FileMetric, Kind
from assay.offline.sentences import absolute, headline, points, relative, tested, value
from assay.offline.wording import ends, number, p_value, percent
from assay.stats import Interval

_SIGNS = {"ok": "ok", "warning": "warning", "failed": "FAILED"}


def show(analysis: Analysis, console: Console) -> None:
    """Print the analysis."""
    console.print(headline(analysis), markup=False, highlight=False)
    console.print()
    for finding in analysis.findings:
        console.print(
            f"{_SIGNS[finding.state]:>7}  {finding.sentence}", markup=False, highlight=False, soft_wrap=True
        )
    for result in analysis.metrics:
        console.print()
        _show_metric(analysis, result, console)
    console.print()
    _show_method(analysis, console)


def _show_metric(analysis: Analysis, result: MetricResult, console: Console) -> None:
    metric = result.metric
    arms = Table(title=_title(result), title_justify="left")
    arms.add_column("variant")
    for name in ("units", "value", f"{_level(analysis.judging.alpha)} interval"):
        arms.add_column(name, justify="right")
    for arm in result.arms:
        arms.add_row(arm.variant, f"{arm.units:,}", value(metric, arm.value), _arm_ends(metric, arm.interval))
    console.print(arms)
    chance = analysis.judging.method == "bayesian"
    table = Table("treatment", "")
    for name in ("effect", "interval", "chance to win" if chance else "p"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in result.comparisons:
        verdict = each.judged.verdict
        shown = (
            percent(verdict.chance_to_win) if verdict.chance_to_win is not None else p_value(*tested(each))
        )
        table.add_row(each.treatment, "absolute", *absolute(metric, verdict), shown)
        table.add_row("", "relative", *relative(verdict), "")
        if each.unadjusted is not None:
            plain = each.unadjusted
            # Beside a corrected p-value an uncorrected one would look better than it is.
            corrected = each.judged.adjusted_p_value is not None
            p = "" if corrected else p_value(plain.p_value, plain.log10_p_value)
            table.add_row("", "unadjusted", *absolute(metric, plain), p)
    console.print(table)
    for each in result.comparisons:
        for said in _notes(each):
            console.print(f"  {said}", markup=False, highlight=False, soft_wrap=True)
    for segmented in result.segments:
        _show_segments(metric, segmented, console)


def _level(alpha: float) -> str:
    return f"{100.0 * (1.0 - alpha):.4g} %"


def _arm_ends(metric: FileMetric, interval: Interval | None) -> str:
    return ends(interval, percent if metric.kind is Kind.CONVERSION else number)


def _title(result: MetricResult) -> str:
    metric = result.metric
    said = f"{metric.name} ({metric.kind.value}"
    if metric.kind is Kind.MEAN:
        said += f", {metric.aggregate} over a unit's rows"
    if result.tail.low is not None:
        said += f", not below {result.tail.low:g}"
    if result.tail.high is not None:
        said += f", not above {result.tail.high:g}"
    return f"{said})"


def _notes(each: Comparison) -> list[str]:
    verdict, said = each.judged.verdict, []
    if each.variance_reduction is not None:
        said.append(
            f"{each.treatment}: the covariates took away {percent(each.variance_reduction)} of the variance."
        )
    if verdict.reason is not None:
        said.append(f"{each.treatment}: {verdict.reason.sentence}")
    elif verdict.lift_reason is not None:
        said.append(f"{each.treatment}: {verdict.lift_reason.sentence}")
    if verdict.fraction is not None and verdict.limit is not None:
        crossed = "reached" if verdict.significant else "not reached"
        said.append(
            f"{each.treatment}: {percent(verdict.fraction)} of the planned units; the limit of "
            f"{verdict.limit:.3f} standard errors is {crossed}."
        )
    if verdict.loss_if_shipped is not None and verdict.loss_if_kept is not None:
        said.append(
            f"{each.treatment}: expected loss {percent(verdict.loss_if_shipped)} when shipped, "
            f"{percent(verdict.loss_if_kept)} when not."
        )
    return said


def _show_segments(metric: FileMetric, segmented: Segmented, console: Console) -> None:
    found = segmented.heterogeneity
    table = Table(title=f"{metric.name} by {segmented.column}, {segmented.treatment}", title_justify="left")
    for name in ("segment", "difference", "interval", "relative", "shrunken"):
        table.add_column(name, justify="left" if name == "segment" else "right")
    for effect in segmented.effects:
        shrunken = "–" if effect.shrunken is None else points(metric, effect.shrunken[0])
        lift = relative(effect.verdict)[0]
        table.add_row(effect.segment, *absolute(metric, effect.verdict), lift, shrunken)
    console.print(table)
    if found.reason is not None:
        said = found.reason.sentence
    elif segmented.differ:
        said = f"The effect differs between segments (p = {p_value(found.p_value, found.log10_p_value)})."
    else:
        said = (
            f"The effects do not differ more than chance makes them (p = {p_value(found.p_value)}): "
            "call no segment different."
        )
    console.print(f"  {said}", markup=False, highlight=False, soft_wrap=True)


def _show_method(analysis: Analysis, console: Console) -> None:
    judging = analysis.judging
    comparisons = sum(len(result.comparisons) for result in analysis.metrics)
    said = f"Method {judging.method}, alpha {judging.alpha:g}, {'one' if judging.one_sided else 'two'}-sided"
    if judging.method == "bayesian":
        said = f"Posterior under a normal prior on the relative effect, level {1.0 - judging.alpha:g}"
    elif comparisons > 1 and judging.method == "group-sequential" and judging.correction != "none":
        said += f", alpha shared evenly by {comparisons} comparisons"
    elif comparisons > 1 and judging.correction != "none":
        said += f", p and intervals corrected for {comparisons} comparisons ({judging.correction})"
    console.print(f"{said}.", markup=False, highlight=False, soft_wrap=True)
