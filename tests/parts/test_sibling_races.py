"""An actor's link to a sibling whose partition it serves: what comes late, or at the same time. The test plays the
sibling, at the other end of a real socket."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from raykafka.cluster.image import PartitionState
from raykafka.error_code import ErrorCode
from raykafka.link import Link, serve_unix
from raykafka.partition.appends import ANY_EPOCH, Appended
from raykafka.partition.log_view import LogView
from raykafka.partition.view import View
from raykafka.replica_actor import sibling_frames as frames
from raykafka.replica_actor.partition import ServedPartition
from raykafka.replica_actor.siblings import Siblings
from raykafka.types import LogPosition, PartitionKey, TopicPartition
from tests.lab.loop_waiting import until

SECRET = b"k" * 32
KEY = PartitionKey("events", uuid.UUID(int=1), 0)
SIBLING = 1


def view(end: int) -> View:
    at = LogPosition(0, 0)
    return View(0, 0, 0, 0, end, at, end, at, end, 0)


class Played:
    """The sibling: ``heard`` has the values of the appends that came to it. ``before(handle)`` is called before it
    answers what it is asked to watch."""

    def __init__(self) -> None:
        self.link: Link
        self.handle = -1
        self.heard: list[bytes] = []
        self.unwatched: list[int] = []
        self.before: Callable[[int], None] = lambda handle: None

    def accept(self, link: Link) -> None:
        self.link = link
        link.start(on_frame=self._frame, on_call=self._call)

    async def _call(self, method: str, args: dict[str, Any]) -> dict[str, Any]:
        if method == "unwatch":
            self.unwatched.append(args["handle"])
            return {}
        self.handle = args["handle"]
        self.before(self.handle)
        return {"held": False}

    def _frame(self, kind: int, payload: memoryview) -> None:
        assert kind == frames.APPEND
        self.heard.append(bytes(frames.unpack_append(payload)[-1]))

    def show(self, end: int) -> None:
        self.link.send(frames.VIEW, frames.pack_view(self.handle, view(end)))


Test = Callable[[ServedPartition, Played, Siblings], Awaitable[None]]


def run(directory: Path, test: Test) -> None:
    async def body() -> None:
        played = Played()
        listening = await serve_unix(str(directory / "s"), SECRET, {"role": "replica"}, played.accept)
        threads = ThreadPoolExecutor(1)
        state = PartitionState((0,), 0, 0, (0,), 0)
        log = LogView(directory / "events-0", threads)
        served = ServedPartition(0, TopicPartition("events", 0), KEY.topic_id, state, log, lambda: True)
        siblings = Siblings(SECRET, 0)
        siblings.living({SIBLING: str(directory / "s")})
        try:
            await test(served, played, siblings)
        finally:
            siblings.close()
            listening.close()
            threads.shutdown()

    asyncio.run(asyncio.wait_for(body(), 60))


def submit(served: ServedPartition, value: bytes) -> asyncio.Future[Appended]:
    answer: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
    served.submit(memoryview(value), -1, 60_000, ANY_EPOCH, answer.set_result)
    return answer


async def attached(served: ServedPartition, siblings: Siblings) -> None:
    siblings.watch(KEY, served, SIBLING)
    await until(lambda: not served.is_opening)


def test_what_comes_before_the_answer_to_a_watch_counts(tmp_path: Path) -> None:
    """Views, and a hold: an append waits until the sibling says to go on."""

    async def test(served: ServedPartition, played: Played, siblings: Siblings) -> None:
        def before(handle: int) -> None:
            played.show(3)
            played.link.tell("hold", {"handle": handle})

        played.before = before
        siblings.watch(KEY, served, SIBLING)
        submit(served, b"kept")
        await until(lambda: served.log.view)
        await played.link.ping(30)
        assert served.log.view is not None and served.log.view.high_watermark == 3
        assert served.is_opening and not played.heard
        played.link.tell("go_on", {"handle": played.handle})
        assert await until(lambda: played.heard) == [b"kept"]

    run(tmp_path, test)


def test_a_hold_is_answered_behind_all_that_was_appended_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also behind what came in the same turn of the event loop, and has not been sent yet."""

    async def test(served: ServedPartition, played: Played, siblings: Siblings) -> None:
        await attached(served, siblings)
        sent: list[str] = []
        link = (await siblings._sibling(SIBLING)).link
        send, send_gathered, detach = link.send, link.send_gathered, served.detach

        def answered(*args: Any) -> None:
            sent.append("answer")
            send(*args)

        def gathered(found: Any) -> None:
            sent.append("appends")
            send_gathered(found)

        def appended_meanwhile() -> None:
            submit(served, b"just before")
            detach()
            submit(served, b"kept")

        monkeypatch.setattr(link, "send", answered)
        monkeypatch.setattr(link, "send_gathered", gathered)
        monkeypatch.setattr(served, "detach", appended_meanwhile)
        await played.link.call("hold", {"handle": played.handle}, 30)
        assert sent == ["appends", "answer"]
        assert played.heard == [b"just before"]

    run(tmp_path, test)


@pytest.mark.parametrize("ends", ["gone", "link"])
def test_the_end_of_a_partition_there_does_not_touch_it_where_it_was_opened_since(ends: str, tmp_path: Path) -> None:
    """It moved to another sibling, and what the first says of it comes later."""

    async def test(served: ServedPartition, played: Played, siblings: Siblings) -> None:
        other, path = Played(), str(tmp_path / "o")
        listening = await serve_unix(path, SECRET, {"role": "replica"}, other.accept)
        siblings.living({SIBLING: str(tmp_path / "s"), SIBLING + 1: path})
        await attached(served, siblings)
        other.before = lambda handle: other.show(7)
        siblings.watch(KEY, served, SIBLING + 1)
        await until(lambda: served.log.view and not served.is_opening)
        link = (await siblings._sibling(SIBLING)).link
        played.show(3)
        if ends == "gone":
            played.link.tell("gone", {"handle": played.handle, "moves": True})
            await played.link.ping(30)
        else:
            played.link.transport.abort()
            await link.ended
        submit(served, b"there")
        await until(lambda: other.heard)
        assert not served.is_opening and not played.heard
        assert served.log.view is not None and served.log.view.high_watermark == 7
        listening.close()

    run(tmp_path, test)


@pytest.mark.parametrize("ends", ["gone", "link"])
def test_what_ended_there_is_watched_again_while_it_is_still_said_to_be_there(ends: str, tmp_path: Path) -> None:
    async def test(served: ServedPartition, played: Played, siblings: Siblings) -> None:
        await attached(served, siblings)
        first = played.link, played.handle
        unanswered = submit(served, b"lost")
        await until(lambda: played.heard)
        if ends == "gone":
            played.link.tell("gone", {"handle": played.handle, "moves": False})
        else:
            played.link.transport.abort()
            assert (await unanswered).error is ErrorCode.NOT_LEADER_OR_FOLLOWER
        await until(lambda: (played.link, played.handle) != first and not served.is_opening)
        await until(lambda: played.heard[-1] == b"again" or (submit(served, b"again") and False))

    run(tmp_path, test)


def test_a_partition_that_is_of_no_use_is_not_watched_any_more(tmp_path: Path) -> None:
    async def test(served: ServedPartition, played: Played, siblings: Siblings) -> None:
        await attached(served, siblings)
        played.show(3)
        await until(lambda: served.log.view)
        siblings.forget(KEY)
        assert served.log.view is None and served.is_opening
        assert await until(lambda: played.unwatched) == [played.handle]

    run(tmp_path, test)
