"""Keeping one actor as the deployed config asks: created, pinned, configured, and configured again after each restart.

Ray restarts the actor's process (rule 26); a restarted one knows only its identity. The reconciler sees the new pid
and gives it its settings again. An actor that Ray gave up on is created anew.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from raykafka.deploy import ray_access
from raykafka.deploy.liveness import LivenessProbe, end_if_silent
from raykafka.deploy.names import BROKER, NAMESPACE, ZOOKEEPER, actor_name
from raykafka.deploy.placement import Placement
from raykafka.errors import DeployError, RaykafkaError

_ACTOR_CLASSES = {
    BROKER: ("raykafka.broker.actor", "BrokerActor"),
    ZOOKEEPER: ("raykafka.deploy.zookeeper_server", "ZooKeeperServerActor"),
}
_POLL_S = 0.5
_SILENT_ROUNDS = 24
_STATUS_WITHIN_S = 3.0
_STOP_WITHIN_S = 30.0
_FIRST_DELAY_S = 0.5
_LONGEST_DELAY_S = 10.0
_NO_NODE = "f" * 56  # how Ray writes the node of an actor that has none

logger = logging.getLogger(__name__)


class ActorReconciler:
    """Keeps the actor of one placement. ``opened`` holds its configuring back until what it needs is there; ``turn`` is
    held while running servers are changed, one after the other; ``on_running`` is called each time that it runs.

    ``phase`` is ``creating``, ``waiting`` (for ``opened``), ``starting``, ``running``, ``failed``, or ``away``: its
    node is not there, and comes back with its data or not at all. ``error`` says why it is not running, ``failures``
    how often in a row its start failed.
    """

    def __init__(
        self,
        cluster: str,
        placement: Placement,
        opened: asyncio.Event,
        turn: asyncio.Lock,
        on_running: Callable[[], None],
    ) -> None:
        self.cluster = cluster
        self.placement = placement
        self.phase = "creating"
        self.error = ""
        self.failures = 0
        self.state: ray_access.ActorState | None = None
        self.running = asyncio.Event()
        self._opened = opened
        self._turn = turn
        self._on_running = on_running
        self._handle: Any = None
        self._configured: tuple[int, Placement] | None = None
        self._configuring: asyncio.Task[None] | None = None
        self._retry_at = 0.0
        self._probe = LivenessProbe()
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    @property
    def name(self) -> str:
        return actor_name(self.cluster, self.placement.role, self.placement.actor_id)

    def want(self, placement: Placement) -> None:
        """Ask for other settings; the same ones change nothing."""
        if placement != self.placement:
            self.placement = placement
            self.phase, self.error, self.failures = "starting", "", 0
            self.running.clear()
            self._retry_at = 0.0
            self._changed.set()

    def poke(self) -> None:
        """Look again now."""
        self._changed.set()

    async def retire(self) -> None:
        """Stop the actor in order and end it for good."""
        self._task.cancel()
        if self._configuring is not None:
            self._configuring.cancel()
        handle = self._handle or await asyncio.to_thread(
            ray_access.find_actor, self.cluster, self.placement.role, self.placement.actor_id
        )
        if handle is not None:
            await stop_actor(handle, self.name)

    async def ask(self, method: str, *args: Any) -> Any:
        """What the actor's ``method`` returns. Raises DeployError when there is no actor, and what the method
        raises."""
        if self._handle is None:
            raise DeployError(f"{self.name} does not run: it is {self.phase}. {self.error}".rstrip())
        import ray

        try:
            return await _call(self._handle, method, *args)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, RaykafkaError):
                raise error.cause from None
            raise

    async def status(self, *details: Any) -> dict[str, Any]:
        """The actor's row: what is known of it here, in Ray and by itself; ``details``: its ``status``'s arguments."""
        state = self.state
        row: dict[str, Any] = {
            "role": self.placement.role,
            "id": self.placement.actor_id,
            "name": self.name,
            "phase": self.phase,
            "error": self.error,
            "actor_id": state.actor_id if state else "",
            "node": state.node_ip if state else "",
            "node_id": state.node_id if state else "",
            "pid": state.pid if state else 0,
            "ray_state": state.state if state else "MISSING",
            "restarts": state.restarts if state else 0,
            "detail": None,
        }
        if self._handle is not None and state is not None and state.state == "ALIVE":
            try:
                row["detail"] = await asyncio.wait_for(
                    asyncio.shield(_call(self._handle, "status", *details)), _STATUS_WITHIN_S
                )
            except TimeoutError:
                row["error"] = row["error"] or f"gave no status for {_STATUS_WITHIN_S:.0f} s"
            except Exception as error:  # Ray raises many types here; all mean that this actor can't answer now
                row["error"] = row["error"] or ray_access.first_sentence(error)
        return row

    async def _run(self) -> None:
        while True:
            try:
                await self._step()
            except Exception as error:  # one bad round must not end the keeping of an actor
                logger.exception("%s: a round of the supervisor failed", self.name)
                self._failed(error)
            try:
                async with asyncio.timeout(_POLL_S):
                    await self._changed.wait()
            except TimeoutError:
                continue
            self._changed.clear()

    async def _step(self) -> None:
        if time.monotonic() < self._retry_at:
            return
        if self._handle is None:
            self._handle = await asyncio.to_thread(_find_or_create, self.cluster, self.placement)
            self._configured = None
        if self._handle is not None:
            self.state = await asyncio.to_thread(ray_access.actor_state, self._handle._actor_id.hex())
        if not self.placement.node_id:
            self._wait_for_node()
            return
        if self.state is not None and self.state.state == "DEAD":
            self._handle = None
            self.running.clear()
            self._failed(RuntimeError(self.state.death_cause or "the actor died"))
            return
        if self.state is not None and self.state.node_id not in ("", _NO_NODE, self.placement.node_id):
            # Its node's Ray began anew under another id, or its data moved: what is pinned to the old id can't follow.
            logger.info("%s moves to node %s", self.name, self.placement.node_ip)
            await asyncio.to_thread(ray_access.end_actor, self._handle)
            self._handle = None
            self.running.clear()
            self._changed.set()
            return
        pid = self.state.pid if self.state is not None and self.state.state == "ALIVE" else 0
        if self._configuring is not None or self._configured == (pid, self.placement):
            await self._end_when_silent(pid)
            return
        self._probe.forget()
        if not self._opened.is_set():
            self.phase = "waiting"
            return
        self.running.clear()
        if self.phase != "failed":
            self.phase = "starting"
        self._configuring = asyncio.create_task(self._configure(self._handle, self.placement))

    async def _end_when_silent(self, pid: int) -> None:
        """A broker whose process stands still has been replaced by others long before this ends it."""
        if self.placement.role != BROKER or not pid or self._configuring is not None or self.state is None:
            return
        if self._probe.ask(self._handle) < _SILENT_ROUNDS:
            return
        self._probe.forget()
        silent_s = _SILENT_ROUNDS * _POLL_S
        if await asyncio.to_thread(end_if_silent, self.state.node_id, pid, self.placement.settings):
            logger.warning("%s was silent for %.0f s and is killed", self.name, silent_s)
        else:
            logger.warning("%s was silent for %.0f s; as far as its node knows it is well", self.name, silent_s)

    def _wait_for_node(self) -> None:
        """Leave what runs there, if it does: its node may only be out of sight."""
        if self.state is not None and self.state.state == "DEAD":
            self._handle = None
        self.running.clear()
        self.phase = "away"
        self.error = f"its node, last seen at {self.placement.node_ip}, is not in the Ray cluster"

    async def _configure(self, handle: Any, placement: Placement) -> None:
        runs = self._configured is not None and self.state is not None and self._configured[0] == self.state.pid
        try:
            async with self._turn if runs else nullcontext():
                status = await _call(handle, "configure", placement.settings)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # whatever the actor raised is the reason that status and deploy show
            if not _is_passing(error):
                logger.warning("%s did not start: %s", self.name, error)
                self._failed(error)
            self._retry_at = max(self._retry_at, time.monotonic() + _POLL_S)
        else:
            self._configured = (status["pid"], placement)
            self.phase, self.error, self.failures = "running", "", 0
            self.running.set()
            self._on_running()
        finally:
            self._configuring = None
            self._changed.set()

    def _failed(self, error: BaseException) -> None:
        self.phase = "failed"
        self.error = ray_access.first_sentence(error)
        delay_s = min(_FIRST_DELAY_S * 2**self.failures, _LONGEST_DELAY_S)
        self.failures += 1
        self._retry_at = time.monotonic() + delay_s


async def stop_actor(handle: Any, name: str) -> None:
    """Have the actor stop what it runs, then end it. One that does not stop in 30 s is ended anyway."""
    try:
        await asyncio.wait_for(_call(handle, "stop"), _STOP_WITHIN_S)
    except Exception as error:  # a dead or stuck actor is ended below all the same
        logger.warning("%s did not stop in order: %s", name, ray_access.first_sentence(error))
    await asyncio.to_thread(ray_access.end_actor, handle)


async def _call(handle: Any, method: str, *args: Any) -> Any:
    return await getattr(handle, method).remote(*args)


def _is_passing(error: BaseException) -> bool:
    """Whether ``error`` only says that the process just ended or begins: Ray restarts it, nothing failed."""
    import ray

    return isinstance(error, ray.exceptions.ActorUnavailableError | ray.exceptions.ActorDiedError)


def _find_or_create(cluster: str, placement: Placement) -> Any | None:
    """A handle on the actor; None when there is none and its node is away."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    if not placement.node_id:
        return ray_access.find_actor(cluster, placement.role, placement.actor_id)
    module, name = _ACTOR_CLASSES[placement.role]
    actor_class = ray.remote(getattr(importlib.import_module(module), name))
    options: dict[str, Any] = {"memory": placement.memory_bytes} if placement.memory_bytes else {}
    return actor_class.options(
        name=actor_name(cluster, placement.role, placement.actor_id),
        namespace=NAMESPACE,
        get_if_exists=True,
        lifetime="detached",
        max_restarts=-1,
        max_task_retries=0,
        num_cpus=0,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=placement.node_id, soft=False),
        resources={f"node:{placement.node_ip}": 0.001},  # keeps the node from looking idle
        **options,
    ).remote(cluster, placement.actor_id)
