"""What every check is, and how it says what it found."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from assay.reports.report import Health


class Finding(NamedTuple):
    """What one check found, and the numbers it rests on."""

    health: Health
    sentence: str
    inputs: Mapping[str, object]


class HealthCheck(NamedTuple):
    """A check: its name, the evidence it declares, and the judgement, called with exactly that evidence."""

    name: str
    needs: tuple[str, ...]
    judge: Callable[..., Finding]
