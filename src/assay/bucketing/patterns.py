"""Regular expressions from strangers, matched in time proportional to the text, whatever the pattern.

`re` backtracks: `(a+)+$` on forty letters outlives the server. Here a pattern becomes a graph that is walked
once along the text, remembering every step it could be at, so that no pattern and no text can make it hang.
The price is what cannot be walked like that: look-around and back-references are refused.

The dialect is JavaScript's, since browsers evaluate the same conditions: `$` is the very end, `\\d` and `\\w`
are ASCII.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

#: Longest pattern, and how many steps it may unfold to (`a{40}` is 40).
MAX_PATTERN = 500
MAX_STEPS = 300
#: Characters of a text that are looked at.
MAX_TEXT = 2_000

_MAX_GROUPS = 30
# What a pattern remembers of its walks before it forgets them, in steps and transitions: a few megabytes.
_MAX_REMEMBERED = 50_000

_REPEAT = re.compile(r"\{(\d+)(?:(,)(\d*))?\}", re.ASCII)
_ESCAPE = re.compile(
    r"\\(?:[dDwWsSnrtfv]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|0(?!\d)|[^a-zA-Z0-9])", re.ASCII | re.DOTALL
)
_GROUP = re.compile(r"\((?:\?:|\?P?<[A-Za-z_]\w*>|(?!\?))", re.ASCII)

Fits = Callable[[str], bool]


class PatternError(ValueError):
    """The pattern cannot be matched; the message says what is wrong and where."""


def compile_pattern(pattern: str, *, ignore_case: bool = False) -> Callable[[str], bool]:
    """A function that says whether the pattern occurs anywhere in a text. Raises `PatternError`."""
    if len(pattern) > MAX_PATTERN:
        raise PatternError(f"is longer than {MAX_PATTERN} characters")
    return _Graph(_Parser(pattern, ignore_case=ignore_case).parse()).search


# What a pattern is made of. A sequence and a choice hold parts; `Repeat.most` is None for "without end".
class _Character(NamedTuple):
    fits: Fits


class _Assertion(NamedTuple):
    kind: str


class _Sequence(NamedTuple):
    parts: "list[_Part]"


class _Choice(NamedTuple):
    parts: "list[_Part]"


class _Repeat(NamedTuple):
    part: "_Part"
    least: int
    most: int | None


_Part = _Character | _Assertion | _Sequence | _Choice | _Repeat


class _Parser:
    def __init__(self, pattern: str, *, ignore_case: bool) -> None:
        self._pattern = pattern
        self._ignore_case = ignore_case
        self._at = 0
        self._groups = 0

    def parse(self) -> _Part:
        part = self._choice()
        if self._at < len(self._pattern):
            raise self._wrong("unbalanced )")
        return part

    def _wrong(self, what: str) -> PatternError:
        return PatternError(f"{what} at position {self._at}")

    def _next(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _choice(self) -> _Part:
        parts = [self._sequence()]
        while self._next() == "|":
            self._at += 1
            parts.append(self._sequence())
        return parts[0] if len(parts) == 1 else _Choice(parts)

    def _sequence(self) -> _Part:
        parts: list[_Part] = []
        while self._next() not in ("", "|", ")"):
            parts.append(self._repeated())
        return _Sequence(parts)

    def _repeated(self) -> _Part:
        part = self._atom()
        least: int = 1
        most: int | None = 1
        counted = _REPEAT.match(self._pattern, self._at)
        sign = self._next()
        if counted is not None:
            least = most = int(counted[1][:6])
            if counted[2]:
                most = int(counted[3][:6]) if counted[3] else None
            if most is not None and most < least:
                raise self._wrong("a repetition whose bounds are the wrong way round")
            self._at = counted.end()
        elif sign and sign in "*+?":
            least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}[sign]
            self._at += 1
        else:
            return part
        if isinstance(part, _Assertion):
            raise self._wrong("nothing to repeat")
        if self._next() == "?":  # "as few as possible" finds the same texts
            self._at += 1
        if (self._next() or " ") in "*+?" or _REPEAT.match(self._pattern, self._at):
            raise self._wrong("a repetition of a repetition")
        return _Repeat(part, least, most)

    def _atom(self) -> _Part:
        sign = self._next()
        if sign == "(":
            return self._group()
        if sign == "[":
            return self._character(self._set())
        if sign == "\\":
            if self._pattern[self._at : self._at + 2] in ("\\b", "\\B"):
                self._at += 2
                return _Assertion(self._pattern[self._at - 1])
            return self._character(self._escape())
        if sign in "*+?" or _REPEAT.match(self._pattern, self._at):
            raise self._wrong("nothing to repeat")
        self._at += 1
        if sign in "^$":
            return _Assertion(sign)
        return self._character("." if sign == "." else re.escape(sign))

    def _group(self) -> _Part:
        opening = _GROUP.match(self._pattern, self._at)
        if opening is None:
            raise self._wrong("a group that looks around or sets flags, which is not supported,")
        self._groups += 1
        if self._groups > _MAX_GROUPS:
            raise self._wrong(f"more than {_MAX_GROUPS} groups")
        self._at = opening.end()
        part = self._choice()
        if self._next() != ")":
            raise self._wrong("a group that is not closed")
        self._at += 1
        return part

    def _escape(self) -> str:
        found = _ESCAPE.match(self._pattern, self._at)
        if found is None:
            raise self._wrong(f"{self._pattern[self._at : self._at + 2]}, which is not supported,")
        self._at = found.end()
        return found[0]

    def _set(self) -> str:
        # Spelled out for `re`: signs that it reads, or may come to read, as set operations are escaped.
        self._at += 1
        written = "["
        if self._next() == "^":
            self._at += 1
            written += "^"
        if self._next() == "]":
            raise self._wrong("an empty set of characters")
        last = ""
        while (sign := self._next()) != "]":
            if not sign:
                raise self._wrong("a set of characters that is not closed")
            if sign == "\\" and self._pattern[self._at : self._at + 2] == "\\b":
                self._at += 2
                last = "\\x08"
            elif sign == "\\":
                last = self._escape()
            else:
                self._at += 1
                last = f"\\{sign}" if sign in "[&~|" or sign == last == "-" else sign
            written += last
        self._at += 1
        return written + "]"

    def _character(self, source: str) -> _Part:
        try:
            match = re.compile(source, re.ASCII | (re.IGNORECASE if self._ignore_case else 0)).fullmatch
        except re.error as error:
            raise self._wrong(f"{error.msg} in {source}") from error
        if not self._ignore_case:
            return _Character(lambda sign: match(sign) is not None)
        # Under ASCII rules `re` keeps Ä and ä apart, so both are tried; ß has a capital of two letters.
        combine = all if source.startswith("[^") else any
        return _Character(
            lambda sign: combine(
                match(each) for each in (sign, sign.lower(), sign.upper()) if len(each) == len(sign)
            )
        )


class _Take(NamedTuple):
    fits: Fits
    then: int


class _Ask(NamedTuple):
    kind: str
    then: int


class _Fork(NamedTuple):
    to: list[int]


_FOUND = 0


class _Place:
    """Every step the walk may be before, with what lies behind it, and where characters lead from here."""

    __slots__ = ("after_word", "at_start", "leads_to", "steps")

    def __init__(self, steps: frozenset[int], *, at_start: bool, after_word: bool) -> None:
        self.steps = steps
        self.at_start = at_start
        self.after_word = after_word
        self.leads_to: dict[str, _Place | None] = {}


class _Graph:
    """The pattern as steps that point to the next one; step 0 is the end of the pattern.

    `search` remembers the transitions it has worked out. They follow from the pattern alone, so that threads
    which write them at once write the same.
    """

    def __init__(self, part: _Part) -> None:
        self._steps: list[_Take | _Ask | _Fork] = [_Fork([])]
        self._first = self._add(part, _FOUND)
        self._forget()

    def _forget(self) -> None:
        self._remembered = 0
        self._places: dict[tuple[frozenset[int], bool], _Place] = {}
        self._start = _Place(frozenset({self._first}), at_start=True, after_word=False)

    def search(self, text: str) -> bool:
        """Whether the pattern occurs in the first `MAX_TEXT` characters."""
        place = self._start
        for sign in text[:MAX_TEXT]:
            try:
                following = place.leads_to[sign]
            except KeyError:
                following = self._walk(place, sign)
            if following is None:
                return True
            place = following
        # A text that was cut short has no end that `$` could find.
        return _FOUND in self._reachable(place, "" if len(text) <= MAX_TEXT else text[MAX_TEXT])

    def _walk(self, place: _Place, sign: str) -> _Place | None:
        """Where `sign` leads from here; None when the pattern is complete before it."""
        here = self._reachable(place, sign)
        following: _Place | None = None
        if _FOUND not in here:
            following = self._place(here, sign)
        self._remembered += 1
        place.leads_to[sign] = following
        return following

    def _place(self, here: set[int], sign: str) -> _Place:
        steps = {self._first}  # a match may start anywhere
        for number in here:
            step = self._steps[number]
            if isinstance(step, _Take) and step.fits(sign):
                steps.add(step.then)
        key = frozenset(steps), _is_word(sign)
        place = self._places.get(key)
        if place is None:
            if self._remembered > _MAX_REMEMBERED:
                self._forget()
            self._remembered += len(steps)
            place = self._places[key] = _Place(key[0], at_start=False, after_word=key[1])
        return place

    def _reachable(self, place: _Place, sign: str) -> set[int]:
        """All steps that are reached without taking a character, when `sign` (empty: the end) comes next."""
        edge = place.after_word is not _is_word(sign)
        holds = {"^": place.at_start, "$": not sign, "b": edge, "B": not edge}
        seen: set[int] = set()
        waiting = list(place.steps)
        while waiting:
            number = waiting.pop()
            if number in seen:
                continue
            seen.add(number)
            step = self._steps[number]
            if isinstance(step, _Fork):
                waiting.extend(step.to)
            elif isinstance(step, _Ask) and holds[step.kind]:
                waiting.append(step.then)
        return seen

    def _new(self, step: _Take | _Ask | _Fork) -> int:
        if len(self._steps) > MAX_STEPS:
            raise PatternError(f"unfolds to more than {MAX_STEPS} steps")
        self._steps.append(step)
        return len(self._steps) - 1

    def _add(self, part: _Part, then: int) -> int:
        """Add the steps of `part`, followed by step `then`; the number of its first step."""
        match part:
            case _Character(fits):
                return self._new(_Take(fits, then))
            case _Assertion(kind):
                return self._new(_Ask(kind, then))
            case _Sequence([]):
                # A step that does nothing, so that repeating nothing counts towards the limit, too.
                return self._new(_Fork([then]))
            case _Sequence(parts):
                for each in reversed(parts):
                    then = self._add(each, then)
                return then
            case _Choice(parts):
                return self._new(_Fork([self._add(each, then) for each in parts]))
            case _Repeat(inner, least, most):
                if most is None:
                    again = _Fork([then])
                    then = self._new(again)
                    again.to.append(self._add(inner, then))
                else:
                    for _ in range(most - least):
                        then = self._new(_Fork([then, self._add(inner, then)]))
                for _ in range(least):
                    then = self._add(inner, then)
                return then


def _is_word(sign: str) -> bool:
    return sign == "_" or (sign.isascii() and sign.isalnum())
