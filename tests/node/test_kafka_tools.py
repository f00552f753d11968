"""The first steps of every Kafka tutorial, with Kafka's own tools, word for word."""

from __future__ import annotations

import re

import pytest

from tests.lab.clusters.under_test import KafkaUnderTest, unique
from tests.lab.peer.kafka import VERSIONS, run_tool

LINES = [f"line {i}" for i in range(20)]


@pytest.mark.parametrize("version", VERSIONS)
def test_tutorial_works_with_kafkas_own_tools(kafka: KafkaUnderTest, version: str) -> None:
    """Create, list, describe, produce, consume, consume in a group, delete; each listener is used on the way."""
    inside, outside = ("--bootstrap-server", kafka.bootstrap), ("--bootstrap-server", kafka.bootstrap_outside)
    topic, group = unique("quickstart-events"), unique("tutorial-group")

    def tool(name: str, *args: str, stdin: str = "") -> str:
        return run_tool(name, *args, version=version, stdin=stdin).stdout

    created = tool(
        "kafka-topics", *inside, "--create", "--topic", topic, "--partitions", "3", "--replication-factor", "1"
    )
    assert f"Created topic {topic}." in created
    assert topic in tool("kafka-topics", *outside, "--list").splitlines()
    described = tool("kafka-topics", *inside, "--describe", "--topic", topic)
    assert re.search(rf"Topic: {topic}\s+TopicId: [\w-]{{22}}\s+PartitionCount: 3\s+ReplicationFactor: 1", described)
    assert len(re.findall(r"Partition: \d\s+Leader: \d+\s+Replicas: \d+\s+Isr: \d+", described)) == 3

    tool("kafka-console-producer", *inside, "--topic", topic, stdin="\n".join(LINES[:10]) + "\n")
    keyed = ("--reader-property" if version.startswith("4.") else "--property", "parse.key=true")
    stdin = "".join(f"key-{line}\t{line}\n" for line in LINES[10:])
    tool("kafka-console-producer", *outside, "--topic", topic, *keyed, stdin=stdin)

    everything = ("--topic", topic, "--from-beginning", "--max-messages", str(len(LINES)), "--timeout-ms", "30000")
    assert sorted(tool("kafka-console-consumer", *outside, *everything).splitlines()) == sorted(LINES)
    in_group = tool("kafka-console-consumer", *inside, *everything, "--group", group)
    assert sorted(in_group.splitlines()) == sorted(LINES)

    state = tool("kafka-consumer-groups", *outside, "--describe", "--group", group)
    rows = [line.split() for line in state.splitlines() if line.startswith(group)]
    assert len(rows) == 3
    assert sum(int(row[3]) for row in rows) == len(LINES)  # CURRENT-OFFSET
    assert all(row[5] == "0" for row in rows)  # LAG

    tool("kafka-topics", *inside, "--delete", "--topic", topic)
    assert topic not in tool("kafka-topics", *inside, "--list").splitlines()
