"""The analysis in a sentence: what happened to the first metric, and whether it can be believed."""

from assay.offline.report import Analysis, Comparison
from assay.offline.request import FileMetric, Kind
from assay.offline.wording import ends, number, p_value, percent, signed_number, signed_percent
from assay.stats import Verdict

#: A chance to win beyond which a posterior is worth a claim.
LIKELY = 0.95


def headline(analysis: Analysis) -> str:
    """One sentence for each treatment about the first metric, and a warning in front when a check failed."""
    first = analysis.metrics[0]
    said = " ".join(_said(first.metric, each, analysis) for each in first.comparisons)
    if analysis.healthy:
        return said
    failed = ", ".join(dict.fromkeys(each.name for each in analysis.findings if each.state == "failed"))
    return f"Do not act on this yet, a health check failed ({failed}). {said}"


def _said(metric: FileMetric, each: Comparison, analysis: Analysis) -> str:
    verdict = each.judged.verdict
    if verdict.reason is not None:
        return f"{metric.name} cannot be judged for {each.treatment}: {verdict.reason.sentence}"
    if verdict.difference is None:
        return f"{metric.name} has no measured difference for {each.treatment}."
    up = verdict.difference > 0.0
    if analysis.judging.method == "bayesian":
        chance = verdict.chance_to_win or 0.0
        better = "above" if chance >= LIKELY else ("below" if chance <= 1.0 - LIKELY else "close to")
        what = {
            "above": "is very likely better than",
            "below": "is very likely worse than",
            "close to": "cannot be told from",
        }
        return (
            f"{each.treatment} {what[better]} {each.control} in {metric.name}: chance to win "
            f"{percent(chance)}, {_size(metric, verdict)}."
        )
    p, log10_p = tested(each)
    tail = "" if p is None else f", p = {p_value(p, log10_p)}"
    if verdict.significant:
        verb = "raised" if up else "lowered"
        good = " (better)" if up != metric.lower_is_better else " (worse)"
        return f"{each.treatment} {verb} {metric.name}{good}: {_size(metric, verdict)}{tail}."
    return f"{each.treatment} shows no clear effect on {metric.name}: {_size(metric, verdict)}{tail}."


def tested(each: Comparison) -> tuple[float | None, float | None]:
    """The p-value that decides, corrected where a correction was made, and its decimal logarithm."""
    adjusted = each.judged.adjusted_p_value
    if adjusted is not None:
        return adjusted, None
    return each.judged.verdict.p_value, each.judged.verdict.log10_p_value


def _size(metric: FileMetric, verdict: Verdict) -> str:
    """The difference and its interval, relative too where there is a lift."""
    size, within = absolute(metric, verdict)
    shown = f"{size} ({100.0 * (1.0 - verdict.alpha):.4g} % interval {within})"
    return shown if verdict.lift is None else f"{relative(verdict)[0]} relative, {shown}"


def absolute(metric: FileMetric, verdict: Verdict) -> tuple[str, str]:
    """The difference and its interval in the metric's own unit; shares in percentage points."""
    if verdict.difference is None:
        return "–", "–"
    if metric.kind is not Kind.CONVERSION:
        return signed_number(verdict.difference), ends(verdict.interval, signed_number)
    within = ends(verdict.interval, lambda end: signed_number(end * 100.0))
    return points(metric, verdict.difference), within


def relative(verdict: Verdict) -> tuple[str, str]:
    """The lift and its interval."""
    if verdict.lift is None:
        return "–", "–"
    return signed_percent(verdict.lift), ends(verdict.lift_interval, signed_percent)


def points(metric: FileMetric, difference: float) -> str:
    """`+1.3 points` for a difference of shares, `+12.40` for others."""
    if metric.kind is Kind.CONVERSION:
        return f"{signed_number(difference * 100.0)} points"
    return signed_number(difference)


def value(metric: FileMetric, shown: float | None) -> str:
    """An arm's value in the metric's own unit."""
    if shown is None:
        return "–"
    return percent(shown) if metric.kind is Kind.CONVERSION else number(shown)
