"""What a scraper sees of several processes: one set of series, whose counters never shrink."""

from assay.telemetry import Telemetry


def process(assignments: int, *, rows: float = 0.0, version: float = 0.0) -> Telemetry:
    telemetry = Telemetry()
    telemetry.assignments.add((1, 2), assignments)
    telemetry.watch("assay_waiting_rows", "Rows waiting.", lambda: rows)
    telemetry.watch("assay_ruleset_version", "Version.", lambda: version)
    telemetry.watch("assay_overloaded", "Whether.", lambda: rows > 0)
    telemetry.statuses = lambda: {"running": 3}
    return telemetry


def series(telemetry: Telemetry) -> dict[str, float]:
    lines = telemetry.exposition().decode().splitlines()
    pairs = [line.rpartition(" ") for line in lines if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in pairs}


ASSIGNED = 'experimentation_variant_assignments_total{experiment_id="1",variant="2"}'


def test_one_process_shows_its_own() -> None:
    assert series(process(4))[ASSIGNED] == 4


def test_counts_of_all_add_up__and_what_all_see_stands_once() -> None:
    shown, other = process(4, rows=5, version=8), process(6, rows=7, version=9)
    shown.others = lambda: [(other.snapshot(), True)]
    found = series(shown)
    assert found[ASSIGNED] == 10
    assert found["assay_waiting_rows"] == 12
    assert found["assay_ruleset_version"] == 9
    assert found["assay_overloaded"] == 1
    assert found['experimentation_experiments_total{status="running"}'] == 3


def test_of_a_process_that_is_gone_only_the_counts_stay() -> None:
    shown, gone = process(4, rows=5), process(6, rows=7)
    shown.others = lambda: [(gone.snapshot(), False)]
    found = series(shown)
    assert (found[ASSIGNED], found["assay_waiting_rows"]) == (10, 5)


def test_a_successor_goes_on_counting() -> None:
    first = process(6, rows=7)
    first.analysed(1, 0.02, significant=True)
    second, third = process(4, rows=5), process(1)
    second.inherit(first.snapshot())
    third.inherit(second.snapshot())
    third.others = list
    found = series(third)
    assert (found[ASSIGNED], found["assay_waiting_rows"]) == (11, 0)
    assert found['experimentation_analysis_duration_seconds_count{experiment_id="1"}'] == 1
