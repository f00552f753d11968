"""Controlled shutdown: what a broker leads and follows moves to others before it stops."""

from __future__ import annotations

import logging
from dataclasses import replace

from raykafka.cluster.image import ImageDelta
from raykafka.controller.decisions.elections import elect
from raykafka.controller.ledger.ledger import Ledger
from raykafka.types import TopicPartition

APPLY_WITHIN_S = 3.0

logger = logging.getLogger(__name__)


async def shut_down(ledger: Ledger, broker: int) -> None:
    """A broker is about to stop: everything that others can do without it moves to them first, so that no write has to
    wait for its end. This life of it gets into no ISR any more. Returns once the live brokers go by that, or 3 s have
    passed."""
    async with ledger.turn() as turn:
        info = turn.note_leaving(broker)
        if info is None:
            return
        state = turn.state
        staying = state.registrations.keys() - state.leaving

        def replaceable(tp: TopicPartition) -> bool:
            isr = state.records[tp.topic].states[tp.partition].isr
            return broker in isr and any(b in staying for b in isr)

        news = ImageDelta(brokers={broker: replace(info, stopping=True)})
        leaves = dict.fromkeys(filter(replaceable, state.all_partitions()), broker)
        await elect(turn, leaves, failed=leaves, news=news)
        sequence = turn.state.sequence
        logger.info("broker %d is stopping", broker)
    await ledger.acknowledged(sequence, APPLY_WITHIN_S)
