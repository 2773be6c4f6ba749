"""Targeting conditions: MongoDB-like documents, compiled once into closures that never raise.

Source of the semantics: the condition section of GrowthBook's SDK specification, version 0.8. What a document
may say is checked when it is compiled, so that a mistake is an error for the person who writes it, and never
a user who silently drops out. Where SDKs disagree among themselves, the stricter reading is taken: values of
different types are not equal, and what is absent, null or boolean is neither above nor below anything.
"""

import operator
import re
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any, NoReturn

from assay.bucketing.patterns import MAX_WORK, PatternError, Work, compile_pattern
from assay.errors import Invalid

Condition = Callable[[Mapping[str, Any]], bool]
Check = Callable[[Any], bool]
#: Values by the name of their list; of one that is too long to go through, whether it has a text.
Groups = Mapping[str, Iterable[Any] | Container[str]]

#: Bounds on one document, so that compiling and evaluating it stay cheap and within the stack.
MAX_DEPTH = 20
MAX_PARTS = 2_000
#: Regular expressions in one document: each walks the whole text.
MAX_PATTERNS = 50

_ABSENT = object()
_NO_GROUPS: Groups = {}


def compile_condition(
    document: Mapping[str, Any], path: str = "condition", groups: Groups = _NO_GROUPS
) -> Condition:
    """Compile a condition document into a function of a user's attributes.

    An empty document holds for everybody. `groups` are the named lists that `$inGroup` may mention; an
    unknown name is an empty list, as in SDKs. Raises `Invalid` naming the place below `path`
    (`condition.$or[1].age.$gt`), the value, and what would be right. The result is total: JSON attributes of
    any shape give True or False.
    """
    compiler = _Compiler(groups)
    condition = compiler.document(document, path, 0)
    if not compiler.patterns:
        return condition
    work = compiler.work

    def evaluate(attributes: Mapping[str, Any]) -> bool:
        work.left = MAX_WORK
        return condition(attributes)

    return evaluate


