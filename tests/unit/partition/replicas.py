"""What a partition in memory is made of: records, disks, a broker's replica, streams."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from raykafka.epoch_history import EpochHistory
from raykafka.replica.rules import events as ev
from raykafka.replica.rules.partition import Partition
from tests.unit.partition.hosts import Host


class Record(NamedTuple):
    epoch: int
    value: int


class Frame(NamedTuple):
    """What a leader streams after the handshake."""

    base_offset: int
    records: tuple[Record, ...]
    log_start: int
    high_watermark: int


class Produced(NamedTuple):
    acks: int
    offset: int
    record: Record


@dataclass(slots=True)
class BrokerRules:
    """What a broker sees to when it has replicas opened (rule 17). Tests switch single ones off."""

    seal_opens_once: bool = True
    leads_on_in_one_life: bool = True
    images_come_first: bool = True


@dataclass(slots=True)
class Disk:
    """``seal`` is what the log was closed with, None while it is open, and when it was not closed in order."""

    start: int = 0
    records: list[Record] = field(default_factory=list)
    history: EpochHistory = field(default_factory=EpochHistory)
    checkpoint: int | None = None
    flushed: int = 0
    seal: ev.Seal | None = None

    @property
    def end(self) -> int:
        return self.start + len(self.records)

    def at(self, offset: int) -> Record | None:
        index = offset - self.start
        return self.records[index] if 0 <= index < len(self.records) else None


class Broker:
    """A broker, as far as one partition goes. ``opened`` names the opened replica, or is 0, ``actor`` is where it is
    open or was last; ``told`` is what the broker's life was told last, ``told_before`` what that took the place of, and
    ``left`` the seal of the last close in this life."""

    def __init__(self, broker: int, host: Host) -> None:
        self.id = broker
        self.host = host
        self.disk = Disk()
        self.opened = 0
        self.actor = 0
        self.partition: Partition | None = None
        self.told: ev.Told | None = None
        self.told_before: ev.Told | None = None
        self.left: ev.Seal | None = None
        self.controller_epoch = -1
        self.tainted = False
        self.checked = 0

    @property
    def alive(self) -> bool:
        return self.host.alive

    @property
    def epoch(self) -> int:
        return self.host.epoch


class Channel:
    """One stream. Frames arrive in order, late, or not at all; ``broken`` ends it for both sides. The streams of all
    partitions between two actors share one connection."""

    def __init__(self, leader: Broker, follower: int, hello: ev.Hello) -> None:
        self.leader_opened = leader.opened
        self.leader_actor = leader.actor
        self.follower_opened = self.follower_actor = 0
        self.follower = follower
        self.stream = hello.stream
        self.to_follower: deque[Any] = deque([hello])
        self.to_leader: deque[Any] = deque()
        self.next = 0
        self.broken = False

    @property
    def actors(self) -> tuple[int, int]:
        """Between which two actors it goes."""
        return self.leader_actor, self.follower_actor
