"""Bulk import of assignments and events from files, for `assay import`.

The process that owns the data directory does the work; the command shows what it reports. Every message is
one JSON-ready dictionary: `progress`, `bad_row`, `conflict`, and at the end `done`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from assay.assignments.base import AssignmentStore, Conflict, Record
from assay.bucketing.ruleset import Experiment, Ruleset
from assay.errors import Invalid
from assay.eventstore.base import (
    AssignmentImport,
    AssignmentRow,
    BadRow,
    EventImport,
    EventStore,
    FileFormat,
    Progress,
)

Emit = Callable[[dict[str, Any]], None]

_SUFFIXES = {
    ".csv": FileFormat.CSV,
    ".parquet": FileFormat.PARQUET,
    ".pq": FileFormat.PARQUET,
    ".ndjson": FileFormat.NDJSON,
    ".jsonl": FileFormat.NDJSON,
    ".json": FileFormat.NDJSON,
}


class ImportRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `assay import` asks for.

    `kind` is `assignments` or `events`; `experiment` is the experiment of rows that name none;
    `rename` maps a column of the file to the field it holds.
    """

    kind: str
    path: str
    format: str | None = None
    experiment: str | None = None
    rename: dict[str, str] = {}
    extra_as_properties: bool = False


class ImportTarget(NamedTuple):
    """Where imported rows go: the parts of the owning process."""

    assignments: AssignmentStore
    store: EventStore
    ruleset: Ruleset
    flush: Callable[[], None]
    name_length: int


def run_import(target: ImportTarget, request: ImportRequest, now: int, emit: Emit) -> None:
    """Do the import, reporting through `emit`. `now` is microseconds UTC.

    Raises `Invalid` where the file cannot be read or names what does not exist. Killed and repeated, it
    goes on where it was, and a repeated import changes nothing.
    """
    path = Path(request.path)
    form = _format(path, request.format)
    if any(sign in request.path for sign in "*?["):  # these would be read as a pattern of names
        raise Invalid.field("path", f"a name with *, ? or [ cannot be read, rename the file: {str(path)!r}")
    if not path.is_file():
        raise Invalid.field("path", f"there is no file {str(path)!r}")
    default = None
    if request.experiment is not None:
        default = target.ruleset.find(request.experiment)
        if default is None:
            raise Invalid.field("experiment", f"there is no experiment {request.experiment!r}")
    if request.kind == "events":
        _events(target, request, path, form, default, now, emit)
    elif request.kind == "assignments":
        _assignments(target, request, path, form, default, now, emit)
    else:
        raise Invalid.field("kind", f"must be assignments or events, got {request.kind!r}")


def _format(path: Path, named: str | None) -> FileFormat:
    if named is not None:
        try:
            return FileFormat(named)
        except ValueError:
            choices = ", ".join(FileFormat)
            raise Invalid.field("format", f"must be one of {choices}, got {named!r}") from None
    found = _SUFFIXES.get(path.suffix.lower())
    if found is None:
        raise Invalid.field("format", f"cannot be told from {path.name!r}: say csv, parquet or ndjson")
    return found


def _events(
    target: ImportTarget,
    request: ImportRequest,
    path: Path,
    form: FileFormat,
    default: Experiment | None,
    now: int,
    emit: Emit,
) -> None:
    names: dict[str, int] = {}
    for experiment in target.ruleset.by_id.values():
        names[experiment.key] = experiment.id
        names[str(experiment.id)] = experiment.id
    what = EventImport(
        path=path,
        format=form,
        now=now,
        experiments=names,
        experiment_id=default.id if default else None,
        rename=request.rename,
        extra_as_properties=request.extra_as_properties,
        name_length=target.name_length,
    )
    outcome = target.store.import_events(what, _bad_row(emit), _progress(emit))
    emit({"done": {"kind": "events", **outcome._asdict()}})


def _assignments(
    target: ImportTarget,
    request: ImportRequest,
    path: Path,
    form: FileFormat,
    default: Experiment | None,
    now: int,
    emit: Emit,
) -> None:
    what = AssignmentImport(
        path=path, format=form, now=now, rename=request.rename, name_length=target.name_length
    )
    report_bad = _bad_row(emit)
    waiting: list[BadRow] = []
    bad = rows = 0

    def name_bad() -> int:
        """Name what is wrong in the rows read so far, in their order; how many rows that are."""
        nonlocal bad
        for each in sorted(waiting, key=lambda each: each.row):
            report_bad(each)
        count = len({each.row for each in waiting})
        bad += count
        waiting.clear()
        return count

    def records() -> Iterator[Sequence[tuple[int, Record]]]:
        nonlocal rows
        resolve = _Resolver(target.ruleset, default, request.rename, waiting.append)
        for chunk in target.store.read_assignments(what, waiting.append):
            good = [(row.row, record) for row in chunk if (record := resolve(row)) is not None]
            rows += len(good) + name_bad()
            if good:
                yield good
            emit({"progress": {"done": rows, "total": None}})

    outcome = target.assignments.import_records(records(), _conflict(emit))
    rows += name_bad()
    target.flush()
    emit({"done": {"kind": "assignments", "rows": rows, "bad": bad, **outcome._asdict()}})


class _Resolver:
    """From the names in a row to ids; what cannot be resolved is a bad row."""

    def __init__(
        self,
        ruleset: Ruleset,
        default: Experiment | None,
        rename: Mapping[str, str],
        bad_row: Callable[[BadRow], None],
    ) -> None:
        self._ruleset = ruleset
        self._default = default
        self._bad_row = bad_row
        self._renamed = {
            field.removesuffix("_id").removesuffix("_name"): name for name, field in rename.items()
        }
        self._variants: dict[int, dict[str, int]] = {}

    def __call__(self, row: AssignmentRow) -> Record | None:
        experiment = self._ruleset.find(row.experiment) if row.experiment else self._default
        if experiment is None:
            if row.experiment is None:  # nor does any other row name one
                raise Invalid.field("experiment", "the file has no column for it; give --experiment")
            written = row.experiment
            reason = "there is no such experiment" if written else "no experiment is named; give --experiment"
            self._bad_row(BadRow(row.row, self._column("experiment"), written, reason))
            return None
        variants = self._variants.get(experiment.id)
        if variants is None:
            variants = {}
            for naming in ("name", "key", "id"):  # a key beats a name that looks like it
                variants.update({str(getattr(each, naming)): each.id for each in experiment.variants})
            self._variants[experiment.id] = variants
        variant_id = variants.get(row.variant)
        if variant_id is None:
            known = ", ".join(each.key for each in experiment.variants)
            self._bad_row(
                BadRow(row.row, self._column("variant"), row.variant, f"{experiment.key} has {known}")
            )
            return None
        # The split that dealt the variant is that of its time, which may long be over.
        phase = experiment.phase_at(row.assigned_at)
        return Record(experiment.id, row.unit_id, variant_id, phase, row.assigned_at)

    def _column(self, field: str) -> str:
        return self._renamed.get(field, field)


def _bad_row(emit: Emit) -> Callable[[BadRow], None]:
    return lambda row: emit({"bad_row": row._asdict()})


def _progress(emit: Emit) -> Callable[[Progress], None]:
    return lambda at: emit({"progress": {"done": at.rows_done, "total": at.rows_total}})


def _conflict(emit: Emit) -> Callable[[Conflict], None]:
    return lambda found: emit(
        {
            "conflict": {
                "row": found.row,
                "unit_id": found.proposed.unit_id,
                "proposed_variant_id": found.proposed.variant_id,
                "stored_variant_id": found.stored.variant_id,
            }
        }
    )
