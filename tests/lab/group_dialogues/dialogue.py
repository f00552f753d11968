"""One conversation of a group's members with a coordinator, and the connection on which they speak."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import io
import json
import re
import struct
import uuid
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any, Protocol

from kio.index import load_payload_module, load_request_schema, load_response_schema
from kio.serial import entity_reader, entity_writer
from kio.static.constants import EntityType
from kio.static.primitive import i16, i32

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


def milliseconds(value: int) -> datetime.timedelta:
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
            "session_timeout": milliseconds(values.pop("session_ms", 30_000)),
            "rebalance_timeout": milliseconds(values.pop("rebalance_ms", 20_000)),
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
            "retention_time": milliseconds(-1),
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
            return value // milliseconds(1)
        return value

    def _name(self, text: str) -> str:
        found = _UUID.search(text)
        if found is not None:
            text = text.replace(found[0], self._names.setdefault(found[0], f"#{len(self._names) + 1}"))
        return text.replace(self._nonce, "N")


Play = Callable[[Dialogue], Awaitable[None]]


def collect(found: dict[str, Play]) -> Callable[[Play], Play]:
    """A decorator that puts dialogues into ``found``, by name."""

    def dialogue(play: Play) -> Play:
        found[play.__name__] = play
        return play

    return dialogue


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
