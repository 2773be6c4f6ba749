"""Statistics: what a verdict is made of. Pure, typed, immutable.

Moments go in (`Moments`), a `Contrast` says what differs between two arms, and an `Effect` says what that
means. Where nothing can be said, a result carries a `Reason` in place of its numbers.
"""

from assay.stats.contrast import Contrast, Mean, Metric, Ratio, contrast
from assay.stats.effect import ArmInterval, Effect, Lift, arm_interval, compare, infer, relative
from assay.stats.moments import Moments, total
from assay.stats.proportions import (
    Count,
    difference_interval,
    one_proportion,
    ratio_interval,
    two_proportions,
)
from assay.stats.reasons import Reason
from assay.stats.srm import Phase, SampleRatio, SequentialRatio, sample_ratio, sequential_sample_ratio
from assay.stats.tails import Alternative, Interval

__all__ = [
    "Alternative",
    "ArmInterval",
    "Contrast",
    "Count",
    "Effect",
    "Interval",
    "Lift",
    "Mean",
    "Metric",
    "Moments",
    "Phase",
    "Ratio",
    "Reason",
    "SampleRatio",
    "SequentialRatio",
    "arm_interval",
    "compare",
    "contrast",
    "difference_interval",
    "infer",
    "one_proportion",
    "ratio_interval",
    "relative",
    "sample_ratio",
    "sequential_sample_ratio",
    "total",
    "two_proportions",
]
