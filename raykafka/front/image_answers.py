"""Responses that hold as long as the cluster image from which they were made is the newest: encoded once for all who
ask alike.

After an election every client asks for the same topics' metadata in the same moment; that of thousands of partitions
takes a fraction of a second to make, which is done once, and in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Set
from functools import partial

from raykafka.cluster.image import ClusterImage

MOST_BYTES = 32 * 1024 * 1024


class ImageAnswers:
    """At most about ``MOST_BYTES`` of them. Runs on one event loop."""

    def __init__(self) -> None:
        self._of: tuple[ClusterImage, Set[int]] | None = None
        self._made: dict[Hashable, asyncio.Future[bytes]] = {}
        self._bytes = 0

    async def answer(
        self,
        image: ClusterImage,
        suspects: Set[int],
        asked: Hashable,
        make: Callable[[], bytes],
        *,
        slow: Callable[[], bool],
    ) -> bytes:
        """What ``make`` makes of ``image`` and ``suspects`` for those who ask for ``asked``; in a thread, where that is
        ``slow``."""
        if self._of is None or self._of[0] is not image or self._of[1] is not suspects:
            self._of, self._made, self._bytes = (image, suspects), {}, 0
        known = self._made.get(asked)
        if known is not None:
            return await asyncio.shield(known)
        if not slow():
            made = make()
            if self._bytes + len(made) <= MOST_BYTES:
                done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
                done.set_result(made)
                self._keep(asked, done, made)
            return made
        making = self._made[asked] = asyncio.ensure_future(asyncio.to_thread(make))
        making.add_done_callback(partial(self._is_made, self._of, asked))
        return await asyncio.shield(making)

    def _is_made(self, of: tuple[ClusterImage, Set[int]], asked: Hashable, making: asyncio.Future[bytes]) -> None:
        """Keep it, if it could be made and there is room; whoever asked for it may be gone."""
        if self._of is not of or self._made.get(asked) is not making:
            return
        del self._made[asked]
        if not making.cancelled() and making.exception() is None and self._bytes + len(making.result()) <= MOST_BYTES:
            self._keep(asked, making, making.result())

    def _keep(self, asked: Hashable, done: asyncio.Future[bytes], made: bytes) -> None:
        self._made[asked] = done
        self._bytes += len(made)
