"""What a change was from and to, as people read it: names, not ids; times in their zone; percent."""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

from markupsafe import Markup

from assay.catalog.audit import Known, Subject
from assay.dashboard import wording

#: What ids under these names are ids of.
_IDS: Final[Mapping[str, str]] = {
    "experiments": "experiment",
    "layer_id": "layer",
    "treatment_id": "variant",
    "control_id": "variant",
}
_SHARES: Final = frozenset(
    {
        *("allocation", "traffic_allocation", "share", "power", "significance_level"),
        *("minimum_detectable_effect", "information_fraction", "floor", "relative"),
        *("ship_probability", "ship_loss", "false_trip_rate"),
    }
)
#: Documents of the application's own, whose keys are no words of ours.
_FOREIGN: Final = frozenset({"condition", "rules", "config"})
#: Said by their neighbours.
_DERIVED: Final = frozenset({"id", "allocation_percent", "newest_version"})
#: What is called differently on pages.
_CALLED: Final = {"layer_id": "layer", "treatment_id": "variant", "control_id": "control"}
#: Fields that hold words of ours, written with underscores.
_WORDED: Final = frozenset({"status", "method", "type", "role", "direction", "correction", "spending"})
_TIMES: Final = frozenset({"at", "look_dates"})
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)")
#: Beyond so many characters a document is written over several lines.
_ONE_LINE: Final = 80
_NOTHING: Final = "nothing"
#: Nobody writes a number with more digits; one that has them was computed, and is rounded.
_WRITTEN_DIGITS: Final = 10
#: Numbers beyond these sizes, in powers of ten, are written with a power of ten.
_PLAIN_SIZES: Final = range(-15, 16)

Names = Mapping[Known, Subject]


class Change(NamedTuple):
    """One field: what it was and what it is."""

    field: str
    before: str
    after: str


def changes(
    recorded: Mapping[str, Any], names: Names | None = None, *, attributes: bool = False
) -> list[Change]:
    """The fields of one entry of the audit log; of `attributes`, names and values are somebody else's."""
    found: list[Change] = []
    for field, change in recorded.items():
        if attributes and field != "created_at":
            before, after = (_document(each) for each in _sides(change))
            if before != after:
                found.append(Change(field, before, after))
        elif isinstance(change, Mapping) and {"from", "to"} <= set(change):
            found += _between(_words(field), field, change["from"], change["to"], names or {})
        elif after := said(change, field, names):
            found.append(Change(_words(field), "", after))
    return found


def said(value: Any, field: str = "", names: Names | None = None) -> str:
    """A value of the audit log as text; `field` is what it is a value of."""
    return Markup("\n").join(_lines(value, field, names or {}))


def ids_in(value: Any, field: str = "") -> Iterator[Known]:
    """What the ids within a value stand for; those of documents of the application's own are not ours."""
    if field in _FOREIGN:
        return
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from ids_in(each, field if name in {"from", "to"} else name)
    elif isinstance(value, list):
        for each in value:
            yield from ids_in(each, field)
    elif field in _IDS and isinstance(value, int) and not isinstance(value, bool):
        yield _IDS[field], value


def _sides(change: Any) -> tuple[Any, Any]:
    return (change.get("from"), change.get("to")) if isinstance(change, Mapping) else (None, change)


def _between(label: str, name: str, before: Any, after: Any, names: Names) -> Iterator[Change]:
    """What differs: of documents and of lists of things with names, only the fields that do."""
    if name in _DERIVED or _telling(before, name) == _telling(after, name):
        return
    inner: list[Change] = []
    if name not in _FOREIGN and before and after:
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            for field in {**before, **after}:
                if not _is_identity(field):
                    step = f"{label} {_words(field).lower()}"
                    inner += _between(step, field, before.get(field), after.get(field), names)
        elif (old := _by_name(before)) and (new := _by_name(after)):
            for each in {**old, **new}:
                inner += _between(f"{label} · {each} ·", name, old.get(each), new.get(each), names)
    yield from inner or [Change(label.removesuffix(" ·"), *_told_apart(before, after, name, names))]


def _told_apart(before: Any, after: Any, name: str, names: Names) -> tuple[str, str]:
    """Two values as people read them; as they were recorded where the two would read alike."""
    sides = said(before, name, names), said(after, name, names)
    return sides if sides[0] != sides[1] else (_document(before), _document(after))


def _telling(value: Any, name: str) -> Any:
    """A value without what is not shown of it."""
    if name in _FOREIGN:
        return None if value == {} else value
    if isinstance(value, Mapping):
        told = {field: _telling(each, field) for field, each in value.items() if not _is_identity(field)}
        return {field: each for field, each in told.items() if each is not None} or None
    if isinstance(value, list):
        return [_telling(each, name) for each in value] or None
    return None if value == "" else value


