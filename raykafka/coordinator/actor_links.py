"""The links of a coordinator to the replica actors of its broker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from raykafka.errors import LinkError
from raykafka.link import Link, connect_unix
from raykafka.process.backoff import Backoff
from raykafka.process.tasks import TaskSet

logger = logging.getLogger(__name__)


class ActorLinks:
    """Keeps a link to every actor that the broker names, by number: opened again, with backoff, where it can't be
    opened or ends while the actor is still named.

    ``opened(number, link)`` attaches handlers to each new link. ``identity`` is what this process shows to actors.
    """

    def __init__(self, secret: bytes, identity: dict[str, Any], opened: Callable[[int, Link], None]) -> None:
        self._secret = secret
        self._identity = identity
        self._opened = opened
        self._kept: dict[int, asyncio.Task[None]] = {}
        self._tasks = TaskSet("links to replica actors")

    def name(self, paths: Mapping[int, str]) -> None:
        """These actors there are, each with the path of its socket, and no others."""
        for number in self._kept.keys() - paths.keys():
            self._kept.pop(number).cancel()
        for number, path in paths.items():
            if number not in self._kept:
                self._kept[number] = self._tasks.run(self._keep(number, path))

    def close(self) -> None:
        """Close all links, and open none any more."""
        self.name({})

    async def _keep(self, number: int, path: str) -> None:
        backoff = Backoff()
        while True:
            await asyncio.sleep(backoff.delay_s)
            try:
                link = await connect_unix(path, self._secret, self._identity)
            except (OSError, LinkError) as error:
                logger.info("replica actor %d can't be reached: %s", number, error)
                backoff.failed()
                continue
            try:
                self._opened(number, link)
                await asyncio.shield(link.ended)
            finally:
                link.close()
            backoff.succeeded()  # it was reached: the next attempt follows soon, though not at once
            backoff.failed()
