"""A condition on attributes as rows of a form, and as the JSON that is the other side of it.

Rows of a group must all hold, and one group of several. What rows cannot show is written as JSON alone.
"""

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from starlette.responses import Response

from assay.catalog.checks import parse
from assay.catalog.preview import Preview, PreviewInput, preview
from assay.dashboard import literals
from assay.dashboard.pages import Form, Visit, render
from assay.errors import AssayError, FieldError, Invalid

#: The tests a row can make, as one chooses among them.
OPERATORS: Final = (
    ("$eq", "is"),
    ("$ne", "is not"),
    ("$in", "is one of"),
    ("$nin", "is none of"),
    ("$inGroup", "is on the list (key of a segment)"),
    ("$notInGroup", "is not on the list (key of a segment)"),
    ("$gte", "is at least"),
    ("$gt", "is more than"),
    ("$lte", "is at most"),
    ("$lt", "is less than"),
    ("$vgte", "is version … or later"),
    ("$vlt", "is before version"),
    ("$regex", "matches the pattern"),
    ("$notRegex", "does not match the pattern"),
    ("exists", "is there"),
    ("missing", "is not there"),
)
_KNOWN, _LISTED, _BARE = {name for name, _ in OPERATORS}, {"$in", "$nin"}, {"exists", "missing"}
#: Their values are text, whatever they look like.
_TEXTUAL = {"$vgte", "$vlt", "$regex", "$notRegex", "$inGroup", "$notInGroup"}
_MOST = 100
_BUTTON = re.compile(r"-g(\d+)(?:-(\d+))?")


class RuleRow(NamedTuple):
    """One test on an attribute, as it stands in the form."""

    attribute: str = ""
    op: str = "$eq"
    value: str = ""


class Targeting(NamedTuple):
    """A condition as it stands in the form: `side` is `rows` or `json`, whichever counts."""

    side: str
    groups: Sequence[Sequence[RuleRow]] = ((RuleRow(),),)
    text: str = ""


def read(form: Form, base: str) -> Targeting:
    """The condition that stands under this name."""
    groups = [
        [
            RuleRow(*(form.get(f"{base}-g{group}-{row}-{name}") for name in RuleRow._fields))
            for row in _places(form, f"{base}-g{group}-", "-attribute")
        ]
        for group in _places(form, f"{base}-g", "-0-attribute")
    ]
    side = "rows" if form.get(f"{base}-side") == "rows" else "json"
    return Targeting(side, groups or [[RuleRow()]], form.get(base))


def written(document: Mapping[str, Any] | None) -> Targeting:
    """The form of a condition that is stored: as rows where they can show all of it."""
    text = json.dumps(document, ensure_ascii=False, indent=2) if document else ""
    groups = _groups(document or {})
    return Targeting("json", text=text) if groups is None else Targeting("rows", groups, text)


