"""The active controller's socket to one life of one broker: decisions go down it in order, and its end is how a death
is noticed (rules 14, 16).

One update is under way at a time; what is decided meanwhile waits and goes out as one. After each connect the whole
image goes first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from raykafka.cluster.image import ClusterImage, ImageDelta, delta_to_json
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError, LinkError
from raykafka.link import Link, connect_tcp
from raykafka.link.link import PING_INTERVAL_S, CallHandler, ForwardHandler
from raykafka.zookeeper.znodes import Registration

_CONNECT_WITHIN_S = 2.0
_LAST_TRY_S = 0.5
_RETRY_S = 0.1
_CUT_RETRY_S = 0.01
_CUTS_AT_ONCE = 50
_LONGEST_RETRY_S = 1.0

logger = logging.getLogger(__name__)


def merged(first: ImageDelta, second: ImageDelta) -> ImageDelta:
    """One delta that does what ``first`` and then ``second`` do."""
    brokers = {b: i for b, i in first.brokers.items() if b not in second.removed_brokers}
    topics = {n: t for n, t in first.topics.items() if n not in second.deleted_topics}
    stale = {*second.deleted_topics, *second.topics}
    partitions = {tp: s for tp, s in first.partitions.items() if tp.topic not in stale}
    removed = [b for b in first.removed_brokers if b not in second.brokers]
    return ImageDelta(
        brokers={**brokers, **second.brokers},
        removed_brokers=(*removed, *(b for b in second.removed_brokers if b not in removed)),
        topics={**topics, **second.topics},
        deleted_topics=tuple(dict.fromkeys((*first.deleted_topics, *second.deleted_topics))),
        partitions={**partitions, **second.partitions},
        broker_configs={**first.broker_configs, **second.broker_configs},
        controller_id=first.controller_id if second.controller_id is None else second.controller_id,
        controller_epoch=first.controller_epoch if second.controller_epoch is None else second.controller_epoch,
    )


class BrokerChannel:
    """``run`` it until it returns or is cancelled.

    ``current()`` gives the image and its sequence number. ``on_progress()`` is called whenever ``acknowledged`` has
    grown. ``run`` returns "" when this controller was told that it is no longer the active one, else why the broker
    is dead. It connects at once; the broker hears nothing before ``ready`` is set. ``met`` is done when the first
    attempt to connect has ended, either way. ``silent_s`` is for how long that life of the broker has been silent
    already, as others on this node know: that counts.
    """

    def __init__(
        self,
        registration: Registration,
        *,
        identity: dict[str, Any],
        secret: bytes,
        silent_after_s: float,
        current: Callable[[], tuple[ClusterImage, int]],
        on_progress: Callable[[], None],
        on_call: CallHandler,
        on_forward: ForwardHandler,
        ready: asyncio.Event,
        silent_s: float = 0.0,
    ) -> None:
        self.registration = registration
        self.met: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ready = ready
        self.acknowledged = -1
        self._identity = identity
        self._secret = secret
        self._silent_after_s = silent_after_s
        self._silent_s = silent_s
        self._current = current
        self._on_progress = on_progress
        self._on_call = on_call
        self._on_forward = on_forward
        self._waiting: tuple[ImageDelta, int] | None = None
        self._whole = True
        self._wake = asyncio.Event()
        self._link: Link | None = None

    def publish(self, delta: ImageDelta, sequence: int) -> None:
        """Have the broker apply ``delta``, which made the image with number ``sequence``."""
        before = self._waiting
        self._waiting = (merged(before[0], delta) if before else delta, sequence)
        self._wake.set()

    async def run(self) -> str:
        try:
            return await self._run()
        finally:
            self._meet()

    def _meet(self) -> None:
        if not self.met.done():
            self.met.set_result(None)

    async def _run(self) -> str:
        delay_s, cut = 0.0, 0
        clock = asyncio.get_running_loop().time
        heard = clock() - self._silent_s
        while True:
            await asyncio.sleep(delay_s)
            delay_s = min(max(_RETRY_S, 2 * delay_s), _LONGEST_RETRY_S)
            info = self.registration.info
            left_s = self._silent_after_s - (clock() - heard)
            try:
                async with asyncio.timeout(min(_CONNECT_WITHIN_S, max(left_s, _LAST_TRY_S))):
                    link = await connect_tcp(info.link_host, info.link_port, self._secret, self._identity)
            except ConnectionRefusedError:
                return "nobody listens on its inter-broker port"
            except (OSError, LinkError, TimeoutError) as error:
                if clock() - heard >= self._silent_after_s:
                    # Its session may well live, where packets are lost one way only: nobody else would end it.
                    return f"it was out of reach for {self._silent_after_s:g} s"
                logger.warning("broker %d can't be reached: %s", info.id, str(error) or "no answer")
                if not isinstance(error, ConnectionError | LinkError):
                    self._meet()
                elif cut < _CUTS_AT_ONCE:
                    # a process on its way out still takes connections, and cuts them
                    cut, delay_s = cut + 1, _CUT_RETRY_S
                continue
            cut = 0
            acknowledged = self.acknowledged
            try:
                ended = await self._serve(link)
            finally:
                link.close()
            if ended is not None:
                return ended
            heard = clock()
            if self.acknowledged != acknowledged:
                delay_s = 0.0

    async def _serve(self, link: Link) -> str | None:
        """Work on one connection. Returns None when it broke and has to be opened again."""
        peer, info = link.peer, self.registration.info
        if peer.get("broker_id") != info.id or peer.get("broker_epoch") != info.epoch:
            return f"its port is answered by broker {peer.get('broker_id')} of epoch {peer.get('broker_epoch')}"
        self._meet()
        await self._ready.wait()
        link.start(on_call=self._on_call, on_forward=self._on_forward)
        self._whole = True
        self._wake.set()
        pinging = asyncio.create_task(self._ping(link))
        sending = asyncio.create_task(self._send_updates(link))
        try:
            done, _ = await asyncio.wait({pinging, sending}, return_when=asyncio.FIRST_COMPLETED)
            return next(iter(done)).result()
        except LinkError:
            return None
        finally:
            for task in (pinging, sending):
                task.cancel()
            await asyncio.gather(pinging, sending, return_exceptions=True)

    async def _ping(self, link: Link) -> str:
        with suppress(TimeoutError):
            await link.until_silent(self._silent_after_s - PING_INTERVAL_S)
        return f"its event loop was silent for {self._silent_after_s:g} s"

    async def _send_updates(self, link: Link) -> str:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while (update := self._next_update()) is not None:
                delta, sequence, whole = update
                try:
                    await link.call("update", self._arguments(delta, whole))
                except KafkaError as error:
                    if error.code is ErrorCode.STALE_CONTROLLER_EPOCH:
                        return ""
                    if error.code is ErrorCode.STALE_BROKER_EPOCH:
                        return error.message
                    logger.error("broker %d refused an update: %s", self.registration.info.id, error)
                    raise LinkError("an update was refused; the whole image goes again") from error
                self.acknowledged = sequence
                self._on_progress()

    def _next_update(self) -> tuple[ImageDelta, int, bool] | None:
        waiting, self._waiting = self._waiting, None
        if self._whole:
            self._whole = False
            image, sequence = self._current()
            return image.as_delta(), sequence, True
        return (*waiting, False) if waiting is not None else None

    def _arguments(self, delta: ImageDelta, whole: bool) -> dict[str, Any]:
        return {
            "controller_epoch": self._identity["controller_epoch"],
            "broker_epoch": self.registration.info.epoch,
            "full": whole,
            "delta": delta_to_json(delta),
        }
