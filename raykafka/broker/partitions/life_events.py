"""What the rules of a partition's life in its broker are told (events), and what they ask for (effects)."""

from __future__ import annotations

from typing import Any, NamedTuple

from raykafka.cluster.image import PartitionState

# Events


class Assigned(NamedTuple):
    """The broker holds the partition from now on. ``directory_free``: nobody else touches its directory."""

    directory_free: bool


class Changed(NamedTuple):
    """The controller decided."""

    state: PartitionState


class DirectoryFree(NamedTuple):
    """Nobody touches the directory any more: ``FreeDirectory`` is done."""


class Given(NamedTuple):
    """``actor`` has room to open the log."""

    actor: int


class Opened(NamedTuple):
    """The actor has opened the log."""

    opening: int


class OpenFailed(NamedTuple):
    """The actor could not open the log, and holds nothing of it."""

    opening: int
    reason: str


class Failed(NamedTuple):
    """The replica on ``actor`` failed and is closed. ``diverged``: its log is no beginning of its leader's (rule
    10)."""

    actor: int
    reason: str
    diverged: bool


class Refused(NamedTuple):
    """The replica can't lead ``leader_epoch``, which the broker may not have heard of yet."""

    leader_epoch: int
    reason: str


class ActorGone(NamedTuple):
    """The link to ``actor`` ended; its process may live on for a moment and hold its logs."""

    actor: int


class Move(NamedTuple):
    """The log is to be opened by the actor ``to`` instead."""

    to: int


class Left(NamedTuple):
    """The replica was given up: its log is closed, with ``seal`` (None: it was not sealed)."""

    opening: int
    seal: list[Any] | None


class NotLeft(NamedTuple):
    """The replica can't be given up now, and goes on."""

    opening: int


class LeaveFailed(NamedTuple):
    """Nobody knows whether the replica was given up."""

    opening: int


class Closed(NamedTuple):
    """The actor has closed the log, or found that it does not have it open; with ``seal``, None if it was not
    sealed."""

    opening: int
    seal: list[Any] | None


class CloseTimedOut(NamedTuple):
    """The actor did not close the log in time."""

    opening: int


class Released(NamedTuple):
    """The broker holds the partition no longer, or stops."""


class Tick(NamedTuple):
    """The timer is due."""


# Effects


class FreeDirectory(NamedTuple):
    """Wait until nobody touches the directory any more: ``actor``, whose link has ended, or what came before this
    life (None)."""

    actor: int | None


class Seek(NamedTuple):
    """Find an actor that opens the log. Asked again when it matters more: it leads now, or no longer."""


class Open(NamedTuple):
    """Have ``actor`` open the log, which was closed last with ``seal``."""

    actor: int
    opening: int
    seal: list[Any] | None


class Leave(NamedTuple):
    """Have ``actor`` give the replica up for another."""

    actor: int
    opening: int


class Close(NamedTuple):
    """Have ``actor`` close the log."""

    actor: int
    opening: int


class Kill(NamedTuple):
    """End the process of ``actor``: it hangs."""

    actor: int


class Place(NamedTuple):
    """Tell all actors that ``actor`` has the replica; NOWHERE: appends wait until another has it."""

    actor: int


class Report(NamedTuple):
    """Tell the controller that the leadership ``state`` of this broker has ended (rule 1)."""

    state: PartitionState
    reason: str


class SetTimer(NamedTuple):
    """A Tick at ``at_s``, instead of one set before."""

    at_s: float


class Ended(NamedTuple):
    """The partition is gone. ``clean``: its log was closed and sealed."""

    clean: bool


Answer = Opened | OpenFailed | Left | NotLeft | LeaveFailed | Closed | CloseTimedOut
Event = Assigned | Changed | DirectoryFree | Given | Failed | Refused | ActorGone | Move | Released | Tick | Answer
Effect = FreeDirectory | Seek | Open | Leave | Close | Kill | Place | Report | SetTimer | Ended
