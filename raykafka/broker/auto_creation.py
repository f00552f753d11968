"""Auto-creation of topics that clients ask for before anybody made them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial

from raykafka.broker.neighbourhood.controller_calls import ControllerCalls
from raykafka.cluster.image import ClusterImage
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError, LinkError
from raykafka.process.tasks import TaskSet


class AutoCreation:
    """Asks the controller for topics, once for each however many clients wait for it. ``image()`` is this broker's
    cluster image."""

    def __init__(self, controller_calls: ControllerCalls, image: Callable[[], ClusterImage]) -> None:
        self._controller_calls = controller_calls
        self._image = image
        self._tasks = TaskSet("auto-creation of topics")
        self._running: dict[str, asyncio.Task[ErrorCode]] = {}

    async def create(self, names: Iterable[str]) -> dict[str, ErrorCode]:
        """The outcome for each name: NONE for a topic that is in this broker's image now, LEADER_NOT_AVAILABLE where
        the client should ask again, else the controller's error."""
        wanted = list(dict.fromkeys(names))
        for name in wanted:
            if name not in self._running:
                task = self._running[name] = self._tasks.run(self._create(name))
                task.add_done_callback(partial(self._done, name))
        codes = await asyncio.gather(*(asyncio.shield(self._running[name]) for name in wanted))
        return dict(zip(wanted, codes, strict=True))

    def _done(self, name: str, _: asyncio.Task[ErrorCode]) -> None:
        del self._running[name]

    async def _create(self, name: str) -> ErrorCode:
        try:
            code = (await self._controller_calls.create_topics([name]))[name]
        except (KafkaError, LinkError, TimeoutError):
            return ErrorCode.LEADER_NOT_AVAILABLE
        if code is ErrorCode.NONE or code is ErrorCode.TOPIC_ALREADY_EXISTS:
            return ErrorCode.NONE if name in self._image().topics else ErrorCode.LEADER_NOT_AVAILABLE
        return code
