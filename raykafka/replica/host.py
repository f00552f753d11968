"""Who hosts a replica, as the replica sees it: where it shows what may be read, and whom it asks and tells."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from raykafka.partition.view import View
from raykafka.replica.rules.events import Propose


class Holder(NamedTuple):
    """A live broker that holds a replica of a partition: its inter-broker port, in its life ``broker_epoch``."""

    host: str
    port: int
    broker_epoch: int


class Left(NamedTuple):
    """What is known of a log when its replica has closed it. ``note`` is what it was sealed with, None where the log
    can't be relied on."""

    note: dict[str, Any] | None
    log_start_offset: int
    log_end_offset: int
    high_watermark: int
    recovery_point: int

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return self._asdict()


class ReplicaHost(Protocol):
    """Of one replica. All calls come on the event loop of the replica."""

    def show(self, view: View) -> None:
        """This much may be read now. Comes before the answers of the same pass of the event loop (rule 20)."""

    def show_nothing(self) -> None:
        """Nothing may be read any more: the replica failed, or is about to close its log."""

    def propose(self, proposal: Propose) -> None:
        """Ask the controller for this ISR."""

    def refused(self, leader_epoch: int, reason: str) -> None:
        """This replica can't lead that epoch: the controller has to decide again."""

    def failed(self, reason: str, diverged: bool) -> None:
        """This replica can't go on with its log (rule 1); ``diverged``: nor can any other, under this leader (rule 10).
        Comes once; the host then closes the replica."""

    async def allowance(self, side: str, owed: int) -> int:
        """How many bytes a throttled stream may carry, answered once there are some. ``side`` is "leader" or
        "follower", ``owed`` what it carried beyond the last allowance. Raises LinkError."""
        ...

    def spent(self, side: str, size: int) -> None:
        """A throttled replica that is in sync got ``size`` bytes, which nothing held back."""
