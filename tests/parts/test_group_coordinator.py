"""The coordinator: which groups it answers for, what it knows after loading, and its life on the link to the broker."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from kio.index import load_request_schema, load_response_schema
from kio.serial import entity_reader, entity_writer

from raykafka.cluster.coordinator_partition import partition_for
from raykafka.coordinator import messages
from raykafka.coordinator.classic.events import Heartbeat, Join, Leave, Leaving, Sync
from raykafka.coordinator.group.config import GroupConfig
from raykafka.coordinator.group_coordinator import Coordinator, KnownTopic, new_request
from raykafka.coordinator.offsets.events import Commit, CommittedOffset
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.link import Link, serve_unix
from raykafka.protocol.context import pack_forward
from raykafka.types import TopicPartition
from tests.lab.group_log import OffsetsLogOnDisk
from tests.lab.served import request_context

CONFIG = GroupConfig(group_initial_rebalance_delay_ms=0)
T0 = TopicPartition("t", 0)
DEADLINE_S = 30.0


def with_log(play: Callable[[OffsetsLogOnDisk], Awaitable[None]], directory: Path) -> None:
    async def run() -> None:
        log = OffsetsLogOnDisk(directory)
        try:
            await asyncio.wait_for(play(log), DEADLINE_S)
        finally:
            log.close()

    asyncio.run(run())


async def leading(log: OffsetsLogOnDisk, epoch: int = 1, config: GroupConfig = CONFIG) -> Coordinator:
    coordinator = Coordinator(config, log)
    coordinator.lead(0, epoch, 1)
    await coordinator.loaded()
    return coordinator


def a_commit(offset: int, member_id: str = "", generation: int = -1) -> Commit:
    return Commit(new_request(), member_id, None, generation, {T0: CommittedOffset(offset, 3, "note", 77)})


async def a_stable_member(coordinator: Coordinator, group_id: str = "g") -> str:
    join = Join(new_request(), "", "instance", "m", "c", "/h", 10_000, 5_000, "consumer", (("range", b"s"),))
    joined = await coordinator.join(group_id, join)
    sync = Sync(new_request(), "m", "instance", joined.generation, "consumer", "range", {"m": b"part"})
    assert (await coordinator.sync(group_id, sync)).assignment == b"part"
    return joined.member_id


def test_a_successor_knows_what_was_answered(tmp_path: Path) -> None:
    async def play(log: OffsetsLogOnDisk) -> None:
        first = await leading(log)
        await a_stable_member(first)
        await first.commit("g", a_commit(5, "m", 1))
        await first.commit("g", a_commit(6, "m", 1))
        await first.commit("other", a_commit(9))
        await first.commit("gone", a_commit(1))
        assert await first.delete("gone") is ErrorCode.NONE
        second = await leading(log, epoch=2)
        assert second.committed("g", [T0]) == {T0: CommittedOffset(6, 3, "note", 77)}
        assert second.committed("other", None) == {T0: CommittedOffset(9, 3, "note", 77)}
        assert second.describe("gone") is None
        assert await second.heartbeat("g", Heartbeat(new_request(), "m", "instance", 1)) is ErrorCode.NONE
        sync = Sync(new_request(), "m", "instance", 1, None, None, {})
        assert (await second.sync("g", sync)).assignment == b"part"

    with_log(play, tmp_path)


async def _begun(*requests: Awaitable[Any]) -> list[asyncio.Future[Any]]:
    """Requests whose appends are on their way, in that order."""
    begun: list[asyncio.Future[Any]] = [asyncio.ensure_future(request) for request in requests]
    await asyncio.sleep(0)
    return begun


async def _one_of_two_deletions_decided(log: OffsetsLogOnDisk) -> tuple[Coordinator, asyncio.Future[Any]]:
    """A coordinator whose group ``g`` had one offset, deleted twice at once, and the second deletion: the first is
    decided and answered. Appends are held from here on."""
    coordinator = await leading(log)
    await coordinator.commit("g", a_commit(5))
    log.hold = True
    first, second = await _begun(coordinator.delete_offsets("g", (T0,)), coordinator.delete_offsets("g", (T0,)))
    assert log.release(most=1) == 1
    assert (await first).partitions == {T0: ErrorCode.NONE}
    return coordinator, second


def test_deletions_of_one_offset_that_overlap_are_both_answered(tmp_path: Path) -> None:
    async def play(log: OffsetsLogOnDisk) -> None:
        coordinator, second = await _one_of_two_deletions_decided(log)
        assert not second.done()
        assert log.release() == 1
        assert (await second).partitions == {T0: ErrorCode.NONE}
        assert coordinator.describe("g") is None

    with_log(play, tmp_path)


def test_a_deletion_behind_a_commit_that_is_refused_is_answered(tmp_path: Path) -> None:
    async def play(log: OffsetsLogOnDisk) -> None:
        coordinator = await leading(log)
        log.hold = True
        commit, deletion = await _begun(coordinator.commit("g", a_commit(5)), coordinator.delete_offsets("g", (T0,)))
        log.release(ErrorCode.REQUEST_TIMED_OUT, most=1)
        assert (await commit)[T0] is ErrorCode.REQUEST_TIMED_OUT
        log.release()
        assert (await deletion).partitions == {T0: ErrorCode.NONE}
        assert coordinator.describe("g") is None

    with_log(play, tmp_path)


def test_a_group_that_is_used_again_while_its_last_offset_goes_ends_only_with_its_tombstones(tmp_path: Path) -> None:
    async def play(log: OffsetsLogOnDisk) -> None:
        coordinator, second = await _one_of_two_deletions_decided(log)
        (commit,) = await _begun(coordinator.commit("g", a_commit(6)))
        log.release()
        assert (await second).partitions == {T0: ErrorCode.NONE}
        assert (await commit)[T0] is ErrorCode.NONE
        (deletion,) = await _begun(coordinator.delete("g"))
        assert coordinator.describe("g") is not None and not deletion.done()
        log.release(ErrorCode.NOT_ENOUGH_REPLICAS)
        assert await deletion is ErrorCode.COORDINATOR_NOT_AVAILABLE
        assert coordinator.committed("g", [T0])[T0] == CommittedOffset(6, 3, "note", 77)

    with_log(play, tmp_path)


def test_an_expiry_between_a_deletion_and_its_end_leaves_the_group_usable(tmp_path: Path) -> None:
    async def play(log: OffsetsLogOnDisk) -> None:
        coordinator, second = await _one_of_two_deletions_decided(log)
        coordinator.expire_offsets()
        (commit,) = await _begun(coordinator.commit("g", a_commit(6)))
        log.release()
        await second
        assert (await commit)[T0] is ErrorCode.NONE

    with_log(play, tmp_path)


def test_a_member_that_is_not_heard_of_after_loading_is_removed(tmp_path: Path) -> None:
    async def play(log: OffsetsLogOnDisk) -> None:
        config = GroupConfig(group_initial_rebalance_delay_ms=0, group_min_session_timeout_ms=100)
        first = await leading(log, config=config)
        join = Join(new_request(), "", None, "m", "c", "/h", 300, 5_000, "consumer", (("range", b"s"),))
        await first.join("g", join)
        await first.sync("g", Sync(new_request(), "m", None, 1, None, None, {}))
        first.stop()
        second = await leading(log, epoch=2, config=config)
        group = second.describe("g")
        assert group is not None and group.members
        while group.members:
            await asyncio.sleep(0.01)
        assert group.generation == 2

    with_log(play, tmp_path)


def test_only_the_coordinator_of_a_group_answers_for_it(tmp_path: Path) -> None:
    async def play(log: OffsetsLogOnDisk) -> None:
        coordinator = Coordinator(CONFIG, log)
        assert (await coordinator.commit("g", a_commit(1)))[T0] is ErrorCode.NOT_COORDINATOR
        here = partition_for("g", 4)
        coordinator.lead(here, 1, 4)
        assert (await coordinator.commit("g", a_commit(1)))[T0] is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
        assert await coordinator.heartbeat("g", Heartbeat(new_request(), "m", None, 1)) is ErrorCode.NONE
        sync = Sync(new_request(), "m", None, 1, None, None, {})
        assert (await coordinator.sync("g", sync)).error is ErrorCode.REBALANCE_IN_PROGRESS
        assert coordinator.list()[0] is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
        await coordinator.loaded()
        assert (await coordinator.commit("g", a_commit(1)))[T0] is ErrorCode.NONE
        elsewhere = next(f"g{i}" for i in range(100) if partition_for(f"g{i}", 4) != here)
        assert (await coordinator.commit(elsewhere, a_commit(1)))[T0] is ErrorCode.NOT_COORDINATOR
        with pytest.raises(KafkaError) as refused:
            coordinator.describe(elsewhere)
        assert refused.value.code is ErrorCode.NOT_COORDINATOR

    with_log(play, tmp_path)


def test_resigning_sends_everybody_elsewhere(tmp_path: Path) -> None:
    async def play(log: OffsetsLogOnDisk) -> None:
        coordinator = await leading(log)
        await a_stable_member(coordinator)
        waiting = asyncio.ensure_future(
            coordinator.join(
                "g", Join(new_request(), "", None, "n", "c", "/h", 10_000, 5_000, "consumer", (("range", b"s"),))
            )
        )
        log.hold = True
        committing = asyncio.ensure_future(coordinator.commit("g", a_commit(5, "m", 1)))
        await asyncio.sleep(0)
        coordinator.resign(0, 1)
        assert (await waiting).error is ErrorCode.NOT_COORDINATOR
        assert await coordinator.heartbeat("g", Heartbeat(new_request(), "m", None, 1)) is ErrorCode.NOT_COORDINATOR
        log.release(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        assert (await committing)[T0] is ErrorCode.NOT_COORDINATOR
        coordinator.lead(0, 1, 1)
        assert await coordinator.heartbeat("g", Heartbeat(new_request(), "m", None, 1)) is ErrorCode.NOT_COORDINATOR
        log.hold = False
        coordinator.lead(0, 2, 1)
        await coordinator.loaded()
        assert await coordinator.heartbeat("g", Heartbeat(new_request(), "m", None, 1)) is ErrorCode.NONE

    with_log(play, tmp_path)


def test_calls_of_the_past_change_nothing(tmp_path: Path) -> None:
    async def play(log: OffsetsLogOnDisk) -> None:
        coordinator = await leading(log, epoch=5)
        await coordinator.commit("g", a_commit(1))
        coordinator.resign(0, 4)
        coordinator.lead(0, 4, 1)
        coordinator.lead(0, 5, 1)
        assert coordinator.committed("g", [T0])[T0] is not None

    with_log(play, tmp_path)


def test_an_append_of_an_old_epoch_is_refused(tmp_path: Path) -> None:
    async def play(log: OffsetsLogOnDisk) -> None:
        coordinator = await leading(log)
        log.fence(0, 2)
        assert (await coordinator.commit("g", a_commit(1)))[T0] is ErrorCode.NOT_COORDINATOR

    with_log(play, tmp_path)


def test_a_new_epoch_is_loaded_after_the_appends_of_the_one_before_are_decided(tmp_path: Path) -> None:
    """Else a commit could be answered as done that the new state does not have."""

    async def play(log: OffsetsLogOnDisk) -> None:
        coordinator = await leading(log)
        log.hold = True
        committing = asyncio.ensure_future(coordinator.commit("g", a_commit(5)))
        await asyncio.sleep(0)
        coordinator.lead(0, 2, 1)
        coordinator.lead(0, 3, 1)
        loading = asyncio.ensure_future(coordinator.loaded())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not loading.done()
        log.release()
        assert (await committing)[T0] is ErrorCode.NONE
        await loading
        assert coordinator.committed("g", [T0])[T0] == CommittedOffset(5, 3, "note", 77)

    with_log(play, tmp_path)


def test_offsets_of_topics_deleted_while_loading_go_as_well(tmp_path: Path) -> None:
    async def play(log: OffsetsLogOnDisk) -> None:
        first = await leading(log)
        await first.commit("g", a_commit(5))
        second = Coordinator(CONFIG, log)
        second.take_image(1, {"t": KnownTopic("1", 1)}, (), {0: 2}, 1, full=True)
        second.take_image(2, {}, ["t"], {0: 2}, 1, full=False)
        await second.loaded()
        while second.describe("g") is not None:
            await asyncio.sleep(0.01)
        assert not second.exists(T0)
        assert (await leading(log, epoch=3)).describe("g") is None

    with_log(play, tmp_path)


def test_each_image_is_taken_once_whichever_actor_tells_it_first(tmp_path: Path) -> None:
    async def play(log: OffsetsLogOnDisk) -> None:
        coordinator = Coordinator(CONFIG, log)
        old, new = KnownTopic("1", 1), KnownTopic("2", 1)
        coordinator.take_image(3, {"t": old}, (), {0: 2}, 1, full=True)
        await coordinator.loaded()
        await coordinator.commit("g", a_commit(5))
        coordinator.take_image(4, {"t": new}, (), {0: 2}, 1, full=False)
        while coordinator.describe("g") is not None:
            await asyncio.sleep(0.01)
        await coordinator.commit("g", a_commit(6))
        # another actor, a little late; a third has only just begun
        coordinator.take_image(3, {"t": old}, (), {}, 1, full=True)
        coordinator.take_image(4, {"t": new}, ["t"], {0: 2}, 1, full=False)
        coordinator.take_image(4, {"t": new}, (), {0: 2}, 1, full=True)
        await asyncio.sleep(0)
        assert coordinator.committed("g", [T0]) == {T0: CommittedOffset(6, 3, "note", 77)}
        assert coordinator.exists(T0)

    with_log(play, tmp_path)


def test_what_an_image_does_not_name_is_gone(tmp_path: Path) -> None:
    async def play(log: OffsetsLogOnDisk) -> None:
        coordinator = Coordinator(CONFIG, log)
        coordinator.take_image(1, {"t": KnownTopic("1", 1), "u": KnownTopic("2", 1)}, (), {0: 2}, 1, full=True)
        await coordinator.loaded()
        await coordinator.commit("g", a_commit(5))
        coordinator.take_image(3, {"u": KnownTopic("2", 1)}, (), {0: 2}, 1, full=True)
        while coordinator.describe("g") is not None:
            await asyncio.sleep(0.01)
        assert not coordinator.exists(T0) and coordinator.exists(TopicPartition("u", 0))
        coordinator.take_image(4, {}, (), {}, 1, full=False)
        assert (await coordinator.commit("g", a_commit(5)))[T0] is ErrorCode.NOT_COORDINATOR
        assert coordinator.exists(TopicPartition("u", 0))

    with_log(play, tmp_path)


def test_a_topic_made_again_under_its_name_has_none_of_the_offsets_of_the_one_before(tmp_path: Path) -> None:
    async def play(log: OffsetsLogOnDisk) -> None:
        coordinator = Coordinator(CONFIG, log)
        coordinator.take_image(1, {"t": KnownTopic("1", 1)}, (), {0: 2}, 1, full=True)
        await coordinator.loaded()
        await coordinator.commit("g", a_commit(5))
        coordinator.take_image(2, {"t": KnownTopic("2", 1)}, (), {0: 2}, 1, full=False)
        while coordinator.describe("g") is not None:
            await asyncio.sleep(0.01)
        assert coordinator.exists(T0)

    with_log(play, tmp_path)


def test_loading_asks_again_while_the_partition_can_not_be_read(tmp_path: Path) -> None:
    async def play(log: OffsetsLogOnDisk) -> None:
        first = await leading(log)
        for offset in range(50):
            await first.commit(f"g{offset % 7}", a_commit(offset))
        refusals = 3
        plain = log.read

        async def read(partition: int, leader_epoch: int, offset: int, max_bytes: int) -> Any:
            nonlocal refusals
            refusals -= 1
            if refusals > 0:
                return messages.LogRecords(0, ErrorCode.OFFSET_NOT_AVAILABLE), memoryview(b"")
            head, data = await plain(partition, leader_epoch, offset, 300)
            if refusals > -5 and not offset:
                # the high watermark is not there yet: nothing committed to be read
                return messages.LogRecords(0, ErrorCode.NONE, 0, head.log_end_offset), memoryview(b"")
            return head, data

        log.read = read  # type: ignore[method-assign]
        second = await leading(log, epoch=2)
        found = {g: second.committed(g, [T0])[T0] for g in (f"g{i}" for i in range(7))}
        assert {g: committed.offset for g, committed in found.items() if committed is not None} == {
            f"g{offset % 7}": offset for offset in range(50)
        }

    with_log(play, tmp_path)


def test_expired_offsets_are_gone_for_the_successor_too(tmp_path: Path) -> None:
    async def play(log: OffsetsLogOnDisk) -> None:
        first = await leading(log)
        await first.commit("g", a_commit(5))
        first.expire_offsets()
        while first.describe("g") is not None:
            await asyncio.sleep(0.01)
        assert (await leading(log, epoch=2)).list() == (ErrorCode.NONE, [])

    with_log(play, tmp_path)


def test_a_group_that_was_never_joined_leaves_no_trace(tmp_path: Path) -> None:
    async def play(log: OffsetsLogOnDisk) -> None:
        coordinator = await leading(log)
        join = Join(new_request(), "", None, "m", "c", "/h", 10_000, 5_000, "", ())
        assert (await coordinator.join("g", join)).error is ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        await coordinator.leave("h", Leave(new_request(), (Leaving("m", None),)))
        assert coordinator.list() == (ErrorCode.NONE, [])
        assert log.appended == 0

    with_log(play, tmp_path)


def test_a_name_that_no_record_can_hold_is_refused(tmp_path: Path) -> None:
    async def play(log: OffsetsLogOnDisk) -> None:
        coordinator = await leading(log)
        assert (await coordinator.commit("g" * 40_000, a_commit(1)))[T0] is ErrorCode.INVALID_REQUEST
        assert coordinator.list() == (ErrorCode.NONE, [])

    with_log(play, tmp_path)


# the process


class Actor:
    """A replica actor's side of one coordinator's link: relays its frames to a log, and forwards requests."""

    def __init__(self, link: Link, log: OffsetsLogOnDisk) -> None:
        self.link = link
        self._log = log
        self._tasks: set[asyncio.Task[None]] = set()
        link.start(on_frame=self._frame)

    def _frame(self, kind: int, payload: memoryview) -> None:
        if kind == messages.LOG_APPEND:
            append, records = messages.LogAppend.unpack(payload)

            def done(error: ErrorCode, base_offset: int) -> None:
                answer = messages.LogAppended(append.correlation, error, base_offset)
                self.link.send(messages.LOG_APPENDED, answer.pack())

            self._log.append(append.partition, append.leader_epoch, records, append.timeout_ms, done)
        else:
            task = asyncio.ensure_future(self._read(messages.LogRead.unpack(payload)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _read(self, read: messages.LogRead) -> None:
        head, data = await self._log.read(read.partition, read.leader_epoch, read.offset, read.max_bytes)
        answer = messages.LogRecords(read.correlation, head.error, head.high_watermark, head.log_end_offset)
        self.link.send(messages.LOG_RECORDS, answer.pack(), data)

    async def ask(self, api_key: int, version: int, **values: Any) -> Any:
        buffer = io.BytesIO()
        schema = load_request_schema(api_key, version)
        entity_writer(schema)(buffer, schema(**values))
        context = request_context(api_key, version, "client")
        answer = await self.link.forward(*pack_forward(context, buffer.getvalue()))
        return entity_reader(load_response_schema(api_key, version))(answer.toreadonly(), 0)[0]


def test_the_process_serves_the_actors_that_its_broker_names_and_ends_with_the_brokers_link(tmp_path: Path) -> None:
    async def play(log: OffsetsLogOnDisk) -> None:
        secret, path, actors_path = os.urandom(16), str(tmp_path / "b.sock"), str(tmp_path / "a.sock")
        config = {"group.initial.rebalance.delay.ms": "0", "log.dirs": "/ignored"}
        loop = asyncio.get_running_loop()
        parent, child = loop.create_future(), loop.create_future()
        server = await serve_unix(path, secret, {"role": "broker"}, parent.set_result)
        actors = await serve_unix(actors_path, secret, {"role": "actor"}, child.set_result)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "raykafka.coordinator.actor", "--socket", path, "--token", "t"),
            *("--arguments", json.dumps({"broker_id": 3, "config": config})),
            env={**os.environ, "RAYKAFKA_SECRET_HEX": secret.hex()},
        )
        try:
            broker: Link = await parent
            broker.start()
            assert broker.peer["role"] == "coordinator" and broker.peer["pid"] == process.pid
            broker.tell("actors", {"actors": {"5": actors_path}})
            actor = Actor(await child, log)
            assert actor.link.peer == {"role": "coordinator", "broker_id": 3, "pid": process.pid}
            refused = await actor.ask(12, 0, group_id="g", generation_id=1, member_id="m")
            assert refused.error_code.value == ErrorCode.NOT_COORDINATOR
            image = {"image": 1, "full": True, "topics": {}, "deleted": [], "leads": [[0, 1]], "partitions": 1}
            actor.link.tell("image", image)
            while not (await broker.call("status", {}))["partitions"].get("0", {}).get("loaded"):
                await asyncio.sleep(0.01)
            unknown = await actor.ask(12, 0, group_id="g", generation_id=1, member_id="m")
            assert unknown.error_code.value == ErrorCode.UNKNOWN_MEMBER_ID
            malformed = pack_forward(request_context(12, 0, "client"), b"\0\5x")
            assert len(await actor.link.forward(*malformed)) == 0
            for link in (broker, actor.link):
                with pytest.raises(KafkaError, match="nonsense"):
                    await link.call("nonsense", {})
            await broker.ping(DEADLINE_S)
            broker.close()
            assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            server.close()
            actors.close()

    with_log(play, tmp_path)