def _by_name(value: Any) -> dict[str, Any]:
    """The things of a list by their names, where all have one of their own."""
    if not isinstance(value, list) or not all(isinstance(each, Mapping) for each in value):
        return {}
    found = {str(each[naming]): each for each in value if (naming := _naming(each))}
    return found if len(found) == len(value) else {}


def _naming(value: Mapping[str, Any]) -> str | None:
    """The field that something is called by."""
    return next((field for field in ("key", "experiment", "name") if value.get(field)), None)


def _is_identity(field: str) -> bool:
    return field in _DERIVED or (field.endswith("_id") and field not in _IDS)


def _lines(value: Any, name: str, names: Names) -> list[str]:
    if name in _FOREIGN:
        return [_NOTHING if value == {} else _document(value)]
    if value is None or value in ("", [], {}):
        return [_NOTHING]
    if isinstance(value, Mapping):
        return [line for field, each in value.items() for line in _field(field, each, names)]
    if isinstance(value, list):
        if any(isinstance(each, Mapping | list) for each in value):
            return [line for each in value for line in _item(each, name, names)]
        return [Markup(", ").join(_scalar(each, name, names, ",") for each in value)]
    return [_scalar(value, name, names)]


def _field(field: str, value: Any, names: Names) -> list[str]:
    """A field of a document; one that says nothing is left out."""
    if _is_identity(field) or value is None or value in ("", [], {}):
        return []
    lines = _lines(value, field, names)
    if len(lines) == 1:
        return [Markup("{}: {}").format(_words(field), lines[0])]
    return [f"{_words(field)}:", *(Markup("  {}").format(each) for each in lines)]


def _item(value: Any, name: str, names: Names) -> list[str]:
    """One of several: its name first."""
    naming = _naming(value) if isinstance(value, Mapping) else None
    if naming is None:
        lines = _lines(value, name, names)
        return (
            [Markup("• {}").format(lines[0]), *(Markup("  {}").format(each) for each in lines[1:])]
            if lines
            else []
        )
    rest = {field: each for field, each in value.items() if field != naming}
    lines = _lines(rest, name, names) if rest else []
    return [f"• {value[naming]}", *(Markup("  {}").format(each) for each in lines)]


def _scalar(value: Any, name: str, names: Names, *marks: str) -> str:
    """One value; a text with one of `marks` in it is quoted."""
    if value is None:
        return _NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and (subject := names.get((_IDS.get(name, ""), value))) is not None:
        return _quoted(subject.name, *marks)
    if isinstance(value, int | float):
        return f"{_percent(value)} %" if name in _SHARES else _number(value)
    text = str(value)
    if (name in _TIMES or name.endswith("_at")) and _TIME.fullmatch(text):
        try:
            return wording.time_tag(datetime.fromisoformat(text), "second")
        except (ValueError, OverflowError):  # it looks like a time, but the calendar has no such one
            return text
    return text.replace("_", " ") if name in _WORDED else _quoted(text, *marks)


def _number(value: float) -> str:
    """`1,234.5`, with every digit that somebody wrote."""
    if isinstance(value, int):
        return f"{value:,}"
    return _digits(Decimal(repr(value)), least=6)


def _percent(share: float) -> str:
    """`33.333` of a share."""
    return _digits(Decimal(repr(share)).scaleb(2), least=2)


def _digits(value: Decimal, *, least: int) -> str:
    """All digits of what was written; of what was computed `least` decimals, and three digits at least."""
    if not value or not value.is_finite():
        return "0" if not value else str(value)
    if value.adjusted() not in _PLAIN_SIZES:
        return f"{value.normalize():g}"
    if len(value.normalize().as_tuple().digits) > _WRITTEN_DIGITS:
        value = round(value, max(least, 2 - value.adjusted()))
    shown = f"{value:,f}"
    return shown.rstrip("0").rstrip(".") if "." in shown else shown


def _quoted(text: str, *marks: str) -> str:
    """A text in quotes where it would read as something else: empty, or with one of `marks` in it."""
    reads_else = text in ("", _NOTHING) or text.startswith('"') or any(mark in text for mark in marks)
    return json.dumps(text, ensure_ascii=False) if reads_else else text


def _document(value: Any) -> str:
    """A document as it was given; a text as itself, in quotes where it would read as another value."""
    if value is None:
        return _NOTHING
    if isinstance(value, str) and not _reads_as_json(value):
        return _quoted(value)
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _ONE_LINE else json.dumps(value, ensure_ascii=False, indent=2)


def _reads_as_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _words(field: str) -> str:
    return wording.words(_CALLED.get(field, field))
