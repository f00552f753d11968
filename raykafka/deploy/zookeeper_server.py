"""The ZooKeeperServer actor: keeps one real ZooKeeper process running on its node."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import Any

from raykafka.deploy.zookeeper_process import ZooKeeperProcess, ask
from raykafka.errors import DeployError
from raykafka.process.priority import take_normal_priority

_CHECK_EVERY_S = 0.5
_READY_WITHIN_S = 30.0
_LONGEST_DELAY_S = 10.0
# One that stands still is ended before clients' sessions are due: started anew it gives each its whole time-out again,
# while one that merely goes on finds them expired. A round lasts up to 1.5 s. One that has not answered yet may be
# reading a large snapshot.
_SILENT_ROUNDS = 3
_FIRST_ANSWER_WITHIN_S = 120.0

logger = logging.getLogger(__name__)


class ZooKeeperServerActor:
    """One ZooKeeper server of a cluster. The process outlives this actor: the next life of the actor adopts it."""

    def __init__(self, cluster: str, server_id: int) -> None:
        take_normal_priority()
        self._cluster = cluster
        self._server_id = server_id
        self._settings: dict[str, Any] | None = None
        self._process: ZooKeeperProcess | None = None
        self._watch: asyncio.Task[None] | None = None
        self._answered = False  # since its process began
        self._restarts = 0
        self._error = ""
        self._changing = asyncio.Lock()

    async def configure(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Run the server as ``settings`` (ZooKeeperProcess's arguments) say; returns the status once it answers.

        The same settings again change nothing. Raises DeployError when the server does not come up.
        """
        async with self._changing:
            if settings != self._settings or self._process is None or not self._process.alive():
                await self._stop_watch()
                self._settings = settings
                process = ZooKeeperProcess(**settings)
                await asyncio.to_thread(process.start)
                self._process = process
                self._answered = False
                self._watch = asyncio.create_task(self._keep(process))
            await self._until_ready(self._process)
        return await self.status()

    async def status(self) -> dict[str, Any]:
        """``state`` (idle, starting, running, failed), the server's pid, role, restarts and address."""
        process = self._process
        if process is None:
            return {"state": "idle", "pid": os.getpid()}
        answer = await asyncio.to_thread(ask, process.host, process.client_port)
        mode = next((line.partition(": ")[2] for line in answer.splitlines() if line.startswith("Mode: ")), "")
        state = "running" if mode else "failed" if self._error else "starting"
        return {
            "state": state,
            "pid": os.getpid(),
            "server_pid": process.pid,
            "mode": mode,
            "hosts": process.hosts,
            "server_restarts": self._restarts,
            "error": "" if mode else self._error,
        }

    async def stop(self) -> None:
        """End the server in order."""
        async with self._changing:
            await self._stop_watch()
            if self._process is not None:
                await asyncio.to_thread(self._process.stop)
                self._process = None

    async def _until_ready(self, process: ZooKeeperProcess) -> None:
        """Until it answers, if it is alone: one of an ensemble answers only once the others are there. DeployError."""
        if not process.servers:
            await asyncio.to_thread(process.wait_ready, _READY_WITHIN_S)
            self._answered = True

    async def _stop_watch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
            self._watch = None

    async def _keep(self, process: ZooKeeperProcess) -> None:
        """Start the server again whenever it ended, at growing distances while it does not stay up; end one that falls
        silent."""
        delay_s, silent_rounds, started_at = 0.0, 0, time.monotonic()
        while True:
            await asyncio.sleep(_CHECK_EVERY_S)
            if process.alive():
                delay_s = max(0.0, delay_s - _CHECK_EVERY_S / 10)
                if await asyncio.to_thread(ask, process.host, process.client_port, "ruok"):
                    self._answered, silent_rounds = True, 0
                else:
                    silent_rounds += 1
                late = time.monotonic() - started_at > _FIRST_ANSWER_WITHIN_S
                if silent_rounds < _SILENT_ROUNDS or not (self._answered or late):
                    continue
                logger.error("ZooKeeper server %d of %s stands still and is ended", self._server_id, self._cluster)
                await asyncio.to_thread(process.kill)
            await asyncio.sleep(delay_s)
            delay_s = min(max(_CHECK_EVERY_S, delay_s * 2), _LONGEST_DELAY_S)
            self._restarts += 1
            self._answered, silent_rounds, started_at = False, 0, time.monotonic()
            try:
                await asyncio.to_thread(process.start)
                await self._until_ready(process)
                self._error = ""
            except DeployError as error:
                self._error = str(error)
                logger.error("ZooKeeper server %d of %s: %s", self._server_id, self._cluster, error)
