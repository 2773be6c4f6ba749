"""Why nothing can be said: the one alternative to a number.

A result that has no p-value, no interval or no lift carries a `Reason` instead of NaN, infinity, `p = 1` or
`(0, 0)`. The value of a reason is a stable word for programs; `sentence` is for people.
"""

from enum import StrEnum


class Reason(StrEnum):
    """Why a statistic is absent."""

    NO_DATA = "no_data"
    INSUFFICIENT_DATA = "insufficient_data"
    ZERO_VARIANCE = "zero_variance"
    PRECISION_LOSS = "precision_loss"
    BASELINE_ZERO = "baseline_zero"
    BASELINE_NOT_SEPARATED = "baseline_not_separated_from_zero"
    SIGNS_DIFFER = "signs_differ"
    DENOMINATOR_ZERO = "denominator_zero"
    BURN_IN = "burn_in"
    QUANTILE_TOO_EXTREME = "quantile_too_extreme"
    QUANTILE_TIES = "quantile_ties"
    ZERO_WEIGHT_ARM = "zero_weight_arm"
    NOT_A_LOOK = "not_a_look"
    NO_STRATA = "no_strata"
    ONE_SEGMENT = "one_segment"
    UNREACHABLE = "unreachable"
    NOT_STOPPED = "not_stopped"

    @property
    def sentence(self) -> str:
        """One sentence for a person."""
        return _SENTENCES[self]


_SENTENCES = {
    Reason.NO_DATA: "There are no observations yet.",
    Reason.INSUFFICIENT_DATA: "Each arm needs at least two units before a difference can be judged.",
    Reason.ZERO_VARIANCE: "All values are equal within each arm: there is no noise to judge a difference by.",
    Reason.PRECISION_LOSS: "The raw sums lost the variance to rounding. Send centred moments instead.",
    Reason.BASELINE_ZERO: "The control mean is zero, so a lift is undefined; the difference holds.",
    Reason.BASELINE_NOT_SEPARATED: (
        "The control mean cannot be told from zero, so no bounded interval for the relative change exists; "
        "the difference holds."
    ),
    Reason.SIGNS_DIFFER: "The two means have different signs, so the logarithm of their ratio is undefined.",
    Reason.DENOMINATOR_ZERO: "The mean of the ratio's denominator is zero in an arm.",
    Reason.BURN_IN: (
        "An arm's mean is not yet five standard errors away from zero, which the always-valid guarantee "
        "needs: events are few, or positive and negative values cancel out. The verdict waits."
    ),
    Reason.QUANTILE_TOO_EXTREME: "There are too few observations for an interval at so extreme a quantile.",
    Reason.QUANTILE_TIES: "Too many observations equal the quantile to measure its uncertainty from them.",
    Reason.ZERO_WEIGHT_ARM: "Units were counted in an arm without traffic: assignment or logging is broken.",
    Reason.NOT_A_LOOK: "Too little new information since the last look: no error was spent.",
    Reason.NO_STRATA: "No stratum holds at least two units in both arms.",
    Reason.ONE_SEGMENT: "Heterogeneity needs at least two segments with a measured effect.",
    Reason.UNREACHABLE: "No finite sample size or effect reaches the wanted power.",
    Reason.NOT_STOPPED: "The experiment did not stop at this look, so there is no selection to correct for.",
}
