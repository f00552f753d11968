"""Between the coordinator child and the offsets partitions that this broker leads (rule 24).

The coordinator learns which partitions it holds groups of (``lead``, ``resign``), reads and appends them through frames
that the broker relays to the partitions, and answers group requests that the broker forwards.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from raykafka.broker.children import Child
from raykafka.cluster.image import ClusterImage, Topic
from raykafka.errors import KafkaError, LinkError
from raykafka.link import Link, messages
from raykafka.protocol.context import RequestContext, pack_forward
from raykafka.protocol.error_code import ErrorCode
from raykafka.types import OFFSETS_TOPIC, TopicPartition

_ALL = -1
_LIST_GROUPS = 16

logger = logging.getLogger(__name__)


def _unavailable(context: RequestContext) -> ErrorCode:
    """What sends a client back to look for its coordinator: to an OffsetFetch COORDINATOR_NOT_AVAILABLE is final, to a
    ListGroups NOT_COORDINATOR is."""
    return ErrorCode.COORDINATOR_NOT_AVAILABLE if context.api_key == _LIST_GROUPS else ErrorCode.NOT_COORDINATOR


class Coordination:
    """The broker's side of its coordinator. ``partitions`` are the broker's local ones."""

    def __init__(self, broker_id: int, partitions: Any) -> None:
        self._broker_id = broker_id
        self._partitions = partitions
        self._link: Link | None = None
        self._led: dict[int, int] = {}
        self._count = 0
        self._topics: Mapping[str, Topic] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def adopt(self, child: Child) -> None:
        """Take a newly connected coordinator and tell it all that it leads."""
        link = self._link = child.link
        link.ended.add_done_callback(lambda _: self._gone(link))
        link.start(on_frame=lambda kind, payload: self._frame(link, kind, payload))
        self._tell(link, "topics", {"full": True, "topics": _counts(self._topics), "deleted": []})
        for partition, epoch in self._led.items():
            self._tell(link, "lead", {"partition": partition, "leader_epoch": epoch, "partitions": self._count})

    def _gone(self, link: Link) -> None:
        if self._link is link:
            self._link = None

    def apply(self, image: ClusterImage) -> None:
        """Tell the coordinator what topics there are, and what of the offsets topic this broker leads."""
        self._apply_topics(image.topics)
        topic = image.topics.get(OFFSETS_TOPIC)
        states = topic.partitions if topic else {}
        leads = {p: s.leader_epoch for p, s in states.items() if s.leader == self._broker_id}
        before, self._led, self._count = self._led, leads, len(states)
        if self._link is None:
            return
        for partition, epoch in before.items():
            if partition not in leads:
                self._tell(self._link, "resign", {"partition": partition, "leader_epoch": epoch})
        for partition, epoch in leads.items():
            if before.get(partition) != epoch:
                args = {"partition": partition, "leader_epoch": epoch, "partitions": len(states)}
                self._tell(self._link, "lead", args)

    def _apply_topics(self, topics: Mapping[str, Topic]) -> None:
        before, self._topics = self._topics, topics
        if self._link is None or before is topics:
            return
        deleted = [name for name, topic in before.items() if name not in topics or topics[name].id != topic.id]
        changed = {name: topic for name, topic in topics.items() if before.get(name) is not topic}
        if deleted or changed:
            self._tell(self._link, "topics", {"full": False, "topics": _counts(changed), "deleted": deleted})

    async def forward(self, context: RequestContext, body: memoryview) -> memoryview:
        """Have the coordinator answer a group request. Raises KafkaError."""
        if self._link is None:
            raise KafkaError(_unavailable(context), "the coordinator process is being started")
        try:
            return await self._link.forward(*pack_forward(context, body))
        except LinkError as error:
            raise KafkaError(_unavailable(context), str(error)) from error

    async def committed(self, most: int, within_s: float) -> list[tuple[str, TopicPartition, int]]:
        """(group, partition, offset) of committed offsets, ``most`` at most, as far as they are loaded: none from a
        coordinator that gives no answer."""
        if self._link is None:
            return []
        try:
            answer = await self._link.call("committed", {"most": most}, within_s)
        except (KafkaError, LinkError, TimeoutError) as error:
            logger.info("the coordinator told no committed offsets: %s", error or type(error).__name__)
            return []
        return [(group, TopicPartition(topic, p), offset) for group, topic, p, offset in answer["offsets"]]

    # frames of the coordinator

    def _frame(self, link: Link, kind: int, payload: memoryview) -> None:
        if kind == messages.LOG_APPEND:
            append, records = messages.LogAppend.unpack(payload)
            self._append(link, append, records)
        elif kind == messages.LOG_READ:
            self._run(self._read(link, messages.LogRead.unpack(payload)))

    def _append(self, link: Link, append: messages.LogAppend, records: memoryview) -> None:
        def done(appended: messages.Appended) -> None:
            if appended.error is ErrorCode.NONE:
                self._partitions.traffic[OFFSETS_TOPIC].appended(records)
            if not link.is_closed:
                answer = replace(appended, correlation=append.correlation)
                link.send(messages.LOG_APPENDED, answer.pack())

        host = self._partitions.get(TopicPartition(OFFSETS_TOPIC, append.partition))
        if host is None:
            done(messages.Appended(-1, ErrorCode.NOT_LEADER_OR_FOLLOWER))
            return
        host.submit(records, _ALL, append.timeout_ms, append.leader_epoch, done)

    async def _read(self, link: Link, read: messages.LogRead) -> None:
        host = self._partitions.get(TopicPartition(OFFSETS_TOPIC, read.partition))
        records = memoryview(b"")
        answer = messages.LogRecords(read.correlation, ErrorCode.NOT_LEADER_OR_FOLLOWER)
        if host is not None and host.is_leader:
            # figures first: what is read afterwards is never less than they say
            view = host.view
            # a follower's view may end before its log does, and knows less of what is committed
            if view is None or view.leader_epoch != host.state.leader_epoch:
                answer = messages.LogRecords(read.correlation, ErrorCode.OFFSET_NOT_AVAILABLE)
            else:
                answer = messages.LogRecords(read.correlation, ErrorCode.NONE, view.high_watermark, view.log_end_offset)
                offset = max(read.offset, view.log_start_offset)
                try:
                    records = await host.read(offset, read.max_bytes)
                except KafkaError as error:
                    answer = messages.LogRecords(read.correlation, error.code)
                if not answer.error and not records and offset < view.high_watermark:
                    # the log was closed or cut over the read
                    answer = messages.LogRecords(read.correlation, ErrorCode.OFFSET_NOT_AVAILABLE)
        if not link.is_closed:
            link.send(messages.LOG_RECORDS, answer.pack(), records)

    def _tell(self, link: Link, method: str, args: dict[str, Any]) -> None:
        self._run(self._call(link, method, args))

    async def _call(self, link: Link, method: str, args: dict[str, Any]) -> None:
        try:
            await link.call(method, args)
        except KafkaError as error:
            logger.error("the coordinator could not take %s %s: %s", method, args, error)
        except LinkError:
            pass  # its successor is told everything again

    def _run(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _counts(topics: Mapping[str, Topic]) -> dict[str, int]:
    return {name: len(topic.partitions) for name, topic in topics.items()}
