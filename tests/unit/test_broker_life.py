"""What a broker has taken it gives back, the last first, whatever becomes of one part."""

from __future__ import annotations

import asyncio

import pytest

from raykafka.broker.life import Unwinding


def test_the_last_part_is_given_back_first_and_one_that_fails_holds_up_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    given_back: list[str] = []

    async def coroutine() -> None:
        await asyncio.sleep(0)
        given_back.append("second")

    def fails() -> None:
        raise OSError("the disk is gone")

    async def scenario() -> None:
        unwinding = Unwinding()
        unwinding.add(lambda: given_back.append("first"))
        unwinding.add(coroutine)
        unwinding.add(fails)
        unwinding.add(lambda: given_back.append("third"))
        await unwinding.unwind()
        assert given_back == ["third", "second", "first"]
        await unwinding.unwind()  # there is nothing left

    asyncio.run(scenario())
    assert given_back == ["third", "second", "first"]
    assert "the disk is gone" in caplog.text
