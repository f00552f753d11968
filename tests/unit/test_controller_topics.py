"""What CreateTopics and CreatePartitions accept and refuse. Codes and words are those of Apache Kafka 3.9.2 in
ZooKeeper mode, taken from a running one, but for the three cases that say otherwise."""

from __future__ import annotations

import random
import uuid
from collections.abc import Collection, Mapping

import pytest

from raykafka.config.effective import effective_broker_config
from raykafka.controller.rules.topics import (
    Defaults,
    TopicPlan,
    TopicRequest,
    internal_topic,
    plan_partitions,
    plan_topic,
)
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError

ONE: Mapping[int, str | None] = {0: None}
THREE: Mapping[int, str | None] = {0: None, 1: None, 2: None}
LONG = "x" * 250


def plan(
    request: TopicRequest, brokers: Mapping[int, str | None] = ONE, existing: Collection[str] = ("there", "col.x")
) -> TopicPlan:
    return plan_topic(request, existing, brokers, Defaults(1, 1), uuid.uuid4(), random.Random(1))


def with_config(**texts: str | None) -> TopicRequest:
    return TopicRequest("t", 1, 1, (), tuple((key.replace("_", "."), value) for key, value in texts.items()))


REFUSED = [
    (TopicRequest("there"), "TOPIC_ALREADY_EXISTS", "Topic 'there' already exists."),
    (TopicRequest(""), "INVALID_TOPIC_EXCEPTION", "Topic name is invalid: the empty string is not allowed"),
    (TopicRequest("."), "INVALID_TOPIC_EXCEPTION", "Topic name is invalid: '.' is not allowed"),
    (TopicRequest(".."), "INVALID_TOPIC_EXCEPTION", "Topic name is invalid: '..' is not allowed"),
    (
        TopicRequest("a b"),
        "INVALID_TOPIC_EXCEPTION",
        "Topic name is invalid: 'a b' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'",
    ),
    (
        TopicRequest("x/é"),
        "INVALID_TOPIC_EXCEPTION",
        "Topic name is invalid: 'x/é' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'",
    ),
    (
        TopicRequest("line\n"),
        "INVALID_TOPIC_EXCEPTION",
        "Topic name is invalid: 'line\n' contains one or more characters "
        "other than ASCII alphanumerics, '.', '_' and '-'",
    ),
    (
        TopicRequest(LONG),
        "INVALID_TOPIC_EXCEPTION",
        f"Topic name is invalid: the length of '{LONG}' is longer than the max allowed length 249",
    ),
    (TopicRequest("col_x"), "INVALID_TOPIC_EXCEPTION", "Topic 'col_x' collides with existing topics: col.x"),
    (TopicRequest("t", 0), "INVALID_PARTITIONS", "Number of partitions must be larger than 0."),
    (TopicRequest("t", -2), "INVALID_PARTITIONS", "Number of partitions must be larger than 0."),
    (TopicRequest("t", 1, 0), "INVALID_REPLICATION_FACTOR", "Replication factor must be larger than 0."),
    (TopicRequest("t", 1, -2), "INVALID_REPLICATION_FACTOR", "Replication factor must be larger than 0."),
    (
        TopicRequest("t", 1, 9),
        "INVALID_REPLICATION_FACTOR",
        "Replication factor: 9 larger than available brokers: 1.",
    ),
    (
        TopicRequest("__cluster_metadata"),
        "INVALID_REQUEST",
        "Creation of internal topic __cluster_metadata is prohibited.",
    ),
    (
        TopicRequest("t", 1, 1, ((0, (0,)),)),
        "INVALID_REQUEST",
        "Both numPartitions or replicationFactor and replicasAssignments were set. "
        "Both cannot be used at the same time.",
    ),
    (
        TopicRequest("t", assignments=((1, (0,)),)),
        "INVALID_REPLICA_ASSIGNMENT",
        "partitions should be a consecutive 0-based integer sequence",
    ),
    (
        TopicRequest("t", assignments=((0, (0,)), (2, (0,)))),
        "INVALID_REPLICA_ASSIGNMENT",
        "partitions should be a consecutive 0-based integer sequence",
    ),
    (
        TopicRequest("t", assignments=((0, (0,)), (1, (0, 1)))),
        "INVALID_REPLICA_ASSIGNMENT",
        "All partitions should have the same number of replicas",
    ),
    # Kafka creates the next two, and they are never led
    (
        TopicRequest("t", assignments=((0, (99,)),)),
        "INVALID_REPLICA_ASSIGNMENT",
        "Unknown broker(s) in replica assignment: 99.",
    ),
    (
        TopicRequest("t", assignments=((0, ()),)),
        "INVALID_REPLICA_ASSIGNMENT",
        "Cannot have replication factor of 0 for partition id 0.",
    ),
    # Kafka says the same with Scala's collections in it
    (
        TopicRequest("t", assignments=((0, (0, 0)),)),
        "INVALID_REPLICA_ASSIGNMENT",
        "Duplicate brokers not allowed in replica assignment: 0, 0 for partition id 0.",
    ),
    (with_config(nope="1"), "INVALID_CONFIG", "Unknown topic config name: nope"),
    (
        with_config(retention_ms=None, segment_ms=None),
        "INVALID_CONFIG",
        "Null value not supported for topic configs: retention.ms,segment.ms",
    ),
    (
        with_config(min_compaction_lag_ms="10", max_compaction_lag_ms="5"),
        "INVALID_CONFIG",
        "conflict topic config setting min.compaction.lag.ms (10) > max.compaction.lag.ms (5)",
    ),
    (TopicRequest("t", 20_000), "POLICY_VIOLATION", "Excessively large number of partitions per request."),
]


