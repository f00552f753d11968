"""Kafka's own kafka-dump-log reads the segment files that the cluster wrote."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from confluent_kafka import Producer

from tests.lab.clusters.under_test import KafkaUnderTest
from tests.lab.peer.kafka import VERSIONS, run_tool

MakeTopic = Callable[..., str]
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


@pytest.mark.parametrize("version", VERSIONS)
def test_dump_log_reads_every_record_of_every_codec(kafka: KafkaUnderTest, make_topic: MakeTopic, version: str) -> None:
    topic = make_topic()
    for codec in CODECS:
        producer = Producer(
            {
                "bootstrap.servers": kafka.bootstrap,
                "compression.type": codec,
                "enable.idempotence": True,
                "linger.ms": 100,
            }
        )
        for i in range(100):
            producer.produce(topic, f"value {i} {'x' * 200}", key=f"key-{codec}-{i}", headers={"codec": codec})
        assert producer.flush(60) == 0
    files = kafka.segments(topic)
    assert files
    dumped = run_tool(
        "kafka-dump-log",
        "--deep-iteration",
        "--print-data-log",
        "--files",
        ",".join(map(str, files)),
        version=version,
    ).stdout
    keys = re.findall(r"^\| offset: (\d+) .* key: (\S+) payload: value", dumped, re.MULTILINE)
    assert [key for _, key in keys] == [f"key-{codec}-{i}" for codec in CODECS for i in range(100)]
    assert [int(offset) for offset, _ in keys] == list(range(len(keys)))
    batches = re.findall(r"^baseOffset: .* isvalid: (\w+)", dumped, re.MULTILINE)
    assert len(batches) >= len(CODECS)
    assert set(batches) == {"true"}
    used = dict.fromkeys(re.findall(r"compresscodec: (\w+)", dumped))
    assert list(used) == CODECS
    assert "at least one" not in dumped.lower()
