"""The ISRs that leaders of this broker propose, on their way to the controller (rule 7)."""

from __future__ import annotations

import itertools
import logging
import uuid

from raykafka.broker.partitions.calls import Controller
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError, LinkError
from raykafka.process.tasks import TaskSet
from raykafka.replica.rules.events import Propose
from raykafka.types import TopicPartition

# the controller decides some hundred in a transaction: what is proposed meanwhile may be newer than what waits here
AT_ONCE = 1000

logger = logging.getLogger(__name__)


class IsrProposals:
    """One proposal is outstanding for a partition; the newest of those that are made meanwhile waits, so that there are
    two for each at most, however long ZooKeeper or a controller is away. All that one turn of the event loop proposes
    goes in one call, and one call is under way at a time.

    A proposal that is not written is forgotten here: its leader proposes again (``Settings.retry_ms``) what it wants by
    then, until it is told a newer state. All methods run on the broker's event loop.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._tasks = TaskSet("ISR proposals")
        self._waiting: dict[TopicPartition, tuple[uuid.UUID, Propose]] = {}
        self._outstanding: dict[TopicPartition, tuple[uuid.UUID, Propose]] = {}
        self._asking = False

    def propose(self, tp: TopicPartition, topic_id: uuid.UUID, proposal: Propose) -> None:
        """Ask the controller for an ISR, once it has answered what is outstanding for that partition."""
        asked = (topic_id, proposal)
        if self._outstanding.get(tp) == asked:
            # the newest that is wanted is the one that is being decided
            self._waiting.pop(tp, None)
            return
        self._waiting[tp] = asked
        if not self._asking:
            self._asking = True
            self._tasks.run(self._ask_all())

    async def close(self) -> None:
        """Ask no more."""
        await self._tasks.close()

    async def _ask_all(self) -> None:
        try:
            while self._waiting:
                self._outstanding = dict(itertools.islice(self._waiting.items(), AT_ONCE))
                for tp in self._outstanding:
                    del self._waiting[tp]
                await self._ask()
        finally:
            self._outstanding = {}
            self._asking = False

    async def _ask(self) -> None:
        asked = [(tp, topic_id, proposal) for tp, (topic_id, proposal) in self._outstanding.items()]
        first = asked[0][0]
        try:
            codes = await self._controller.alter_partitions(asked)
        except (KafkaError, LinkError, TimeoutError) as error:
            why = error or type(error).__name__
            logger.warning("no answer to %d ISRs that were proposed, that of %s and others: %s", len(asked), first, why)
            return
        refused = [(tp, code) for (tp, _, _), code in zip(asked, codes, strict=True) if code is not ErrorCode.NONE]
        if refused:
            tp, code = refused[0]
            logger.info("%d of %d ISRs are not written, that of %s: %s", len(refused), len(asked), tp, code.name)
