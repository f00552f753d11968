"""Brokers that come back without what they had (rule 18): they lead nothing, and nothing acknowledged is lost by it."""

from __future__ import annotations

import os
from pathlib import Path

from tests.lab.clusters.plain_broker import PlainBroker
from tests.lab.clusters.replicated import (
    BROKERS,
    WITHIN_S,
    Load,
    admin,
    brokers,
    check,
    cluster,
    command,
    create,
    holders,
    metadata,
    place,
    start,
    wait_in_sync,
)
from tests.lab.waiting import until

__all__ = ["brokers", "cluster"]


def test_a_broker_on_an_empty_disk_catches_up_before_it_counts(brokers: list[PlainBroker], tmp_path: Path) -> None:
    create(brokers, "kept", min_insync_replicas="2")
    load = Load(brokers, "kept")
    load.wait_more()
    for _ in range(2):
        lost = brokers[metadata(brokers, "kept").leader]
        lost.kill()
        load.wait_more()
        lost.set_data_dir(tmp_path / f"empty-{lost.settings.broker_id}-{len(load.acked)}")
        lost.start()
        lost.wait_serving(WITHIN_S)
        wait_in_sync(brokers, "kept", BROKERS)
        load.wait_more()
    check(brokers, "kept", load.stop())


def test_a_partition_whose_last_replica_lost_its_disk_waits_for_an_unclean_election(
    brokers: list[PlainBroker], tmp_path: Path
) -> None:
    place(brokers, "gone", [0, 1])
    load = Load(brokers, "gone")
    load.wait_more()
    brokers[1].kill()
    load.wait_more()
    load.stop()
    brokers[0].kill()
    brokers[0].set_data_dir(tmp_path / "empty")
    start(brokers)
    assert holders(brokers, "gone") == ([0, 1], {0}, -1)
    assert "Elected 1 leader;" in command(brokers, "partitions", "elect", "gone", "--unclean")
    until(lambda: holders(brokers, "gone")[2] == 0, "broker 0 leads what it has")
    wait_in_sync(brokers, "gone", 2)
    assert "gone-0: unclean election" in "".join(broker.log_text for broker in brokers)
    again = Load(brokers, "gone")
    again.wait_more()
    again.stop()


def test_a_log_cut_below_what_was_committed_does_not_lead(brokers: list[PlainBroker]) -> None:
    place(brokers, "cut", [0, 1])
    load = Load(brokers, "cut")
    load.wait_more()
    brokers[1].kill()
    load.wait_more()
    load.stop()
    brokers[0].stop()  # which leaves the high watermark in its checkpoint
    (segment,) = (brokers[0].data_dir / "cut-0").glob("*.log")
    os.truncate(segment, segment.stat().st_size // 2)
    start(brokers)
    until(lambda: holders(brokers, "cut")[2] == -1, "nobody leads it")
    assert "the log is shorter than its high watermark was" in brokers[0].log_text
    brokers[2].kill()  # whatever happens meanwhile, it stays so
    until(lambda: admin(brokers[:2]).list_topics(timeout=10).controller_id in (0, 1), "a live broker is controller")
    assert holders(brokers[:2], "cut") == ([0, 1], {0}, -1)
    command(brokers[:2], "partitions", "elect", "cut", "--unclean")
    wait_in_sync(brokers[:2], "cut", 2)
    assert metadata(brokers[:2], "cut").leader == 0
