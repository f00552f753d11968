"""Conversations of group members with a coordinator, recorded from a real Kafka and held against ours.

Each dialogue is a coroutine that asks and notes the answers. ``python -m tests.lab.group_dialogues HOST:PORT`` plays
them to a Kafka 3.9.2 and writes ``group_dialogues.json``; ``test_group_dialogues`` plays them to our coordinator and
compares. The broker recorded from had: ``group.initial.rebalance.delay.ms=0``, ``group.min.session.timeout.ms=500``,
``group.max.size=3``, and a topic ``dialogue`` of 2 partitions.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import io
import json
import re
import struct
import sys
import uuid
from collections.abc import Awaitable, Callable
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from kio.index import load_payload_module, load_request_schema, load_response_schema
from kio.serial import entity_reader, entity_writer
from kio.static.constants import EntityType
from kio.static.primitive import i16, i32

RECORDED = Path(__file__).with_suffix(".json")
TOPIC = "dialogue"
DEADLINE_S = 30.0
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

JOIN, HEARTBEAT, LEAVE, SYNC, DESCRIBE, LIST = 11, 12, 13, 14, 15, 16
COMMIT, FETCH, DELETE_GROUPS, OFFSET_DELETE, FIND_COORDINATOR = 8, 9, 42, 47, 10


def subscription(*topics: str) -> bytes:
    names = b"".join(struct.pack(">h", len(t)) + t.encode() for t in topics)
    return struct.pack(">hi", 1, len(topics)) + names + struct.pack(">ii", -1, 0)


class Connection(Protocol):
    async def ask(self, api_key: int, version: int, body: bytes) -> bytes: ...


def _ms(value: int) -> datetime.timedelta:
    return datetime.timedelta(milliseconds=value)


def _fill(cls: type, values: dict[str, Any]) -> Any:
    names = {f.name for f in dataclasses.fields(cls)}
    return cls(**{k: v for k, v in values.items() if k in names})


class Dialogue:
    """One conversation. Every client name has its own connection; ``ask`` notes the answer, ``begin`` returns a task
    whose answer ``note`` takes down later."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]]) -> None:
        self._connect = connect
        self._connections: dict[str, Connection] = {}
        self._names: dict[str, str] = {}
        self._nonce = uuid.uuid4().hex[:8]
        self.group = f"group-{self._nonce}"
        self.lines: list[Any] = []

    # asking

    async def _call(self, client: str, api_key: int, version: int, values: dict[str, Any]) -> Any:
        if client not in self._connections:
            self._connections[client] = await self._connect()
        request_class = load_request_schema(api_key, version)
        buffer = io.BytesIO()
        entity_writer(request_class)(buffer, _fill(request_class, values))
        answer = await self._connections[client].ask(api_key, version, buffer.getvalue())
        return entity_reader(load_response_schema(api_key, version))(memoryview(answer).toreadonly(), 0)[0]

    def begin(self, client: str, api_key: int, version: int, **values: Any) -> asyncio.Task[Any]:
        values.setdefault("group_id", self.group)
        return asyncio.ensure_future(self._call(client, api_key, version, values))

    async def ask(self, label: str, client: str, api_key: int, version: int, **values: Any) -> Any:
        return await self.note(label, self.begin(client, api_key, version, **values))

    async def note(self, label: str, pending: asyncio.Task[Any]) -> Any:
        answer = await asyncio.wait_for(pending, DEADLINE_S)
        self.lines.append([label, self._plain(answer)])
        return answer

    # group requests, with what most of them share filled in

    def joining(self, client: str, member_id: str = "", *, version: int = 9, **values: Any) -> asyncio.Task[Any]:
        m = load_payload_module(JOIN, version, EntityType.request)
        protocols = values.pop("protocols", [("range", subscription(TOPIC))])
        filled = {
            "session_timeout": _ms(values.pop("session_ms", 30_000)),
            "rebalance_timeout": _ms(values.pop("rebalance_ms", 20_000)),
            "member_id": member_id,
            "group_instance_id": None,
            "protocol_type": "consumer",
            "protocols": tuple(m.JoinGroupRequestProtocol(name=n, metadata=d) for n, d in protocols),
            "reason": None,
            **values,
        }
        return self.begin(client, JOIN, version, **filled)

    async def join(self, label: str, client: str, member_id: str = "", **values: Any) -> Any:
        return await self.note(label, self.joining(client, member_id, **values))

    async def member(self, client: str, **values: Any) -> str:
        """A new dynamic member id."""
        answer = await self.joining(client, **values)
        assert int(answer.error_code.value) == 79, answer
        return str(answer.member_id)

    def syncing(
        self, client: str, member_id: str, generation: int, assignments: dict[str, bytes] | None = None, **values: Any
    ) -> asyncio.Task[Any]:
        version = values.pop("version", 5)
        m = load_payload_module(SYNC, version, EntityType.request)
        parts = (assignments or {}).items()
        filled = {
            "generation_id": generation,
            "member_id": member_id,
            "group_instance_id": None,
            "protocol_type": "consumer",
            "protocol_name": "range",
            "assignments": tuple(m.SyncGroupRequestAssignment(member_id=i, assignment=a) for i, a in parts),
            **values,
        }
        return self.begin(client, SYNC, version, **filled)

    async def sync(self, label: str, client: str, member_id: str, generation: int, *args: Any, **values: Any) -> Any:
        return await self.note(label, self.syncing(client, member_id, generation, *args, **values))

    async def heartbeat(self, label: str, client: str, member_id: str, generation: int, **values: Any) -> Any:
        values = {"generation_id": generation, "member_id": member_id, "group_instance_id": None, **values}
        version = values.pop("version", 4)
        return await self.ask(label, client, HEARTBEAT, version, **values)

    async def leave(self, label: str, client: str, *members: tuple[str, str | None], version: int = 5) -> Any:
        m = load_payload_module(LEAVE, version, EntityType.request)
        if version < 3:
            return await self.ask(label, client, LEAVE, version, member_id=members[0][0])
        parts = ({"member_id": i, "group_instance_id": s, "reason": None} for i, s in members)
        return await self.ask(label, client, LEAVE, version, members=tuple(_fill(m.MemberIdentity, p) for p in parts))

    async def commit(
        self, label: str, client: str, member_id: str, generation: int, offset: int = 7, **values: Any
    ) -> Any:
        version = values.pop("version", 9)
        m = load_payload_module(COMMIT, version, EntityType.request)
        values.setdefault("metadata", "note")
        part = {
            "partition_index": values.pop("partition", 0),
            "committed_offset": offset,
            "committed_leader_epoch": values.pop("leader_epoch", 0),
            "committed_metadata": values.pop("metadata"),
        }
        topic = {
            "name": values.pop("topic", TOPIC),
            "partitions": (_fill(m.OffsetCommitRequestPartition, part),),
        }
        filled = {
            "generation_id_or_member_epoch": generation,
            "member_id": member_id,
            "group_instance_id": None,
            "retention_time": _ms(-1),
            "topics": (_fill(m.OffsetCommitRequestTopic, topic),),
            **values,
        }
        return await self.ask(label, client, COMMIT, version, **filled)

    async def fetch(self, label: str, client: str, *partitions: int, version: int = 9, group: str | None = None) -> Any:
        m = load_payload_module(FETCH, version, EntityType.request)
        topic_class = m.OffsetFetchRequestTopics if version >= 8 else m.OffsetFetchRequestTopic
        topics = (topic_class(name=TOPIC, partition_indexes=partitions),) if partitions else None
        values: dict[str, Any] = {"topics": topics, "require_stable": False}
        group_id = self.group if group is None else group
        if version >= 8:
            part = {"group_id": group_id, "member_id": None, "member_epoch": -1, "topics": topics}
            values = {"groups": (_fill(m.OffsetFetchRequestGroup, part),), "require_stable": False}
        return await self.ask(label, client, FETCH, version, group_id=group_id, **values)

    async def describe(self, label: str, client: str, *groups: str, version: int = 5) -> Any:
        asked = {"groups": groups or (self.group,), "include_authorized_operations": True}
        return await self.ask(label, client, DESCRIBE, version, **asked)

    async def until(self, state: str, members: int | None = None) -> None:
        """Wait until the group is in ``state`` (with so many members)."""
        deadline = asyncio.get_running_loop().time() + DEADLINE_S
        while True:
            asked = {"groups": (self.group,), "include_authorized_operations": False}
            answer = (await self._call("watcher", DESCRIBE, 5, asked)).groups[0]
            if answer.group_state == state and members in (None, len(answer.members)):
                return
            assert asyncio.get_running_loop().time() < deadline, f"still {answer}, not {state}"
            await asyncio.sleep(0.01)

    # taking down

    def _plain(self, value: Any) -> Any:
        if isinstance(value, Enum):
            return value.value
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            named = {f.name: self._plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
            named.pop("throttle_time", None)
            return named
        if isinstance(value, (tuple, list)):
            items = [self._plain(item) for item in value]
            if all(isinstance(item, dict) for item in items):
                items.sort(key=lambda item: json.dumps(item, sort_keys=True))
            return items
        if isinstance(value, bytes):
            return value.hex()
        if isinstance(value, str):
            return self._name(value)
        if isinstance(value, datetime.timedelta):
            return value // _ms(1)
        return value

    def _name(self, text: str) -> str:
        found = _UUID.search(text)
        if found is not None:
            text = text.replace(found[0], self._names.setdefault(found[0], f"#{len(self._names) + 1}"))
        return text.replace(self._nonce, "N")


# the dialogues

Play = Callable[[Dialogue], Awaitable[None]]
DIALOGUES: dict[str, Play] = {}


def dialogue(play: Play) -> Play:
    DIALOGUES[play.__name__] = play
    return play


async def _stable_pair(d: Dialogue) -> tuple[str, str]:
    """Members a (leader) and b of a stable generation 2."""
    a = await d.member("a")
    await d.join("a joins", "a", a)
    await d.sync("a syncs", "a", a, 1, {a: b"all"})
    b = await d.member("b")
    b_joins = d.joining("b", b)
    await d.until("PreparingRebalance", 2)
    await d.heartbeat("a hears of the rebalance", "a", a, 1)
    await d.join("a joins again", "a", a)
    await d.note("b joined", b_joins)
    b_syncs = d.syncing("b", b, 2)
    await d.sync("a assigns", "a", a, 2, {a: b"part a", b: b"part b"})
    await d.note("b learns its part", b_syncs)
    return a, b


@dialogue
async def a_member_joins_in_every_version(d: Dialogue) -> None:
    for version in range(10):
        d.group = f"group-{d._nonce}-{version}"
        answer = await d.join(f"first join v{version}", "a", version=version)
        member = answer.member_id
        if version >= 4:
            await d.join(f"second join v{version}", "a", member, version=version)
        await d.sync(f"sync v{min(version, 5)}", "a", member, 1, {member: b"mine"}, version=min(version, 5))
        await d.heartbeat(f"heartbeat v{min(version, 4)}", "a", member, 1, version=min(version, 4))
        await d.describe(f"describe v{min(version, 5)}", "a", version=min(version, 5))
        await d.leave(f"leave v{min(version, 5)}", "a", (member, None), version=min(version, 5))
        await d.describe(f"describe once empty v{min(version, 5)}", "a", version=min(version, 5))


@dialogue
async def two_members_share(d: Dialogue) -> None:
    a, b = await _stable_pair(d)
    await d.describe("described", "a")
    await d.sync("a syncs again", "a", a, 2, {a: b"other", b: b"other"})
    await d.sync("b syncs again", "b", b, 2)
    await d.leave("b leaves", "b", (b, None))
    await d.heartbeat("a hears of it", "a", a, 2)
    await d.sync("a syncs in vain", "a", a, 2)
    await d.join("a joins alone", "a", a)
    await d.heartbeat("while its assignment is awaited", "a", a, 3)
    await d.commit("commit before the assignment", "a", a, 3)
    await d.sync("a syncs alone", "a", a, 3, {a: b"all"})


@dialogue
async def wrong_names_and_generations(d: Dialogue) -> None:
    await d.heartbeat("heartbeat of no group", "a", "nobody", 1)
    await d.sync("sync of no group", "a", "nobody", 1)
    await d.leave("leave of no group", "a", ("nobody", None))
    await d.leave("leave of no group v0", "a", ("nobody", None), version=0)
    await d.join("join of no group with an id", "a", "nobody")
    await d.commit("commit of no group with a generation", "a", "nobody", 1)
    await d.describe("no group", "a")
    a, _ = await _stable_pair(d)
    await d.heartbeat("unknown member", "c", "nobody", 2)
    await d.heartbeat("old generation", "a", a, 1)
    await d.heartbeat("generation to come", "a", a, 3)
    await d.sync("unknown member syncs", "c", "nobody", 2)
    await d.sync("old generation syncs", "a", a, 1)
    await d.join("unknown member joins", "c", "nobody")
    await d.leave("unknown member leaves", "c", ("nobody", None))
    await d.leave("unknown member leaves v2", "c", ("nobody", None), version=2)
    await d.sync("another protocol type", "a", a, 2, protocol_type="connect")
    await d.sync("another protocol", "a", a, 2, protocol_name="sticky")
    await d.sync("no protocol type", "a", a, 2, protocol_type=None)
    await d.sync("no protocol name", "a", a, 2, protocol_name=None)
    await d.heartbeat("unknown instance", "a", a, 2, group_instance_id="i")


@dialogue
async def empty_group_id(d: Dialogue) -> None:
    d.group = ""
    await d.join("join", "a")
    await d.sync("sync", "a", "m", 1)
    await d.heartbeat("heartbeat", "a", "m", 1)
    await d.leave("leave", "a", ("m", None))
    await d.leave("leave v1", "a", ("m", None), version=1)
    await d.commit("commit", "a", "", -1)
    await d.fetch("fetch", "a", 0)
    await d.ask("delete", "a", DELETE_GROUPS, 2, groups_names=("",))
    m = load_payload_module(OFFSET_DELETE, 0, EntityType.request)
    topic = m.OffsetDeleteRequestTopic(name=TOPIC, partitions=(m.OffsetDeleteRequestPartition(partition_index=0),))
    await d.ask("delete offsets", "a", OFFSET_DELETE, 0, topics=(topic,))


@dialogue
async def joins_that_do_not_fit(d: Dialogue) -> None:
    await d.join("session too short", "a", session_ms=499)
    await d.join("session too long", "a", session_ms=1_800_001)
    await d.join("no protocols", "a", protocols=[])
    await d.join("no protocol type", "a", protocol_type="")
    await d.join("no protocols v0", "a", protocols=[], version=0)
    a = await d.member("a", protocols=[("range", b"r"), ("sticky", b"s")])
    await d.join("a joins", "a", a, protocols=[("range", b"r"), ("sticky", b"s")])
    await d.sync("a syncs", "a", a, 1, {a: b"all"})
    await d.join("another protocol type", "b", protocol_type="connect")
    await d.join("another protocol", "b", protocols=[("round", b"")])
    await d.join("a member with other protocols", "a", a, protocols=[("round", b"")])
    b = await d.member("b", protocols=[("sticky", b"s"), ("round", b"r")])
    b_joins = d.joining("b", b, protocols=[("sticky", b"s"), ("round", b"r")])
    await d.until("PreparingRebalance", 2)
    await d.join("both agree on sticky", "a", a, protocols=[("range", b"r"), ("sticky", b"s")])
    await d.note("b as well", b_joins)


@dialogue
async def rejoining_a_stable_group(d: Dialogue) -> None:
    _, b = await _stable_pair(d)
    await d.join("a follower with the same metadata", "b", b)
    await d.describe("nothing moved", "b")
    b_joins = d.joining("b", b, protocols=[("range", subscription("other"))])
    await d.until("PreparingRebalance", 2)
    await d.describe("new metadata makes a rebalance", "x")
    await d.leave("b leaves while it waits", "x", (b, None))
    await d.note("b's join", b_joins)


@dialogue
async def the_leader_rejoins(d: Dialogue) -> None:
    a, b = await _stable_pair(d)
    a_joins = d.joining("a", a)
    await d.until("PreparingRebalance", 2)
    await d.join("b follows", "b", b)
    await d.note("a leads", a_joins)
    await d.join("a again before its sync", "a", a)
    await d.join("b again before its sync", "b", b)
    b_syncs = d.syncing("b", b, 3)
    a_joins = d.joining("a", a, protocols=[("range", b"\0\1")])
    await d.note("b's sync is called off", b_syncs)
    await d.until("PreparingRebalance", 2)
    await d.sync("b syncs in vain", "b", b, 3)
    await d.join("b joins", "b", b)
    await d.note("a leads generation 4", a_joins)


@dialogue
async def a_member_that_falls_silent(d: Dialogue) -> None:
    a = await d.member("a", session_ms=700)
    await d.join("a joins", "a", a, session_ms=700)
    await d.sync("a syncs", "a", a, 1, {a: b"all"})
    await d.until("Empty")
    await d.heartbeat("too late", "a", a, 1)
    await d.sync("too late to sync", "a", a, 1)
    await d.join("too late to join", "a", a)
    await d.commit("too late to commit", "a", a, 1)
    await d.describe("empty", "a")


@dialogue
async def a_member_that_does_not_rejoin(d: Dialogue) -> None:
    a = await d.member("a", rebalance_ms=600)
    await d.join("a joins", "a", a, rebalance_ms=600)
    await d.sync("a syncs", "a", a, 1, {a: b"all"})
    b = await d.member("b", rebalance_ms=600)
    await d.join("b joins and waits for a", "b", b, rebalance_ms=600)
    await d.sync("b has it all", "b", b, 2, {b: b"all"})
    await d.heartbeat("a is out", "a", a, 2)


@dialogue
async def a_member_that_does_not_sync(d: Dialogue) -> None:
    a = await d.member("a", rebalance_ms=600)
    await d.join("a joins", "a", a, rebalance_ms=600)
    await d.until("Empty")
    await d.sync("a syncs too late", "a", a, 1, {a: b"all"})


@dialogue
async def a_pending_member(d: Dialogue) -> None:
    p = await d.member("p", session_ms=700)
    await d.heartbeat("a pending member's heartbeat", "p", p, 0)
    await d.sync("its sync", "p", p, 0)
    await d.commit("its commit", "p", p, 0)
    await d.leave("it leaves", "p", (p, None))
    await d.join("it is unknown", "p", p)
    p = await d.member("p", session_ms=700)
    a = await d.member("a")
    await d.join("a waits until p joins or is given up", "a", a)


@dialogue
async def a_full_group(d: Dialogue) -> None:
    a = (await d.join("a joins", "a", version=3)).member_id
    await d.sync("a syncs", "a", a, 1, {a: b"all"})
    b_joins, c_joins = (d.joining(name, version=3) for name in "bc")
    await d.until("PreparingRebalance", 3)
    a_joins = d.joining("a", a, version=3)
    for pending in (b_joins, c_joins, a_joins):
        await asyncio.wait_for(pending, DEADLINE_S)
    await d.join("a fourth v3", "e", version=3)
    await d.join("a fourth v9", "e")


@dialogue
async def static_members(d: Dialogue) -> None:
    first = await d.join("joins by its name", "a", group_instance_id="one")
    a = first.member_id
    await d.sync("syncs", "a", a, 1, {a: b"all"}, group_instance_id="one")
    again = await d.join("restarted, v9", "b", group_instance_id="one")
    b = again.member_id
    await d.heartbeat("the one before is fenced", "a", a, 1, group_instance_id="one")
    await d.sync("fenced", "a", a, 1, group_instance_id="one")
    await d.commit("fenced commit", "a", a, 1, group_instance_id="one")
    await d.join("fenced join", "a", a, group_instance_id="one")
    await d.leave("fenced leave", "a", (a, "one"))
    await d.heartbeat("without its name only unknown", "a", a, 1)
    await d.heartbeat("the new one lives", "b", b, 1, group_instance_id="one")
    await d.sync("and gets what it had", "b", b, 1, group_instance_id="one")
    await d.describe("described", "b")
    old = await d.join("restarted, v8", "c", group_instance_id="one", version=8)
    await d.sync("as a follower of who it was", "c", old.member_id, 1, group_instance_id="one")
    await d.leave("an administrator removes it", "x", ("", "one"))
    await d.leave("and again", "x", ("", "one"))
    await d.leave("and nobody", "x", ("", None))
    await d.describe("empty", "x")


@dialogue
async def a_static_follower_restarts(d: Dialogue) -> None:
    first = await d.join("a", "a", group_instance_id="a")
    a = first.member_id
    b_joins = d.joining("b", group_instance_id="b")
    await d.until("PreparingRebalance", 2)
    await d.join("a again", "a", a, group_instance_id="a")
    b = (await d.note("b", b_joins)).member_id
    b_syncs = d.syncing("b", b, 2, group_instance_id="b")
    await d.sync("a syncs", "a", a, 2, {a: b"part a", b: b"part b"}, group_instance_id="a")
    await d.note("b syncs", b_syncs)
    new = await d.join("b restarts", "c", group_instance_id="b")
    await d.sync("b has its part", "c", new.member_id, 2, group_instance_id="b")
    await d.heartbeat("a was not bothered", "a", a, 2, group_instance_id="a")
    await d.join(
        "b restarts with another subscription",
        "d",
        group_instance_id="b",
        protocols=[("range", subscription("other"))],
    )
    await d.heartbeat("a is still not bothered", "a", a, 2, group_instance_id="a")


@dialogue
async def a_static_member_restarts_during_a_rebalance(d: Dialogue) -> None:
    first = await d.join("a", "a", group_instance_id="a")
    a = first.member_id
    await d.sync("a syncs", "a", a, 1, {a: b"all"}, group_instance_id="a")
    b_joins = d.joining("b", group_instance_id="b")
    await d.until("PreparingRebalance", 2)
    c_joins = d.joining("c", group_instance_id="b")
    await d.note("the waiting one is fenced", b_joins)
    await d.join("a joins", "a", a, group_instance_id="a")
    b = (await d.note("the new one is in", c_joins)).member_id
    b_syncs = d.syncing("c", b, 2, group_instance_id="b")
    await d.until("CompletingRebalance")
    e_joins = d.joining("e", group_instance_id="b")
    await d.note("the syncing one is fenced or called off", b_syncs)
    await d.until("PreparingRebalance", 2)
    await d.join("a joins once more", "a", a, group_instance_id="a")
    await d.note("and it is in", e_joins)


@dialogue
async def commits_and_fetches_in_every_version(d: Dialogue) -> None:
    for version in range(2, 10):
        await d.commit(f"commit v{version}", "a", "", -1, 100 + version, version=version, leader_epoch=version)
        await d.fetch(f"fetched back v{max(version, 5)}", "a", 0, 1, version=max(version, 5))
    for version in range(2, 5):
        keeping: dict[str, Any] = {"retention_time": _ms(3_600_000), "partition": 1}
        await d.commit(f"commit with a retention of its own v{version}", "a", "", -1, version=version, **keeping)
    for version in range(1, 10):
        await d.fetch(f"fetch v{version}", "a", 0, 1, version=version)
    for version in range(2, 10):
        await d.fetch(f"fetch all v{version}", "a", version=version)
    await d.fetch("fetch of no group", "a", 0, group="nowhere")
    await d.fetch("fetch of no group v1", "a", 0, group="nowhere", version=1)
    await d.fetch("fetch all of no group", "a", group="nowhere")
    await d.describe("described", "a")


@dialogue
async def commits_of_members_and_others(d: Dialogue) -> None:
    a, b = await _stable_pair(d)
    await d.commit("a member", "a", a, 2, 11)
    await d.commit("another member", "b", b, 2, 12, partition=1)
    await d.commit("an administrator", "x", "", -1)
    await d.commit("a generation too low", "a", a, 1)
    await d.commit("no generation", "a", a, -1)
    await d.commit("no member", "a", "", 2)
    await d.commit("nobody", "a", "nobody", 2)
    await d.commit("an unknown instance", "a", a, 2, group_instance_id="i")
    await d.commit("no metadata", "a", a, 2, 13, metadata=None)
    await d.commit("much metadata", "a", a, 2, 14, metadata="m" * 4096)
    await d.commit("too much metadata", "a", a, 2, 15, metadata="m" * 4097)
    await d.commit("a topic that is not", "a", a, 2, topic="nowhere")
    await d.commit("a partition that is not", "a", a, 2, partition=2)
    await d.commit("a negative offset", "a", a, 2, -5, partition=1)
    await d.fetch("in the end", "a", 0, 1)
    b_joins = d.joining("b", b, protocols=[("range", b"\0\2")])
    await d.until("PreparingRebalance", 2)
    await d.commit("during a rebalance", "a", a, 2, 16)
    await d.join("a joins", "a", a)
    await d.note("b joins", b_joins)
    await d.commit("before the sync", "a", a, 3, 17)
    await d.fetch("in the very end", "a", 0)


@dialogue
async def deleting(d: Dialogue) -> None:
    m = load_payload_module(OFFSET_DELETE, 0, EntityType.request)

    async def delete_offsets(label: str, *partitions: int, topic: str = TOPIC, group: str | None = None) -> None:
        parts = tuple(m.OffsetDeleteRequestPartition(partition_index=p) for p in partitions)
        topics = (m.OffsetDeleteRequestTopic(name=topic, partitions=parts),)
        await d.ask(label, "x", OFFSET_DELETE, 0, topics=topics, group_id=group or d.group)

    await d.ask("no group", "x", DELETE_GROUPS, 2, groups_names=(d.group,))
    await delete_offsets("offsets of no group", 0)
    a, b = await _stable_pair(d)
    await d.commit("commit", "a", a, 2, 11)
    await d.commit("commit", "a", a, 2, 12, partition=1)
    await d.ask("a group with members", "x", DELETE_GROUPS, 2, groups_names=(d.group, "nowhere"))
    await delete_offsets("offsets it reads", 0)
    await delete_offsets("a topic that is not", 0, topic="nowhere")
    await d.leave("both leave", "a", (a, None), (b, None))
    await d.until("Empty")
    await delete_offsets("offsets of an empty group", 0)
    await d.fetch("one is left", "x", 0, 1)
    await d.ask("an empty group", "x", DELETE_GROUPS, 1, groups_names=(d.group,))
    await d.fetch("nothing is left", "x", 0, 1)
    await d.describe("nothing", "x")
    await d.ask("again", "x", DELETE_GROUPS, 2, groups_names=(d.group,))


@dialogue
async def deleting_offsets_of_other_kinds_of_groups(d: Dialogue) -> None:
    m = load_payload_module(OFFSET_DELETE, 0, EntityType.request)
    parts = (m.OffsetDeleteRequestPartition(partition_index=0),)
    topics = (m.OffsetDeleteRequestTopic(name=TOPIC, partitions=parts),)
    a = await d.member("a", protocol_type="connect")
    await d.join("a joins", "a", a, protocol_type="connect")
    await d.ask("before the sync", "x", OFFSET_DELETE, 0, topics=topics)
    await d.sync("a syncs", "a", a, 1, {a: b"all"}, protocol_type="connect")
    await d.ask("a group of another type", "x", OFFSET_DELETE, 0, topics=topics)
    d.group += "-broken"
    b = await d.member("b", protocols=[("range", b"\1")])
    await d.join("a subscription that can't be read", "b", b, protocols=[("range", b"\1")])
    await d.sync("it syncs", "b", b, 1, {b: b"all"})
    await d.commit("it commits", "b", b, 1)
    await d.ask("a group whose subscriptions can't be read", "x", OFFSET_DELETE, 0, topics=topics)


@dialogue
async def listing(d: Dialogue) -> None:
    a = await d.member("a")
    await d.join("a joins", "a", a)
    await d.sync("a syncs", "a", a, 1, {a: b"all"})
    simple = d.group + "-simple"
    await d.commit("a consumer without a group", "x", "", -1, group_id=simple)

    async def listed(label: str, version: int, **filters: Any) -> None:
        answer = await d.begin("x", LIST, version, **{"states_filter": (), "types_filter": (), **filters})
        ours = [d._plain(g) for g in answer.groups if d._nonce in g.group_id]
        d.lines.append([label, answer.error_code.value, sorted(ours, key=lambda g: g["group_id"])])

    for version in range(6):
        await listed(f"v{version}", version)
    await listed("stable", 4, states_filter=("stable",))
    await listed("Empty", 5, states_filter=("Empty",))
    await listed("classic", 5, types_filter=("Classic",))
    await listed("consumer", 5, types_filter=("consumer",))
    await listed("nonsense", 5, states_filter=("nonsense",))


# playing


class KafkaConnection:
    """A connection to a broker, one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._busy = False

    async def ask(self, api_key: int, version: int, body: bytes) -> bytes:
        assert not self._busy, "one request at a time"
        self._busy = True
        header_class = load_request_schema(api_key, version).__header_schema__
        buffer = io.BytesIO()
        header = header_class(
            request_api_key=i16(api_key), request_api_version=i16(version), correlation_id=i32(1), client_id="dialogue"
        )
        entity_writer(header_class)(buffer, header)
        frame = buffer.getvalue() + body
        self._writer.write(struct.pack(">i", len(frame)) + frame)
        (length,) = struct.unpack(">i", await self._reader.readexactly(4))
        data = await self._reader.readexactly(length)
        response_header: Any = load_response_schema(api_key, version).__header_schema__
        _, size = entity_reader(response_header)(memoryview(data).toreadonly(), 0)
        self._busy = False
        return data[size:]


async def play(name: str, connect: Callable[[], Awaitable[Connection]]) -> list[Any]:
    """What was said in one dialogue, in a form that JSON can hold."""
    conversation = Dialogue(connect)
    await DIALOGUES[name](conversation)
    return json.loads(json.dumps(conversation.lines))


def _one_line_an_answer(recorded: dict[str, list[Any]]) -> str:
    parts = (
        f'"{name}": [\n' + ",\n".join("  " + json.dumps(line, sort_keys=True) for line in lines) + "\n]"
        for name, lines in recorded.items()
    )
    return "{\n" + ",\n".join(parts) + "\n}\n"


async def _record(bootstrap: str, names: list[str]) -> None:
    host, _, port = bootstrap.rpartition(":")

    async def connect() -> Connection:
        return KafkaConnection(*await asyncio.open_connection(host, int(port)))

    recorded = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    for name in names or DIALOGUES:
        recorded[name] = await play(name, connect)
        print(name, len(recorded[name]))
        RECORDED.write_text(_one_line_an_answer(recorded))


if __name__ == "__main__":
    asyncio.run(_record(sys.argv[1], sys.argv[2:]))
