"""Tasks that run beside their owner: kept, ended together, and heard of when they fail."""

from __future__ import annotations

import asyncio
import gc

import pytest

from raykafka.process.tasks import TaskSet


def test_a_failure_is_told_in_the_log_and_to_the_owner(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[BaseException] = []

    async def fail() -> None:
        raise ZeroDivisionError("planted")

    async def run() -> None:
        tasks = TaskSet("the broker of a test", heard.append)
        with pytest.raises(ZeroDivisionError):
            await tasks.run(fail())
        await asyncio.sleep(0)
        assert len(tasks) == 0

    asyncio.run(run())
    assert [type(error) for error in heard] == [ZeroDivisionError]
    assert "the broker of a test: a task failed" in caplog.text
    assert "planted" in caplog.text


def test_a_task_that_nobody_else_keeps_ends_its_work() -> None:
    async def run() -> bool:
        done = asyncio.Event()

        async def work() -> None:
            await asyncio.sleep(0.01)
            done.set()

        tasks = TaskSet("test")
        tasks.run(work())
        gc.collect()
        async with asyncio.timeout(5):
            await done.wait()
        return done.is_set()

    assert asyncio.run(run())


def test_closing_waits_for_the_end_of_all_and_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    ended: list[int] = []
    heard: list[BaseException] = []

    async def work(number: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(number)

    async def run() -> None:
        tasks = TaskSet("test", heard.append)
        for number in range(3):
            tasks.run(work(number))
        await asyncio.sleep(0)
        await tasks.close()
        assert sorted(ended) == [0, 1, 2]
        assert len(tasks) == 0

    asyncio.run(run())
    assert heard == []
    assert caplog.text == ""


def test_a_task_may_close_the_set_that_it_is_in() -> None:
    async def run() -> None:
        tasks = TaskSet("test")
        other = tasks.run(asyncio.sleep(60))
        closing = tasks.run(tasks.close())
        async with asyncio.timeout(5):
            await closing
        assert other.cancelled()

    asyncio.run(run())


def test_the_owner_can_wait_until_all_have_ended_those_begun_meanwhile_included() -> None:
    async def run() -> list[str]:
        tasks, ended = TaskSet("test"), []

        async def work(name: str, *then: str) -> None:
            await asyncio.sleep(0)
            ended.append(name)
            for later in then:
                tasks.run(work(later))

        tasks.run(work("first", "begun by the first"))
        await tasks.wait()
        assert len(tasks) == 0
        return ended

    assert asyncio.run(run()) == ["first", "begun by the first"]
