"""Targeting conditions: MongoDB-like documents, compiled once into closures that never raise.

Source of the semantics: the condition section of GrowthBook's SDK specification, version 0.8. What a document may say
is checked when it is compiled, so that a mistake is an error for the person who writes it, and never a user who silently
drops out.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

from assay.errors import Invalid

Condition = Callable[[Mapping[str, Any]], bool]
Check = Callable[[Any], bool]
Groups = Mapping[str, Iterable[Any]]

#: Bounds that keep one document, and one user's attribute, from stopping the server.
MAX_DEPTH = 20
MAX_NODES = 2_000
MAX_PATTERN = 500
MAX_SUBJECT = 2_000

_MISSING = object()
_NO_GROUPS: Groups = {}


def compile_condition(
    document: Mapping[str, Any], path: str = "condition", groups: Groups = _NO_GROUPS
) -> Condition:
    """Compile a condition document into a function of a user's attributes.

    An empty document holds for everybody. `groups` are named lists for `$inGroup`. Raises `Invalid` naming the
    place (`condition.$or[1].age.$gt`), the value and what would be right. The result is total: attributes of
    any shape give True or False.
    """
    return _Compiler(groups).document(document, path, 0)


class _Compiler:
    def __init__(self, groups: Groups) -> None:
        self._groups = {name: list(members) for name, members in groups.items()}
        self._nodes = 0

    def document(self, given: Any, path: str, depth: int) -> Condition:
        """A whole condition: every entry must hold."""
        self._count(path, depth)
        if not isinstance(given, Mapping):
            _refuse(path, "must be an object", given)
        parts = [self._entry(name, value, f"{path}.{name}", depth) for name, value in given.items()]
        if len(parts) == 1:
            return parts[0]
        return lambda attributes: all(part(attributes) for part in parts)

    def _entry(self, name: str, value: Any, path: str, depth: int) -> Condition:
        match name:
            case "$and":
                every = self._documents(value, path, depth)
                return lambda attributes: all(part(attributes) for part in every)
            case "$or":
                some = self._documents(value, path, depth)
                return lambda attributes: not some or any(part(attributes) for part in some)
            case "$nor":
                none = self._documents(value, path, depth)
                return lambda attributes: bool(none) and not any(part(attributes) for part in none)
            case "$not":
                inner = self.document(value, path, depth + 1)
                return lambda attributes: not inner(attributes)
        if name in _OPERATORS:
            _refuse(path, "is an operator and belongs below an attribute", value)
        check = self.value(value, path, depth)
        if name == "" or "." not in name:
            return lambda attributes: check(attributes.get(name))
        steps = name.split(".")
        return lambda attributes: check(_reach(attributes, steps))

    def _documents(self, given: Any, path: str, depth: int) -> list[Condition]:
        if not isinstance(given, list):
            _refuse(path, "must be a list of conditions", given)
        return [self.document(each, f"{path}[{at}]", depth + 1) for at, each in enumerate(given)]

    def value(self, given: Any, path: str, depth: int) -> Check:
        """What one attribute must be: an operator object, or a value to equal."""
        self._count(path, depth)
        if isinstance(given, Mapping) and given and all(str(name).startswith("$") for name in given):
            checks = [self._operator(name, each, f"{path}.{name}", depth) for name, each in given.items()]
            if len(checks) == 1:
                return checks[0]
            return lambda found: all(check(found) for check in checks)
        return lambda found: _same(found, given)

    def _operator(self, name: str, given: Any, path: str, depth: int) -> Check:
        make = _OPERATORS.get(name)
        if make is not None:
            return make(given, path)
        match name:
            case "$not":
                inner = self.value(given, path, depth + 1)
                return lambda found: not inner(found)
            case "$elemMatch":
                return self._element(given, path, depth)
            case "$size":
                size = self.value(given, path, depth + 1)
                return lambda found: isinstance(found, list) and size(len(found))
            case "$all" | "$alli":
                return self._all(given, path, depth, folded=name == "$alli")
            case "$inGroup" | "$notInGroup":
                if not isinstance(given, str):
                    _refuse(path, "must be the name of a group", given)
                members = self._groups.get(given, [])
                inside = name == "$inGroup"
                return lambda found: any(_same(found, each) for each in members) is inside
        known = ", ".join(
            [*_OPERATORS, "$not", "$elemMatch", "$size", "$all", "$alli", "$inGroup", "$notInGroup"]
        )
        _refuse(path, f"is not an operator; there are {known}", given)

    def _element(self, given: Any, path: str, depth: int) -> Check:
        if not isinstance(given, Mapping):
            _refuse(path, "must be an object", given)
        if any(str(name).startswith("$") and name not in _LOGIC for name in given):
            check = self.value(given, path, depth + 1)
            return lambda found: isinstance(found, list) and any(check(each) for each in found)
        inner = self.document(given, path, depth + 1)
        return lambda found: (
            isinstance(found, list) and any(inner(each) for each in found if isinstance(each, Mapping))
        )

    def _all(self, given: Any, path: str, depth: int, *, folded: bool) -> Check:
        if not isinstance(given, list):
            _refuse(path, "must be a list", given)
        checks = [
            _folded_equal(each) if folded else self.value(each, f"{path}[{at}]", depth + 1)
            for at, each in enumerate(given)
        ]
        return lambda found: (
            isinstance(found, list) and all(any(check(each) for each in found) for check in checks)
        )

    def _count(self, path: str, depth: int) -> None:
        self._nodes += 1
        if depth > MAX_DEPTH or self._nodes > MAX_NODES:
            raise Invalid.field(
                path, f"a condition may nest {MAX_DEPTH} levels and hold {MAX_NODES} parts, not more"
            )


def _refuse(path: str, wanted: str, given: Any) -> NoReturn:
    written = repr(given)
    raise Invalid.field(path, f"{wanted}; got {written if len(written) <= 80 else written[:60] + '…'}")


def _reach(attributes: Mapping[str, Any], steps: list[str]) -> Any:
    found: Any = attributes
    for step in steps:
        if not isinstance(found, Mapping):
            return None
        found = found.get(step)
    return found


def _same(found: Any, wanted: Any) -> bool:
    """Equality of JSON values: a number is never a boolean, and a missing attribute equals null."""
    if isinstance(found, bool) or isinstance(wanted, bool):
        return found is wanted
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        return len(found) == len(wanted) and all(
            _same(found.get(name, _MISSING), each) for name, each in wanted.items()
        )
    if isinstance(found, list) and isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(_same, found, wanted))
    return bool(found == wanted)


def _number(value: Any) -> float | None:
    """How JavaScript's comparison reads a value beside a number; None where it reads as not a number."""
    if value is None:
        return 0
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int | float):
        return value
    if isinstance(value, str):
        try:
            return float(value) if value.strip() else 0
        except ValueError:
            return None
    return None


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, str], Check]:
    """`$gt` and its kin: texts compare as texts, anything beside a number as numbers."""

    def make(given: Any, path: str) -> Check:
        if isinstance(given, list | Mapping):
            _refuse(path, "must be a number or a text", given)
        number = _number(given)

        def check(found: Any) -> bool:
            if isinstance(found, str) and isinstance(given, str):
                return compare(found, given)
            value = _number(found)
            return value is not None and number is not None and compare(value, number)

        return check

    return make


