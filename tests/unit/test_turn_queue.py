"""Whose turn it is: the most urgent first, and nobody forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from raykafka.controller.ledger.turn_queue import AHEAD_AT_MOST, TurnQueue, Urgency

BROKERS, FAILED_LEADER, QUESTION = Urgency.BROKERS, Urgency.FAILED_LEADER, Urgency.QUESTION


class Line:
    """Tasks that want a turn each, while somebody has it; ``served`` are those that had one, in order."""

    def __init__(self) -> None:
        self.queue = TurnQueue()
        self.served: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def join(self, name: str, urgency: Urgency) -> None:
        self.tasks[name] = asyncio.create_task(self._take(name, urgency))
        await self.settle()

    async def _take(self, name: str, urgency: Urgency) -> None:
        async with self.queue.turn(urgency):
            self.served.append(name)

    async def settle(self) -> None:
        """Let every task run until it waits for another."""
        for _ in range(5):
            await asyncio.sleep(0)


def run(scenario: Callable[[Line], Awaitable[None]]) -> None:
    async def play() -> None:
        async with asyncio.timeout(30):
            await scenario(Line())

    asyncio.run(play())


def test_deaths_go_first_then_failed_leaders_and_equals_in_the_order_in_which_they_came() -> None:
    async def scenario(line: Line) -> None:
        async with line.queue.turn(QUESTION):
            for name, urgency in (
                ("create", QUESTION),
                ("isr", QUESTION),
                ("failed 1", FAILED_LEADER),
                ("death 1", BROKERS),
                ("failed 2", FAILED_LEADER),
                ("death 2", BROKERS),
                ("config", QUESTION),
            ):
                await line.join(name, urgency)
            assert len(line.queue) == 7 and line.served == []
        await asyncio.gather(*line.tasks.values())
        assert line.served == ["death 1", "death 2", "failed 1", "failed 2", "create", "isr", "config"]
        assert len(line.queue) == 0

    run(scenario)


def test_who_waits_longest_is_served_though_what_is_more_urgent_never_ends() -> None:
    async def scenario(line: Line) -> None:
        async with line.queue.turn(QUESTION):
            await line.join("isr", QUESTION)
            await line.join("create", QUESTION)
            for number in range(3 * AHEAD_AT_MOST):
                await line.join(f"failed {number}", FAILED_LEADER)
        await asyncio.gather(*line.tasks.values())
        assert [line.served.index(name) for name in ("isr", "create")] == [AHEAD_AT_MOST, 2 * AHEAD_AT_MOST + 1]

    run(scenario)


def test_a_turn_that_was_begun_is_not_taken_away() -> None:
    async def scenario(line: Line) -> None:
        async with line.queue.turn(QUESTION):
            await line.join("death", BROKERS)
            await line.settle()
            assert line.served == []
        await line.tasks["death"]

    run(scenario)


def test_who_is_cancelled_while_it_waits_is_passed_over() -> None:
    async def scenario(line: Line) -> None:
        async with line.queue.turn(QUESTION):
            for name in ("a", "b", "c"):
                await line.join(name, QUESTION)
            line.tasks["b"].cancel()
            await line.settle()
            assert len(line.queue) == 2
        await asyncio.gather(line.tasks["a"], line.tasks["c"])
        assert line.served == ["a", "c"]

    run(scenario)


def test_who_is_cancelled_as_it_is_given_its_turn_passes_it_on() -> None:
    async def scenario(line: Line) -> None:
        async with line.queue.turn(QUESTION):
            await line.join("a", QUESTION)
            await line.join("b", QUESTION)
        # a has been given its turn, and has not run since
        line.tasks["a"].cancel()
        await line.tasks["b"]
        assert line.served == ["b"]
        async with line.queue.turn(QUESTION):
            pass

    run(scenario)


def test_an_error_ends_a_turn_as_well() -> None:
    async def scenario(line: Line) -> None:
        try:
            async with line.queue.turn(QUESTION):
                await line.join("next", QUESTION)
                raise ValueError("no such topic")
        except ValueError:
            pass
        await line.tasks["next"]
        assert line.served == ["next"]

    run(scenario)
