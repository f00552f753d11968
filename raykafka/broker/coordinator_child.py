"""The broker's side of its coordinator process: it is told which replica actors there are, and with them it does the
rest."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Mapping

from raykafka.broker.children.child import Child
from raykafka.errors import KafkaError, LinkError
from raykafka.link import Link
from raykafka.types import OFFSETS_TOPIC, TopicPartition

logger = logging.getLogger(__name__)


class CoordinatorChild:
    """The coordinator of ``topic``, whichever process that is now."""

    def __init__(self, topic: str = OFFSETS_TOPIC) -> None:
        self._topic = topic
        self._link: Link | None = None
        self._paths: dict[int, str] = {}
        self._homes: dict[int, int] = {}

    def adopt(self, child: Child) -> None:
        """Take a newly connected coordinator and tell it where replica actors and logs are."""
        link = self._link = child.link
        link.start()
        self._tell_homes(link, self._homes)
        self._tell_actors(link)

    def actors(self, paths: Mapping[int, str]) -> None:
        """These replica actors there are, each with the path of its socket: the coordinator connects to all of them,
        and to no others."""
        self._paths = dict(paths)
        if self._link is not None:
            self._tell_actors(self._link)

    def placed(self, rows: Iterable[tuple[TopicPartition, uuid.UUID, int]]) -> None:
        """Which actor has a partition's log now, by number, -1 while none has. Other topics' rows are left out."""
        homes = {tp.partition: actor for tp, _, actor in rows if tp.topic == self._topic}
        self._homes.update(homes)
        if self._link is not None:
            self._tell_homes(self._link, homes)

    async def committed(self, most: int, within_s: float) -> list[tuple[str, TopicPartition, int]]:
        """(group, partition, offset) of committed offsets, ``most`` at most, as far as they are loaded: none from a
        coordinator that gives no answer."""
        if self._link is None or self._link.is_closed:
            return []
        try:
            answer = await self._link.call("committed", {"most": most}, within_s)
        except (KafkaError, LinkError, TimeoutError) as error:
            logger.info("the coordinator told no committed offsets: %s", error or type(error).__name__)
            return []
        return [(group, TopicPartition(topic, p), offset) for group, topic, p, offset in answer["offsets"]]

    def _tell_actors(self, link: Link) -> None:
        if not link.is_closed:
            link.tell("actors", {"actors": {str(number): path for number, path in self._paths.items()}})

    def _tell_homes(self, link: Link, homes: Mapping[int, int]) -> None:
        if homes and not link.is_closed:
            link.tell("placed", {"partitions": list(homes.items())})
