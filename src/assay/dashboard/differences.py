"""What a change was from and to, as people read it: names, not ids; times in their zone; percent."""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
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
            found.append(Change(field, before, after))
        elif isinstance(change, Mapping) and {"from", "to"} <= set(change):
            found += _between(_words(field), field, change["from"], change["to"], names or {})
        else:
            found.append(Change(_words(field), "", said(change, field, names)))
    return [each for each in found if each.before != each.after]


def said(value: Any, field: str = "", names: Names | None = None) -> str:
    """A value of the audit log as text; `field` is what it is a value of."""
    return Markup("\n").join(_lines(value, field, names or {}))


def ids_in(value: Any, field: str = "") -> Iterator[Known]:
    """What the ids within a value stand for."""
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
    if before == after or name in _DERIVED:
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
    yield from inner or [
        Change(label.removesuffix(" ·"), said(before, name, names), said(after, name, names))
    ]


def _by_name(value: Any) -> dict[str, Any]:
    """The things of a list by their names, where all have one of their own."""
    if not isinstance(value, list) or not all(isinstance(each, Mapping) for each in value):
        return {}
    found = {str(_name_of(each)): each for each in value if _name_of(each)}
    return found if len(found) == len(value) else {}


def _name_of(value: Mapping[str, Any]) -> Any:
    return value.get("key") or value.get("experiment") or value.get("name")


def _is_identity(field: str) -> bool:
    return field in _DERIVED or (field.endswith("_id") and field not in _IDS)


def _lines(value: Any, name: str, names: Names) -> list[str]:
    if name in _FOREIGN:
        return [_document(value)]
    if value is None or value in ("", [], {}):
        return [_NOTHING]
    if isinstance(value, Mapping):
        return [line for field, each in value.items() for line in _field(field, each, names)]
    if isinstance(value, list):
        if any(isinstance(each, Mapping | list) for each in value):
            return [line for each in value for line in _item(each, name, names)]
        return [Markup(", ").join(_scalar(each, name, names) for each in value)]
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
    named = _name_of(value) if isinstance(value, Mapping) else None
    if named is None:
        lines = _lines(value, name, names)
        return (
            [Markup("• {}").format(lines[0]), *(Markup("  {}").format(each) for each in lines[1:])]
            if lines
            else []
        )
    rest = {field: each for field, each in value.items() if each != named}
    return [f"• {named}", *(Markup("  {}").format(each) for each in _lines(rest, name, names) if rest)]


def _scalar(value: Any, name: str, names: Names) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        subject = names.get((_IDS.get(name, ""), int(value)))
        if subject is not None:
            return subject.name
        if name in _SHARES:
            return wording.share_text(value)
        return f"{value:,}" if isinstance(value, int) else f"{round(value, 6):,.10g}"
    text = str(value)
    if (name in _TIMES or name.endswith("_at")) and _TIME.fullmatch(text):
        return wording.time_tag(datetime.fromisoformat(text), "second")
    return text.replace("_", " ") if name in _WORDED else text


def _document(value: Any) -> str:
    """A document as it was given; a text as itself."""
    if value is None or value == {}:
        return _NOTHING
    if isinstance(value, str):
        return value
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _ONE_LINE else json.dumps(value, ensure_ascii=False, indent=2)


def _words(field: str) -> str:
    return wording.words(_CALLED.get(field, field))
