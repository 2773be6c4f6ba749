"""Which part of a condition decided, and which attributes it reads: for people who ask why."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from assay.bucketing.conditions import compile_condition, reach


class Clause(NamedTuple):
    """The part of a condition that made it hold, or fail: where it stands, what it wants, what was found.

    `found` is None for a part that looks at no single attribute.
    """

    path: str
    wanted: Any
    found: Any
    holds: bool

    def as_document(self) -> dict[str, Any]:
        """The clause as plain values for JSON."""
        return dict(self._asdict())


def deciding(document: Mapping[str, Any], attributes: Mapping[str, Any], path: str = "condition") -> Clause:
    """The clause that decided a condition, which was accepted before: the first that failed, or that held.

    Where all clauses had to hold and did, that is the whole of them.
    """
    for name, value in document.items():
        if not compile_condition({name: value}, path)(attributes):
            return _within(name, value, attributes, path, holds=False)
    if len(document) == 1:
        ((name, value),) = document.items()
        return _within(name, value, attributes, path, holds=True)
    return Clause(path, document, None, holds=True)


def _within(name: str, value: Any, attributes: Mapping[str, Any], above: str, *, holds: bool) -> Clause:
    """The clause inside one entry of a condition that decided it."""
    path = f"{above}.{name}"
    if name == "$not":
        return deciding(value, attributes, path)._replace(holds=holds)
    if name in {"$and", "$or", "$nor"}:
        # One part decides where `$and` failed, or any part of the others held.
        alone = (name == "$and") is not holds if name != "$nor" else not holds
        for at, part in enumerate(value):
            if alone and compile_condition(part, path)(attributes) is (name != "$and"):
                return deciding(part, attributes, f"{path}[{at}]")._replace(holds=holds)
        return Clause(path, value, None, holds)
    found = reach(attributes, name.split("."))
    if isinstance(value, Mapping) and len(value) > 1 and all(each.startswith("$") for each in value):
        for operator, given in value.items():
            if not compile_condition({name: {operator: given}}, path)(attributes):
                return Clause(f"{path}.{operator}", given, found, holds)
    return Clause(path, value, found, holds)


def attributes_read(document: Mapping[str, Any]) -> Iterator[str]:
    """The names of the attributes that a condition reads."""
    for name, value in document.items():
        if name == "$not":
            yield from attributes_read(value)
        elif name in {"$and", "$or", "$nor"}:
            for part in value:
                yield from attributes_read(part)
        else:
            yield name
