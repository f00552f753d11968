"""The controller's channels to all registered brokers: what is published goes to each, and each acknowledges it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from raykafka.cluster.image import ClusterImage, ImageDelta
from raykafka.controller.channel import BrokerChannel
from raykafka.controller.ledger.tenure import Tenure
from raykafka.link.link import ForwardHandler
from raykafka.zookeeper.znodes import Registration

# broker -> (broker epoch, for how many seconds that life has been silent)
Silences = Mapping[int, tuple[int, float]]

logger = logging.getLogger(__name__)


class BrokerChannels:
    """``open`` and ``close`` them as brokers come and go. Brokers hear nothing before ``ready`` is set.

    ``identity`` is said in every handshake. ``current()`` gives the image and its number, ``on_call(broker, method,
    args)`` and ``on_forward`` answer what brokers ask, ``died(registration)`` is called when a channel has found its
    broker dead. ``silences`` says which brokers have been silent already; it counts for channels opened before
    ``ready``.
    """

    def __init__(
        self,
        tenure: Tenure,
        *,
        identity: Mapping[str, Any],
        secret: bytes,
        silent_after_s: float,
        silences: Silences,
        current: Callable[[], tuple[ClusterImage, int]],
        on_call: Callable[[int, str, dict[str, Any]], Awaitable[Any]],
        on_forward: ForwardHandler,
        died: Callable[[Registration], None],
    ) -> None:
        self.ready = asyncio.Event()
        self._tenure = tenure
        self._identity = dict(identity)
        self._secret = secret
        self._silent_after_s = silent_after_s
        self._silences = silences
        self._current = current
        self._on_call = on_call
        self._on_forward = on_forward
        self._died = died
        self._channels: dict[int, BrokerChannel] = {}
        self._running: dict[int, asyncio.Task[None]] = {}
        self._progress = asyncio.Event()

    def open(self, registration: Registration) -> None:
        """Connect to that life of a broker."""
        broker = registration.info.id
        epoch, silent_s = self._silences.get(broker, (-1, 0.0))
        channel = BrokerChannel(
            registration,
            identity=self._identity,
            secret=self._secret,
            silent_after_s=self._silent_after_s,
            current=self._current,
            on_progress=self._progress.set,
            on_call=lambda method, args: self._on_call(broker, method, args),
            on_forward=self._on_forward,
            ready=self.ready,
            silent_s=silent_s if epoch == registration.info.epoch and not self.ready.is_set() else 0.0,
        )
        self._channels[broker] = channel
        self._running[broker] = self._tenure.run(lambda: self._attend(channel))

    def close(self, broker: int) -> None:
        """Say no more to a broker, if there is a channel to it; nobody waits for its acknowledgements any more."""
        self._channels.pop(broker, None)
        running = self._running.pop(broker, None)
        if running is not None:
            running.cancel()
        self._progress.set()

    async def met(self, within_s: float) -> None:
        """Wait until the first attempt to connect to each broker has ended, either way, or time is up."""
        if self._channels:
            await asyncio.wait([channel.met for channel in self._channels.values()], timeout=within_s)

    def publish(self, delta: ImageDelta, sequence: int) -> None:
        """Send each broker ``delta``, which made the image with number ``sequence``."""
        for channel in self._channels.values():
            channel.publish(delta, sequence)

    async def acknowledged(self, sequence: int, timeout_s: float) -> bool:
        """Wait until every live broker goes by the image with that number; False when that takes too long."""
        try:
            async with asyncio.timeout(max(timeout_s, 0)):
                while not all(channel.acknowledged >= sequence for channel in self._channels.values()):
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            return False
        return True

    async def _attend(self, channel: BrokerChannel) -> None:
        info = channel.registration.info
        reason = await channel.run()
        if not reason:
            self._tenure.resign(f"broker {info.id} knows a newer controller")
            return
        logger.warning("broker %d of epoch %d is dead: %s", info.id, info.epoch, reason)
        self._died(channel.registration)
