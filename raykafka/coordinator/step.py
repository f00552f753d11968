"""The words that a coordinator's rules and its runtime share: small frozen values, no behaviour.

Rules are a pure ``step(event, now) -> effects``. ``request`` is whatever the caller uses to find a request again; the
rules only hand it back in a ``Reply``, exactly one for every request event. An ``Append`` that the rules ask for comes
back as a ``Written`` event once its records are committed or refused: what depends on a record is answered after it is
committed (rule 24). Times named ``boot`` are of the boot-time clock, times named ``wall`` count from the epoch; both
are milliseconds (rule 23).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from raykafka.error_code import ErrorCode
from raykafka.errors import RaykafkaError

# What clients are told where a record did not get into an internal topic; other codes are passed on as they are.
NOT_WRITTEN = {
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION: ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.NOT_ENOUGH_REPLICAS: ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND: ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.NOT_LEADER_OR_FOLLOWER: ErrorCode.NOT_COORDINATOR,
    ErrorCode.FENCED_LEADER_EPOCH: ErrorCode.NOT_COORDINATOR,
    ErrorCode.KAFKA_STORAGE_ERROR: ErrorCode.NOT_COORDINATOR,
}


class UnreadableRecord(RaykafkaError):
    """A record of an internal topic is in no format that is known here."""


class Now(NamedTuple):
    """The two clocks: boot-time for deadlines, wall for what is written down; both in milliseconds."""

    boot_ms: int
    wall_ms: int


# events of every kind of rules


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed: act on the deadlines that are over."""


@dataclass(frozen=True, slots=True)
class Unload:
    """This coordinator no longer leads the partition. Appends under way are still decided."""


@dataclass(frozen=True, slots=True)
class Written:
    """An Append that was asked for with ``then`` is committed at ``base_offset``, or failed with ``error``."""

    then: Any
    error: ErrorCode
    base_offset: int = -1


# effects


@dataclass(frozen=True, slots=True)
class Reply:
    """``answer`` is what the rules document for the event that carried ``request``."""

    request: Any
    answer: Any


@dataclass(frozen=True, slots=True)
class Append:
    """Append ``entries`` in one batch; when they are committed or refused, step a Written with ``then``."""

    entries: tuple[Any, ...]
    then: Any


Effect = Reply | Append
