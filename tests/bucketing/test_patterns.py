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
        ("a{,2}", "a{,2}", "aa"),
        ("x{y", "x{y", "x"),
        ("[]a]".replace("[]", r"[\]"), "]", "b"),
        ("[a-]", "-", "b"),
        ("[a&&b[]", "[", "c"),
        ("[--a]", "-", "b"),
        (r"[\b]", "\b", "b"),
        (r"[^\d\s]", "1 x", "1 2"),
        (r"\x41\u00e9\/", "Aé/", "Ae/"),
        (r"(?<year>\d{4})", "in 2026", "in 26"),
        (r"\B", "", "a"),
        (r"\bcat\b", "a cat.", "concat"),
        ("日本", "日本語", "日木"),
        (".", "😀", "\n"),
        ("(){3}a", "a", "b"),
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
        ("(a", "not closed"),
        ("a)", "unbalanced"),
        ("*a", "nothing to repeat"),
        ("(|*)", "nothing to repeat"),
        ("{2}", "nothing to repeat"),
        ("^*", "nothing to repeat"),
        ("a**", "a repetition of a repetition"),
        ("a+{2}", "a repetition of a repetition"),
        ("a{3,2}", "wrong way round"),
        ("[", "not closed"),
        ("[a", "not closed"),
        ("[]", "empty set"),
        ("[^]", "empty set"),
        ("[z-a]", "bad character range"),
        (r"(a)\1", r"\1, which is not supported"),
        (r"\p{L}", r"\p, which is not supported"),
        ("\\", "which is not supported"),
        ("(?=a)", "looks around"),
        ("(?<!a)b", "looks around"),
        ("(?i)a", "sets flags"),
        ("(" * 31 + ")" * 31, "more than 30 groups"),
        ("a" * (MAX_PATTERN + 1), f"longer than {MAX_PATTERN}"),
        ("a{301}", "more than 300 steps"),
        ("(a{100}){100}", "more than 300 steps"),
        ("(((){300}){300}){300}", "more than 300 steps"),
        ("(){99999999}", "more than 300 steps"),
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
    assert time.perf_counter() - began < 5  # what backtracks does not come back at all


def test_search__text_longer_than_is_looked_at__its_beginning_counts_and_its_end_is_unknown() -> None:
    long = "a" * MAX_TEXT + "b"
    assert compile_pattern("^aaa")(long) is True
    assert compile_pattern("b")(long) is False
    assert compile_pattern("a$")(long) is False
    assert compile_pattern("a$")("a" * MAX_TEXT) is True


def test_search__more_kinds_of_places_than_are_remembered__same_answers_in_bounded_memory() -> None:
    search = compile_pattern(r"x.{20}y")
    graph = search.__self__  # type: ignore[attr-defined]
    for at in range(3_000):
        text = f"{at * 2654435761 % 2**32:032b}".replace("1", "x")
        assert search(text) is False
    assert 0 < sum(len(steps) for steps, _ in graph._places) < 60_000
    assert search("x" + "0" * 20 + "y") is True
    assert search("x" + "0" * 19 + "y") is False
