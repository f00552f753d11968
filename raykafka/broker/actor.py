"""The Ray actor of a broker: a thin shell, so that Ray's part of a broker is its life and nothing of its data.

``ray.remote`` is applied by whoever starts it (detached, named ``<cluster>/broker/<id>``, rule 26).
"""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import logging
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raykafka.broker.children.child import CONTROLLER, COORDINATOR, ChildStarter
from raykafka.broker.settings import BrokerSettings
from raykafka.errors import DeployError
from raykafka.process import open_files
from raykafka.process.log_output import log_to_stderr
from raykafka.process.priority import take_normal_priority

if TYPE_CHECKING:
    from raykafka.broker.broker import Broker
    from raykafka.broker.ports import Exporter

_STOPPED = "stopped"
_HALTED = "halted"
_HALT_MARK = "halted"
_BROKER_MODULE = "raykafka.broker.broker"

logger = logging.getLogger(__name__)


def child_arguments(settings: BrokerSettings, role: str) -> dict[str, Any]:
    """What ``serve`` of a child of ``role`` takes by name, JSON-able."""
    if role == COORDINATOR:
        return {"broker_id": settings.broker_id, "config": dict(settings.config)}
    if role == CONTROLLER:
        return {
            "broker_id": settings.broker_id,
            "zookeeper": dataclasses.asdict(settings.zookeeper),
            "config": dict(settings.config),
        }
    return {}


def _ray_starter(settings: BrokerSettings) -> ChildStarter:
    from raykafka.broker.children.ray_children import RayStarter

    return RayStarter(settings.secret, lambda role: child_arguments(settings, role))


def _exporter(broker: Broker, host: str, port: int) -> Exporter:
    from raykafka.metrics import exporter

    return exporter.Exporter(broker, host, port)


def _halt_mark(settings: BrokerSettings) -> Path:
    """The file in a broker's data directory that keeps it from running."""
    return Path(settings.data_dir).expanduser() / _HALT_MARK


def _leave(mark: Path) -> None:
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()


class BrokerActor:
    """Broker ``broker_id`` of ``cluster``. It does nothing until ``configure``, which the Supervisor may repeat."""

    def __init__(self, cluster: str, broker_id: int) -> None:
        take_normal_priority()
        self._cluster = cluster
        self._broker_id = broker_id
        self._broker: Broker | None = None
        self._settings: BrokerSettings | None = None
        self._changing = asyncio.Lock()
        # What a broker imports takes half a second: time that it otherwise spends waiting for ZooKeeper to start. The
        # Supervisor, which imports this module to start brokers, has no use for it.
        threading.Thread(target=importlib.import_module, args=(_BROKER_MODULE,), daemon=True).start()
        log_to_stderr()
        open_files.allow_many()

    async def configure(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Run with ``settings`` (``BrokerSettings.to_json``): start, restart with changed ones, or do nothing. Another
        number of replica actors is no reason to restart. Returns the status. Raises what ``Broker.start`` raises; the
        actor stays and can be configured again."""
        wanted = BrokerSettings.from_json(settings)
        module = await asyncio.to_thread(importlib.import_module, _BROKER_MODULE)
        async with self._changing:
            held = self._settings
            running = self._broker is not None and self._broker.state != _STOPPED
            if not running and _halt_mark(wanted).exists():
                self._settings = wanted
            elif running and self._broker is not None and held is not None and held.differs_in_actors_alone(wanted):
                self._broker.use_actors(wanted.replica_actors)
                self._settings = wanted
            elif not running or wanted != held:
                if self._broker is not None:
                    await self._broker.stop()
                broker: Broker = module.Broker(_ray_starter, exporter=_exporter)
                self._broker, self._settings = broker, wanted
                await broker.start(wanted)
        return await self.status()

    async def status(self, partitions: bool = False) -> dict[str, Any]:
        """Plain data; ``state`` is "stopped" before the first ``configure`` and after ``stop``, "halted" after
        ``halt``. With ``partitions`` it has a row for each local one."""
        halted = self._settings is not None and _halt_mark(self._settings).exists()
        if self._broker is None or (halted and self._broker.state == _STOPPED):
            return {"state": _HALTED if halted else _STOPPED, "pid": os.getpid()}
        return self._broker.status(partitions)

    async def halt(self) -> None:
        """Stop cleanly, and stay down over restarts of this actor and of all else until ``resume``. Raises DeployError
        before the first ``configure``."""
        if self._settings is None:
            raise DeployError(f"Broker {self._broker_id} is only just being started: try again in a moment.")
        mark = _halt_mark(self._settings)
        await asyncio.to_thread(_leave, mark)
        await self.stop()

    async def resume(self) -> dict[str, Any]:
        """End a ``halt``: run with the settings last given. Raises what ``configure`` raises."""
        if self._settings is None:
            raise DeployError(f"Broker {self._broker_id} is only just being started: try again in a moment.")
        await asyncio.to_thread(_halt_mark(self._settings).unlink, missing_ok=True)
        return await self.configure(self._settings.to_json())

    async def ping(self) -> None:
        """Returns when the event loop gets to it."""

    async def stop(self) -> None:
        """Stop cleanly. The actor stays."""
        async with self._changing:
            if self._broker is not None:
                await self._broker.stop()
