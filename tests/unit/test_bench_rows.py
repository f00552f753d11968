"""What the benchmark measures, and how its options and its tools' lines are read."""

from __future__ import annotations

import pytest

from tests.lab.bench.__main__ import parse
from tests.lab.bench.clients import read_consumer_perf, read_kcat, read_producer_perf
from tests.lab.bench.measured import ClientError
from tests.lab.bench.memory import TOUCHED_SHARE, bytes_to_touch
from tests.lab.bench.rows import rows

PRODUCED = """\
31842 records sent, 6368.4 records/sec (6.07 MB/sec), 3120.4 ms avg latency, 4392.0 ms max latency.
50000 records sent, 12500.000000 records/sec (11.92 MB/sec), 1.21 ms avg latency, 210.00 ms max latency, \
1 ms 50th, 3 ms 95th, 17 ms 99th, 44 ms 99.9th.
"""
CONSUMED = """\
start.time, end.time, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, rebalance.time.ms, fetch.time.ms, \
fetch.MB.sec, fetch.nMsg.sec
2026-01-01 10:00:00:000, 2026-01-01 10:00:05:500, 953.6743, 173.3953, 1000000, 181818.1, 500, 5000, 190.73, 200000.0
"""


def test_producer_perf_is_read_from_its_last_line() -> None:
    found = read_producer_perf(PRODUCED, 50_000, 1000)
    assert (found.records, found.bytes, found.p50_ms, found.p99_ms) == (50_000, 50_000_000, 1, 17)
    assert found.seconds == pytest.approx(4.0)
    assert found.mb_per_s == pytest.approx(12.5)


@pytest.mark.parametrize("printed", ["", "org.apache.kafka.common.errors.TimeoutException: ...", PRODUCED])
def test_a_producer_that_did_not_send_all_is_an_error(printed: str) -> None:
    with pytest.raises(ClientError, match="kafka-producer-perf-test said"):
        read_producer_perf(printed, 60_000, 1000)


def test_consumer_perf_is_read_without_the_time_to_join_its_group() -> None:
    found = read_consumer_perf(CONSUMED, 1_000_000, 1000)
    assert (found.records, found.seconds, found.mb_per_s) == (1_000_000, 5.0, 200.0)


def test_a_consumer_that_got_less_is_an_error() -> None:
    with pytest.raises(ClientError, match="got 1000000 of 1000001"):
        read_consumer_perf(CONSUMED, 1_000_001, 1000)
    with pytest.raises(ClientError, match="said: Exiting"):
        read_consumer_perf("Exiting before consuming all\n", 10, 1000)


def test_kcats_records_are_counted_and_have_their_size() -> None:
    assert read_kcat("1000\n" * 4, 4, 1000, 2.0).mb_per_s == pytest.approx(0.002)
    for printed in ("1000\n" * 3, "1000\n" * 3 + "999\n"):
        with pytest.raises(ClientError, match="kcat got 3 of 4 records"):
            read_kcat(printed, 4, 1000, 2.0)


def test_rows_have_titles_and_topics_of_their_own() -> None:
    for replication in (1, 3):
        found = rows(replication, [1, 6, 30, 300])
        assert len({row.title for row in found}) == len({row.topic for row in found}) == len(found)
        assert all(row.topic.replace("-", "").isalnum() for row in found)


def test_each_number_of_partitions_has_every_kind_of_row() -> None:
    found = rows(3, [1, 300])
    assert {row.kind for row in found if row.partitions == 1} == {row.kind for row in found if row.partitions == 300}
    assert [row.partitions for row in found if row.new_topic] == [50, 200]
    assert found[-1].title == "each x 3 written once a second; 1,000 partitions"


def test_a_try_has_fewer_records_but_every_partition() -> None:
    full, tenth = rows(1, [6]), rows(1, [6], 0.1)
    assert tenth[0].records == full[0].records / 10
    assert [row.records for row in tenth if row.new_topic] == [row.records for row in full if row.new_topic]


def test_partitions_and_systems_are_chosen() -> None:
    assert parse([]).partitions == [1, 4, 30]
    assert parse(["--replication", "3"]).partitions == [1, 6, 30, 300]
    assert parse(["--partitions", "300,6"]).partitions == [6, 300]
    assert parse(["--system", "raykafka", "--system", "kafka-4.3.1"]).system == ["raykafka", "kafka-4.3.1"]


@pytest.mark.parametrize("text", ["0", "6,", "six", "-1"])
def test_partitions_are_numbers(text: str) -> None:
    with pytest.raises(SystemExit):
        parse([f"--partitions={text}"])


def test_no_more_memory_is_touched_than_is_available_and_asked_for() -> None:
    assert bytes_to_touch(64, 10_000_000_000) == int(10_000_000_000 * TOUCHED_SHARE)
    assert bytes_to_touch(2, 10_000_000_000) == 2_000_000_000
    assert bytes_to_touch(0, 10_000_000_000) == 0
