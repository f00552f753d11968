"""Brokers come and go: registrations that appear and vanish in ZooKeeper, and brokers whose channel has found them dead
(rules 13, 14)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from raykafka.cluster.image import ImageDelta
from raykafka.controller.broker_channels import BrokerChannels
from raykafka.controller.decisions.elections import elect
from raykafka.controller.ledger.ledger import Ledger
from raykafka.controller.ledger.tenure import Tenure
from raykafka.controller.ledger.turn_queue import Urgency
from raykafka.zookeeper.controller_store import ControllerStore
from raykafka.zookeeper.znodes import Registration

logger = logging.getLogger(__name__)


class Membership:
    """Opens and closes the brokers' channels, and has what follows for partitions decided before anything else."""

    def __init__(self, store: ControllerStore, ledger: Ledger, channels: BrokerChannels, tenure: Tenure) -> None:
        self._loop = asyncio.get_running_loop()
        self._store = store
        self._ledger = ledger
        self._channels = channels
        self._tenure = tenure
        self._dead: dict[int, Registration] = {}

    async def read(self) -> dict[int, Registration]:
        """The registered brokers; from now on ZooKeeper tells when that changes."""
        return await self._tenure.in_store(self._store.read_brokers, self._touched)

    def died(self, registration: Registration) -> None:
        """That life of a broker was found dead."""
        self._dead[registration.info.id] = registration
        self._tenure.run(self._bury)

    def take_dead(self, registered: Mapping[int, Registration]) -> list[Registration]:
        """Those of ``registered`` that were found dead since this was asked last; their channels are closed."""
        found, self._dead = self._dead, {}
        dead = [r for b, r in found.items() if b in registered and registered[b].info == r.info]
        for registration in dead:
            self._channels.close(registration.info.id)
        return dead

    async def _bury(self) -> None:
        """Remove dead brokers' registrations and settle what they led and followed, as one batch (rules 13, 14)."""
        async with self._ledger.turn(Urgency.BROKERS) as turn:
            registered = turn.state.registrations
            dead = self.take_dead(registered)
            if dead:
                turn.take_registrations(without(registered, dead))
                await elect(turn, turn.state.all_partitions(), dead=dead)
                logger.info("brokers now: %s", sorted(turn.state.registrations))

    def _touched(self, event: Any) -> None:
        # runs in a kazoo thread, also when the connection to ZooKeeper was lost and watches with it
        self._loop.call_soon_threadsafe(self._look_again)

    def _look_again(self) -> None:
        if not self._tenure.is_over:
            self._tenure.run(self._registrations_changed)

    async def _registrations_changed(self) -> None:
        async with self._ledger.turn(Urgency.BROKERS) as turn:
            now, before = await self.read(), turn.state.registrations
            gone = [b for b in before if b not in now]
            changed = {b: r for b, r in now.items() if b not in before or before[b].info.epoch != r.info.epoch}
            if not gone and not changed:
                return
            turn.take_registrations(now)
            for broker in (*gone, *changed):
                self._channels.close(broker)
            news = ImageDelta(brokers={b: r.info for b, r in changed.items()}, removed_brokers=tuple(gone))
            await elect(turn, turn.state.all_partitions(), news=news)
            for registration in changed.values():
                self._channels.open(registration)
            logger.info("brokers now: %s (gone %s, new %s)", sorted(now), gone, sorted(changed))


def without(registered: Mapping[int, Registration], dead: list[Registration]) -> dict[int, Registration]:
    """``registered`` but those of ``dead`` brokers."""
    gone = {registration.info.id for registration in dead}
    return {b: r for b, r in registered.items() if b not in gone}
