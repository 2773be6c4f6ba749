"""Regular expressions in linear time: the same answers as `re`, and none that never comes."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.bucketing.patterns import MAX_PATTERN, MAX_TEXT, PatternError, compile_pattern

_atoms = st.sampled_from(
    ["a", "b", "A", "1", " ", ".", "[ab]", "[^a]", r"\w", r"\W", r"\d", r"\s", r"\b", r"\B", "^", "$", "ab"]
)
_signs = st.sampled_from(["*", "+", "?", "*?", "{2}", "{1,}", "{0,2}"])
patterns = st.recursive(
    _atoms,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map("({0[0]}|{0[1]})".format),
        st.tuples(inner, _signs).map("(?:{0[0]}){0[1]}".format),
    ),
    max_leaves=5,
)


# Not on an empty text: there the standard library, unlike JavaScript, finds no `\B`.
@given(
    patterns, st.lists(st.text("abAB1 _\n", min_size=1, max_size=7), min_size=3, max_size=3), st.booleans()
)
def test_search__random_patterns__same_answers_as_re(
    pattern: str, subjects: list[str], ignore_case: bool
) -> None:
    search = compile_pattern(pattern, ignore_case=ignore_case)
    # `$` of the standard library may also stand before a last line break.
    oracle = re.compile(pattern.replace("$", r"\Z"), re.ASCII | (re.IGNORECASE if ignore_case else 0))
    for subject in subjects:
        assert search(subject) is (oracle.search(subject) is not None), (pattern, subject)


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        ("(Mobile|Tablet)", "Android Mobile Browser", "Chrome Desktop"),
        (r"@example\.com$", "a@example.com", "a@example.com.org"),
        ("^/shop/", "/shop/1", "/blog/shop/"),
        (r"^\d{3}-\d{4}$", "555-0199", "5555-0199"),
        ("", "", None),
        ("^$", "", "x"),
        ("[]a]".replace("[]", r"[\]"), "]", "b"),
        ("[a-]", "-", "b"),
        ("[a&&b[]", "[", "c"),
        ("[--a]", "-", "b"),
        (r"[^\d\s]", "1 x", "1 2"),
        (r"\x41\u00e9\/", "Aé/", "Ae/"),
        (r"(?<year>\d{4})", "in 2026", "in 26"),
        (r"\B", "", "a"),
        (r"\bcat\b", "a cat.", "concat"),
        ("日本", "日本語", "日木"),
        (".", "😀", "\n"),
    ],
)
def test_search__written_by_hand__finds_what_it_should(
    pattern: str, inside: str, outside: str | None
) -> None:
    search = compile_pattern(pattern)
    assert search(inside) is True
    if outside is not None:
        assert search(outside) is False


@pytest.mark.parametrize(
    ("pattern", "subject", "expected"),
    [
        ("android", "ANDROID", True),
        ("É", "é", True),
        ("[é]", "É", True),
        ("[^é]", "É", False),
        ("ß", "ß", True),
        ("[^a]", "ß", True),
        (r"\W", "ä", True),
    ],
)
def test_search__ignoring_case__letters_of_any_alphabet(pattern: str, subject: str, expected: bool) -> None:
    assert compile_pattern(pattern, ignore_case=True)(subject) is expected


@pytest.mark.parametrize(
    ("pattern", "what"),
    [
        ("(a", "missing )"),
        ("a)", "unexpected )"),
        ("*a", "no argument for repetition"),
        ("a**", "bad repetition"),
        ("a{3,2}", "invalid repetition size"),
        ("[", "missing ]"),
        ("[z-a]", "invalid character class range"),
        (r"(a)\1", "invalid escape sequence"),
        ("\\", "trailing"),
        ("(?=a)", "invalid perl operator"),
        ("(?<!a)b", "invalid perl operator"),
        ("a" * (MAX_PATTERN + 1), f"longer than {MAX_PATTERN}"),
        ("a{1001}", "invalid repetition size"),
        ("((a{100}){100}){100}", "repetition"),
        ("\ud800", "surrogate"),
    ],
)
def test_compile__not_a_usable_pattern__says_what_is_wrong(pattern: str, what: str) -> None:
    with pytest.raises(PatternError) as refusal:
        compile_pattern(pattern)
    assert what in str(refusal.value)


@given(st.text("ab()[]{}|*+?^$\\.,-0123dwbu:<>=!", max_size=12), st.text("ab01\\-", max_size=6))
def test_compile__any_text__a_pattern_or_a_refusal(pattern: str, subject: str) -> None:
    try:
        found = compile_pattern(pattern)(subject)
    except PatternError as refusal:
        assert str(refusal)  # noqa: PT017 - either outcome is right
    else:
        assert found in (True, False)


@pytest.mark.parametrize(
    ("pattern", "subject"),
    [
        ("(a+)+$", "a" * 1_999 + "b"),
        ("((a+))+$", "a" * 1_999 + "b"),
        ("(a|a)*b", "a" * 2_000),
        ("(.*)(.*)(.*)(.*)(.*)(.*)x", "a" * 2_000),
        ("(?:a?){60}a{60}$", "a" * 1_999 + "b"),
        ("(?:(a|b|.)?){40}z", "".join(chr(200 + at) for at in range(2_000))),
    ],
)
def test_search__pattern_that_ruins_backtracking__answers_at_once(pattern: str, subject: str) -> None:
    began = time.perf_counter()
    assert compile_pattern(pattern)(subject) is False
    assert time.perf_counter() - began < 60  # what backtracks does not come back at all


def test_search__text_that_is_too_long__has_no_match() -> None:
    search = compile_pattern("a$")
    assert search("x" * (MAX_TEXT - 1) + "a")
    assert not search("x" * MAX_TEXT + "a")