class _Compiler:
    def __init__(self, groups: Groups) -> None:
        self._groups = groups
        self._parts = 0
        self.patterns = 0
        self.work = Work()

    def document(self, given: Any, path: str, depth: int) -> Condition:
        """A whole condition: every entry must hold."""
        self._count(path, depth)
        if not isinstance(given, Mapping):
            _refuse(path, "must be an object", given)
        return _every([self._entry(name, value, f"{path}.{name}", depth) for name, value in given.items()])

    def _entry(self, name: str, value: Any, path: str, depth: int) -> Condition:
        if name in _LOGIC:
            return self._logic(name, value, path, depth)
        if name in _OPERATORS or name in _PATTERNS or name in self._nested:
            _refuse(path, "is an operator and belongs below the name of an attribute", value)
        if name.startswith("$") and not is_operators(value):
            # An attribute may be called so, but a mistyped `$or` would hold for nobody.
            _refuse(path, f"is not known; here may stand {', '.join(_LOGIC)} and names of attributes", value)
        check = self.value(value, path, depth)
        if "." not in name:
            return lambda attributes: check(attributes.get(name))
        steps = name.split(".")
        return lambda attributes: check(reach(attributes, steps))

    def _logic(self, name: str, given: Any, path: str, depth: int) -> Condition:
        if name == "$not":
            return _not(self.document(given, path, depth + 1))
        if not isinstance(given, list):
            _refuse(path, "must be a list of conditions", given)
        parts = [self.document(each, f"{path}[{at}]", depth + 1) for at, each in enumerate(given)]
        if name == "$and":
            return _every(parts)
        # An empty list holds, as in the SDKs, and `$nor` is its contrary.
        some = _some(parts) if parts else _every([])
        return some if name == "$or" else _not(some)

    def value(self, given: Any, path: str, depth: int) -> Check:
        """What one value must be: as an object of operators says, or equal to `given`."""
        self._count(path, depth)
        if is_operators(given):
            return _every(
                [self._operator(name, each, f"{path}.{name}", depth) for name, each in given.items()]
            )
        if isinstance(given, Mapping) and any(name.startswith("$") for name in given):
            _refuse(path, "mixes operators with other names", given)
        return _equal(given, path)

    def _operator(self, name: str, given: Any, path: str, depth: int) -> Check:
        pattern = _PATTERNS.get(name)
        if pattern is not None:
            return self._pattern(given, path, *pattern)
        simple = _OPERATORS.get(name)
        if simple is not None:
            return simple(given, path)
        nested = self._nested.get(name)
        if nested is not None:
            return nested(self, given, path, depth)
        return _refuse(
            path,
            f"is not an operator; there are {', '.join([*_OPERATORS, *_PATTERNS, *self._nested])}",
            given,
        )

    def _pattern(self, given: Any, path: str, ignore_case: bool, wanted: bool) -> Check:
        """For texts and numbers; anything else has no match."""
        self.patterns += 1
        if self.patterns > MAX_PATTERNS:
            raise Invalid.field(path, f"a condition may have {MAX_PATTERNS} regular expressions, not more")
        if not isinstance(given, str):
            _refuse(path, "must be a regular expression", given)
        try:
            search = compile_pattern(given, self.work, ignore_case=ignore_case)
        except PatternError as error:
            _refuse(path, f"is not a usable regular expression: {error}", given)

        def check(found: Any) -> bool:
            text = _text(found)
            return (text is not None and search(text)) is wanted

        return check

    def _negated(self, given: Any, path: str, depth: int) -> Check:
        return _not(self.value(given, path, depth + 1))

    def _size(self, given: Any, path: str, depth: int) -> Check:
        if isinstance(given, bool) or not (isinstance(given, int | float) or is_operators(given)):
            _refuse(path, "must be a number, or an object of operators", given)
        check = self.value(given, path, depth + 1)
        return lambda found: isinstance(found, list) and check(len(found))

    def _element(self, given: Any, path: str, depth: int) -> Check:
        if not isinstance(given, Mapping):
            _refuse(path, "must be an object", given)
        if is_operators(given) and not given.keys() <= {"$and", "$or", "$nor"}:
            check = self.value(given, path, depth + 1)
            return lambda found: isinstance(found, list) and any(map(check, found))
        inner = self.document(given, path, depth + 1)
        return lambda found: (
            isinstance(found, list) and any(inner(each) for each in found if isinstance(each, Mapping))
        )

    def _all(self, given: Any, path: str, depth: int) -> Check:
        if not isinstance(given, list):
            _refuse(path, "must be a list", given)
        return _each_met([self.value(each, f"{path}[{at}]", depth + 1) for at, each in enumerate(given)])

    def _all_folded(self, given: Any, path: str, depth: int) -> Check:
        if not isinstance(given, list):
            _refuse(path, "must be a list", given)
        return _each_met(
            [
                _folded(each) if isinstance(each, str) else self.value(each, f"{path}[{at}]", depth + 1)
                for at, each in enumerate(given)
            ]
        )

    def _in_group(self, given: Any, path: str, _depth: int) -> Check:
        if not isinstance(given, str):
            _refuse(path, "must be the name of a group: the key of a segment", given)
        listed = self._groups.get(given, ())
        if isinstance(listed, Iterable):
            return _member_of(list(listed), path)
        return lambda found: (
            any(each in listed for each in found) if isinstance(found, list) else found in listed
        )

    def _not_in_group(self, given: Any, path: str, depth: int) -> Check:
        return _not(self._in_group(given, path, depth))

    def _count(self, path: str, depth: int) -> None:
        self._parts += 1
        if depth > MAX_DEPTH or self._parts > MAX_PARTS:
            raise Invalid.field(
                path, f"a condition may nest {MAX_DEPTH} levels and have {MAX_PARTS} parts, not more"
            )

    # Operators that hold conditions, or need to know the groups.
    _nested: Mapping[str, Callable[["_Compiler", Any, str, int], Check]] = {
        "$not": _negated,
        "$elemMatch": _element,
        "$size": _size,
        "$all": _all,
        "$alli": _all_folded,
        "$inGroup": _in_group,
        "$notInGroup": _not_in_group,
    }


def is_operators(given: Any) -> bool:
    """Whether what is said of a value is an object of operators, and not a value to be equal to."""
    return isinstance(given, Mapping) and bool(given) and all(name.startswith("$") for name in given)


def _refuse(path: str, wanted: str, given: Any) -> NoReturn:
    raise Invalid.field(path, f"{wanted}; got {_shown(given)}")


