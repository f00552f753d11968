"""The order of a replica's work while some of it waits for the disk."""

from __future__ import annotations

import asyncio

from raykafka.process.tasks import TaskSet
from raykafka.replica.work_queue import WorkQueue


def test_work_that_fails_takes_none_along_that_waits_behind_it() -> None:
    async def play() -> None:
        done: list[str] = []
        disk = asyncio.Event()

        async def slow() -> None:
            await disk.wait()

        def fails() -> None:
            raise RuntimeError("planted")

        failures: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context["exception"]))
        queue = WorkQueue(TaskSet("test").run, lambda: None, lambda: done.append("resumed"))
        queue.begin(slow())
        queue.submit(fails)
        queue.submit(lambda: done.append("behind it"))
        disk.set()
        while queue.busy or not done:
            await asyncio.sleep(0)
        assert done == ["behind it", "resumed"]
        assert len(failures) == 1

    asyncio.run(asyncio.wait_for(play(), 20))