@pytest.mark.parametrize(("request_", "code", "message"), REFUSED)
def test_a_bad_topic_is_refused_as_kafka_refuses_it(request_: TopicRequest, code: str, message: str) -> None:
    with pytest.raises(KafkaError) as refused:
        plan(request_)
    assert (refused.value.code, refused.value.message) == (ErrorCode[code], message)


def test_defaults_fill_what_is_not_asked_for() -> None:
    made = plan_topic(TopicRequest("t"), (), THREE, Defaults(4, 1), uuid.uuid4(), random.Random(1))
    assert sorted(made.replicas) == [0, 1, 2, 3] and made.replication_factor == 1


def test_a_manual_assignment_is_taken_as_it_is() -> None:
    made = plan(TopicRequest("t", assignments=((1, (0,)), (0, (2,)))), THREE)
    assert made.replicas == {0: (2,), 1: (0,)}


def test_a_name_that_differs_in_more_than_dots_and_underscores_does_not_collide() -> None:
    assert plan(TopicRequest("col-x")).name == "col-x"


def test_small_topics_start_on_different_brokers() -> None:
    rng = random.Random(3)
    placed = [
        plan_topic(TopicRequest("t"), (), THREE, Defaults(1, 1), uuid.uuid4(), rng).replicas[0][0] for _ in range(30)
    ]
    assert set(placed) == {0, 1, 2}


CURRENT = {0: (0,), 1: (1,), 2: (2,), 3: (0,), 4: (1,)}
NOT_GROWN: list[tuple[int, list[tuple[int, ...]] | None, str, str]] = [
    (5, None, "INVALID_PARTITIONS", "Topic already has 5 partitions."),
    (4, None, "INVALID_PARTITIONS", "Topic currently has 5 partitions, which is higher than the requested 4."),
    (-1, None, "INVALID_PARTITIONS", "Topic currently has 5 partitions, which is higher than the requested -1."),
    (
        7,
        [(0,)],
        "INVALID_REPLICA_ASSIGNMENT",
        "Increasing the number of partitions by 2 but 1 assignments provided.",
    ),
    (6, [(99,)], "INVALID_REPLICA_ASSIGNMENT", "Unknown broker(s) in replica assignment: 99."),
    (
        6,
        [(0, 0)],
        "INVALID_REPLICA_ASSIGNMENT",
        "Duplicate brokers not allowed in replica assignment: 0, 0 for partition id 5.",
    ),
    (6, [()], "INVALID_REPLICA_ASSIGNMENT", "Cannot have replication factor of 0 for partition id 5."),
    (
        6,
        [(0, 1)],
        "INVALID_REPLICA_ASSIGNMENT",
        "Inconsistent replication factor between partitions, partition 0 has 1 while partitions [5] have replication "
        "factors [2], respectively.",
    ),
]


@pytest.mark.parametrize(("count", "assignments", "code", "message"), NOT_GROWN)
def test_a_bad_growth_is_refused_as_kafka_refuses_it(
    count: int, assignments: list[tuple[int, ...]] | None, code: str, message: str
) -> None:
    with pytest.raises(KafkaError) as refused:
        plan_partitions(CURRENT, count, assignments, THREE)
    assert (refused.value.code, refused.value.message) == (ErrorCode[code], message)


def test_new_partitions_go_on_round_the_brokers() -> None:
    assert plan_partitions(CURRENT, 8, None, THREE) == {5: (2,), 6: (0,), 7: (1,)}
    assert plan_partitions(CURRENT, 6, [(1,)], THREE) == {5: (1,)}


def test_internal_topics_have_configs_of_their_own() -> None:
    config = effective_broker_config({}, {}, {"offsets.topic.num.partitions": "9"})
    offsets = internal_topic("__consumer_offsets", config)
    assert offsets is not None
    assert (offsets.partitions, dict(offsets.config)["cleanup.policy"]) == (9, "compact")
    transactions = internal_topic("__transaction_state", config)
    assert transactions is not None and dict(transactions.config)["min.insync.replicas"] == "2"
    assert internal_topic("mine", config) is None
