"""Gives events to the rules of the partition, and has carried out what they ask for.

The effects of one step are carried out in order, each finished before the next begins (rule 3). Those that change files
do so in a thread, and what comes meanwhile waits in the queue, so that the event loop only ever waits for the page
cache (rule 22).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from raykafka.errors import KafkaError
from raykafka.log import Log
from raykafka.process.clock import boot_clock_ms
from raykafka.replica.outbox import Outbox
from raykafka.replica.rules.events import AdvanceStart, Answer, Effect, Event, Restart, SetHistory, Truncate
from raykafka.replica.rules.partition import Partition
from raykafka.replica.upkeep import Upkeep
from raykafka.replica.work_queue import WorkQueue

logger = logging.getLogger(__name__)

_SLOW = frozenset((SetHistory, Truncate, Restart, AdvanceStart))


class Steps:
    """``carry`` has, for each kind of effect, what carries it out. What changes the log is carried out here; whoever
    makes this adds the rest.

    ``stepped(now_ms)`` is called when all effects of a step have been carried out; ``failed(reason)`` when the disk
    let one of them fail, and then those behind it are not carried out.
    """

    def __init__(
        self,
        log: Log,
        partition: Partition,
        queue: WorkQueue,
        upkeep: Upkeep,
        out: Outbox,
        *,
        stepped: Callable[[int], None],
        failed: Callable[[str], None],
    ) -> None:
        self._log = log
        self._partition = partition
        self._queue = queue
        self._upkeep = upkeep
        self._out = out
        self._stepped, self._failed = stepped, failed
        self.carry: dict[type, Callable[[Any], None]] = {
            SetHistory: self._set_history,
            Truncate: self._truncate,
            Restart: self._restart,
            AdvanceStart: self._advance_start,
        }

    def take(self, event: Event) -> None:
        """Give the rules an event, once what came before it has been done."""
        if self._queue.busy:
            self._queue.submit(lambda: self.take(event))
        else:
            self.step(event, boot_clock_ms())

    def step(self, event: Event, now_ms: int) -> None:
        """Give the rules an event now. Only while the queue is not busy, or from work that the queue does."""
        effects, carry = self._partition.step(event, now_ms), self.carry
        for done, effect in enumerate(effects):
            if self._is_slow(effect):
                self._queue.begin(self._carry_slowly(effects[done:]))
                return
            carry[type(effect)](effect)
        self._stepped(now_ms)

    def _is_slow(self, effect: Effect) -> bool:
        if type(effect) is SetHistory:
            return not self._log.epochs.is_on_disk(effect.history)
        return type(effect) in _SLOW or (type(effect) is Answer and self._upkeep.must_flush())

    async def _carry_slowly(self, effects: list[Effect]) -> None:
        try:
            async with self._upkeep.disk:
                for effect in effects:
                    if type(effect) is Answer and self._upkeep.must_flush():
                        await asyncio.to_thread(self._log.flush)
                    if type(effect) in _SLOW:
                        await asyncio.to_thread(self.carry[type(effect)], effect)
                    else:
                        self.carry[type(effect)](effect)
        except KafkaError as error:
            self._failed(error.message)
            return
        self._out.view_changed()
        self._stepped(boot_clock_ms())

    # effects on the log, each in a thread; they raise KafkaError

    def _set_history(self, effect: SetHistory) -> None:
        self._log.epochs.replace(effect.history)

    def _truncate(self, effect: Truncate) -> None:
        log = self._log
        logger.warning("%s: truncated from %d to %d", log.directory.name, log.log_end_offset, effect.offset)
        log.truncate_to(effect.offset)

    def _restart(self, effect: Restart) -> None:
        logger.warning("%s: all records dropped, begun again at %d", self._log.directory.name, effect.offset)
        self._log.truncate_fully(effect.offset)

    def _advance_start(self, effect: AdvanceStart) -> None:
        self._log.advance_log_start(effect.offset)
