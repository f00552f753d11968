"""What the partition rules are told (events) and what they ask for (effects). Small tuples, no behaviour.

Whoever runs the rules carries the effects of one step out in order, each finished before the next begins: an effect
that writes to disk has reached it before anything behind it is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from raykafka.cluster.image import PartitionState
from raykafka.epoch_history import EpochHistory
from raykafka.error_code import ErrorCode


class StreamId(NamedTuple):
    """Names one connection from a leader to a follower of a partition (rule 11). The highest of an epoch is the
    newest."""

    leader_epoch: int
    leader: int
    leader_broker_epoch: int
    number: int


class Seal(NamedTuple):
    """What a replica leaves behind when its log is closed in order (rule 17). ``epoch`` is the newest it knows,
    ``leading`` whether whoever opens the log next leads on in it, from ``epoch_start``; ``streams`` is the number of
    its last stream in it."""

    epoch: int
    leading: bool
    epoch_start: int
    log_end: int
    high_watermark: int
    streams: int

    def as_found_on_disk(self) -> Seal:
        """What it says to one who has it from the disk and not from the actor that left: how the log ends. Nobody leads
        on by it."""
        return self._replace(leading=False)


# Events


class Told(NamedTuple):
    """The broker tells what the controller decided. ``broker_epochs`` holds the brokers that are alive and their
    epochs."""

    state: PartitionState
    broker_epochs: Mapping[int, int]


class Wrote(NamedTuple):
    """This leader's append of a batch returned whole; its last record has ``last_offset``. A duplicate that was found
    in the log counts as written again. ``token`` comes back in the Reply. ``deadline_ms`` bounds the wait of
    acks=-1."""

    token: Any
    acks: int
    last_offset: int
    deadline_ms: int


class Tick(NamedTuple):
    """Time passed: produces that waited too long, followers that lag, proposals without an answer."""


class Answered(NamedTuple):
    """A follower finished the handshake of a stream: the end of its log and the epoch of its last record."""

    follower: int
    stream: StreamId
    broker_epoch: int
    log_end: int
    last_epoch: int


class Acked(NamedTuple):
    """A follower's log holds everything below ``log_end``."""

    follower: int
    stream: StreamId
    log_end: int


class StreamLost(NamedTuple):
    """The connection that carried ``stream`` to ``follower`` ended. ``refused``: because the follower could not write
    what came, as on a full disk."""

    follower: int
    stream: StreamId
    refused: bool = False


class Hello(NamedTuple):
    """A leader opens a stream to this replica."""

    stream: StreamId
    history: EpochHistory
    log_start: int
    log_end: int
    high_watermark: int


class Received(NamedTuple):
    """Records of the stream were written, or there were none in the frame. ``log_end`` is the end of this replica's
    log now; the others are the leader's."""

    stream: StreamId
    log_end: int
    log_start: int
    high_watermark: int


class Cut(NamedTuple):
    """The log lost records that had been written: it can't be relied on by this opened replica any more (rule 1)."""

    reason: str


class Leave(NamedTuple):
    """Another actor of this broker is to open the log: leave it, if that is clean now (rule 17)."""


# Effects


class Reply(NamedTuple):
    """Answer the produce that ``token`` stands for."""

    token: Any
    error: ErrorCode


class SetHistory(NamedTuple):
    """Put the leader-epoch file on disk."""

    history: EpochHistory


class Truncate(NamedTuple):
    """Drop every record from ``offset`` on."""

    offset: int


class Restart(NamedTuple):
    """Drop every record and begin an empty log at ``offset``."""

    offset: int


class AdvanceStart(NamedTuple):
    """Records below ``offset`` are deleted."""

    offset: int


class OpenStream(NamedTuple):
    """Connect to ``follower`` and send it this Hello. An earlier stream to it ends."""

    follower: int
    hello: Hello


class CloseStream(NamedTuple):
    """End the connection that carries ``stream`` to, or at, ``follower``."""

    follower: int
    stream: StreamId


class Answer(NamedTuple):
    """Answer a Hello. Everything about this log that the stream asked for is on disk."""

    stream: StreamId
    log_end: int
    last_epoch: int


class Ack(NamedTuple):
    """Tell the leader of ``stream`` how far this log reaches."""

    stream: StreamId
    log_end: int


class Propose(NamedTuple):
    """Ask the controller to write this ISR if the state's version and every member's broker epoch are as named (rule
    7)."""

    isr: tuple[int, ...]
    broker_epochs: tuple[int, ...]
    leader_epoch: int
    version: int


class Refused(NamedTuple):
    """This replica can't lead ``leader_epoch`` or go on with it; the controller has to decide again."""

    leader_epoch: int
    reason: str


class Diverged(NamedTuple):
    """Records that were committed would have to be truncated after a clean election (rule 10). The replica has
    stopped."""

    leader_epoch: int
    offset: int
    high_watermark: int


class Left(NamedTuple):
    """This replica has stopped: close the log with ``seal``, for one other to open (rule 17). None where the log can't
    be relied on."""

    seal: Seal | None


Event = Told | Wrote | Tick | Answered | Acked | StreamLost | Hello | Received | Cut | Leave
Effect = (
    Reply
    | SetHistory
    | Truncate
    | Restart
    | AdvanceStart
    | OpenStream
    | CloseStream
    | Answer
    | Ack
    | Propose
    | Refused
    | Diverged
    | Left
)
