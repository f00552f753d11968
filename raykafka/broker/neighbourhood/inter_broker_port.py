"""The broker's inter-broker port: the control link from the active controller, and what is asked of it there.

Decisions come down in the order in which ZooKeeper took them (rule 16). A link from a controller of a lower epoch than
one seen before is refused, and so is an update that is meant for another life of this broker.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence, Set
from contextlib import suppress
from typing import Any

from raykafka.broker.children.children import Backoff
from raykafka.broker.neighbourhood.broker_calls import PEER_ROLE
from raykafka.cluster.image import ClusterImage, ImageDelta, PartitionState, delta_from_json
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError, LinkError
from raykafka.link import Link, open_port, serve_socket
from raykafka.link.link import CallHandler
from raykafka.protocol.context import RequestContext, pack_forward
from raykafka.replica.rules.events import Propose
from raykafka.replica.rules.partition import SHORT_LOG
from raykafka.replica.stream_frames import STREAM_ROLE
from raykafka.types import TopicPartition

CONTROLLER_ROLE = "controller"
# clients of the admin APIs wait longer than it takes to elect a controller; those of Metadata ask again at once
CONTROLLER_WITHIN_S = 15.0
CONTROLLER_SOON_S = 2.0
ANSWER_WITHIN_S = 60.0
_CONTROLLERS_ASKED = 3

logger = logging.getLogger(__name__)


class InterBrokerPort:
    """Accepts links on the inter-broker port, keeps the active controller's, and applies its updates one by one.

    ``apply(image)`` brings this broker to an image; an update is answered when that has returned. ``take_stream(link)``
    gets what a leader of another broker connects with; ``answer_peer`` answers what other brokers ask.
    """

    answer_peer: CallHandler | None = None

    def __init__(
        self,
        secret: bytes,
        apply: Callable[[ClusterImage], Awaitable[None]],
        take_stream: Callable[[Link], None],
    ) -> None:
        self._secret = secret
        self._apply = apply
        self._take_stream = take_stream
        self._socket: socket.socket | None = None
        self._server: asyncio.AbstractServer | None = None
        self._links: set[Link] = set()
        self._active: Link | None = None
        self._arrived = asyncio.Event()
        self._in_order = asyncio.Lock()
        self._broker_epoch = -1
        self.image = ClusterImage("")
        self.highest_epoch = -1

    def open(self, host: str, port: int) -> int:
        """Open the port (0: any free one) and return its number. Who connects waits until ``serve``: before this life
        of the broker is registered, its port must neither refuse nor answer for another life (rule 14). Raises OSError.
        """
        self._socket = open_port(host, port)
        return int(self._socket.getsockname()[1])

    async def serve(self, cluster_id: str, broker_id: int, broker_epoch: int) -> None:
        """Answer on the port, as this life of the broker."""
        assert self._socket is not None
        self._broker_epoch = broker_epoch
        self.image = ClusterImage(cluster_id)
        identity = {"role": "broker", "cluster_id": cluster_id, "broker_id": broker_id, "broker_epoch": broker_epoch}
        self._server = await serve_socket(self._socket, self._secret, identity, self._accept)

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        elif self._socket is not None:
            self._socket.close()
        for link in self._links:
            link.close()

    @property
    def connections(self) -> Set[Link]:
        """Everything that is connected to the port."""
        return self._links

    # from the controller

    def _accept(self, link: Link) -> None:
        self._links.add(link)
        link.ended.add_done_callback(lambda _: self._links.discard(link))
        if link.peer.get("role") == STREAM_ROLE:
            self._take_stream(link)
            return
        if link.peer.get("role") == PEER_ROLE:
            link.start(on_call=self.answer_peer)
            return
        if link.peer.get("role") != CONTROLLER_ROLE:
            # a standby or a probe: it learns from our identity, and from end-of-file, what it wants to know
            link.start()
            return
        epoch = int(link.peer["controller_epoch"])
        if epoch < self.highest_epoch:
            logger.warning("refused controller %s of epoch %d", link.peer.get("broker_id"), epoch)
            link.close()
            return
        if self._active is not None and not self._active.is_closed and epoch > self.highest_epoch:
            self._active.close()
        self.highest_epoch = epoch
        self._active = link
        link.ended.add_done_callback(lambda _: self._controller_gone(link))
        link.start(on_call=self._answer)
        self._arrived.set()

    def _controller_gone(self, link: Link) -> None:
        if self._active is link:
            self._active = None
            self._arrived.clear()

    async def _answer(self, method: str, args: dict[str, Any]) -> dict[str, Any]:
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
        delta = delta_from_json(args["delta"])
        _refuse_older(self.image, delta)
        base = ClusterImage(self.image.cluster_id) if args["full"] else self.image
        self.image = base.apply(delta)
        await self._apply(self.image)

    # to the controller

    async def controller(self, within_s: float = CONTROLLER_WITHIN_S) -> Link:
        """The link of the active controller, waited for during ``within_s``. Raises KafkaError(NOT_CONTROLLER)."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._arrived.wait()
        if self._active is None:
            raise KafkaError(ErrorCode.NOT_CONTROLLER, "no controller is active at the moment")
        return self._active

    async def forward(self, context: RequestContext, body: memoryview) -> memoryview:
        """Have the active controller answer a client's request. Raises KafkaError, TimeoutError.

        A controller that dies over the request is followed by asking the next one, as Kafka's own client would: what
        the first had done already is then answered as done before (TOPIC_ALREADY_EXISTS and the like).
        """
        for _ in range(_CONTROLLERS_ASKED):
            link = await self.controller()
            try:
                return await link.forward(*pack_forward(context, body), timeout_s=ANSWER_WITHIN_S)
            except LinkError:
                logger.warning("a controller ended over a request of API %d", context.api_key)
        raise KafkaError(ErrorCode.NOT_CONTROLLER, "one controller after the other ended over this request")

    async def create_topics(self, names: Iterable[str]) -> dict[str, ErrorCode]:
        """Auto-create topics with their defaults. Raises KafkaError, LinkError, TimeoutError."""
        link = await self.controller(CONTROLLER_SOON_S)
        answer = await link.call("create_topics", {"topics": list(names), "auto": True}, ANSWER_WITHIN_S)
        return {name: ErrorCode(code) for name, code in answer.items()}

    async def alter_partition(self, tp: TopicPartition, topic_id: uuid.UUID, proposal: dict[str, Any]) -> None:
        """Ask the active controller for an ISR (``replica.events.Propose``); its answer is the state that it makes
        known. Raises KafkaError, LinkError, TimeoutError."""
        link = await self.controller(CONTROLLER_SOON_S)
        args = {"topic": tp.topic, "topic_id": str(topic_id), "partition": tp.partition, **proposal}
        await link.call("alter_partition", args, ANSWER_WITHIN_S)

    async def alter_partitions(self, proposals: Sequence[tuple[TopicPartition, uuid.UUID, Propose]]) -> int:
        """Ask the active controller for many ISRs at once; how many were written. Raises KafkaError, LinkError,
        TimeoutError."""
        link = await self.controller(CONTROLLER_SOON_S)
        asked = [
            {"topic": tp.topic, "topic_id": str(topic_id), "partition": tp.partition, **proposal._asdict()}
            for tp, topic_id, proposal in proposals
        ]
        answer = await link.call("alter_partitions", {"partitions": asked}, ANSWER_WITHIN_S)
        return int(answer["written"])

    async def report_failed_partition(self, tp: TopicPartition, state: PartitionState, reason: str) -> None:
        """Have the controller end the leadership ``state`` of this broker (rule 1). Returns once it has answered, or
        once the image shows another leadership; asks every controller that comes until then."""
        backoff = Backoff()
        while True:
            topic = self.image.topics.get(tp.topic)
            current = self.image.partition(tp)
            if topic is None or current is None or current.leader_epoch != state.leader_epoch:
                return
            args = {
                "topic": tp.topic,
                "topic_id": str(topic.id),
                "partition": tp.partition,
                "leader_epoch": state.leader_epoch,
                "reason": reason,
                "short_log": reason == SHORT_LOG,
            }
            try:
                link = await self.controller()
                await link.call("partition_failed", args, ANSWER_WITHIN_S)
                return
            except (KafkaError, LinkError, TimeoutError) as error:
                logger.warning("the controller could not take the failure of %s: %s", tp, error)
            backoff.failed()
            await asyncio.sleep(backoff.delay_s)


def _refuse_older(image: ClusterImage, delta: ImageDelta) -> None:
    """Raise KafkaError when ``delta`` takes a partition back to an earlier state (rule 16)."""
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
