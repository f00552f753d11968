"""The replica process's end of the link to its broker: opens the replica, passes on what the broker says, and closes
the replica when the link ends.

Control calls: ``open`` once, then ``state``, ``config`` and ``close``. Data frames: APPEND in, VIEW and APPENDED out.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from raykafka.cluster.image import PartitionState, partition_from_json
from raykafka.epoch_history import EpochHistory
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError, RaykafkaError
from raykafka.link import Link, handover
from raykafka.log import DirectoryLocked, Log, LogConfig
from raykafka.partition.appends import APPEND, APPENDED, pack_appended, unpack_append
from raykafka.process.clock import wall_clock_ms
from raykafka.process.tasks import TaskSet
from raykafka.replica.replica import Replica, ReplicaIdentity
from raykafka.replica.rules.events import Seal
from raykafka.replica.rules.log_state import Settings
from raykafka.replica.rules.partition import Partition
from raykafka.replica.sending import Holder
from raykafka.types import NO_EPOCH

logger = logging.getLogger(__name__)


class ReplicaServer:
    """Serves one broker over ``link``. ``ended`` is done when the link has ended and the log is closed. ``named`` is
    called with the partition's name once it is known."""

    def __init__(
        self,
        link: Link,
        secret: bytes,
        streams: socket.socket | None = None,
        named: Callable[[str], None] | None = None,
    ) -> None:
        """``streams`` is where the broker hands over leaders' connections."""
        self._link = link
        self._secret = secret
        self._streams = streams
        self._named = named
        self._loop = asyncio.get_running_loop()
        self._replica: Replica | None = None
        self._opened_once = False
        self._opening: asyncio.Future[Log] | None = None
        self._tasks = TaskSet("a replica process")
        self._calls = {"open": self._open, "state": self._state, "config": self._config}
        self._calls |= {"sleep": self._sleep, "close": self._close}
        self.ended: asyncio.Future[None] = self._loop.create_future()

    def start(self) -> None:
        """Take frames and calls from now on."""
        self._link.start(on_frame=self._on_frame, on_close=self._on_link_closed, on_call=self._on_call)
        if self._streams is not None:
            self._loop.add_reader(self._streams, self._on_stream, self._streams)

    def _on_stream(self, streams: socket.socket) -> None:
        taken = handover.take(streams)
        if taken is None:
            return
        connection, peer = taken
        if self._replica is None:
            connection.close()
            return
        self._tasks.run(self._replica.take_stream(connection, peer))

    def _on_frame(self, kind: int, payload: memoryview) -> None:
        if kind != APPEND:
            raise RaykafkaError(f"a replica takes no frames of kind {kind}")
        if self._replica is not None:
            self._replica.append(payload)
            return
        correlation = unpack_append(payload)[0]
        refusal = pack_appended(correlation, ErrorCode.NOT_LEADER_OR_FOLLOWER, -1, -1, -1, "not open")
        self._link.send(APPENDED, refusal)

    async def _on_call(self, method: str, args: dict[str, Any]) -> dict[str, Any]:
        call = self._calls.get(method)
        if call is None:
            raise KafkaError(ErrorCode.INVALID_REQUEST, f"a replica does not know the call {method!r}")
        return await call(args)

    async def _open(self, args: dict[str, Any]) -> dict[str, Any]:
        """Recover the log and take the partition's state. The first VIEW goes out before the answer."""
        if self._opening is not None:
            raise KafkaError(ErrorCode.INVALID_REQUEST, "this replica was opened before")
        config = args["config"]
        if self._named is not None:
            self._named(f"{args['topic']}-{args['partition']}")
        self._opening = asyncio.ensure_future(
            asyncio.to_thread(
                Log.open,
                Path(args["directory"]),
                LogConfig.from_topic_config(config),
                topic_id=uuid.UUID(args["topic_id"]),
                recovery_point=args["recovery_point"],
                now_ms=wall_clock_ms(),
                log_start_offset=args["log_start_offset"],
            )
        )
        try:
            log = await self._opening
        except DirectoryLocked as error:
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, str(error)) from error
        if self._link.is_closed:
            return {}
        history = log.epochs.history
        partition = Partition(
            args["broker_id"],
            Settings(),
            log_start=log.log_start_offset,
            log_end=log.log_end_offset,
            history=history,
            checkpoint=args.get("high_watermark"),
            seal=_seal_of(args, log, history),
            known_epoch=args.get("known_epoch", NO_EPOCH),
            undecided=map(frozenset, args.get("undecided", ())),
        )
        names = {name: args[name] for name in ("topic", "topic_id", "partition")}
        identity = ReplicaIdentity(self._secret, names, args.get("broker_epoch", -1))
        self._opened_once = True
        self._replica = Replica(self._link, log, partition, identity, self._on_failed)
        self._replica.configure(config)
        answer = await self._replica.told(*_state_of(args))
        return {
            **answer,
            "log_start_offset": log.log_start_offset,
            "log_end_offset": log.log_end_offset,
            "recovered_bytes_cut": log.recovered_bytes_cut,
        }

    def _opened(self) -> Replica:
        if self._replica is None:
            raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER, "this replica is not open")
        return self._replica

    async def _state(self, args: dict[str, Any]) -> dict[str, Any]:
        return await self._opened().told(*_state_of(args))

    async def _config(self, args: dict[str, Any]) -> dict[str, Any]:
        self._opened().configure(args["config"])
        return {}

    async def _sleep(self, args: dict[str, Any]) -> dict[str, Any]:
        return {"sleeps": await self._opened().sleep()}

    async def _close(self, args: dict[str, Any]) -> dict[str, Any]:
        replica, self._replica = self._opened(), None
        answer = await replica.close()
        self._loop.call_soon(self._link.close)
        return answer

    def _on_failed(self, reason: str, diverged: bool) -> None:
        """The log can't be relied on: tell the broker and end, so that nobody leads this epoch with it (rule 1)."""
        if not self._link.is_closed:
            self._link.tell("failed", {"reason": reason, "diverged": diverged})
            self._link.close()

    def _on_link_closed(self, error: Exception | None) -> None:
        self._tasks.run(self._end())

    async def _end(self) -> None:
        """The link to the broker has ended, so nobody can be answered: close and seal the log."""
        if self._opening is not None and not self._opening.done():
            await asyncio.wait([self._opening])
        replica, self._replica = self._replica, None
        try:
            if replica is not None:
                await replica.close()
            elif self._opening is not None and not self._opened_once and self._opening.exception() is None:
                log = self._opening.result()
                await asyncio.to_thread(log.close, log.note)  # as it was found
        except KafkaError as failure:
            logger.error("closing the log: %s", failure.message)
        if self._streams is not None:
            self._loop.remove_reader(self._streams)
        self.ended.set_result(None)


def _seal_of(args: Mapping[str, Any], log: Log, history: EpochHistory) -> Seal | None:
    """The seal this log was opened from, as the broker knows it, else as it was left on disk. A log that was never led
    or followed needs none on disk."""
    if log.note is None and not (log.log_end_offset == 0 and not history):
        return None
    known = args.get("seal") or (log.note or {}).get("seal")
    return Seal(*known) if known else None


def _state_of(args: Mapping[str, Any]) -> tuple[PartitionState, dict[int, Holder]]:
    holders = {int(broker): Holder(*holder) for broker, holder in args.get("holders", {}).items()}
    return partition_from_json(args["state"]), holders
