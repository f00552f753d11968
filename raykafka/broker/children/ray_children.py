"""Children as Ray actors: on the broker's node, owned by the broker, never restarted by Ray (rule 26)."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raykafka.broker.children.child import CONTROLLER, COORDINATOR, REPLICA

_CLASSES = {
    REPLICA: ("raykafka.replica_actor.actor", "ReplicaActor"),
    COORDINATOR: ("raykafka.coordinator.actor", "GroupCoordinator"),
    CONTROLLER: ("raykafka.controller.actor", "ControllerActor"),
}


@functools.cache
def _actor_class(role: str) -> Any:
    module, name = _CLASSES[role]
    return ray.remote(getattr(importlib.import_module(module), name))


class RayChild:
    """A child actor. Its one call, ``run``, ends when the child does."""

    def __init__(self, actor: Any, running: Any) -> None:
        self._actor = actor
        self._running = running
        self.actor_id: str = actor._actor_id.hex()

    def kill(self) -> None:
        ray.kill(self._actor, no_restart=True)

    async def wait(self) -> str:
        try:
            await self._running
        except ray.exceptions.RayActorError:
            return ""
        except ray.exceptions.RayError as error:
            return str(error)
        # run has returned: let the idle worker go as well
        self.kill()
        return ""


class RayStarter:
    """Starts children as actors of the class of their role. ``arguments(role)`` are those of the ``serve`` of the
    role's module, by name."""

    def __init__(self, secret: bytes, arguments: Callable[[str], dict[str, Any]]) -> None:
        self._secret = secret
        self._arguments = arguments
        node = ray.get_runtime_context().get_node_id()
        self._options = {
            "num_cpus": 0,
            "max_restarts": 0,
            "max_task_retries": 0,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id=node, soft=False),
        }

    def start(self, role: str, socket_path: str, token: str) -> RayChild:
        actor = _actor_class(role).options(**self._options).remote()
        running = actor.run.remote(socket_path, self._secret, token, self._arguments(role))
        return RayChild(actor, running)