def document_of(
    typed: Targeting, base: str, stored: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """The condition as the catalog takes it; None for none. Raises `Invalid`.

    Rows that are those of `stored` leave it as it is written there, so that nothing changes unasked.
    """
    if typed.side == "json":
        document: dict[str, Any] | None = parsed(typed.text, base)
        return document
    if stored and written(stored).side == "rows" and _clean(written(stored).groups) == _clean(typed.groups):
        return dict(stored)
    wrong: list[FieldError] = []
    groups = []
    for at, rows in enumerate(typed.groups):
        tests = []
        for place, row in enumerate(rows):
            try:
                if row.attribute or row.value:
                    tests.append(_test(row, f"{base}-g{at}-{place}"))
            except Invalid as error:
                wrong.extend(error.errors)
        if tests:
            groups.append(_together(tests))
    if wrong:
        raise Invalid(f"{wrong[0].path}: {wrong[0].message}", errors=wrong)
    if not groups:
        return None
    return groups[0] if len(groups) == 1 else {"$or": groups}


def changed(form: Form, typed: Targeting, base: str) -> Targeting | None:
    """The condition with a row or group more or less, or on its other side, if a button asked for that."""
    if form.get("turn") == base:
        return _turned(typed, base)
    if form.get("count-users") == base:
        return typed
    groups = [list(rows) for rows in typed.groups]
    if form.get("add-rule") == base:
        return typed._replace(groups=[*groups, [RuleRow()]])
    for name in ("add-rule", "remove-rule"):
        said = form.get(name)
        found = _BUTTON.fullmatch(said.removeprefix(base)) if said.startswith(base) else None
        if found is None or int(found[1]) >= len(groups):
            continue
        at = int(found[1])
        if name == "add-rule":
            groups[at].append(RuleRow())
        elif found[2]:
            groups[at] = [row for place, row in enumerate(groups[at]) if place != int(found[2])]
        return typed._replace(groups=[rows for rows in groups if rows] or [[RuleRow()]])
    return None


def names(typed: Targeting, base: str) -> Iterator[str]:
    """The names of all fields that the form shows of a condition."""
    yield base
    for group, rows in enumerate(typed.groups):
        for row, _ in enumerate(rows):
            yield from (f"{base}-g{group}-{row}-{name}" for name in RuleRow._fields)


def preview_piece(visit: Visit) -> Response:
    """How many known users what is typed so far would let in."""
    base = "rules" if visit.form.has("rules-side") else "condition"
    return render(visit, "_preview.html", **count(visit, read(visit.form, base), base))


def count(visit: Visit, typed: Targeting, base: str) -> dict[str, Any]:
    """The count of users that match, or why there is none."""
    found: Preview | None = None
    problem = ""
    chosen = [int(each) for each in visit.form.all("segment") if each.isascii() and each.isdigit()]
    try:
        asked = {"condition": document_of(typed, base), "segments": chosen, "sample": 5}
        with visit.parts.database.reading() as tx:
            found = preview(tx, parse(PreviewInput, asked), time.monotonic)
    except AssayError as error:
        unfinished = error.errors and error.errors[0].path.startswith(f"{base}-g")
        problem = "Complete the tests to see who matches." if unfinished else error.detail
    return {"found": found, "preview_problem": problem}


def _turned(typed: Targeting, base: str) -> Targeting:
    """On the other side; as it is where there is no way over."""
    try:
        document = document_of(typed, base)
    except Invalid:
        return typed
    if typed.side == "rows":
        text = json.dumps(document, ensure_ascii=False, indent=2) if document else ""
        return typed._replace(side="json", text=text)
    groups = _groups(document or {})
    return typed if groups is None else typed._replace(side="rows", groups=groups)


def parsed(text: str, path: str) -> Any:
    """JSON as it was typed; None where nothing was. Raises `Invalid`."""
    if not text:
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        place = (
            f"line {error.lineno}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        )
        raise Invalid.field(path, f'is not JSON ({place}); write it like {{"country": "DE"}}') from error


def _test(row: RuleRow, path: str) -> tuple[str, Any]:
    """The attribute and what it must be."""
    if not row.attribute:
        raise Invalid.field(f"{path}-attribute", "is needed")
    if row.op not in _KNOWN:
        raise Invalid.field(f"{path}-op", "is not one of the tests")
    if row.op in _BARE:
        return row.attribute, {"$exists": row.op == "exists"}
    if row.op in _LISTED:
        return row.attribute, {row.op: literals.read_list(row.value, f"{path}-value")}
    if row.op in _TEXTUAL:
        return row.attribute, {row.op: row.value}
    if not row.value:
        raise Invalid.field(f"{path}-value", 'is needed; "" is the empty text')
    value = literals.read(row.value, f"{path}-value")
    return row.attribute, value if row.op == "$eq" else {row.op: value}


def _together(tests: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """One object of all tests; several of one attribute share its operators, or stand beside each other."""
    merged: dict[str, Any] = {}
    for name, test in tests:
        if name not in merged:
            merged[name] = test
            continue
        before, after = _operators(merged[name]), _operators(test)
        if before.keys() & after.keys():
            return {"$and": [{name: test} for name, test in tests]}
        merged[name] = before | after
    return merged


def _operators(test: Any) -> dict[str, Any]:
    return test if isinstance(test, dict) else {"$eq": test}


def _groups(document: Mapping[str, Any]) -> list[list[RuleRow]] | None:
    """The rows that say the same as a document; None where rows cannot."""
    if not document:
        return [[RuleRow()]]
    parts = document["$or"] if set(document) == {"$or"} else [document]
    if not isinstance(parts, list) or not parts:
        return None
    groups = []
    for part in parts:
        every = part["$and"] if isinstance(part, Mapping) and set(part) == {"$and"} else [part]
        if not isinstance(every, list) or not every:
            return None
        rows = [_rows(each) for each in every]
        if any(found is None for found in rows):
            return None
        groups.append([row for found in rows for row in found or ()])
    return groups if all(groups) else None


def _rows(part: object) -> list[RuleRow] | None:
    if not isinstance(part, Mapping):
        return None
    found = []
    for name, test in part.items():
        if name.startswith("$"):
            return None
        operators = test if isinstance(test, Mapping) else {"$eq": test}
        if not operators:
            return None
        for op, value in operators.items():
            row = _row(name, op, value)
            if row is None:
                return None
            found.append(row)
    return found


def _row(name: str, op: str, value: Any) -> RuleRow | None:
    if op == "$exists" and isinstance(value, bool):
        return RuleRow(name, "exists" if value else "missing")
    if op in _LISTED and isinstance(value, list) and all(map(_is_plain, value)):
        return RuleRow(name, op, literals.written_list(value))
    if op in _TEXTUAL and isinstance(value, str) and value == value.strip():
        return RuleRow(name, op, value)
    if op in _KNOWN - _LISTED - _TEXTUAL - _BARE and _is_plain(value):
        return RuleRow(name, op, literals.written(value))
    return None


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | float)


def _clean(groups: Sequence[Sequence[RuleRow]]) -> list[list[RuleRow]]:
    return [[row for row in rows if row != RuleRow()] for rows in groups]


def _places(form: Form, before: str, after: str) -> Iterator[int]:
    place = 0
    while place < _MOST and form.has(f"{before}{place}{after}"):
        yield place
        place += 1
