"""kcat: listing, producing and consuming; what it compressed is stored compressed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest

from tests.lab.clusters.under_test import KafkaUnderTest
from tests.lab.wire import WireConnection, fetch_request, record_values

MakeTopic = Callable[..., str]
CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
ATTRIBUTES_OFFSET = 21  # of a record batch of magic 2; its low three bits name the codec


def kcat(*args: str, stdin: str = "") -> str:
    done = subprocess.run(["kcat", *args], input=stdin, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_metadata_lists_brokers_and_topics(kafka: KafkaUnderTest, make_topic: MakeTopic) -> None:
    topic = make_topic(partitions=3)
    for bootstrap in (kafka.bootstrap, kafka.bootstrap_outside):
        listing = json.loads(kcat("-L", "-J", "-b", bootstrap, "-t", topic))
        assert sorted(broker["name"] for broker in listing["brokers"]) == sorted(bootstrap.split(","))
        assert [part["partition"] for part in listing["topics"][0]["partitions"]] == [0, 1, 2]
        assert all(
            part["leader"] in {b["id"] for b in listing["brokers"]} for part in listing["topics"][0]["partitions"]
        )


@pytest.mark.parametrize("codec", CODECS)
def test_batches_are_stored_as_the_producer_compressed_them(
    kafka: KafkaUnderTest, make_topic: MakeTopic, codec: str
) -> None:
    topic = make_topic()
    lines = [f"squeeze me {'x' * 100} {i}" for i in range(200)]
    settings = ("-X", f"compression.codec={codec}", "-X", "linger.ms=200")
    kcat("-P", "-b", kafka.bootstrap, "-t", topic, *settings, stdin="\n".join(lines) + "\n")
    consumed = kcat(
        "-C", "-b", kafka.bootstrap_outside, "-t", topic, "-o", "beginning", "-c", str(len(lines)), "-e", "-q"
    )
    assert consumed.splitlines() == lines
    with WireConnection(kafka.leader(topic)) as wire:
        records = wire.call(fetch_request(topic, 0)).responses[0].partitions[0].records
    assert records[ATTRIBUTES_OFFSET + 1] & 0b111 == CODECS[codec]
    assert record_values(records)[0] == (0, lines[0].encode())
    if kafka.data is not None:
        stored = b"".join(segment.read_bytes() for segment in kafka.segments(topic))
        assert stored.startswith(bytes(records))


def test_consuming_in_a_group(kafka: KafkaUnderTest, make_topic: MakeTopic) -> None:
    topic = make_topic(partitions=2)
    kcat("-P", "-b", kafka.bootstrap, "-t", topic, stdin="one\ntwo\nthree\n")
    fresh = ("-X", "auto.offset.reset=earliest")
    seen = kcat("-b", kafka.bootstrap_outside, "-G", f"{topic}-group", *fresh, "-c", "3", "-e", "-q", topic)
    assert sorted(seen.split()) == ["one", "three", "two"]
