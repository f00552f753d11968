"""Between a coordinator child and the broker: the coordinator learns which partitions of its internal topic this broker
leads (``lead``, ``resign``) and which topics there are, and answers requests that the broker forwards (rule 24)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from raykafka.broker.children.child import Child
from raykafka.broker.topic_relay import TopicRelay
from raykafka.cluster.image import ClusterImage, Topic
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError, LinkError
from raykafka.front.serving import ServedPartitions
from raykafka.link import Link
from raykafka.process.tasks import TaskSet
from raykafka.protocol.context import RequestContext, pack_forward
from raykafka.protocol.registry import Api, Registry
from raykafka.types import OFFSETS_TOPIC, TopicPartition

# less than any client waits for an answer
COORDINATOR_WITHIN_S = 20.0
_COORDINATORS_ASKED = 3

logger = logging.getLogger(__name__)


class Coordination:
    """The broker's side of a coordinator of ``topic``. ``partitions`` are the broker's local ones; ``apis`` say what is
    done with a request while there is no process for it."""

    def __init__(
        self, broker_id: int, partitions: ServedPartitions, apis: Registry, topic: str = OFFSETS_TOPIC
    ) -> None:
        self._broker_id = broker_id
        self._partitions = partitions
        self._apis = apis
        self._topic = topic
        self._link: Link | None = None
        self._arrived = asyncio.Event()
        self._in_step = asyncio.Event()
        self._in_step.set()
        self._led: dict[int, int] = {}
        self._count = 0
        self._topics: Mapping[str, Topic] = {}
        self._tasks = TaskSet(f"coordination of {topic}")

    def adopt(self, child: Child) -> None:
        """Take a newly connected coordinator and tell it all that it leads."""
        link = self._link = child.link
        link.ended.add_done_callback(lambda _: self._gone(link))
        link.start(on_frame=TopicRelay(link, self._partitions, self._topic, self._tasks).frame_received)
        self._tell(link, "topics", {"full": True, "topics": _counts(self._topics), "deleted": []})
        for partition, epoch in self._led.items():
            self._tell(link, "lead", {"partition": partition, "leader_epoch": epoch, "partitions": self._count})
        self._arrived.set()

    def _gone(self, link: Link) -> None:
        if self._link is link:
            self._link = None
            self._arrived.clear()

    def expect(self) -> None:
        """The broker begins to go by another image, which clients may know already: what they ask waits until
        ``apply`` has told the coordinator of it."""
        self._in_step.clear()

    def apply(self, image: ClusterImage) -> None:
        """Tell the coordinator what topics there are, and what of its own topic this broker leads."""
        self._apply_topics(image.topics)
        self._apply_leaderships(image)
        self._in_step.set()  # last: what waits for it is sent behind all that

    def _apply_leaderships(self, image: ClusterImage) -> None:
        topic = image.topics.get(self._topic)
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
        """Have the coordinator answer a request, once there is one. Raises KafkaError.

        A request that changes nothing is asked again when the coordinator ends over it.
        """
        api = self._apis.get(context.api_key)
        assert api is not None
        for _ in range(_COORDINATORS_ASKED if api.changes_nothing else 1):
            link = await self._coordinator(api)
            try:
                return await link.forward(*pack_forward(context, body))
            except LinkError as error:
                logger.warning("the coordinator ended over a request of API %d: %s", api.key, error)
        raise KafkaError(api.while_unavailable, "the coordinator ended over this request")

    async def _coordinator(self, api: Api) -> Link:
        """The link of the coordinator process, waited for while this broker coordinates. Raises KafkaError."""
        with suppress(TimeoutError):
            async with asyncio.timeout(COORDINATOR_WITHIN_S):
                await self._in_step.wait()
                if self._led or api.every_broker:
                    await self._arrived.wait()
        if self._link is not None:
            return self._link
        if not self._led and not api.every_broker:
            raise KafkaError(ErrorCode.NOT_COORDINATOR, f"this broker leads no partition of {self._topic}")
        raise KafkaError(api.while_unavailable, "the coordinator process is being started")

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

    def _tell(self, link: Link, method: str, args: dict[str, Any]) -> None:
        self._tasks.run(self._call(link, method, args))

    async def _call(self, link: Link, method: str, args: dict[str, Any]) -> None:
        try:
            await link.call(method, args)
        except KafkaError as error:
            logger.error("the coordinator could not take %s %s: %s", method, args, error)
        except LinkError:
            pass  # its successor is told everything again


def _counts(topics: Mapping[str, Topic]) -> dict[str, int]:
    return {name: len(topic.partitions) for name, topic in topics.items()}