def _shown(given: Any) -> str:
    if isinstance(given, str):
        return f'"{given}"' if len(given) <= 60 else f'"{given[:60]}…"'
    if isinstance(given, bool) or given is None:
        return {True: "true", False: "false", None: "null"}[given]
    if isinstance(given, int | float):
        return _text(given) or "a number of many digits"
    return f"a list of {len(given)}" if isinstance(given, list) else "an object"


# Combining. Loops, not generators: these run for every user who is evaluated.


def _every(parts: list[Check]) -> Check:
    if len(parts) == 1:
        return parts[0]

    def every(value: Any) -> bool:
        for part in parts:  # noqa: SIM110
            if not part(value):
                return False
        return True

    return every


def _some(parts: list[Check]) -> Check:
    def some(value: Any) -> bool:
        for part in parts:  # noqa: SIM110
            if part(value):
                return True
        return False

    return some


def _not(check: Check) -> Check:
    return lambda value: not check(value)


def _each_met(checks: list[Check]) -> Check:
    return lambda found: isinstance(found, list) and all(any(map(check, found)) for check in checks)


# Reading values.


def reach(attributes: Mapping[str, Any], steps: list[str]) -> Any:
    """The value below nested objects and lists (`pets.0.name`, `pets.length`); None where there is none."""
    found: Any = attributes
    for step in steps:
        if isinstance(found, Mapping):
            found = found.get(step)
        elif isinstance(found, list):
            if step == "length":
                found = len(found)
            elif step.isascii() and step.isdigit() and len(step) < 10 and int(step) < len(found):
                found = found[int(step)]
            else:
                return None
        else:
            return None
    return found