_VERSION = re.compile(r"^v|\+.*$")


def _version(value: Any) -> str:
    """A version as text that sorts: numbers padded, a release after its pre-releases, the build left out."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        value = "0"
    parts = re.split(r"[-.]", _VERSION.sub("", str(value)[:200]))
    if len(parts) == 3:
        parts.append("~")
    return "-".join(part.rjust(5) if part.isascii() and part.isdigit() else part for part in parts)


def _versioned(compare: Callable[[Any, Any], bool]) -> Callable[[Any, str], Check]:
    def make(given: Any, path: str) -> Check:
        if not isinstance(given, str | int | float) or isinstance(given, bool):
            _refuse(path, "must be a version such as 1.2.3", given)
        wanted = _version(given)
        return lambda found: compare(_version(found), wanted)

    return make


def _fold(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _folded_equal(given: Any) -> Check:
    wanted = _fold(given)
    return lambda found: _same(_fold(found), wanted)


def _listed(*, inside: bool, folded: bool) -> Callable[[Any, str], Check]:
    """`$in` and its kin. An attribute that is a list matches by any of its elements."""

    def make(given: Any, path: str) -> Check:
        if not isinstance(given, list):
            _refuse(path, "must be a list", given)
        wanted = [_fold(each) if folded else each for each in given]
        texts = frozenset(each for each in wanted if isinstance(each, str))
        others = [each for each in wanted if not isinstance(each, str)]

        def has(found: Any) -> bool:
            if isinstance(found, str):
                return (found.lower() if folded else found) in texts
            return any(_same(found, each) for each in others)

        def check(found: Any) -> bool:
            return (any(map(has, found)) if isinstance(found, list) else has(found)) is inside

        return check

    return make


# A group that repeats and is repeated again is how a pattern takes for ever.
_NESTED = re.compile(r"\([^()]*[*+}][^()]*\)\s*[*+{]|\([^()]*\|[^()]*\)\s*[*+{]")


def _pattern(flags: int) -> Callable[[Any, str], Check]:
    def make(given: Any, path: str) -> Check:
        if not isinstance(given, str):
            _refuse(path, "must be a regular expression", given)
        if len(given) > MAX_PATTERN:
            _refuse(path, f"at most {MAX_PATTERN} characters", given)
        if _NESTED.search(given) or re.search(r"\\[1-9]", given):
            _refuse(
                path, "a repeated group with a repetition or choice inside may never end; rewrite it", given
            )
        try:
            search = re.compile(given, flags).search
        except (re.error, RecursionError, OverflowError) as error:
            _refuse(path, f"is not a regular expression ({error})", given)

        def check(found: Any) -> bool:
            if isinstance(found, bool) or not isinstance(found, str | int | float):
                return False
            return search(str(found)[:MAX_SUBJECT]) is not None

        return check

    return make


def _exists(given: Any, path: str) -> Check:
    if not isinstance(given, bool):
        _refuse(path, "must be true or false", given)
    return lambda found: (found is not None) is given


def _type_of(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case str():
            return "string"
        case int() | float():
            return "number"
        case list():
            return "array"
        case Mapping():
            return "object"
    return "unknown"


_TYPES = ("string", "number", "boolean", "array", "object", "null")


def _typed(given: Any, path: str) -> Check:
    if given not in _TYPES:
        _refuse(path, f"must be one of {', '.join(_TYPES)}", given)
    return lambda found: _type_of(found) == given


def _equal(given: Any, _path: str) -> Check:
    return lambda found: _same(found, given)


def _unequal(given: Any, _path: str) -> Check:
    return lambda found: not _same(found, given)


_OPERATORS: dict[str, Callable[[Any, str], Check]] = {
    "$eq": _equal,
    "$ne": _unequal,
    "$gt": _ordered(lambda a, b: a > b),
    "$gte": _ordered(lambda a, b: a >= b),
    "$lt": _ordered(lambda a, b: a < b),
    "$lte": _ordered(lambda a, b: a <= b),
    "$veq": _versioned(lambda a, b: a == b),
    "$vne": _versioned(lambda a, b: a != b),
    "$vgt": _versioned(lambda a, b: a > b),
    "$vgte": _versioned(lambda a, b: a >= b),
    "$vlt": _versioned(lambda a, b: a < b),
    "$vlte": _versioned(lambda a, b: a <= b),
    "$in": _listed(inside=True, folded=False),
    "$nin": _listed(inside=False, folded=False),
    "$ini": _listed(inside=True, folded=True),
    "$nini": _listed(inside=False, folded=True),
    "$regex": _pattern(0),
    "$regexi": _pattern(re.IGNORECASE),
    "$notRegex": lambda given, path: _negated(_pattern(0)(given, path)),
    "$notRegexi": lambda given, path: _negated(_pattern(re.IGNORECASE)(given, path)),
    "$exists": _exists,
    "$type": _typed,
}
_LOGIC = frozenset({"$and", "$or", "$nor", "$not"})


def _negated(check: Check) -> Check:
    return lambda found: not check(found)
