"""The link from the active controller, and the cluster image that comes down on it.

Updates are applied in the order in which ZooKeeper took what they tell (rule 16). A link of a controller of a lower
epoch than one seen before is refused, and so is an update that is meant for another life of this broker or that takes
a partition back to an earlier state.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, NamedTuple

from raykafka.cluster.image import ClusterImage, ImageDelta, PartitionState, delta_from_json
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.link import Link
from raykafka.types import TopicPartition

CONTROLLER_ROLE = "controller"

logger = logging.getLogger(__name__)


class ImageUpdate(NamedTuple):
    """What the controller has told, as it came, for those whom this broker relays it to: ``delta`` is the JSON of an
    ImageDelta (``cluster.image.delta_from_json``) to the image before, or with ``full`` to an empty one."""

    full: bool
    delta: dict[str, Any]


class ControllerLink:
    """Keeps the active controller's link and applies its updates one by one. ``image`` is the newest one;
    ``highest_epoch`` the highest controller epoch that was seen, -1 before the first.

    ``apply(image, update)`` brings this broker to an image, which ``update`` made; an update is answered when that has
    returned.
    """

    def __init__(self, apply: Callable[[ClusterImage, ImageUpdate], Awaitable[None]]) -> None:
        self._apply = apply
        self._link: Link | None = None
        self._arrived = asyncio.Event()
        self._in_order = asyncio.Lock()
        self._broker_epoch = -1
        self.image = ClusterImage("")
        self.highest_epoch = -1

    def begin(self, cluster_id: str, broker_epoch: int) -> None:
        """Take updates for that life of the broker; before the first of them the image is empty."""
        self._broker_epoch = broker_epoch
        self.image = ClusterImage(cluster_id)

    def take(self, link: Link) -> None:
        """A controller has connected: it is heard unless its epoch is lower than the highest that was seen."""
        epoch = int(link.peer["controller_epoch"])
        if epoch < self.highest_epoch:
            logger.warning("refused controller %s of epoch %d", link.peer.get("broker_id"), epoch)
            link.close()
            return
        if self._link is not None and not self._link.is_closed and epoch > self.highest_epoch:
            self._link.close()
        self.highest_epoch = epoch
        self._link = link
        link.ended.add_done_callback(lambda _: self._ended(link))
        link.start(on_call=self._answer)
        self._arrived.set()

    async def active(self, within_s: float) -> Link:
        """The link of the active controller, waited for during ``within_s`` seconds. Raises
        KafkaError(NOT_CONTROLLER)."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._arrived.wait()
        if self._link is None:
            raise KafkaError(ErrorCode.NOT_CONTROLLER, "no controller is active at the moment")
        return self._link

    def _ended(self, link: Link) -> None:
        if self._link is link:
            self._link = None
            self._arrived.clear()

    async def _answer(self, method: str, args: dict[str, Any]) -> dict[str, Any]:
        """``update`` {controller_epoch, broker_epoch, full, delta}: a delta to the image, or with ``full`` to an empty
        one. Raises KafkaError."""
        if method != "update":
            raise KafkaError(ErrorCode.INVALID_REQUEST, f"a broker does not answer {method!r}")
        async with self._in_order:
            await self._update(args)
        return {}

    async def _update(self, args: dict[str, Any]) -> None:
        epoch = int(args["controller_epoch"])
        if epoch < self.highest_epoch:
            raise KafkaError(ErrorCode.STALE_CONTROLLER_EPOCH, f"a controller of epoch {self.highest_epoch} is known")
        if args["broker_epoch"] != self._broker_epoch:
            raise KafkaError(ErrorCode.STALE_BROKER_EPOCH, f"this life of the broker has epoch {self._broker_epoch}")
        update = ImageUpdate(args["full"], args["delta"])
        delta = delta_from_json(update.delta)
        _refuse_older(self.image, delta)
        base = ClusterImage(self.image.cluster_id) if update.full else self.image
        self.image = base.apply(delta)
        await self._apply(self.image, update)


def _refuse_older(image: ClusterImage, delta: ImageDelta) -> None:
    """Raise KafkaError(FENCED_LEADER_EPOCH) when ``delta`` takes a partition back to an earlier state (rule 16)."""
    for name, topic in delta.topics.items():
        known = image.topics.get(name)
        if known is None or known.id != topic.id:
            continue
        for partition, state in topic.partitions.items():
            _refuse_older_state(TopicPartition(name, partition), known.partitions.get(partition), state)
    for tp, state in delta.partitions.items():
        if tp.topic not in delta.topics:
            _refuse_older_state(tp, image.partition(tp), state)


def _refuse_older_state(tp: TopicPartition, before: PartitionState | None, state: PartitionState) -> None:
    if before is not None and (state.leader_epoch, state.version) < (before.leader_epoch, before.version):
        raise KafkaError(
            ErrorCode.FENCED_LEADER_EPOCH,
            f"{tp} is at leader epoch {before.leader_epoch} and version {before.version} here",
        )
