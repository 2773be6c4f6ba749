"""Whether a guardrail speaks against a treatment."""

from collections.abc import Iterable
from typing import NamedTuple

from assay.reports.report import Judgement, MetricReport
from assay.reports.spec import Direction, MetricSpec, Role, VariantSpec
from assay.stats import Reason


class Guard(NamedTuple):
    """A guardrail that speaks against a treatment: it is harmed, or not shown to be within its margin."""

    metric: MetricSpec
    harmed: bool


def guarded(metrics: Iterable[MetricReport], treatment: VariantSpec) -> Guard | None:
    """The first guardrail against this treatment, harmed ones first; None where all hold.

    With a margin a guardrail holds once it is shown to be within it; without one, unless it is significantly
    worse. One whose values do not vary at all and do not differ has nothing to say.
    """
    found: list[Guard] = []
    for each in metrics:
        if each.metric.role is Role.GUARDRAIL:
            compared = each.comparison(treatment.id)
            if compared is not None and compared.judged is not None:
                guard = _speaks(each.metric, compared.judged)
                found += [] if guard is None else [guard]
    return next((each for each in found if each.harmed), next(iter(found), None))


def _speaks(metric: MetricSpec, judged: Judgement) -> Guard | None:
    gap = judged.numbers.difference or 0.0
    worse = gap < 0.0 if metric.direction is Direction.INCREASE else gap > 0.0
    harmed = bool(judged.significant) and worse
    if metric.margin is None:
        return Guard(metric, harmed=True) if harmed else None
    test = judged.margin
    if test is None or test.passed:
        return None
    if test.reason is Reason.ZERO_VARIANCE and not worse:
        return None
    return Guard(metric, harmed=harmed)
