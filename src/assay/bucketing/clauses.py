"""Which part of a condition decided, which attributes it reads, and which lists it names."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from assay.bucketing.conditions import Groups, compile_condition, is_operators, reach

_NO_GROUPS: Final[Groups] = MappingProxyType({})


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


def deciding(
    document: Mapping[str, Any],
    attributes: Mapping[str, Any],
    path: str = "condition",
    groups: Groups = _NO_GROUPS,
) -> Clause:
    """The clause that decided a condition, which was accepted before: the first that failed, or that held.

    Where all clauses had to hold and did, that is the whole of them.
    """
    for name, value in document.items():
        if not compile_condition({name: value}, path, groups)(attributes):
            return _within(name, value, attributes, path, groups, holds=False)
    if len(document) == 1:
        ((name, value),) = document.items()
        return _within(name, value, attributes, path, groups, holds=True)
    return Clause(path, document, None, holds=True)


def _within(
    name: str, value: Any, attributes: Mapping[str, Any], above: str, groups: Groups, *, holds: bool
) -> Clause:
    """The clause inside one entry of a condition that decided it."""
    path = f"{above}.{name}"
    if name == "$not":
        return deciding(value, attributes, path, groups)._replace(holds=holds)
    if name in {"$and", "$or", "$nor"}:
        # One part decides where `$and` failed, or any part of the others held.
        alone = (name == "$and") is not holds if name != "$nor" else not holds
        for at, part in enumerate(value):
            if alone and compile_condition(part, path, groups)(attributes) is (name != "$and"):
                return deciding(part, attributes, f"{path}[{at}]", groups)._replace(holds=holds)
        return Clause(path, value, None, holds)
    found = reach(attributes, name.split("."))
    if isinstance(value, Mapping) and len(value) > 1 and all(each.startswith("$") for each in value):
        for operator, given in value.items():
            if not compile_condition({name: {operator: given}}, path, groups)(attributes):
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


def naming(
    document: Mapping[str, Any], name: Callable[[str, str], str], path: str = "condition"
) -> dict[str, Any]:
    """The same condition with each list that it names called what `name` says of it and its path.

    What is stored may have a shape that is refused by now: there it names nothing, and stays as it is.
    """
    return {
        key: _naming_logic(key, value, name, f"{path}.{key}")
        if key in _LOGIC
        else _naming_tests(value, name, f"{path}.{key}")
        for key, value in document.items()
    }


def groups_read(document: Mapping[str, Any], path: str = "condition") -> list[tuple[str, str]]:
    """The lists that a condition, which was accepted once, names with `$inGroup`; each with its path."""
    found: list[tuple[str, str]] = []

    def note(group: str, where: str) -> str:
        found.append((group, where))
        return group

    naming(document, note, path)
    return found


_LOGIC = frozenset({"$and", "$or", "$nor", "$not"})


def _naming_logic(operator: str, given: Any, name: Callable[[str, str], str], path: str) -> Any:
    if operator == "$not":
        return _naming_condition(given, name, path)
    if not isinstance(given, list):
        return given
    return [_naming_condition(each, name, f"{path}[{at}]") for at, each in enumerate(given)]


def _naming_condition(given: Any, name: Callable[[str, str], str], path: str) -> Any:
    return naming(given, name, path) if isinstance(given, Mapping) else given


def _naming_tests(given: Any, name: Callable[[str, str], str], path: str) -> Any:
    """What a value must be: where it is no object of operators, it names nothing."""
    if not is_operators(given):
        return given
    return {
        operator: _naming_test(operator, each, name, f"{path}.{operator}") for operator, each in given.items()
    }


def _naming_test(operator: str, given: Any, name: Callable[[str, str], str], path: str) -> Any:
    match operator:
        case "$inGroup" | "$notInGroup" if isinstance(given, str):
            return name(given, path)
        case "$not" | "$size":
            return _naming_tests(given, name, path)
        case "$all" | "$alli" if isinstance(given, list):
            return [_naming_tests(each, name, f"{path}[{at}]") for at, each in enumerate(given)]
        case "$elemMatch" if is_operators(given) and not given.keys() <= _LOGIC - {"$not"}:
            return _naming_tests(given, name, path)
        case "$elemMatch":
            return _naming_condition(given, name, path)
    return given
