"""How many bytes a replica may send to, or take as, a follower whose catching up is throttled (KIP-73).

A topic's ``leader.replication.throttled.replicas`` and ``follower.replication.throttled.replicas`` name those replicas;
the rates are the brokers' and stand for all their replicas, so allowances are asked for: the leader's side of its own
broker, the follower's side, over the stream, of the follower's. Only what catches up is held back. What goes to a
replica on which the high watermark waits is counted, as Kafka does, and sent at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from raykafka.errors import LinkError
from raykafka.replica.host import ReplicaHost

LEADER, FOLLOWER = "leader", "follower"
_TOLD_EVERY_S = 0.25

Ask = Callable[[int], Awaitable[int]]


class Throttle:
    """Which streams of this partition are throttled, and the way to the broker that knows by how much."""

    def __init__(self, host: ReplicaHost, partition: int, broker: int) -> None:
        self._host = host
        self._partition = partition
        self.broker = broker
        self._loop = asyncio.get_running_loop()
        self._listed: Mapping[str, frozenset[str]] = {LEADER: frozenset(), FOLLOWER: frozenset()}
        self._spent: dict[str, int] = {}

    def configure(self, config: Mapping[str, str]) -> None:
        """Go by a topic's effective config from now on."""
        texts = {side: config.get(f"{side}.replication.throttled.replicas", "") for side in self._listed}
        self._listed = {side: frozenset(map(str.strip, text.split(","))) for side, text in texts.items()}

    def holds(self, side: str, broker: int) -> bool:
        """Whether the replica on ``broker`` is throttled where it leads, or where it follows."""
        listed = self._listed[side]
        return "*" in listed or f"{self._partition}:{broker}" in listed

    async def ask(self, side: str, owed: int) -> int:
        """Ask this broker for an allowance: how many bytes a stream may carry, answered once there are some. ``owed``
        are the bytes that it carried beyond the last allowance. Raises LinkError."""
        return await self._host.allowance(side, owed)

    def spent(self, side: str, size: int) -> None:
        """Count what an in-sync replica got, which is never held back: the broker is told within _TOLD_EVERY_S."""
        if not self._spent:
            self._loop.call_later(_TOLD_EVERY_S, self.tell_spent)
        self._spent[side] = self._spent.get(side, 0) + size

    def tell_spent(self) -> None:
        """Tell the broker what was counted."""
        spent, self._spent = self._spent, {}
        for side, size in spent.items():
            self._host.spent(side, size)


class Allowance:
    """The bytes that one side still lets one stream carry. Below zero they are owed: batches go whole."""

    def __init__(self, ask: Ask) -> None:
        self.left = 0
        self._ask = ask
        self._asking = False

    @property
    def lacks(self) -> bool:
        """Whether there is none left and nobody has asked for more."""
        return self.left <= 0 and not self._asking

    async def more(self) -> None:
        """Ask for more, and wait for it. Raises LinkError."""
        self._asking = True
        owed, self.left = -self.left, 0
        try:
            self.left += await self._ask(owed)
        finally:
            self._asking = False


class StreamThrottle:
    """What one stream to ``follower`` may carry.

    ``is_waited_for()``: the high watermark waits for that follower, so nothing may hold it back (rule 5). ``run`` does
    work behind, ``go_on`` is called when a stream that ``room`` gave nothing should ask it again.
    """

    def __init__(
        self,
        throttle: Throttle,
        follower: int,
        ask_follower: Ask,
        is_waited_for: Callable[[], bool],
        run: Callable[[Coroutine[Any, Any, None]], object],
        go_on: Callable[[], None],
    ) -> None:
        self._throttle = throttle
        self._follower = follower
        self._ask_follower = ask_follower
        self._is_waited_for = is_waited_for
        self._run = run
        self._go_on = go_on
        self._allowances: dict[str, Allowance] = {}
        self.configured()

    def configured(self) -> None:
        """Go by the topic's config as it is now."""
        throttle, before = self._throttle, self._allowances
        asks: dict[str, Ask] = {}
        if throttle.holds(LEADER, throttle.broker):
            asks[LEADER] = lambda owed: throttle.ask(LEADER, owed)
        if throttle.holds(FOLLOWER, self._follower):
            asks[FOLLOWER] = self._ask_follower
        self._allowances = {side: before.get(side) or Allowance(ask) for side, ask in asks.items()}

    @property
    def holds(self) -> bool:
        """Whether what goes out is bound by allowances."""
        return bool(self._allowances) and not self._is_waited_for()

    def room(self, most: int) -> int:
        """How many bytes may go out now: ``most`` at most. Where there are none, more are asked for."""
        if not self.holds:
            return most
        for allowance in self._allowances.values():
            if allowance.lacks:
                self._run(self._get_more(allowance))
        return min(most, *(allowance.left for allowance in self._allowances.values()))

    async def _get_more(self, allowance: Allowance) -> None:
        try:
            await allowance.more()
        except LinkError:
            return  # the link to the broker, or the stream, has ended
        self._go_on()

    def sent(self, size: int) -> None:
        """Count what went out."""
        if not self._allowances:
            return
        if self.holds:
            for allowance in self._allowances.values():
                allowance.left -= size
        elif LEADER in self._allowances:
            self._throttle.spent(LEADER, size)
