"""Between a replica actor and the coordinator of its broker: the coordinator learns which partitions of its internal
topic the broker leads and which topics there are, reads and appends the logs of its topic, and answers requests that
the actor forwards (rule 24)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from raykafka.cluster.image import ClusterImage, Topic
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError, LinkError
from raykafka.front.serving import ServedPartitions
from raykafka.link import Link
from raykafka.process.tasks import TaskSet
from raykafka.protocol.context import RequestContext, pack_forward
from raykafka.protocol.registry import Api, Registry
from raykafka.replica_actor.topic_relay import TopicRelay
from raykafka.types import OFFSETS_TOPIC

# less than any client waits for an answer
COORDINATOR_WITHIN_S = 20.0
_COORDINATORS_ASKED = 3

logger = logging.getLogger(__name__)


class Coordination:
    """An actor's side of the coordinator of ``topic``. ``partitions`` are those that the actor serves; ``apis`` say
    what is done with a request while there is no process for it."""

    def __init__(
        self, broker_id: int, partitions: ServedPartitions, apis: Registry, topic: str = OFFSETS_TOPIC
    ) -> None:
        self._broker_id = broker_id
        self._partitions = partitions
        self._apis = apis
        self._topic = topic
        self._link: Link | None = None
        self._relay: TopicRelay | None = None
        self._arrived = asyncio.Event()
        self._number = 0
        self._topics: Mapping[str, Topic] = {}
        self._led: dict[int, int] = {}
        self._tasks = TaskSet(f"coordination of {topic}")

    def adopt(self, link: Link) -> None:
        """Take a newly connected coordinator and tell it what the actor goes by. An older process has ended: what it
        sent and nobody has read yet is dropped, so that none of it gets into a log that its successor loads."""
        if self._link is not None:
            self._link.transport.abort()
        if self._relay is not None:
            self._relay.close()
        self._link = link
        self._arrived.set()
        relay = self._relay = TopicRelay(link, self._partitions, self._topic, self._tasks)
        link.start(on_frame=relay.frame_received, on_close=lambda _: self._gone(link))
        if self._number:
            self._tell_whole(link)

    def _gone(self, link: Link) -> None:
        if self._link is link:
            self._link = None
            self._arrived.clear()

    def apply(self, image: ClusterImage, number: int) -> None:
        """The actor goes by ``image`` from now on, the broker's image ``number`` (1, 2, ...). The coordinator is told
        of it before anything that clients ask who know of it."""
        topics_before, led_before = self._topics, self._led
        is_next, self._number = number == self._number + 1, number
        self._topics = image.topics
        if image.topics.get(self._topic) is not topics_before.get(self._topic):
            states = image.topics[self._topic].partitions if self._topic in image.topics else {}
            self._led = {p: s.leader_epoch for p, s in states.items() if s.leader == self._broker_id}
        if self._link is None:
            return
        if not is_next or number == 1:
            self._tell_whole(self._link)
            return
        if topics_before is image.topics:
            return
        deleted = [name for name in topics_before if name not in image.topics]
        changed = {name: told for name, topic in image.topics.items() if (told := _changed(topics_before, topic))}
        if deleted or changed or led_before != self._led:
            self._tell(self._link, full=False, topics=changed, deleted=deleted)

    def _tell_whole(self, link: Link) -> None:
        topics = {name: _told(topic) for name, topic in self._topics.items()}
        self._tell(link, full=True, topics=topics, deleted=[])

    def _tell(self, link: Link, *, full: bool, topics: Mapping[str, list[Any]], deleted: list[str]) -> None:
        if link.is_closed:
            return
        own = self._topics.get(self._topic)
        args = {
            "image": self._number,
            "full": full,
            "topics": topics,
            "deleted": deleted,
            "leads": list(self._led.items()),
            "partitions": len(own.partitions) if own is not None else 0,
        }
        link.tell("image", args)

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
        if self._link is None and (self._led or api.every_broker):
            with suppress(TimeoutError):
                async with asyncio.timeout(COORDINATOR_WITHIN_S):
                    await self._arrived.wait()
        if self._link is not None:
            return self._link
        if not self._led and not api.every_broker:
            raise KafkaError(ErrorCode.NOT_COORDINATOR, f"this broker leads no partition of {self._topic}")
        raise KafkaError(api.while_unavailable, "the coordinator process is being started")


def _told(topic: Topic) -> list[Any]:
    """What a coordinator is told of a topic."""
    return [str(topic.id), len(topic.partitions)]


def _changed(before: Mapping[str, Topic], topic: Topic) -> list[Any] | None:
    """What a coordinator is told of a topic, None where that is as before."""
    old = before.get(topic.name)
    if old is topic or (old is not None and old.id == topic.id and len(old.partitions) == len(topic.partitions)):
        return None
    return _told(topic)
