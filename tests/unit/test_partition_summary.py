"""Sums over an image's partitions, and those that are not as they should be, by name."""

from __future__ import annotations

import uuid

from raykafka.cluster.image import BrokerInfo, ClusterImage, ImageDelta, PartitionState, Topic
from raykafka.cluster.summary import partition_summary


def test_only_what_is_amiss_or_moves_is_named() -> None:
    states = {
        0: PartitionState((0, 1), 0, 3, (0, 1), 1),
        1: PartitionState((0, 1), 1, 3, (1,), 1),
        2: PartitionState((0, 1), -1, 3, (0,), 1),
        3: PartitionState((1, 0, 2), 1, 3, (0, 1), 1, adding=(2,)),
    }
    brokers = {b: BrokerInfo(b, 1, (), "h", 1, f"d{b}", "boot", True) for b in range(2)}
    image = ClusterImage("c").apply(ImageDelta(brokers=brokers, topics={"t": Topic("t", uuid.uuid4(), states)}))
    found = partition_summary(image, lambda topic: 2)
    assert (found["topics"], found["partitions"], found["replicas"]) == (1, 4, 9)
    named = {kind: [r["partition"] for r in found[kind]] for kind in ("offline", "under_min_isr", "under_replicated")}
    assert named == {"offline": [2], "under_min_isr": [1], "under_replicated": [1, 2]}
    (moving,) = found["moving"]
    assert (moving["partition"], moving["adding"], moving["isr"]) == (3, [2], [0, 1])
    assert found["brokers"] == {"0": {"leaders": 1, "replicas": 4}, "1": {"leaders": 2, "replicas": 4}}
