"""A process that sends events until something happens to it: `python under_fault.py load|full FOLDER`."""

import json
import random
import resource
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from assay.assignments.base import Record
from assay.errors import Unavailable
from assay.events import identity
from assay.events.event import Event
from assay.eventstore.base import EventFilter
from contracts.embedded import Pipeline

NOW = 1_790_000_000_000_000


def event(name: str, size: int = 0) -> Event:
    """A keyed event of a user of its own."""
    properties = json.dumps({"x": random.randbytes(size).hex()})
    return Event(identity.canonical(name), name, "t", NOW, NOW, o=name, k=True, p=properties)


def load(pipeline: Pipeline) -> None:
    """Send for ever, naming on the standard output what was acknowledged."""
    pipeline.drain.start()
    start = pipeline.store.position().events
    for number in count():
        names = [f"{start}.{number}.{place}" for place in range(1 + number % 7)]
        pipeline.append(*map(event, names))
        pipeline.run(pipeline.assignments.put_many([Record(1, name, 1, 0, NOW) for name in names]))
        sys.stdout.write(json.dumps(names) + "\n")
        sys.stdout.flush()


def names_sent(pipeline: Pipeline, acknowledged: list[str]) -> Iterator[str]:
    """Send until the disk takes no more; the reasons given."""
    for number in count():
        names = [f"{number}.{place}" for place in range(50)]
        try:
            pipeline.append(*(event(name, 400) for name in names))
        except Unavailable as error:
            yield error.detail
        else:
            acknowledged.extend(names)


def full(pipeline: Pipeline) -> None:
    """Fill the disk (files may not grow), give the space back, and compare with what was acknowledged."""
    pipeline.drain.start()
    pipeline.append(event("first"))
    pipeline.drain.flush()
    acknowledged = ["first"]
    largest = max(file.stat().st_size for file in pipeline.folder.iterdir() if file.is_file())
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest + 300_000, resource.RLIM_INFINITY))
    refusals = names_sent(pipeline, acknowledged)
    reasons = {next(refusals) for _ in range(5)}
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    pipeline.append(event("last"))
    acknowledged.append("last")
    pipeline.drain.flush(60)
    rows, _ = pipeline.store.events(EventFilter(), 10**6)
    same = sorted(acknowledged) == sorted(row.user_id for row in rows)
    sys.stdout.write(json.dumps([same, len(rows), sorted(reasons)]))
    pipeline.close()


if __name__ == "__main__":
    {"load": load, "full": full}[sys.argv[1]](Pipeline(Path(sys.argv[2])))
