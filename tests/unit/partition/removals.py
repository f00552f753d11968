"""The safety rules, each taken out of the code under test, of the controller's transactions, or of what a broker sees
to when it has replicas opened."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from raykafka.epoch_history import EpochHistory
from raykafka.replica.rules import events as ev
from raykafka.replica.rules.followers import Follower
from raykafka.replica.rules.following import Following
from raykafka.replica.rules.leading import Leading
from raykafka.replica.rules.partition import Partition
from tests.unit.partition.register import ControllerRules
from tests.unit.partition.replicas import BrokerRules
from tests.unit.partition.world import (
    ACKED_LOST,
    LATEST_GROWS,
    LEADS_ON,
    LIVE_STAYS,
    LOGS_AGREE,
    ONE_RECORD,
    READS_STAY,
)


class Without(NamedTuple):
    """A rule taken out: the rules to run with, and the properties that may be the first to fail."""

    partition: type[Partition]
    fails: tuple[str, ...]
    controller: Callable[[], ControllerRules] = ControllerRules
    broker: Callable[[], BrokerRules] = BrokerRules


def leading(**changed: object) -> type[Partition]:
    rules = type("ChangedLeading", (Leading,), changed)
    return type("Changed", (Partition,), {"leading_rules": rules})


def following(**changed: object) -> type[Partition]:
    rules = type("ChangedFollowing", (Following,), changed)
    return type("Changed", (Partition,), {"following_rules": rules})


def partition(**changed: object) -> type[Partition]:
    return type("Changed", (Partition,), changed)


def count_only_the_committed_isr(self: Leading) -> frozenset[int]:
    return frozenset(self.state.isr)


def join_without_the_epoch_start(self: Leading, follower: Follower) -> bool:
    return follower.handshake_done and follower.end >= self.log.high_watermark


def take_any_frame_that_fits(self: Following, stream: ev.StreamId, base_offset: int) -> bool:
    return base_offset == self.log.end


def received_on_any_stream(self: Following, event: ev.Received) -> list[ev.Effect]:
    return Following.received(self, event._replace(stream=self.stream) if self.stream else event)


def agree_at_the_high_watermark(self: Following, event: ev.Hello) -> int | None:
    return min(self.log.high_watermark, event.log_end)


def lead_the_known_epoch_again(self: Partition, epoch: int, known_epoch: int) -> bool:
    return epoch >= known_epoch


def committed_at_once(self: Leading, offset: int) -> bool:
    return True


def count_any_acknowledgement(self: Leading, follower: Follower, event: ev.Acked) -> bool:
    return True


def closed_as_a_leader(self: Partition) -> ev.Seal | None:
    seal = Partition.closing_seal(self)
    return seal._replace(leading=self.leading is not None) if seal else None


class ForgetsEpochsWithoutRecords(Partition):
    def __init__(self, *args: Any, history: EpochHistory, log_end: int, **more: Any) -> None:
        held = EpochHistory.of(entry for entry in history if entry.start_offset < log_end)
        super().__init__(*args, history=held, log_end=log_end, **more)


RULES = {
    "a pending ISR counts in the high watermark": Without(
        leading(counted=count_only_the_committed_isr), (ACKED_LOST, READS_STAY, LOGS_AGREE)
    ),
    "a follower joins only at the epoch's start or later": Without(
        leading(may_join=join_without_the_epoch_start), (ACKED_LOST, READS_STAY, LOGS_AGREE)
    ),
    "an old stream's frame is not taken": Without(
        following(takes=take_any_frame_that_fits, received=received_on_any_stream), (LOGS_AGREE, ACKED_LOST, ONE_RECORD)
    ),
    "the high watermark never decides a truncation": Without(
        following(agreed_end=agree_at_the_high_watermark), (ACKED_LOST, LOGS_AGREE, READS_STAY)
    ),
    "no epoch is led twice": Without(
        partition(may_lead=lead_the_known_epoch_again), (ACKED_LOST, LOGS_AGREE, READS_STAY, ONE_RECORD)
    ),
    "an ISR is written at its version only": Without(
        Partition, (ACKED_LOST, LOGS_AGREE, READS_STAY), lambda: ControllerRules(check_version=False)
    ),
    "an ISR names its members' broker epochs": Without(
        Partition, (ACKED_LOST, LOGS_AGREE, READS_STAY), lambda: ControllerRules(check_broker_epochs=False)
    ),
    "a registration is removed at its broker epoch only": Without(
        Partition, (LIVE_STAYS,), lambda: ControllerRules(check_removed_epoch=False)
    ),
    "a leader leaves only clean": Without(
        leading(is_clean=lambda self: True), (ACKED_LOST, LOGS_AGREE, READS_STAY, ONE_RECORD)
    ),
    "a seal opens one replica only": Without(
        Partition, (ACKED_LOST, LOGS_AGREE, READS_STAY), broker=lambda: BrokerRules(seal_opens_once=False)
    ),
    "a seal leads on in one life of its broker only": Without(
        Partition, (ACKED_LOST, LOGS_AGREE, READS_STAY), broker=lambda: BrokerRules(leads_on_in_one_life=False)
    ),
    "whoever opens a log knows what the one knew that left it": Without(
        Partition, (ACKED_LOST, LOGS_AGREE, READS_STAY), broker=lambda: BrokerRules(images_come_first=False)
    ),
    "a replica that was just closed leads its epoch no more": Without(
        partition(closing_seal=closed_as_a_leader), (ACKED_LOST, LOGS_AGREE, READS_STAY, ONE_RECORD)
    ),
    "acks=all waits for the high watermark": Without(leading(is_committed=committed_at_once), (ACKED_LOST,)),
    "reads end at the high watermark": Without(
        partition(readable_end=property(lambda self: self.log.end)), (READS_STAY,)
    ),
    "a follower remembers its epoch": Without(
        ForgetsEpochsWithoutRecords, (ACKED_LOST, LOGS_AGREE, READS_STAY, LEADS_ON)
    ),
    "acknowledgements count after the handshake of their stream": Without(
        leading(is_current=count_any_acknowledgement), (ACKED_LOST, LOGS_AGREE, READS_STAY)
    ),
    "latest is unknown until the high watermark reaches the epoch's start": Without(
        partition(latest=property(lambda self: self.log.high_watermark if self.leading else None)), (LATEST_GROWS,)
    ),
}
