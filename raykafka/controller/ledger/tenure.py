"""The time of one controller in office: what runs for as long as it lasts, and whatever ends it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from kazoo.exceptions import ConnectionClosedError, SessionExpiredError

from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.process.tasks import TaskSet
from raykafka.zookeeper.client import Conflict
from raykafka.zookeeper.controller_store import ControllerFenced

_T = TypeVar("_T")

logger = logging.getLogger(__name__)


class Tenure:
    """``resigned`` is done once this controller is over; its result is the reason. It never becomes the controller
    again: another one is elected."""

    def __init__(self) -> None:
        self.resigned: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._tasks = TaskSet("the active controller", failed=self._failed)

    @property
    def is_over(self) -> bool:
        return self.resigned.done()

    def resign(self, reason: str) -> None:
        """End this controller. The first reason counts."""
        if not self.resigned.done():
            self.resigned.set_result(reason)

    def run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        """Run ``work()`` beside everything else; one that fails unexpectedly ends this controller."""
        return self._tasks.run(self._run(work))

    async def close(self) -> None:
        """Cancel whatever runs, and wait for its end."""
        await self._tasks.close()

    async def in_store(self, call: Callable[..., _T], *args: Any) -> _T:
        """Run a blocking call of the store in a thread. What shows that this controller is over ends it (a newer epoch,
        a node that it has not written, the end of its session) and raises KafkaError(NOT_CONTROLLER)."""
        try:
            return await asyncio.to_thread(call, *args)
        except (ControllerFenced, Conflict, SessionExpiredError, ConnectionClosedError) as error:
            self.resign(str(error) or type(error).__name__)
            raise KafkaError(ErrorCode.NOT_CONTROLLER, "this controller was deposed") from error

    async def _run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except Exception:
            if not self.is_over:
                raise
            # what was under way fails because this controller has ended, whose reason is known
            logger.debug("not done, as this controller is over", exc_info=True)

    def _failed(self, error: BaseException) -> None:
        self.resign(f"{type(error).__name__}: {error}")
