"""A whole embedded pipeline: writer, log, drain and store on files of one directory."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contracts.embedded import Pipeline


@pytest.fixture
def open_pipeline(tmp_path: Path) -> Iterator[Callable[[], Pipeline]]:
    opened: list[Pipeline] = []

    def open_pipeline() -> Pipeline:
        if opened:
            opened.pop().close()
        opened.append(Pipeline(tmp_path))
        return opened[-1]

    yield open_pipeline
    if opened:
        opened[-1].close()


@pytest.fixture
def pipeline(open_pipeline: Callable[[], Pipeline]) -> Pipeline:
    return open_pipeline()
