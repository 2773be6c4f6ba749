"""Regular expressions from strangers, matched in time proportional to the text, whatever the pattern.

`re` backtracks: `(a+)+$` on forty letters outlives the server. RE2 walks the text once and has no such
pattern; the price is what cannot be walked like that: look-around and back-references are refused. As in
JavaScript, where browsers evaluate the same conditions, `$` is the very end, and `\\d` and `\\w` are ASCII.

Where a pattern has too many states to remember, as `.*(a|b).{400}$` has, a walk takes time in proportion to
the compiled pattern as well. So one evaluation of a condition may spend `MAX_WORK` on all of its patterns.
"""

import re
import threading
from collections.abc import Callable
from typing import Final

#: Longest pattern, and the longest text in which one is looked for.
MAX_PATTERN: Final = 500
MAX_TEXT: Final = 4_000
#: Steps of compiled patterns times characters of texts that one evaluation may take: 50 ms at the 12 ns that
#: one takes at most. `^\\pL+$`, which has 1,199 steps, may see 3,300 characters; most patterns have 30.
MAX_WORK: Final = 4_000_000

# Bytes that a compiled pattern and what it remembers of its walks may take.
_MEMORY = 1 << 20
_UNICODE = re.compile(r"(?<!\\)((?:\\\\)*)\\u([0-9a-fA-F]{4})")


class PatternError(ValueError):
    """The pattern cannot be matched; the message says what is wrong."""


class Work(threading.local):
    """What one evaluation may still spend on patterns; each thread evaluates for itself."""

    left = MAX_WORK


def compile_pattern(
    pattern: str, work: Work | None = None, *, ignore_case: bool = False
) -> Callable[[str], bool]:
    """A function that says whether the pattern occurs anywhere in a text. Raises `PatternError`.

    In a text of more than `MAX_TEXT` characters it does not, nor once what is left of `work` is spent.
    """
    # Most installations target by equality; they do not pay for the engine at every start.
    import re2  # noqa: PLC0415

    if len(pattern) > MAX_PATTERN:
        raise PatternError(f"is longer than {MAX_PATTERN} characters")
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MEMORY
    options.case_sensitive = not ignore_case
    try:
        compiled = re2.compile(_UNICODE.sub(r"\1\\x{\2}", pattern), options)
    except UnicodeEncodeError as error:
        raise PatternError("holds half of a surrogate pair") from error
    except re2.error as error:
        said = error.args[0] if error.args else b"cannot be read"
        raise PatternError(said.decode(errors="replace") if isinstance(said, bytes) else str(said)) from error

    steps = compiled.programsize

    def search(text: str) -> bool:
        if len(text) > MAX_TEXT:
            return False
        if work is not None:
            work.left -= steps * len(text)
            if work.left < 0:
                return False
        try:
            return compiled.search(text) is not None
        except UnicodeEncodeError:  # half a surrogate pair occurs in no pattern
            return False

    return search
