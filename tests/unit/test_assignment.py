"""Replica placement: the same as Apache Kafka 3.9.2's, and balanced."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raykafka.controller.rules.assignment import assign_replicas

# What org.apache.kafka.admin.AdminUtils.assignReplicasToBrokers of Kafka 3.9.2 answers:
# brokers | racks | partitions | replication factor | start index | first partition => replicas of each partition
KAFKA = """
0,1,2||6|2|0|0 => 0,1 1,2 2,0 0,2 1,0 2,1
0,1,2,3,4||10|3|1|0 => 1,3,4 2,4,0 3,0,1 4,1,2 0,2,3 1,4,0 2,0,1 3,1,2 4,2,3 0,3,4
0,1,2,3,4||7|3|3|2 => 0,4,1 1,0,2 2,1,3 3,4,0 4,0,1 0,1,2 1,2,3
0||3|1|0|0 => 0 0 0
0,1,2,3,4,5|a,b,a,b,c,c|7|3|0|0 => 0,1,4 1,4,2 4,2,3 2,3,5 3,5,0 5,0,1 0,3,5
0,1,2,3,4|a,a,a,b,b|7|3|2|0 => 1,4,2 4,2,0 2,3,1 0,3,1 3,1,4 1,3,4 4,1,2
0,1,2,3,4,5|r,r,s,s,s,t|8|2|4|3 => 2,0 5,4 1,2 3,0 4,0 0,2 2,5 5,1
0,1,2,3|a,a,b,b|9|4|1|0 => 2,0,1,3 1,2,3,0 3,1,0,2 0,3,2,1 2,0,1,3 1,2,3,0 3,1,0,2 0,3,2,1 2,1,3,0
"""


@pytest.mark.parametrize("line", KAFKA.strip().splitlines())
def test_placement_is_kafkas(line: str) -> None:
    asked, _, answer = line.partition(" => ")
    ids, racks, partitions, factor, start, first = asked.split("|")
    brokers = [int(b) for b in ids.split(",")]
    rack_of: dict[int, str | None] = (
        dict(zip(brokers, racks.split(","), strict=True)) if racks else dict.fromkeys(brokers)
    )
    placed = assign_replicas(
        rack_of, int(partitions), int(factor), start=int(start), shift=int(start), first_partition=int(first)
    )
    assert " ".join(",".join(map(str, placed[p])) for p in sorted(placed)) == answer
    assert sorted(placed) == list(range(int(first), int(first) + int(partitions)))


@settings(deadline=None)
@given(st.data())
def test_replicas_are_distinct_leaders_balanced_and_racks_spread(data: st.DataObject) -> None:
    brokers = data.draw(st.sets(st.integers(0, 50), min_size=1, max_size=8))
    factor = data.draw(st.integers(1, len(brokers)))
    partitions = data.draw(st.integers(1, 40))
    racks: dict[int, str | None] = {b: data.draw(st.sampled_from(["a", "b", "c"])) for b in brokers}
    if data.draw(st.booleans()):
        racks = dict.fromkeys(brokers)
    start, shift = data.draw(st.integers(0, 7)), data.draw(st.integers(0, 7))
    placed = assign_replicas(racks, partitions, factor, start=start, shift=shift)
    for replicas in placed.values():
        assert len(set(replicas)) == factor and set(replicas) <= brokers
        if None not in racks.values():
            spread = len({racks[b] for b in replicas})
            assert spread == min(factor, len(set(racks.values())))
    leads = Counter(replicas[0] for replicas in placed.values())
    assert max(leads.values()) - min(leads[b] for b in brokers) <= 1
