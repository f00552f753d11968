"""The other replica actors of this broker: appends to their partitions over a link, reads of their files as far as the
views allow that they send (rules 20, 21); and the same for them.

All that one turn of the event loop has for a sibling goes in one write. A view goes out before the answers that it
covers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError, LinkError
from raykafka.link import Link, connect_unix
from raykafka.partition.appends import Appended, Done
from raykafka.partition.view import View
from raykafka.process.backoff import Backoff
from raykafka.process.tasks import TaskSet
from raykafka.replica_actor import sibling_frames as frames
from raykafka.replica_actor.partition import ServedPartition, Writer
from raykafka.types import FrameKind, PartitionKey

ROLE = "sibling"
_HOLD_WITHIN_S = 1.0
_DELETE_WITHIN_S = 20.0

logger = logging.getLogger(__name__)


class _Outgoing:
    """What a turn of the event loop has for one link."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self._loop = asyncio.get_running_loop()
        self._frames: list[tuple[FrameKind, bytes, memoryview | None]] = []

    def send(self, kind: FrameKind, head: bytes, records: memoryview | None = None) -> None:
        if not self._frames:
            self._loop.call_soon(self.flush)
        self._frames.append((kind, head, records))

    def flush(self) -> None:
        """Send what there is now: what the link itself sends next goes behind it."""
        found, self._frames = self._frames, []
        if found and not self.link.is_closed:
            self.link.send_gathered(found)


# this actor's partitions, for siblings


class Watched(Protocol):
    """A replica that is open here."""

    @property
    def whole_view(self) -> View | None:
        """What may be read now, for one that knows nothing of it yet."""

    @property
    def writer(self) -> Writer: ...


class Watchers:
    """The siblings that watch partitions of this actor, each by a handle that it chose. ``find`` gives a replica that
    is open here."""

    def __init__(self, find: Callable[[PartitionKey], Watched | None]) -> None:
        self._find = find
        self._links: dict[Link, dict[int, PartitionKey]] = {}
        self._by_key: dict[PartitionKey, dict[Link, tuple[int, _Outgoing]]] = {}
        self._held: set[PartitionKey] = set()

    @property
    def any(self) -> bool:
        """Whether anything is watched."""
        return bool(self._by_key)

    def accept(self, link: Link) -> None:
        """A sibling has connected."""
        outgoing = _Outgoing(link)
        handles = self._links[link] = {}

        async def on_call(method: str, args: dict[str, Any]) -> dict[str, Any]:
            match method:
                case "watch":
                    return self._watch(outgoing, PartitionKey.of_json(args), int(args["handle"]))
                case "unwatch":
                    self._unwatch(link, int(args["handle"]))
                    return {}
                case "delete_records":
                    return await self._delete_records(outgoing, handles.get(int(args["handle"])), int(args["offset"]))
            raise KafkaError(ErrorCode.INVALID_REQUEST, f"a replica actor does not answer {method!r} to siblings")

        def on_frame(kind: int, payload: memoryview) -> None:
            if kind == frames.APPEND:
                self._append(outgoing, handles, payload)

        link.start(on_frame=on_frame, on_call=on_call, on_close=lambda _: self._ended(link))

    def _ended(self, link: Link) -> None:
        for key in self._links.pop(link, {}).values():
            self._drop(link, key)

    def _drop(self, link: Link, key: PartitionKey) -> None:
        watching = self._by_key.get(key, {})
        watching.pop(link, None)
        if not watching:
            self._by_key.pop(key, None)

    def _watch(self, outgoing: _Outgoing, key: PartitionKey, handle: int) -> dict[str, Any]:
        """``watch`` {key, handle}: {held}. The first view, if there is one, goes before the answer."""
        watched, link = self._find(key), outgoing.link
        if watched is None or link not in self._links:
            raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER, f"{key.topic}-{key.partition} is not open here")
        self._links[link][handle] = key
        self._by_key.setdefault(key, {})[link] = (handle, outgoing)
        view = watched.whole_view
        if view is not None:
            outgoing.send(frames.VIEW, frames.pack_view(handle, view))
            outgoing.flush()
        return {"held": key in self._held}

    def _unwatch(self, link: Link, handle: int) -> None:
        key = self._links.get(link, {}).pop(handle, None)
        if key is not None and self._by_key.get(key, {}).get(link, (None,))[0] == handle:
            self._drop(link, key)

    def _append(self, outgoing: _Outgoing, handles: Mapping[int, PartitionKey], payload: memoryview) -> None:
        handle, correlation, acks, leader_epoch, timeout_ms, records = frames.unpack_append(payload)

        def done(appended: Appended) -> None:
            appended.correlation = correlation
            outgoing.send(frames.APPENDED, appended.pack())

        key = handles.get(handle)
        watched = self._find(key) if key is not None else None
        if watched is None:
            done(Appended(-1, ErrorCode.NOT_LEADER_OR_FOLLOWER, message="not open in that replica actor"))
            return
        watched.writer.append(records, acks, timeout_ms, leader_epoch, done)

    async def _delete_records(self, outgoing: _Outgoing, key: PartitionKey | None, offset: int) -> dict[str, Any]:
        """``delete_records`` {handle, offset}: {log_start_offset}. The view that shows it goes before the answer."""
        watched = self._find(key) if key is not None else None
        if watched is None:
            raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER, "not open in that replica actor")
        start = await watched.writer.delete_records(offset)
        outgoing.flush()
        return {"log_start_offset": start}

    def show(self, key: PartitionKey, view: View) -> None:
        """Tell those that watch it how far it may be read."""
        for handle, outgoing in self._by_key.get(key, {}).values():
            outgoing.send(frames.VIEW, frames.pack_view(handle, view))

    async def hold(self, key: PartitionKey) -> bool:
        """Have those that watch it keep what they would append. Whether nothing of theirs is on its way any more: false
        where one does not answer in time."""
        self._held.add(key)
        watching = self._by_key.get(key, {})
        calls = [link.call("hold", {"handle": handle}, _HOLD_WITHIN_S) for link, (handle, _) in watching.items()]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        # one whose link has ended appends nothing more
        return not any(isinstance(answer, BaseException) and not isinstance(answer, LinkError) for answer in answers)

    def go_on(self, key: PartitionKey) -> None:
        """Have them append again."""
        self._held.discard(key)
        for link, (handle, _) in self._by_key.get(key, {}).items():
            _tell(link, "go_on", {"handle": handle})

    def gone(self, key: PartitionKey, *, moves: bool) -> None:
        """It is not open here any more. ``moves``: it will be elsewhere soon."""
        self._held.discard(key)
        for link, (handle, outgoing) in self._by_key.pop(key, {}).items():
            self._links.get(link, {}).pop(handle, None)
            # behind the answers that wait to be sent
            asyncio.get_running_loop().call_soon(_tell, outgoing.link, "gone", {"handle": handle, "moves": moves})


