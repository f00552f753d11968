"""One local partition in its broker: carries out what the rules of its life ask for (``life``).

The log is opened, written and read by a replica actor; the broker decides which one, and knows of the log what that
tells: its ends, once a second, and how its followers do.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raykafka.broker.partitions import life_events as events
from raykafka.broker.partitions.ends import Checkpoint, Ends
from raykafka.broker.partitions.life import Life, Phase
from raykafka.broker.partitions.seats import Claim
from raykafka.broker.partitions.surroundings import Surroundings
from raykafka.cluster.image import PartitionState
from raykafka.errors import KafkaError, LinkError
from raykafka.process.clock import boot_clock
from raykafka.types import PartitionKey, TopicPartition

# an actor that does not close a log in this time hangs, and is killed
CLOSE_WITHIN_S = 30.0
LEAVE_WITHIN_S = 10.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FailureCount:
    """How often the replica has failed, why last (empty once it is open again), and how long ago that was."""

    count: int
    reason: str
    since_last_s: float | None


def directory_name(tp: TopicPartition) -> str:
    return f"{tp.topic}-{tp.partition}"


class PartitionHost:
    """A partition of this broker. ``ends`` is what its replica actor told last, None while the log is not open;
    ``checkpoint`` what the last one told, or the checkpoint files; ``follower_progress`` what its leader told last of
    its followers; ``has_files``: a log was begun on this disk. All methods run on the broker's event loop."""

    __slots__ = (
        "_after",
        "_ended",
        "_surroundings",
        "_timer",
        "checkpoint",
        "ends",
        "follower_progress",
        "has_files",
        "life",
        "topic_id",
        "tp",
    )

    def __init__(
        self,
        surroundings: Surroundings,
        tp: TopicPartition,
        topic_id: uuid.UUID,
        state: PartitionState,
        *,
        checkpoint: Checkpoint,
        has_files: bool,
        after: Awaitable[None] | None = None,
    ) -> None:
        """``after``: what must end before the directory is touched."""
        self.tp = tp
        self.topic_id = topic_id
        self.checkpoint = checkpoint
        self.has_files = has_files
        self.life = Life(surroundings.broker_id, state)
        self.ends: Ends | None = None
        self.follower_progress: dict[str, Any] = {}
        self._surroundings = surroundings
        self._after = after
        self._timer: asyncio.TimerHandle | None = None
        self._ended: asyncio.Future[bool] | None = None
        self.step(events.Assigned(after is None))

    # looking

    @property
    def state(self) -> PartitionState:
        """What the controller decided last."""
        return self.life.state

    @property
    def directory(self) -> Path:
        return self._surroundings.log_dir / directory_name(self.tp)

    @property
    def actor(self) -> int | None:
        """The number of the actor that has the log open, or opens or closes it."""
        return self.life.actor

    @property
    def is_leader(self) -> bool:
        """Whether the controller has this broker lead the partition."""
        return self.life.leads and self.life.phase is not Phase.GONE

    @property
    def failures(self) -> FailureCount:
        failures = self.life.failures
        return FailureCount(failures.count, failures.reason, failures.since_last_s(boot_clock()))

    def describe(self) -> dict[str, Any]:
        """Plain data for status."""
        ends, failures = self.ends, self.failures
        return {
            "topic": self.tp.topic,
            "partition": self.tp.partition,
            "life": str(self.life.phase),
            "leader": self.state.leader,
            "leader_epoch": self.state.leader_epoch,
            "actor": self.actor,
            "restarts": failures.count,
            "since_restart_s": failures.since_last_s,
            "failure": failures.reason,
            "log_start_offset": ends.log_start_offset if ends else None,
            "high_watermark": ends.high_watermark if ends else None,
            "log_end_offset": ends.log_end_offset if ends else None,
            "followers": self.follower_progress.get("followers", {}),
        }

    # what happens

    def apply(self, state: PartitionState) -> None:
        """Take a state, unless it is older than one seen before (rule 16)."""
        self.step(events.Changed(state))
        if self.state is not state and self.state != state:
            logger.error("%s: refused %s after %s", self.tp, state, self.state)

    def report(self, ends: Ends, followers: Mapping[str, Any] | None) -> int:
        """Take what the actor reports; how many records the log got since the last report. ``followers`` as
        ``Replica.describe_followers``, by broker; None where it leads none."""
        if self.life.phase not in (Phase.OPEN, Phase.LEAVING):
            return 0
        before, self.ends = self.ends, ends
        by_broker = {int(broker): known for broker, known in (followers or {}).items()}
        self.follower_progress = {"leader_epoch": ends.leader_epoch, "followers": by_broker} if by_broker else {}
        return max(0, ends.log_end_offset - before.log_end_offset) if before is not None else 0

    def release(self) -> asyncio.Future[bool]:
        """Close the log. What is returned is done once nobody touches the directory any more: True when the log was
        closed cleanly, whole up to its recovery point."""
        if self._ended is None:
            self._ended = asyncio.get_running_loop().create_future()
            self.step(events.Released())
        return self._ended

    def step(self, event: events.Event) -> None:
        """Tell the rules, and begin what they ask for."""
        life = self.life
        claim, failures = Claim.of(life), life.failures.count
        effects = life.step(event, boot_clock())
        if life.failures.count != failures:
            self._surroundings.failed += 1
            # the end of an actor is logged once, by who tells its partitions
            level = logging.DEBUG if isinstance(event, events.ActorGone) else logging.ERROR
            logger.log(level, "%s (leader epoch %d): %s", self.tp, life.state.leader_epoch, life.failures.reason)
        if life.phase not in (Phase.OPEN, Phase.LEAVING) and self.ends is not None:
            self.checkpoint, self.ends, self.follower_progress = self.ends.checkpoint, None, {}
        if (now := Claim.of(life)) != claim:
            self._surroundings.seats.changed(self, claim, now)
        for effect in effects:
            self._carry_out(effect)

    # effects

    def _carry_out(self, effect: events.Effect) -> None:
        surroundings = self._surroundings
        match effect:
            case events.Seek():
                surroundings.seats.seek(self)
            case events.Open():
                surroundings.tasks.run(self._open(effect))
            case events.Leave():
                surroundings.tasks.run(self._leave(effect))
            case events.Close():
                surroundings.tasks.run(self._close(effect))
            case events.Kill(number):
                actor = surroundings.seats.actor(number)
                if actor is not None:
                    logger.error("replica actor %d has not closed %s in time and is killed", number, self.tp)
                    actor.kill()
            case events.Place(number):
                surroundings.placements.placed(self.tp, self.topic_id, number)
            case events.Report(state, reason):
                surroundings.reports.report(self.tp, self.topic_id, state, reason)
            case events.FreeDirectory(None):
                surroundings.tasks.run(self._free_directory())
            case events.FreeDirectory(int() as number):
                surroundings.locks.when_free(number, self.directory, self._directory_is_free)
            case events.SetTimer(at_s):
                self._set_timer(at_s)
            case events.Ended(clean):
                self._end(clean)

    def _named(self) -> dict[str, Any]:
        return PartitionKey(self.tp.topic, self.topic_id, self.tp.partition).to_json()

    async def _open(self, asked: events.Open) -> None:
        actor = self._surroundings.seats.actor(asked.actor)
        if actor is None:
            return  # its end was told
        known, self.has_files = self.checkpoint, True
        args = {
            **self._named(),
            "recovery_point": known.recovery_point or 0,
            "high_watermark": known.high_watermark,
            "log_start_offset": known.log_start_offset or 0,
            "seal": asked.seal,
        }
        try:
            answer = await actor.open(args)
        except LinkError:
            return  # its end is told
        except KafkaError as error:
            self.step(events.OpenFailed(asked.opening, str(error)))
            return
        if answer["recovered_bytes_cut"]:
            logger.warning("%s: recovery cut a torn tail of %d bytes", self.tp, answer["recovered_bytes_cut"])
        self.step(events.Opened(asked.opening))
        if self.life.phase is Phase.OPEN and self.ends is None:
            start, end = answer["log_start_offset"], answer["log_end_offset"]
            self.ends = Ends.of_opened(self.state.leader_epoch, start, end, known)

    async def _leave(self, asked: events.Leave) -> None:
        actor = self._surroundings.seats.actor(asked.actor)
        if actor is None:
            return
        try:
            async with asyncio.timeout(LEAVE_WITHIN_S):
                answer = await actor.leave(self._named())
        except LinkError:
            return
        except (KafkaError, TimeoutError) as error:
            logger.warning("%s could not leave its actor: %s", self.tp, error or type(error).__name__)
            self.step(events.LeaveFailed(asked.opening))
            return
        if answer["left"]:
            self.step(events.Left(asked.opening, self._sealed(answer)))
        else:
            self.step(events.NotLeft(asked.opening))

    async def _close(self, asked: events.Close) -> None:
        async with self._surroundings.closing:
            actor = self._surroundings.seats.actor(asked.actor)
            if actor is None:
                return
            try:
                async with asyncio.timeout(CLOSE_WITHIN_S):
                    answer = await actor.close(self._named())
            except LinkError:
                return
            except KafkaError as error:
                logger.error("%s was not closed cleanly: %s", self.tp, error)
                self.step(events.Closed(asked.opening, None))
                return
            except TimeoutError:
                self.step(events.CloseTimedOut(asked.opening))
                return
        self.step(events.Closed(asked.opening, self._sealed(answer)))

    def _sealed(self, left: Mapping[str, Any]) -> list[Any] | None:
        """Take what an actor told of the log when it closed it: the seal that it left."""
        self.checkpoint = Checkpoint(left["recovery_point"], left["high_watermark"], left["log_start_offset"])
        self.ends = None
        note: Mapping[str, Any] | None = left["note"]
        return list(note["seal"]) if note is not None else None

    async def _free_directory(self) -> None:
        assert self._after is not None
        await asyncio.wait([asyncio.ensure_future(self._after)])  # where it failed, opening the log tells why
        self._after = None
        self._directory_is_free()

    def _directory_is_free(self) -> None:
        self.step(events.DirectoryFree())

    def _set_timer(self, at_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(max(0.0, at_s - boot_clock()), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.step(events.Tick())

    def _end(self, clean: bool) -> None:
        self._surroundings.seats.forget(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        assert self._ended is not None
        if not self._ended.done():
            self._ended.set_result(clean)
