"""What a broker asks of the active controller: clients' requests, topics, ISR changes, elections, its own shutdown."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from raykafka.broker.neighbourhood.controller_link import ControllerLink
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError, LinkError
from raykafka.process.backoff import Backoff
from raykafka.protocol.context import RequestContext, pack_forward
from raykafka.replica.rules.events import Propose
from raykafka.replica.rules.partition import SHORT_LOG
from raykafka.types import TopicPartition

# clients of the admin APIs wait longer than it takes to elect a controller; those of Metadata ask again at once
CONTROLLER_WITHIN_S = 15.0
CONTROLLER_SOON_S = 2.0
ANSWER_WITHIN_S = 60.0
_CONTROLLERS_ASKED = 3

logger = logging.getLogger(__name__)


class FailedLeadership(NamedTuple):
    """A leadership of this broker that is over (rule 1): in ``leader_epoch`` it leads that partition no further."""

    tp: TopicPartition
    topic_id: uuid.UUID
    leader_epoch: int
    reason: str


class ControllerCalls:
    """Calls on the link of the active controller. Each raises KafkaError (NOT_CONTROLLER when there is none in time),
    LinkError when the controller ends over the call, TimeoutError when it does not answer in ANSWER_WITHIN_S."""

    def __init__(self, controller: ControllerLink) -> None:
        self._controller = controller

    async def forward(self, context: RequestContext, body: memoryview) -> memoryview:
        """Have the active controller answer a client's request: the response's body. Raises KafkaError, TimeoutError.

        A controller that dies over the request is followed by asking the next one, as Kafka's own client would: what
        the first had done already is then answered as done before (TOPIC_ALREADY_EXISTS and the like).
        """
        for _ in range(_CONTROLLERS_ASKED):
            link = await self._controller.active(CONTROLLER_WITHIN_S)
            try:
                return await link.forward(*pack_forward(context, body), timeout_s=ANSWER_WITHIN_S)
            except LinkError:
                logger.warning("a controller ended over a request of API %d", context.api_key)
        raise KafkaError(ErrorCode.NOT_CONTROLLER, "one controller after the other ended over this request")

    async def create_topics(self, names: Iterable[str]) -> dict[str, ErrorCode]:
        """Auto-create topics with their defaults."""
        answer = await self._call("create_topics", {"topics": list(names), "auto": True})
        return {name: ErrorCode(code) for name, code in answer.items()}

    async def alter_partitions(self, proposals: Sequence[tuple[TopicPartition, uuid.UUID, Propose]]) -> list[ErrorCode]:
        """Ask for the ISRs of partitions, each named once. For each in order NONE, once it is written, or why it is
        not; the state itself comes with the image."""
        asked = [_named(tp, topic_id, **proposal._asdict()) for tp, topic_id, proposal in proposals]
        answer = await self._call("alter_partitions", {"partitions": asked})
        return [ErrorCode(code) for code in answer["codes"]]

    async def report_failed(self, leaderships: Sequence[FailedLeadership]) -> None:
        """Have the controller end leaderships of this broker (rule 1), all at once. Returns once it has answered, or
        once the image shows that all of them are over; asks every controller that comes until then."""
        backoff = Backoff()
        while left := [failed for failed in leaderships if self._goes_on(failed)]:
            named = [
                _named(
                    failed.tp,
                    failed.topic_id,
                    leader_epoch=failed.leader_epoch,
                    reason=failed.reason,
                    short_log=failed.reason == SHORT_LOG,
                )
                for failed in left
            ]
            try:
                await self._call("partitions_failed", {"partitions": named}, CONTROLLER_WITHIN_S)
                return
            except (KafkaError, LinkError, TimeoutError) as error:
                logger.warning(
                    "the controller could not take that %d leaderships are over, that of %s and others: %s",
                    len(left),
                    left[0].tp,
                    error or type(error).__name__,
                )
            backoff.failed()
            await asyncio.sleep(backoff.delay_s)

    def _goes_on(self, failed: FailedLeadership) -> bool:
        """Whether the image still shows that leadership."""
        topic = self._controller.image.topics.get(failed.tp.topic)
        if topic is None or topic.id != failed.topic_id:
            return False
        state = topic.partitions.get(failed.tp.partition)
        return state is not None and state.leader_epoch == failed.leader_epoch

    async def controlled_shutdown(self, within_s: float) -> None:
        """Have the leaderships of this broker moved away, as far as they can be, before it stops. A controller is
        waited for ``within_s`` seconds, and its answer as long."""
        link = await self._controller.active(within_s)
        await link.call("controlled_shutdown", {}, within_s)

    async def _call(self, method: str, args: dict[str, Any], controller_within_s: float = CONTROLLER_SOON_S) -> Any:
        link = await self._controller.active(controller_within_s)
        return await link.call(method, args, ANSWER_WITHIN_S)


def _named(tp: TopicPartition, topic_id: uuid.UUID, **more: Any) -> dict[str, Any]:
    return {"topic": tp.topic, "topic_id": str(topic_id), "partition": tp.partition, **more}
