"""Tasks that run beside whoever began them: kept until they end, and heard of when they fail."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")

logger = logging.getLogger(__name__)


def call_alone(call: Callable[[], _T]) -> _T | None:
    """What ``call`` returns; None where it raises, which the event loop is told of: one call that fails takes no other
    along."""
    try:
        return call()
    except Exception as error:
        asyncio.get_running_loop().call_exception_handler({"message": f"{call!r} failed", "exception": error})
        return None


class TaskSet:
    """The tasks of one owner. asyncio holds tasks weakly, so one that nobody keeps may vanish half done.

    A task that raises is logged as "<owner>: a task failed" with its traceback; ``failed(error)`` is called after
    that, for an owner that can't go on without it. A cancelled task is no failure.
    """

    def __init__(self, owner: str, failed: Callable[[BaseException], None] | None = None) -> None:
        self._owner = owner
        self._failed = failed
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def run(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Begin ``work`` on the running event loop."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def cancel(self) -> None:
        """Cancel all tasks that run."""
        for task in tuple(self._tasks):
            task.cancel()

    async def wait(self) -> None:
        """Wait until no task runs any more, those included that are begun meanwhile. Cancels none."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Cancel all tasks that run and wait for their end. A task that closes its own set is left alone."""
        own = asyncio.current_task()
        tasks = [task for task in self._tasks if task is not own]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            logger.error("%s: a task failed", self._owner, exc_info=error)
            if self._failed is not None:
                self._failed(error)
