"""Sleeping replicas get back into the ISR asleep (rules 6, 11, 17).

A broker that comes back may hold thousands of them, each outside of its ISR. The broker that leads a sleeping partition
asks the other's broker how the sealed log ends there, and the controller for an ISR with it where it ends alike: many
partitions in one call, and no process for any. Only where the logs differ, or a replica is awake, the leader wakes.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from raykafka.broker.partitions.calls import Controller, OtherBrokers
from raykafka.broker.partitions.partition_host import Life, PartitionHost
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError, LinkError
from raykafka.replica.rules.events import Propose
from raykafka.replica.rules.sealed import SealedEnd
from raykafka.types import TopicPartition

METHOD = "sealed_ends"
AT_ONCE = 250
ANSWER_WITHIN_S = 2.0

logger = logging.getLogger(__name__)

# How a replica ends at another broker: () where it does not sleep, None where nothing is known of it there.
Found = SealedEnd | tuple[()] | None


class Joining:
    """``get`` gives a local partition; ``ready`` says whether this broker knows what it holds."""

    def __init__(
        self,
        brokers: OtherBrokers,
        controller: Controller,
        get: Callable[[TopicPartition], PartitionHost | None],
        ready: Callable[[], bool],
    ) -> None:
        self._brokers = brokers
        self._controller = controller
        self._get = get
        self._ready = ready
        brokers.answers[METHOD] = self.answer

    async def answer(self, args: dict[str, Any]) -> list[list[int] | None]:
        """``sealed_ends`` {partitions: [[topic, topic id, partition], ...]}: [epoch, log end, epoch of the last record]
        of each in that order, [] of one that does not sleep, None of one that is not here."""
        if not self._ready():
            raise KafkaError(ErrorCode.BROKER_NOT_AVAILABLE, "this broker has not heard yet what it holds")
        return [self._end_of(topic, topic_id, p) for topic, topic_id, p in args["partitions"]]

    def _end_of(self, topic: str, topic_id: str, partition: int) -> list[int] | None:
        host = self._get(TopicPartition(topic, partition))
        if host is None or str(host.topic_id) != topic_id:
            return None
        end = host.sleeping.sealed_end() if host.life is Life.ASLEEP else None
        return list(end) if end is not None else []

    async def round(self, hosts: Sequence[PartitionHost]) -> list[PartitionHost]:
        """Propose ISRs for ``hosts``, sleeping leaders that some replica is to join. Returns those that have to wake
        for it."""
        needed: list[PartitionHost] = []
        for start in range(0, len(hosts), AT_ONCE):
            needed += await self._join(hosts[start : start + AT_ONCE])
        return needed

    async def _join(self, hosts: Sequence[PartitionHost]) -> list[PartitionHost]:
        outside: dict[int, list[PartitionHost]] = {}
        for host in hosts:
            for broker in host.behind():
                outside.setdefault(broker, []).append(host)
        answers = await asyncio.gather(*(self._ends_at(broker, theirs) for broker, theirs in outside.items()))
        found: dict[PartitionHost, dict[int, Found]] = {host: {} for host in hosts}
        for (broker, theirs), ends in zip(outside.items(), answers, strict=True):
            for host, end in zip(theirs, ends, strict=True):
                found[host][broker] = end
        proposals, needed = [], []
        for host, ends_of in found.items():
            proposal = host.propose_asleep({b: end for b, end in ends_of.items() if isinstance(end, SealedEnd)})
            if proposal is not None:
                proposals.append((host.tp, host.topic_id, proposal))
            elif any(_needs_leader(host, end) for end in ends_of.values()):
                needed.append(host)
        await self._propose(proposals)
        return needed

    async def _ends_at(self, broker: int, hosts: Iterable[PartitionHost]) -> list[Found]:
        named = [[host.tp.topic, str(host.topic_id), host.tp.partition] for host in hosts]
        try:
            answer = await self._brokers.call(broker, METHOD, {"partitions": named}, ANSWER_WITHIN_S)
        except (OSError, KafkaError, LinkError, TimeoutError) as error:
            logger.info("broker %d told nothing of its sleeping replicas: %s", broker, error or type(error).__name__)
            return [None for _ in named]
        return [SealedEnd(*end) if end else () if end is not None else None for end in answer]

    async def _propose(self, proposals: Sequence[tuple[TopicPartition, uuid.UUID, Propose]]) -> None:
        if not proposals:
            return
        try:
            written = await self._controller.alter_partitions(proposals)
        except (KafkaError, LinkError, TimeoutError) as error:
            # proposed again until the states show an answer
            logger.warning("no answer to %d ISRs that were proposed asleep: %s", len(proposals), error)
            return
        logger.info("%d of %d ISRs that were proposed asleep are written", written, len(proposals))


def _needs_leader(host: PartitionHost, end: Found) -> bool:
    """Whether a replica that can't join asleep needs its leader's stream. One that sleeps in another epoch has not
    heard of this one yet, or this broker has not heard of that."""
    own = host.sleeping.sealed_end()
    return end == () or (isinstance(end, SealedEnd) and own is not None and end.epoch == own.epoch)
