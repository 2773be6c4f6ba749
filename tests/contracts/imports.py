"""What imports of files promise, as tests that each store inherits beside the rest of the contract."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assay.errors import Invalid
from assay.eventstore.base import (
    AssignmentImport,
    AssignmentRow,
    BadRow,
    EventFilter,
    EventImport,
    EventStore,
    FileFormat,
    Imported,
    Measure,
    Progress,
    Scope,
    StoredEvent,
)

NOW = 1_790_000_000_000_000
SECOND = 1_000_000


class Import:
    """Imports texts as files and keeps what it is told."""

    def __init__(self, store: EventStore, folder: Path) -> None:
        self.store = store
        self.folder = folder
        self.bad: list[BadRow] = []
        self.progress: list[Progress] = []

    def file(self, text: str | bytes, form: FileFormat) -> Path:
        path = self.folder / f"file.{form}"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def events(self, text: str | bytes, form: FileFormat = FileFormat.CSV, **options: Any) -> Imported:
        return self.path(self.file(text, form), form, **options)

    def path(self, path: Path, form: FileFormat, **options: Any) -> Imported:
        what = EventImport(path, form, NOW, **options)
        return self.store.import_events(what, self.bad.append, self.progress.append)

    def assignments(self, text: str | bytes, form: FileFormat, **options: Any) -> list[AssignmentRow]:
        what = AssignmentImport(self.file(text, form), form, NOW, **options)
        return [row for chunk in self.store.read_assignments(what, self.bad.append) for row in chunk]

    def stored(self) -> list[StoredEvent]:
        rows, _ = self.store.events(EventFilter(), 100_000)
        return sorted(rows, key=lambda row: row.seq)


class ImportContract:
    """Inherit and give the fixture `store`."""

    @pytest.fixture
    def imports(self, store: EventStore, tmp_path: Path) -> Import:
        return Import(store, tmp_path)

    def test_a_csv_of_everything(self, imports: Import) -> None:
        text = (
            "event_id,user_id,event_name,timestamp,value,properties,experiment_id,variant_id,units\n"
            'e-1,"u ""1""",buy,2026-01-15T10:35:00,9.5,"{""price"": 1.50}",checkout,7,'
            '"{""account"": ""a""}"\n'
            ',u2,buy,,,"{""amount"": 3, ""price"": 4}",,,\n'
        )
        assert imports.events(text, experiments={"checkout": 5}) == Imported(2, 2, 0, 0, 0)
        assert imports.bad == []
        assert imports.progress == [Progress(0, 2), Progress(2, 2)]
        first, second = imports.stored()
        assert first[1:] == (
            "e-1",
            'u "1"',
            "buy",
            1_768_473_300 * SECOND,
            NOW,
            9.5,
            9.5,
            '{"price": 1.50}',
            {"account": "a"},
            5,
            None,
            7,
        )
        assert second[2:] == (
            "u2",
            "buy",
            NOW,
            NOW,
            None,
            3.0,
            '{"amount": 3, "price": 4}',
            {},
            None,
            None,
            None,
        )

    def test_lines_of_json(self, imports: Import) -> None:
        lines = [
            {
                "user_id": "u1",
                "type": "buy",
                "timestamp": "2026-01-15T10:35:00Z",
                "properties": {"a": {"b": [1]}},
            },
            {
                "user_id": 2,
                "event_name": "buy",
                "timestamp": 1_768_473_300,
                "value": 5,
                "units": {"account": "é"},
            },
            {"user_id": "u3", "type": "buy", "timestamp": None, "value": None, "properties": None},
        ]
        text = "\n\n".join(json.dumps(line) for line in lines) + "\n"
        with pytest.raises(Invalid, match="both mean type"):
            imports.events(text, FileFormat.NDJSON)
        text = text.replace("event_name", "type")
        assert imports.events(text, FileFormat.NDJSON) == Imported(3, 3, 0, 0, 0)
        assert [
            (row.user_id, row.occurred_at, row.value, row.properties, row.units) for row in imports.stored()
        ] == [
            ("u1", 1_768_473_300 * SECOND, None, '{"a":{"b":[1]}}', {}),
            ("2", 1_768_473_300 * SECOND, 5.0, None, {"account": "é"}),
            ("u3", NOW, None, None, {}),
        ]

    def test_parquet_with_its_own_types(self, imports: Import, parquet: Callable[[Path, str], None]) -> None:
        path = imports.folder / "file.parquet"
        parquet(
            path,
            "SELECT 7 AS user_id, 'buy' AS type, TIMESTAMP '2026-01-15 10:35:00.5' AS timestamp, "
            "1.25 AS value, "
            "{'price': 3, 'cur': 'EUR'} AS properties UNION ALL "
            "SELECT 8, 'buy', NULL, NULL, NULL",
        )
        assert imports.path(path, FileFormat.PARQUET) == Imported(2, 2, 0, 0, 0)
        first, second = imports.stored()
        assert first[2:9] == (
            "7",
            "buy",
            1_768_473_300_500_000,
            NOW,
            1.25,
            1.25,
            '{"price":3,"cur":"EUR"}',
        )
        assert second[2:9] == ("8", "buy", NOW, NOW, None, None, None)

    @pytest.mark.parametrize("type_", ["TIMESTAMPTZ", "DATE", "BIGINT", "DOUBLE", "VARCHAR"])
    def test_parquet_times_of_any_type(
        self, imports: Import, parquet: Callable[[Path, str], None], type_: str
    ) -> None:
        value = {"BIGINT": "1768435200", "DOUBLE": "1768435200000.0"}.get(type_, "'2026-01-15'")
        path = imports.folder / "file.parquet"
        parquet(path, f"SELECT 'u' AS user_id, 'buy' AS type, CAST({value} AS {type_}) AS timestamp")
        assert imports.path(path, FileFormat.PARQUET).events == 1
        assert imports.stored()[0].occurred_at == 1_768_435_200 * SECOND

    def test_every_bad_row_is_named(self, imports: Import) -> None:
        rows = [
            ("u,buy,,,", None),
            (",buy,,,", ("user_id", "", "is missing")),
            (f"{'x' * 201},buy,,,", ("user_id", "x" * 99 + "…", "is too long")),
            ("u,,,,", ("type", "", "is missing")),
            (
                "u,buy,soon,,",
                ("timestamp", "soon", "is not a time (ISO 8601, or seconds or milliseconds since 1970)"),
            ),
            (
                "u,buy,2026-02-30,,",
                (
                    "timestamp",
                    "2026-02-30",
                    "is not a time (ISO 8601, or seconds or milliseconds since 1970)",
                ),
            ),
            ("u,buy,2031-01-01,,", ("timestamp", "2031-01-01", "is more than 5 minutes in the future")),
            ("u,buy,1999-12-31,,", ("timestamp", "1999-12-31", "is before the year 2000")),
            ("u,buy,5,,", ("timestamp", "5", "is before the year 2000")),
            ("u,buy,,much,", ("value", "much", "is not a number")),
            ("u,buy,,NaN,", ("value", "NaN", "is not finite")),
            ("u,buy,,-inf,", ("value", "-inf", "is not finite")),
            ("u,buy,,1e101,", ("value", "1e101", "is beyond 1e100")),
            ("u,buy,,,{broken", ("properties", "{broken", "is not JSON")),
            ("u,buy,,,[1]", ("properties", "[1]", "is not a JSON object")),
            ("u,buy", ("", "u,buy", "Expected Number of Columns: 5 Found: 2")),
            ("u,buy,,much,[1]", ("value", "much", "is not a number")),
            ("u2,buy,,,", None),
        ]
        text = "\n".join(["user_id,type,timestamp,value,properties", *(row for row, _ in rows)]) + "\n"
        assert imports.events(text) == Imported(18, 2, 0, 16, 0)
        expected = [BadRow(number, *wrong) for number, (_, wrong) in enumerate(rows, start=1) if wrong]
        expected.append(BadRow(17, "properties", "[1]", "is not a JSON object"))
        assert sorted(imports.bad) == sorted(expected)
        assert [row.user_id for row in imports.stored()] == ["u", "u2"]

    def test_lines_that_are_no_objects_are_named(self, imports: Import) -> None:
        good = b'{"user_id": "u", "type": "t"}'
        text = b"\n".join(
            (good, b"{broken", b"[1]", b"7", b'{"user_id": "\xff", "type": "t"}', good, b'{"type": "t"}')
        )
        assert imports.events(text, FileFormat.NDJSON) == Imported(7, 2, 0, 5, 0)
        assert {(row.row, row.column, row.reason) for row in imports.bad if row.row != 5} == {
            (2, "line", "is not a JSON object"),
            (3, "line", "is not a JSON object"),
            (4, "line", "is not a JSON object"),
            (7, "user_id", "is missing"),
        }
        assert "unicode" in next(row.reason for row in imports.bad if row.row == 5)

    @pytest.mark.parametrize(
        ("written", "until"),
        [
            ("2026-01-15T10:35:00", 999_999),
            ("2026-01-15 10:35:00+00:00", 999_999),
            ("2026-01-15T11:35:00+0100", 999_999),
            ("2026-01-15T10:35", 59_999_999),
            ("2026-01-15T10:35:00.000Z", 999),
            ("2026-01-15T10:35:00.000000Z", 0),
            ("2026-01-15T10:35:00,0", 0),
            ("1768473300", 999_999),
            ("1768473300000", 999),
        ],
    )
    def test_times_count_as_long_as_they_were_written(
        self, imports: Import, written: str, until: int
    ) -> None:
        at = 1_768_473_300 * SECOND
        assert imports.events(f'user_id;type;timestamp\nu;t;"{written}"\n').events == 1
        assert imports.stored()[0].occurred_at == at
        for experiment, assigned_at, counted in ((1, at + until, 1), (2, at + until + 1, 0)):
            rows = json.dumps([[experiment, experiment, "u", 10, 0, assigned_at]])
            imports.store.append((-1, experiment), assignments=rows)
            [arm] = imports.store.moments(Scope(experiment), [Measure("m", "t")])
            assert arm.measures["m"].events == counted

    def test_a_repeated_import_counts_once(self, imports: Import) -> None:
        text = "user_id,type\n" + "".join(f"u{index},t\n" for index in range(10)) + ",t\n"
        before = imports.store.watermark()
        assert imports.events(text) == Imported(11, 10, 0, 1, 0)
        after = imports.store.watermark()
        assert (after.mark != before.mark, after.epoch != before.epoch) == (True, True)
        assert imports.events(text) == Imported(11, 0, 10, 1, 0)
        assert len(imports.stored()) == 10
        assert imports.bad == 2 * [BadRow(11, "user_id", "", "is missing")]
        assert imports.events(text, experiment_id=3).events == 10

    def test_callers_ids_count_once_on_every_path(self, imports: Import) -> None:
        sent = '{"e": "%s", "u": "a", "t": "t", "s": 1, "r": 1, "o": "1", "k": true}'
        uuids = {"1": "f4e5e5a1-5df7-5c9b-9d2c-26b8a5b2a5c3"}
        text = "event_id,user_id,type\n1,a,t\n1,b,t\n1,a,t\n0199AAAA-BBBB-7000-8000-000000000001,a,t\n"
        assert imports.events(text) == Imported(4, 3, 1, 0, 0)
        assert [row.event_id for row in imports.stored()] == [
            "1",
            "1",
            "0199AAAA-BBBB-7000-8000-000000000001",
        ]
        [(_, canonical), *_] = [
            key for key in imports.store.recent_keys(9) if key[0] == "a" and key[1][14] == "5"
        ]
        assert canonical != uuids["1"]
        again = imports.store.append((65_536, 0), f'[{{"q": 1, "i": 0, "b": [{sent % canonical}]}}]')
        assert again == (0, 1, 0)

    def test_columns_are_known_renamed_or_made_properties(self, imports: Import) -> None:
        text = 'customer,type,price,note,"we""ird,\'"\nu,t,5,007,x\nv,t,,,\n'
        with pytest.raises(Invalid, match="'customer' is not known"):
            imports.events(text)
        with pytest.raises(Invalid, match="'price' is not known"):
            imports.events(text, rename={"customer": "user_id"})
        done = imports.events(text, rename={"customer": "user_id"}, extra_as_properties=True)
        assert done == Imported(2, 2, 0, 0, 0)
        first, second = imports.stored()
        assert first.properties is not None
        assert json.loads(first.properties) == {"price": 5, "note": "007", "we\"ird,'": "x"}
        assert (first.amount, second.amount) == (5.0, None)

    def test_lines_of_json_with_more_fields(self, imports: Import) -> None:
        text = '{"user_id": "u", "type": "t", "properties": {"a": 1}, "b": {"c": "d"}, "price": 2.5}\n'
        assert imports.events(text, FileFormat.NDJSON) == Imported(1, 0, 0, 1, 0)
        imports.events(text, FileFormat.NDJSON, extra_as_properties=True)
        [row] = imports.stored()
        assert json.loads(row.properties or "") == {"a": 1, "b": {"c": "d"}, "price": 2.5}
        assert row.amount == 2.5

    def test_an_unknown_column_is_refused_with_what_to_do(self, imports: Import) -> None:
        advice = (
            "The column 'coupon' is not known; known are .*"
            r"--rename coupon=FIELD, or keep it as a property with --extra-as-properties\."
        )
        with pytest.raises(Invalid, match=advice):
            imports.events("user_id,type,coupon\nu,t,x\n")
        with pytest.raises(Invalid, match=r"Say which field it is with --rename coupon=FIELD\.$"):
            imports.assignments("user_id,variant,coupon\nu,a,x\n", FileFormat.CSV)

    def test_an_unknown_field_of_a_line_is_a_bad_row(self, imports: Import) -> None:
        lines = '{"user_id": "a", "type": "t"}\n{"user_id": "b", "type": "t", "fo/o~": [1], "x": 2}\n'
        lines += '{"user_id": "c", "type": "t", "y": null}\n{"user_id": "d", "type": "t"}\n'
        reason = "is not a known field; see --rename and --extra-as-properties"
        bad = [BadRow(2, "fo/o~", "[1]", reason), BadRow(3, "y", "null", reason)]
        assert imports.events(lines, FileFormat.NDJSON) == Imported(4, 2, 0, 2, 0)
        assert imports.bad == bad
        done = imports.events(lines, FileFormat.NDJSON, extra_as_properties=True)
        assert done == Imported(4, 2, 2, 0, 0)
        imports.bad.clear()
        lines = '{"user_id": "a", "variant": "v"}\n{"user_id": "b", "variant": "v", "z": 1}\n'
        assert [row.unit_id for row in imports.assignments(lines, FileFormat.NDJSON)] == ["a"]
        assert imports.bad == [BadRow(2, "z", "1", "is not a known field; see --rename")]

    def test_columns_are_named_as_in_the_file(self, imports: Import) -> None:
        imports.events(
            "customer,event_name,when\n,t,\nu,,\nu,t,soon\n",
            rename={"customer": "user_id", "when": "timestamp"},
        )
        assert [(row.row, row.column) for row in imports.bad] == [
            (1, "customer"),
            (2, "event_name"),
            (3, "when"),
        ]

    def test_bytes_that_are_no_text_are_bad_where_they_are(self, imports: Import) -> None:
        assert imports.events(b"user_id,type\nu,t\n\xff,t\nv,t\n") == Imported(3, 2, 0, 1, 0)
        assert [row.row for row in imports.bad] == [2]

    def test_experiments_are_resolved(self, imports: Import) -> None:
        text = "user_id,type,experiment\na,t,checkout\nb,t,7\nc,t,\nd,t,nope\n"
        done = imports.events(text, experiments={"checkout": 5, "7": 7}, experiment_id=9)
        assert done == Imported(4, 3, 0, 1, 0)
        assert imports.bad == [BadRow(4, "experiment", "nope", "is not a known experiment")]
        assert [row.experiment_id for row in imports.stored()] == [5, 7, 9]

    @pytest.mark.parametrize("form", list(FileFormat))
    def test_a_file_that_cannot_be_read_is_invalid(self, imports: Import, form: FileFormat) -> None:
        with pytest.raises(Invalid, match="no file"):
            imports.path(imports.folder / "absent", form)
        if form is not FileFormat.NDJSON:
            for content in (b"", b"\xff\xfe\x00garbage"):
                with pytest.raises(Invalid):
                    imports.events(content, form)
        assert imports.stored() == []

    def test_a_stopped_import_goes_on(self, imports: Import, chunk: Callable[[int], None]) -> None:
        chunk(10)
        text = "user_id,type\n" + "".join(f"u{index},t\n" if index % 7 else ",t\n" for index in range(95))

        class StopError(Exception):
            pass

        def stopping(progress: Progress) -> None:
            if progress.rows_done == 30:
                raise StopError

        path = imports.file(text, FileFormat.CSV)
        what = EventImport(path, FileFormat.CSV, NOW)
        with pytest.raises(StopError):
            imports.store.import_events(what, imports.bad.append, stopping)
        imports.bad.clear()
        assert imports.path(path, FileFormat.CSV) == Imported(95, 81, 0, 14, 30)
        assert [row.user_id for row in sorted(imports.stored(), key=lambda row: int(row.user_id[1:]))] == [
            f"u{index}" for index in range(95) if index % 7
        ]
        assert [row.row for row in imports.bad] == [index + 1 for index in range(95) if not index % 7]

    def test_a_stopped_import_names_again_what_was_bad(
        self, imports: Import, chunk: Callable[[int], None]
    ) -> None:
        chunk(4)
        text = "user_id,type\n" + "".join(f"u{index},t\n" if index % 5 else "u\n" for index in range(12))
        text += ",t\n" * 2

        class StopError(Exception):
            pass

        def stopping(progress: Progress) -> None:
            if progress.rows_done == 8:
                raise StopError

        path = imports.file(text, FileFormat.CSV)
        with pytest.raises(StopError):
            imports.store.import_events(EventImport(path, FileFormat.CSV, NOW), imports.bad.append, stopping)
        for done in (Imported(14, 9, 0, 5, 8), Imported(14, 0, 9, 5, 0)):
            imports.bad.clear()
            assert imports.path(path, FileFormat.CSV) == done
            assert [row.row for row in imports.bad] == [1, 6, 11, 13, 14]

    def test_rows_that_failed_are_taken_when_the_cause_is_gone(
        self, imports: Import, chunk: Callable[[int], None]
    ) -> None:
        chunk(2)
        text = "user_id,type,event_id,experiment\na,t,1,\nb,t,2,later\nc,t,,later\na,t,1,\nd,t,,\n"
        bad = [BadRow(row, "experiment", "later", "is not a known experiment") for row in (2, 3)]
        assert imports.events(text) == Imported(5, 2, 1, 2, 0)
        assert imports.events(text) == Imported(5, 0, 3, 2, 0)
        assert imports.bad == 2 * bad
        assert imports.events(text, experiments={"later": 4}) == Imported(5, 2, 3, 0, 0)
        assert imports.events(text, experiments={"later": 4}) == Imported(5, 0, 5, 0, 0)
        assert sorted((row.user_id, row.experiment_id) for row in imports.stored() if row.experiment_id) == [
            ("b", 4),
            ("c", 4),
        ]
        assert len(imports.stored()) == 4
        assert imports.bad == 2 * bad

    def test_an_unfinished_import_takes_what_failed_before(
        self, imports: Import, chunk: Callable[[int], None]
    ) -> None:
        chunk(2)
        text = "user_id,type,experiment\na,t,later\n,t,\nb,t,\nc,t,\n"

        class StopError(Exception):
            pass

        def stopping(progress: Progress) -> None:
            if progress.rows_done == 2:
                raise StopError

        path = imports.file(text, FileFormat.CSV)
        with pytest.raises(StopError):
            imports.store.import_events(EventImport(path, FileFormat.CSV, NOW), imports.bad.append, stopping)
        imports.bad.clear()
        assert imports.path(path, FileFormat.CSV, experiments={"later": 4}) == Imported(4, 3, 0, 1, 0)
        assert imports.bad == [BadRow(2, "user_id", "", "is missing")]
        assert sorted(row.user_id for row in imports.stored()) == ["a", "b", "c"]

    def test_erased_events_come_back_when_their_file_does(self, imports: Import) -> None:
        text = "user_id,type\na,t\nb,t\n"
        imports.events(text)
        imports.store.erase("a")
        assert imports.events(text) == Imported(2, 1, 1, 0, 0)
        assert sorted(row.user_id for row in imports.stored()) == ["a", "b"]

    def test_a_repeated_import_is_not_in_the_ledger(self, imports: Import) -> None:
        text = "user_id,type,event_id,experiment\na,t,1,x\na,t,1,x\n"
        for _ in range(3):
            imports.events(text, experiments={"x": 5})
        noted = [entry for entry in imports.store.ledger(Scope(5)) if entry.reason == "duplicate"]
        assert [entry.count for entry in noted] == [1]

    # Assignments.

    def test_assignments_in_all_formats(self, imports: Import, parquet: Callable[[Path, str], None]) -> None:
        expected = [
            AssignmentRow(1, "checkout", "u1", "control", 1_768_473_300 * SECOND),
            AssignmentRow(2, "checkout", "u2", "treatment", NOW),
        ]
        text = (
            "experiment,unit_id,variant,assigned_at\n"
            "checkout,u1,control,2026-01-15T10:35:00Z\ncheckout,u2,treatment,\n"
        )
        assert imports.assignments(text, FileFormat.CSV) == expected
        lines = (
            '{"experiment": "checkout", "user_id": "u1", "variant": "control", "timestamp": 1768473300}\n'
            '{"experiment": "checkout", "user_id": "u2", "variant": "treatment"}\n'
        )
        assert imports.assignments(lines, FileFormat.NDJSON) == expected
        path = imports.folder / "assignments.parquet"
        parquet(
            path,
            "SELECT 'checkout' AS experiment, 'u1' AS user_id, 'control' AS variant, "
            "TIMESTAMP '2026-01-15 10:35:00' AS timestamp "
            "UNION ALL SELECT 'checkout', 'u2', 'treatment', NULL",
        )
        what = AssignmentImport(path, FileFormat.PARQUET, NOW)
        assert [
            row for rows in imports.store.read_assignments(what, imports.bad.append) for row in rows
        ] == expected
        assert imports.bad == []
        assert imports.store.moments(Scope(1), []) == []

    def test_bad_assignments_are_named(self, imports: Import) -> None:
        text = "user_id,variant,timestamp\nu,a,\n,a,\nu,,\nu,a,never\nu\nv,b,\n"
        rows = imports.assignments(text, FileFormat.CSV)
        assert [(row.row, row.unit_id) for row in rows] == [(1, "u"), (6, "v")]
        assert {(row.row, row.column, row.value) for row in imports.bad} == {
            (2, "user_id", ""),
            (3, "variant", ""),
            (4, "timestamp", "never"),
            (5, "", "u"),
        }