def _text(value: Any) -> str | None:
    """A text or number as text, whole numbers without a point; None for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return str(value) if value.bit_length() <= 1024 else None


_NUMBER = re.compile(r"\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?\s*", re.ASCII | re.IGNORECASE)
_LONGEST_NUMBER = 100


def _number(value: Any) -> float | None:
    """A number, or a text that spells one; None for anything else."""
    if isinstance(value, str):
        return float(value) if len(value) <= _LONGEST_NUMBER and _NUMBER.fullmatch(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value


# Operators: each takes what the document says and the path to it, and gives the check.


def _equal(given: Any, path: str) -> Check:
    if isinstance(given, str):
        return lambda found: found == given if isinstance(found, str) else False
    if given is None or isinstance(given, bool):
        return lambda found: found is given
    wanted = _copied(given, path, MAX_DEPTH)
    return lambda found: _same(found, wanted)


def _unequal(given: Any, path: str) -> Check:
    return _not(_equal(given, path))


def _copied(given: Any, path: str, levels: int) -> Any:
    """A value nobody else can change. Its depth bounds that of `_same`, so one too deep is refused."""
    if levels < 0:
        raise Invalid.field(path, f"a value may nest {MAX_DEPTH} levels, not more")
    if isinstance(given, Mapping):
        return {name: _copied(each, path, levels - 1) for name, each in given.items()}
    if isinstance(given, list):
        return [_copied(each, path, levels - 1) for each in given]
    return given


def _same(found: Any, wanted: Any) -> bool:
    """Equality of JSON values: a boolean is not a number, and the order of names does not matter."""
    if isinstance(found, bool) or isinstance(wanted, bool):
        return found is wanted
    if isinstance(wanted, Mapping):
        return (
            isinstance(found, Mapping)
            and len(found) == len(wanted)
            and all(_same(found.get(name, _ABSENT), each) for name, each in wanted.items())
        )
    if isinstance(wanted, list):
        return isinstance(found, list) and len(found) == len(wanted) and all(map(_same, found, wanted))
    return bool(found == wanted)


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, str], Check]:
    """`$gt` and its kin: two texts compare as texts, a text beside a number as the number it spells."""

    def make(given: Any, path: str) -> Check:
        if isinstance(given, bool) or not isinstance(given, str | int | float):
            _refuse(path, "must be a number or a text", given)
        text = given if isinstance(given, str) else None
        number = _number(given)

        def check(found: Any) -> bool:
            if text is not None and isinstance(found, str):
                return compare(found, text)
            value = _number(found)
            return value is not None and number is not None and compare(value, number)

        return check

    return make


_NOT_IN_VERSION = re.compile(r"^v|\+.*$")
_LONGEST_VERSION = 200


def _version(value: Any) -> str:
    """A version as text that sorts: numbers padded, a release after its pre-releases, the build left out.

    What is not a version counts as version 0.
    """
    written = (_text(value) or "0")[:_LONGEST_VERSION]
    parts = re.split(r"[-.]", _NOT_IN_VERSION.sub("", written))
    if len(parts) == 3:
        parts.append("~")
    return "-".join(part.rjust(5) if part.isascii() and part.isdigit() else part for part in parts)


def _versioned(compare: Callable[[Any, Any], bool]) -> Callable[[Any, str], Check]:
    def make(given: Any, path: str) -> Check:
        if _text(given) is None:
            _refuse(path, "must be a version such as 1.2.3", given)
        wanted = _version(given)
        return lambda found: compare(_version(found), wanted)

    return make


def _fold(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _folded(given: str) -> Check:
    wanted = given.lower()
    return lambda found: isinstance(found, str) and found.lower() == wanted


def _member_of(given: Any, path: str) -> Check:
    """`$in`. An attribute that is a list is in when any of its elements is."""
    if not isinstance(given, list):
        _refuse(path, "must be a list", given)
    given = _copied(given, path, MAX_DEPTH)
    texts = frozenset(each for each in given if isinstance(each, str))
    numbers = frozenset(
        each for each in given if isinstance(each, int | float) and not isinstance(each, bool)
    )
    others = [each for each in given if isinstance(each, bool) or not isinstance(each, str | int | float)]

    def has(found: Any) -> bool:
        if isinstance(found, str):
            return found in texts
        if isinstance(found, int | float) and not isinstance(found, bool):
            return found in numbers
        return any(_same(found, each) for each in others)

    def check(found: Any) -> bool:
        if isinstance(found, str):  # again, since nearly everything that is looked for is a text
            return found in texts
        return any(map(has, found)) if isinstance(found, list) else has(found)

    return check


def _not_member_of(given: Any, path: str) -> Check:
    return _not(_member_of(given, path))


def _member_folded(given: Any, path: str) -> Check:
    """`$ini`: as `$in`, with capital and small letters alike."""
    check = _member_of(list(map(_fold, given)) if isinstance(given, list) else given, path)
    return lambda found: check(list(map(_fold, found)) if isinstance(found, list) else _fold(found))


def _not_member_folded(given: Any, path: str) -> Check:
    return _not(_member_folded(given, path))


def _exists(given: Any, path: str) -> Check:
    if not isinstance(given, bool):
        _refuse(path, "must be true or false", given)
    return lambda found: (found is not None) is given


_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "string": str,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": Mapping,
    "null": type(None),
}


def _typed(given: Any, path: str) -> Check:
    if not isinstance(given, str) or given not in _TYPES:
        _refuse(path, f"must be one of {', '.join(_TYPES)}", given)
    wanted = _TYPES[given]
    if given == "number":
        return lambda found: isinstance(found, wanted) and not isinstance(found, bool)
    return lambda found: isinstance(found, wanted)


#: Whether capital and small letters are alike, and whether a match is wanted.
_PATTERNS: Mapping[str, tuple[bool, bool]] = {
    "$regex": (False, True),
    "$regexi": (True, True),
    "$notRegex": (False, False),
    "$notRegexi": (True, False),
}

_LOGIC = ("$and", "$or", "$nor", "$not")

_OPERATORS: Mapping[str, Callable[[Any, str], Check]] = {
    "$eq": _equal,
    "$ne": _unequal,
    "$gt": _ordered(operator.gt),
    "$gte": _ordered(operator.ge),
    "$lt": _ordered(operator.lt),
    "$lte": _ordered(operator.le),
    "$veq": _versioned(operator.eq),
    "$vne": _versioned(operator.ne),
    "$vgt": _versioned(operator.gt),
    "$vgte": _versioned(operator.ge),
    "$vlt": _versioned(operator.lt),
    "$vlte": _versioned(operator.le),
    "$in": _member_of,
    "$nin": _not_member_of,
    "$ini": _member_folded,
    "$nini": _not_member_folded,
    "$exists": _exists,
    "$type": _typed,
}