def _tell(link: Link, method: str, args: dict[str, Any]) -> None:
    if not link.is_closed:
        link.tell(method, args)


# partitions of siblings, for this actor's clients


class _Remote:
    """A partition that a sibling has open, which this actor watches by ``handle``. What comes of it counts as long as
    ``served`` goes by it."""

    def __init__(self, sibling: _Sibling, key: PartitionKey, served: ServedPartition, handle: int) -> None:
        self.key = key
        self.served = served
        self.handle = handle
        self.is_watched = False
        self.is_held = False
        self._sibling = sibling

    def append(self, records: memoryview, acks: int, timeout_ms: int, leader_epoch: int, done: Done) -> None:
        correlation = self._sibling.expect(done)
        head = frames.pack_append(self.handle, correlation, acks, leader_epoch, timeout_ms)
        self._sibling.outgoing.send(frames.APPEND, head, records)

    async def delete_records(self, offset: int) -> int:
        asked = {"handle": self.handle, "offset": offset}
        try:
            answer = await self._sibling.link.call("delete_records", asked, _DELETE_WITHIN_S)
        except (LinkError, TimeoutError) as error:
            raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER, "the replica's actor did not answer") from error
        return int(answer["log_start_offset"])

    def show(self, view: View) -> None:
        if self.served.goes_by(self):
            self.served.log.show(view)

    def settle(self) -> None:
        """Hand appends to it, or keep them, as things stand."""
        if not self.served.goes_by(self):
            return
        if self.is_watched and not self.is_held:
            self.served.attach(self)
        else:
            self.served.detach()

    def lose(self, *, moves: bool) -> None:
        """It is not there any more; ``moves``: it will be elsewhere soon."""
        if not self.served.goes_by(self):
            return
        self.served.log.show_nothing()
        if moves:
            self.served.detach()
        else:
            self.served.nowhere("its replica is closed")


