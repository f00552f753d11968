"""The response to one request, given once by whoever finishes it and taken once by the connection that waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any, Protocol

Buffer = bytes | bytearray | memoryview
Taker = Callable[["Answer"], None]


class Slice(Protocol):
    """A part of a response that is read while it is sent."""

    def __len__(self) -> int:
        """How many bytes it has."""

    def chunks(self) -> AsyncIterator[memoryview]:
        """Its bytes, piece by piece. Raises RaykafkaError when they are not there any more."""


class StreamedResponse(list[Any]):
    """A response body too large to hold in memory: some of its parts are slices. Goes where a list of buffers goes."""


class Answer:
    """A future without an event loop: ``then`` is called at once by what gives the answer. Also awaitable.

    ``buffers`` is the response body, empty where nothing is to be answered; None until it is given, or if ``error`` is
    set.
    """

    __slots__ = ("_taker", "buffers", "error")

    def __init__(self) -> None:
        self.buffers: list[Buffer] | None = None
        self.error: Exception | None = None
        self._taker: Taker | None = None

    def give(self, buffers: list[Buffer]) -> None:
        self.buffers = buffers
        if self._taker is not None:
            self._taker(self)

    def fail(self, error: Exception) -> None:
        self.error = error
        if self._taker is not None:
            self._taker(self)

    def then(self, taker: Taker) -> None:
        """Have ``taker`` called with this answer when it is given; now, if it has been."""
        self._taker = taker
        if self.buffers is not None or self.error is not None:
            taker(self)

    def __await__(self) -> Generator[object, None, list[Buffer]]:
        if self.buffers is None and self.error is None:
            given: asyncio.Future[None] = asyncio.get_running_loop().create_future()

            def taken(_: Answer) -> None:
                if not given.done():
                    given.set_result(None)

            self.then(taken)
            yield from given
        if self.error is not None:
            raise self.error
        assert self.buffers is not None
        return self.buffers
