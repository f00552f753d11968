"""Whether an actor's process still answers, and the end of one that does not.

Ray restarts a process that has ended; one that was stopped it leaves alone. A broker that stands still is ended by its
own controller once it is deposed; this here is for the case that nobody beside it is left who could.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


class Pulse:
    """Counts the rounds in which an actor has left a call without an answer. Rounds, not seconds: while the one who
    asks stood still itself, nobody could have answered."""

    def __init__(self) -> None:
        self._asked: asyncio.Future[Any] | None = None
        self.silent_rounds = 0

    def ask(self, handle: Any) -> int:
        """Begin a round; how many before it went by since the last answer."""
        if self._asked is None or self._asked.done():
            if self._asked is not None and not self._asked.cancelled():
                self._asked.exception()  # an actor that Ray says is away is not silent: its state tells that
            self._asked = asyncio.ensure_future(_pulse(handle))
            self.silent_rounds = 0
        else:
            self.silent_rounds += 1
        return self.silent_rounds

    def forget(self) -> None:
        if self._asked is not None:
            self._asked.cancel()
        self._asked, self.silent_rounds = None, 0


async def _pulse(handle: Any) -> None:
    await handle.pulse.remote()


def end_process(node_id: str, pid: int) -> None:
    """``kill -9`` a process of Ray's on one of its nodes. Blocks until that is done, for at most half a minute."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(_kill).options(
        num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=node_id, soft=False)
    )
    ray.get(task.remote(pid), timeout=30)


def _kill(pid: int) -> None:
    try:
        title = Path(f"/proc/{pid}/cmdline").read_bytes()
        if title.startswith(b"ray"):  # the pid is not somebody else's by now
            os.kill(pid, signal.SIGKILL)
    except (FileNotFoundError, ProcessLookupError):
        return
