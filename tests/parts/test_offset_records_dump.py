"""Kafka's own tool decodes the offsets topic that our coordinator writes."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from raykafka.coordinator.classic.events import GroupEntry, GroupSnapshot, MemberSnapshot
from raykafka.coordinator.group.events import Entry
from raykafka.coordinator.group.records import encode
from raykafka.coordinator.offsets.events import CommittedOffset, OffsetEntry
from raykafka.log import Log, LogConfig
from raykafka.log.batch import Record, build_batch
from raykafka.types import OFFSETS_TOPIC, TopicPartition
from tests.lab.log_parts import TOPIC_ID
from tests.lab.peer.kafka import VERSIONS, run_tool

SUBSCRIPTION = b"\0\1\0\0\0\1\0\7flights\xff\xff\xff\xff\0\0\0\0"
ASSIGNMENT = b"\0\1\0\0\0\1\0\7flights\0\0\0\2\0\0\0\0\0\0\0\1\xff\xff\xff\xff"
MEMBER = MemberSnapshot("c-1", "one", "c", "/127.0.0.1", 300_000, 45_000, SUBSCRIPTION, ASSIGNMENT)
ENTRIES: tuple[Entry, ...] = (
    OffsetEntry("group", TopicPartition("flights", 3), CommittedOffset(1234, 5, "a note", 1_700_000_000_000)),
    OffsetEntry(
        "group", TopicPartition("flights", 4), CommittedOffset(77, -1, "", 1_700_000_000_000, 1_800_000_000_000)
    ),
    OffsetEntry("group", TopicPartition("flights", 3), None),
    GroupEntry("group", GroupSnapshot("group", 9, "consumer", "range", "c-1", 1_700_000_000_001, (MEMBER,))),
    GroupEntry("group", GroupSnapshot("group", 10, "consumer", None, None, 1_700_000_000_002)),
    GroupEntry("group", None),
)


@pytest.mark.parametrize("version", VERSIONS)
def test_kafka_dump_log_decodes_what_we_write(version: str, tmp_path: Path) -> None:
    now_ms = time.time_ns() // 1_000_000
    log = Log.open(
        tmp_path / f"{OFFSETS_TOPIC}-0",
        LogConfig.from_topic_config({"cleanup.policy": "compact"}),
        topic_id=TOPIC_ID,
        recovery_point=0,
        now_ms=now_ms,
    )
    for entry in ENTRIES:
        log.append_as_leader(memoryview(build_batch([Record(*encode(entry), now_ms)])), 0, now_ms)
    segment = next(log.directory.glob("*.log"))
    log.close()
    dumped = run_tool("kafka-dump-log", "--offsets-decoder", "--files", str(segment), version=version).stdout
    lines = re.findall(r"^\| offset: \d+ .*?(?:key|payload): .*$", dumped, re.MULTILINE)
    assert len(lines) == len(ENTRIES), dumped
    for line, entry in zip(lines, ENTRIES, strict=True):
        found = re.fullmatch(r".* key: (.*) payload: (.*)", line)
        assert found is not None, line
        key, payload = found.groups()
        assert json.loads(key)["data"] == _key(entry)
        assert payload == "<DELETE>" if entry.value is None else json.loads(payload)["data"] == _value(entry.value)


def _key(entry: Entry) -> dict[str, Any]:
    if isinstance(entry, OffsetEntry):
        return {"group": entry.group_id, "topic": entry.partition.topic, "partition": entry.partition.partition}
    return {"group": entry.group_id}


def _value(value: CommittedOffset | GroupSnapshot) -> dict[str, Any]:
    if isinstance(value, CommittedOffset):
        said: dict[str, Any] = {
            "offset": value.offset,
            "metadata": value.metadata,
            "commitTimestamp": value.commit_timestamp_ms,
        }
        if value.expire_timestamp_ms is None:
            return said | {"leaderEpoch": value.leader_epoch}
        return said | {"expireTimestamp": value.expire_timestamp_ms}
    return {
        "protocolType": value.protocol_type,
        "generation": value.generation,
        "protocol": value.protocol,
        "leader": value.leader,
        "currentStateTimestamp": value.state_timestamp_ms,
        "members": [
            {
                "memberId": member.member_id,
                "groupInstanceId": member.instance_id,
                "clientId": member.client_id,
                "clientHost": member.client_host,
                "rebalanceTimeout": member.rebalance_timeout_ms,
                "sessionTimeout": member.session_timeout_ms,
                "subscription": {"topics": ["flights"], "userData": None, "ownedPartitions": []},
                "assignment": {
                    "assignedPartitions": [{"topic": "flights", "partitions": [0, 1]}],
                    "userData": None,
                },
            }
            for member in value.members
        ],
    }