class _Sibling:
    """A link to one sibling. ``lost(key, served)`` is called with each partition that was watched when it ends."""

    def __init__(self, link: Link, lost: Callable[[PartitionKey, ServedPartition], None]) -> None:
        self.link = link
        self.outgoing = _Outgoing(link)
        self._lost = lost
        self._correlation = 0
        self._unanswered: dict[int, Done] = {}
        self._handles = 0
        self._remotes: dict[int, _Remote] = {}
        self._handles_of: dict[PartitionKey, set[int]] = {}
        link.start(on_frame=self._frame, on_call=self._answer, on_close=self._ended)

    def expect(self, done: Done) -> int:
        self._correlation += 1
        self._unanswered[self._correlation] = done
        return self._correlation

    async def watch(self, key: PartitionKey, served: ServedPartition) -> None:
        """Raises KafkaError where the sibling has not opened it, LinkError."""
        # known before the sibling knows it: what that says of it may come before this goes on
        self._handles += 1
        remote = self._remotes[self._handles] = _Remote(self, key, served, self._handles)
        self._handles_of.setdefault(key, set()).add(remote.handle)
        served.go_by(remote)
        try:
            answer = await self.link.call("watch", {**key.to_json(), "handle": remote.handle})
        except KafkaError:
            self._drop(remote)
            raise
        if self._remotes.get(remote.handle) is not remote:
            raise LinkError("it was closed there meanwhile")
        remote.is_watched = True
        remote.is_held = remote.is_held or answer["held"]
        remote.settle()

    def unwatch(self, key: PartitionKey) -> None:
        """This actor has no use for it any more."""
        handles = self._handles_of.get(key)
        if handles is None:
            return
        self.outgoing.flush()  # what was handed to it until now is still taken there
        for handle in tuple(handles):
            remote = self._remotes[handle]
            self._drop(remote)
            remote.lose(moves=True)
            _tell(self.link, "unwatch", {"handle": handle})

    def _drop(self, remote: _Remote) -> None:
        if self._remotes.pop(remote.handle, None) is None:
            return
        handles = self._handles_of[remote.key]
        handles.discard(remote.handle)
        if not handles:
            del self._handles_of[remote.key]

    def _frame(self, kind: int, payload: memoryview) -> None:
        if kind == frames.APPENDED:
            appended = Appended.unpack(payload)
            done = self._unanswered.pop(appended.correlation, None)
            if done is not None:
                done(appended)
        elif kind == frames.VIEW:
            handle, view = frames.unpack_view(payload)
            remote = self._remotes.get(handle)
            if remote is not None:
                remote.show(view)

    async def _answer(self, method: str, args: dict[str, Any]) -> dict[str, Any]:
        remote = self._remotes.get(args["handle"])
        if remote is None:
            return {}
        match method:
            case "hold" | "go_on":
                remote.is_held = method == "hold"
                remote.settle()
                self.outgoing.flush()  # an answer says that nothing is on its way any more
            case "gone":
                self._drop(remote)
                remote.lose(moves=args["moves"])
                self._lost(remote.key, remote.served)
        return {}

    def _ended(self, error: Exception | None) -> None:
        remotes, self._remotes = self._remotes, {}
        self._handles_of.clear()
        for remote in remotes.values():
            remote.lose(moves=False)
            self._lost(remote.key, remote.served)
        unanswered, self._unanswered = self._unanswered, {}
        for done in unanswered.values():
            done(Appended(-1, ErrorCode.NOT_LEADER_OR_FOLLOWER, message="the replica's actor has ended"))


def _is_over(connecting: asyncio.Future[_Sibling]) -> bool:
    if not connecting.done():
        return False
    return connecting.cancelled() or connecting.exception() is not None or connecting.result().link.is_closed


class Siblings:
    """The ways to the siblings of actor ``number``."""

    def __init__(self, secret: bytes, number: int) -> None:
        self._secret = secret
        self._number = number
        self._paths: Mapping[int, str] = {}
        self._links: dict[int, asyncio.Future[_Sibling]] = {}
        self._wanted: dict[PartitionKey, tuple[ServedPartition, int]] = {}
        self._tasks = TaskSet("siblings")

    def living(self, paths: Mapping[int, str]) -> None:
        """The actors of the broker that live, and where they listen."""
        self._paths = paths
        for number in self._links.keys() - paths.keys():
            del self._links[number]

    def watch(self, key: PartitionKey, served: ServedPartition, number: int) -> None:
        """``served`` is open at the sibling ``number``: attach to it there, as soon as that goes."""
        if self._wanted.get(key) != (served, number):
            self._wanted[key] = (served, number)
            self._tasks.run(self._watch(key, served, number))

    def forget(self, key: PartitionKey) -> None:
        """It is not there any more, or this actor has no use for it."""
        _, number = self._wanted.pop(key, (None, None))
        connecting = self._links.get(number) if number is not None else None
        if connecting is not None and connecting.done() and not _is_over(connecting):
            connecting.result().unwatch(key)

    def _lost(self, number: int, key: PartitionKey, served: ServedPartition) -> None:
        """It is not watched there any more. Where it is still wanted, it is opened again there, or the link ended."""
        if self._wanted.get(key) == (served, number):
            self._tasks.run(self._watch(key, served, number))

    async def _watch(self, key: PartitionKey, served: ServedPartition, number: int) -> None:
        backoff = Backoff()
        while self._wanted.get(key) == (served, number):
            try:
                sibling = await self._sibling(number)
                if self._wanted.get(key) == (served, number):
                    await sibling.watch(key, served)
                return
            except (OSError, KafkaError, LinkError) as error:
                logger.info("%s-%d can't be watched at actor %d: %s", key.topic, key.partition, number, error)
            if number not in self._paths:
                return
            backoff.failed()
            await asyncio.sleep(backoff.delay_s)

    async def _sibling(self, number: int) -> _Sibling:
        known = self._links.get(number)
        if known is None or _is_over(known):
            known = self._links[number] = asyncio.ensure_future(self._connect(number))
            known.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(known)

    async def _connect(self, number: int) -> _Sibling:
        path = self._paths.get(number)
        if path is None:
            raise LinkError(f"no replica actor {number} lives")
        link = await connect_unix(path, self._secret, {"role": ROLE, "actor": self._number})
        return _Sibling(link, partial(self._lost, number))

    def close(self) -> None:
        """End all links."""
        self._tasks.cancel()
        for task in self._links.values():
            with suppress(asyncio.CancelledError, Exception):
                task.result().link.close()
