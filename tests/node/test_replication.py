"""Replicated partitions on three whole brokers without Ray: nothing acknowledged is lost, whoever is killed."""

import psutil
from confluent_kafka import Producer

from raykafka.log.batch import iter_batches
from tests.lab.clusters.plain_broker import PlainBroker
from tests.lab.clusters.replicated import (
    BROKERS,
    WITHIN_S,
    Load,
    brokers,
    check,
    cluster,
    create,
    leader_and_follower,
    metadata,
    open_elsewhere,
    stored,
    wait_in_sync,
)
from tests.lab.waiting import until

__all__ = ["brokers", "cluster"]

MORE_THAN_SOCKETS_HOLD = 24


def test_acks_all_is_on_every_replica(brokers: list[PlainBroker]) -> None:
    create(brokers, "plain", 3)
    loads = [Load(brokers, "plain", partition) for partition in range(3)]
    for load in loads:
        load.wait_more()
    for partition, load in enumerate(loads):
        check(brokers, "plain", load.stop(), partition)


def test_a_killed_followers_replica_actor_is_replaced_and_nothing_acknowledged_is_lost(
    brokers: list[PlainBroker],
) -> None:
    create(brokers, "follower")
    load = Load(brokers, "follower")
    load.wait_more()
    _, follower = leader_and_follower(brokers, "follower")
    for _ in range(2):
        killed = follower.actor_of("follower")
        killed.kill()
        until(lambda killed=killed: open_elsewhere(follower, "follower", killed.pid), "another process has the log")
        load.wait_more()
    check(brokers, "follower", load.stop())


def test_a_killed_leaders_replica_actor_hands_over_and_nothing_acknowledged_is_lost(brokers: list[PlainBroker]) -> None:
    create(brokers, "leader")
    load = Load(brokers, "leader")
    load.wait_more()
    for _ in range(3):
        leader, _ = leader_and_follower(brokers, "leader")
        leader.actor_of("leader").kill()
        load.wait_more()
        until(
            lambda leader=leader: metadata(brokers, "leader").leader != leader.settings.broker_id,
            "another broker leads",
        )
        wait_in_sync(brokers, "leader", BROKERS)
    check(brokers, "leader", load.stop())


def test_a_killed_broker_is_replaced_and_catches_up_and_nothing_acknowledged_is_lost(
    brokers: list[PlainBroker],
) -> None:
    create(brokers, "whole", min_insync_replicas="2")
    load = Load(brokers, "whole")
    load.wait_more()
    for _ in range(2):
        leader, _ = leader_and_follower(brokers, "whole")
        others = [broker for broker in brokers if broker is not leader]
        leader.kill()
        load.wait_more()
        assert metadata(others, "whole").leader != leader.settings.broker_id
        leader.start()
        leader.wait_serving(WITHIN_S)
        wait_in_sync(brokers, "whole", BROKERS)
    check(brokers, "whole", load.stop())


def test_a_stopped_broker_moves_its_leaderships_first(brokers: list[PlainBroker]) -> None:
    create(brokers, "stopped", min_insync_replicas="2")
    load = Load(brokers, "stopped")
    load.wait_more()
    leader, _ = leader_and_follower(brokers, "stopped")
    others = [broker for broker in brokers if broker is not leader]
    leader.stop()
    load.wait_more()
    assert f"broker {leader.settings.broker_id} is stopping" in "".join(broker.log_text for broker in brokers)
    assert metadata(others, "stopped").leader != leader.settings.broker_id
    leader.start()
    leader.wait_serving(WITHIN_S)
    wait_in_sync(brokers, "stopped", BROKERS)
    check(brokers, "stopped", load.stop())


def test_records_that_only_a_dead_leader_had_are_truncated(brokers: list[PlainBroker]) -> None:
    """acks=1 says nothing of the followers: what they never got goes, and the logs agree again."""
    create(brokers, "tail")
    load = Load(brokers, "tail")
    load.wait_more()
    acked = load.stop()
    leader, _ = leader_and_follower(brokers, "tail")
    others = [broker for broker in brokers if broker is not leader]
    stopped = [psutil.Process(b.process.pid) for b in others] + [b.actor_of("tail") for b in others]
    for process in stopped:
        process.suspend()
    producer = Producer({"bootstrap.servers": leader.bootstrap, "log_level": 0, "acks": 1, "linger.ms": 0})
    extra: list[int] = []
    for _ in range(MORE_THAN_SOCKETS_HOLD):
        producer.produce("tail", b"x" * 900_000, partition=0, on_delivery=lambda e, m: extra.append(m.offset()))
    assert producer.flush(WITHIN_S) == 0
    before = len(stored(leader, "tail"))
    leader.actor_of("tail").kill()
    for process in stopped:
        process.resume()
    until(lambda: metadata(brokers, "tail").leader != leader.settings.broker_id, "another broker leads")
    wait_in_sync(brokers, "tail", BROKERS)
    assert "tail-0: truncated from" in leader.log_text
    assert len(stored(leader, "tail")) < before
    until(lambda: len({stored(broker, "tail") for broker in brokers}) == 1, "the segment files are equal")
    last = max(header.last_offset for _, header in iter_batches(memoryview(stored(leader, "tail"))))
    assert max(offset for _, offset in acked) <= last < max(extra)
