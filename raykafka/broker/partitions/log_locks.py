"""Waits until actors whose links have ended have let their logs go (rule 4).

The kernel frees the locks of a process that died. One that lives on closes its logs, one after the other, and ends; if
that takes long, it is killed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from pathlib import Path

from raykafka.broker.partitions.actors import Actor
from raykafka.log import lock_holder
from raykafka.process.tasks import TaskSet

LEAVE_WITHIN_S = 3.0
LOCK_POLL_S = 0.01
# how many locks are looked at in one turn of the event loop
LOOKS_IN_A_TURN = 50

logger = logging.getLogger(__name__)


class LogLocks:
    """The work runs in ``tasks``."""

    def __init__(self, tasks: TaskSet) -> None:
        self._tasks = tasks
        self._waiting: dict[int, deque[tuple[Path, Callable[[], None]]]] = {}

    def gone(self, actor: Actor) -> None:
        """The link of ``actor`` has ended: in the next turn its logs are looked at, in the order of ``when_free``."""
        waiting = self._waiting[actor.number] = deque()
        self._tasks.run(self._free(actor, waiting))

    def when_free(self, number: int, directory: Path, call: Callable[[], None]) -> None:
        """Call ``call`` once the actor has let the log in ``directory`` go. To be said in the turn of ``gone``."""
        self._waiting[number].append((directory, call))

    async def _free(self, actor: Actor, waiting: deque[tuple[Path, Callable[[], None]]]) -> None:
        loop = asyncio.get_running_loop()
        kill_at_s, looks = loop.time() + LEAVE_WITHIN_S, 0
        while waiting:
            directory, call = waiting[0]
            if _is_locked(directory):
                if loop.time() > kill_at_s:
                    logger.error("replica actor %d still holds the log in %s and is killed", actor.number, directory)
                    actor.kill()
                    kill_at_s += LEAVE_WITHIN_S
                await asyncio.sleep(LOCK_POLL_S)
                continue
            waiting.popleft()
            call()
            looks += 1
            if looks % LOOKS_IN_A_TURN == 0:
                await asyncio.sleep(0)
        del self._waiting[actor.number]


def _is_locked(directory: Path) -> bool:
    try:
        return lock_holder(directory) is not None
    except OSError:
        return False  # whoever opens the log finds out what is wrong with it
