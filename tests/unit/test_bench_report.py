"""The benchmark's table: medians and ranges, ratios by round against the better Kafka, and what failed."""

from __future__ import annotations

import pytest

from tests.lab.bench.figures import CPU, MB_PER_S, PRIVATE
from tests.lab.bench.measured import Measured, Results, Sample, percentile
from tests.lab.bench.report import by_role, errors, ratio, spread, table
from tests.lab.bench.rows import Row, rows
from tests.lab.clusters.systems import RAY

OURS, OLD, NEW = "raykafka", "Kafka 3.9.2", "Kafka 4.3.1"
ROW = next(row for row in rows(1, [6]) if row.kind == "1 KB, 1 MB batches")


def sample(mb_per_s: float, cpu_s: float = 1.0, private_mb: float = 100.0, **more: float) -> Sample:
    cpu = {"broker": cpu_s, **({RAY: more["ray_s"]} if "ray_s" in more else {})}
    return Sample(Measured(1000, 1_000_000, 1 / mb_per_s), cpu, {"broker": private_mb}, {"broker": private_mb})


def samples(*mb_per_s: float) -> list[Sample]:
    return [sample(value) for value in mb_per_s]


def body(row: Row, by_system: dict[str, list[Sample]]) -> list[str]:
    results: Results = {row.title: by_system}
    return table([row], results, list(by_system)).splitlines()[2:]


def test_ratios_are_taken_round_by_round_to_the_kafka_with_the_better_median() -> None:
    found = ratio(MB_PER_S, {OURS: samples(100, 150, 90), OLD: samples(50, 100, 90), NEW: samples(80, 60, 70)})
    assert found is not None
    assert found.rival == OLD
    # 2.0, 1.5, 1.0: of the rounds, not of the medians (100 / 90)
    assert (found.spread.middle, found.spread.least, found.spread.most) == pytest.approx((1.5, 1.0, 2.0))


def test_less_is_better_for_cpu_and_memory() -> None:
    by_system = {
        OURS: [sample(1, cpu_s=2, private_mb=300)],
        OLD: [sample(1, cpu_s=4, private_mb=600)],
        NEW: [sample(1, cpu_s=5, private_mb=400)],
    }
    cpu, private = ratio(CPU, by_system), ratio(PRIVATE, by_system)
    assert cpu is not None and (cpu.rival, cpu.spread.middle) == (OLD, 0.5)
    assert private is not None and (private.rival, private.spread.middle) == (NEW, 0.75)


def test_a_round_that_failed_on_either_side_has_no_ratio() -> None:
    broken = Sample(error="timed out")
    found = ratio(MB_PER_S, {OURS: [sample(10), broken, sample(30)], OLD: [broken, sample(10), sample(10)]})
    assert found is not None
    assert found.spread.middle == pytest.approx(3.0)
    assert ratio(MB_PER_S, {OURS: [broken], OLD: [sample(10)]}) is None
    assert ratio(MB_PER_S, {OURS: [sample(10)], OLD: [broken]}) is None


def test_there_are_no_ratios_without_both_sides() -> None:
    assert ratio(MB_PER_S, {OURS: samples(1)}) is None
    assert ratio(MB_PER_S, {OLD: samples(1), NEW: samples(2)}) is None
    assert "ratio" not in table([ROW], {ROW.title: {OURS: samples(1)}}, [OURS])


def test_the_table_has_medians_ranges_and_the_rival() -> None:
    first, *_ = body(ROW, {OURS: samples(100, 300, 200), OLD: samples(50, 50, 50), NEW: samples(100, 100, 100)})
    assert first == (
        "| 1 KB, 1 MB batches; 6 partitions | MB/s | 200 (100-300) | 50.0 | 100 | 2.00 (1.00-3.00) to Kafka 4.3.1 |"
    )


def test_rays_daemons_are_told_apart_from_the_servers() -> None:
    lines = body(ROW, {OURS: [sample(10, cpu_s=3, ray_s=0.5)], OLD: [sample(10, cpu_s=6)]})
    assert "|  | servers' CPU, s | 3.0 | 6.0 | 0.50 |" in lines
    assert "|  | Ray's daemons' CPU, s | 0.50 | - | - |" in lines


def test_failures_are_shown_not_dropped() -> None:
    broken = Sample(error="not finished after 180 s")
    by_system = {OURS: [sample(10), broken], OLD: [broken, broken]}
    first, *_ = body(ROW, by_system)
    assert first == "| 1 KB, 1 MB batches; 6 partitions | MB/s | 10.0, 1 failed | failed | - |"
    assert errors({ROW.title: by_system}) == [
        "1 KB, 1 MB batches; 6 partitions, raykafka, round 2: not finished after 180 s",
        "1 KB, 1 MB batches; 6 partitions, Kafka 3.9.2, round 1: not finished after 180 s",
        "1 KB, 1 MB batches; 6 partitions, Kafka 3.9.2, round 2: not finished after 180 s",
    ]


def test_roles_have_their_medians() -> None:
    results: Results = {ROW.title: {OURS: [sample(1, cpu_s=seconds, ray_s=0.5) for seconds in (1, 5, 2)]}}
    lines = by_role([ROW], results, [OURS], lambda found: found.cpu_s).splitlines()
    assert lines[0] == f"| raykafka | {RAY} | broker |"
    assert lines[2] == "| 1 KB, 1 MB batches; 6 partitions | 0.50 | 2.0 |"


def test_spread_and_percentiles() -> None:
    assert spread([None, None]) is None
    assert str(spread([3.0, None, 1.0, 2.0])) == "2.0 (1.0-3.0)"
    assert str(spread([1234.0])) == "1,234"
    ordered = [float(value) for value in range(1, 101)]
    assert (percentile(ordered, 50), percentile(ordered, 99), percentile(ordered, 100)) == (50, 99, 100)
    assert percentile([7.0], 50) == percentile([7.0], 99) == 7
