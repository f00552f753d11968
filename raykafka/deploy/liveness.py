"""Liveness of brokers as the Supervisor probes it: whether a process still answers, and the end of one that does not.

Ray restarts a process that has ended; one that was stopped it leaves alone. A broker that stands still is ended by its
own controller once it is deposed; this here is for the case that nobody beside it is left who could. Who hears nothing
of it may be the one that is cut off, so the verdict is given on the broker's own node.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

from raykafka.broker.settings import BrokerSettings
from raykafka.errors import LinkError
from raykafka.link import connect_tcp

_ANSWER_WITHIN_S = 3.0
_VERDICT_WITHIN_S = 15.0

logger = logging.getLogger(__name__)


class LivenessProbe:
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
            self._asked = asyncio.ensure_future(_ping(handle))
            self.silent_rounds = 0
        else:
            self.silent_rounds += 1
        return self.silent_rounds

    def forget(self) -> None:
        """Begin anew: another process, or none."""
        if self._asked is not None:
            self._asked.cancel()
        self._asked, self.silent_rounds = None, 0


async def _ping(handle: Any) -> None:
    await handle.ping.remote()


def end_if_silent(node_id: str, pid: int, settings: dict[str, Any]) -> bool:
    """Have the broker's node kill its process ``pid`` if the broker does not answer there either; whether it did.
    False as well where the node can't be asked. Blocks for at most a quarter of a minute."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(kill_if_silent).options(
        num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=node_id, soft=False)
    )
    verdict = task.remote(pid, settings)
    try:
        return bool(ray.get(verdict, timeout=_VERDICT_WITHIN_S))
    except ray.exceptions.GetTimeoutError:
        ray.cancel(verdict, force=True)
    except ray.exceptions.RayError as error:
        logger.warning("node %s could not look after process %d: %s", node_id, pid, error)
    return False


def kill_if_silent(pid: int, settings: dict[str, Any]) -> bool:
    """``kill -9`` a process of Ray's on this node unless the broker that it is answers on its inter-broker port;
    whether it was killed."""
    if asyncio.run(_answers(BrokerSettings.from_json(settings))):
        return False
    with suppress(FileNotFoundError, ProcessLookupError):
        title = Path(f"/proc/{pid}/cmdline").read_bytes()
        if title.startswith(b"ray"):  # the pid is not somebody else's by now
            os.kill(pid, signal.SIGKILL)
            return True
    return False


async def _answers(settings: BrokerSettings) -> bool:
    """Whether the broker's event loop takes part in opening a link."""
    try:
        async with asyncio.timeout(_ANSWER_WITHIN_S):
            link = await connect_tcp(settings.link_host, settings.link_port, settings.secret, {"role": "probe"})
    except (OSError, LinkError, TimeoutError):
        return False
    link.close()
    return link.peer.get("broker_id") == settings.broker_id
