"""The life of a broker's partitions: asleep, woken, failed, led again, deleted, set aside, and back after a stop."""

from __future__ import annotations

import asyncio
import errno
import os
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from raykafka.broker.partitions import replica_process
from raykafka.broker.partitions.partition_host import PartitionHost
from raykafka.cluster.image import ClusterImage, ImageDelta, PartitionState
from raykafka.error_code import ErrorCode
from raykafka.log.batch import iter_batches, iter_records
from raykafka.log.seal import SEAL_FILE
from raykafka.types import TopicPartition
from tests.lab.dataplane import TOPIC, Dataplane, append, batch
from tests.lab.loop_waiting import until


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


def host_of(dataplane: Dataplane, topic: str = TOPIC, partition: int = 0) -> PartitionHost:
    host = dataplane.partitions.get((topic, partition))
    assert host is not None
    return host


async def stored(dataplane: Dataplane, topic: str = TOPIC) -> list[bytes | None]:
    data = await host_of(dataplane, topic).log.read(0, 1 << 24)
    return [r.value for at, h in iter_batches(data) for r in iter_records(data[at : at + h.size])]


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


# asleep


def test_a_partition_that_is_not_written_has_no_process_and_no_files(tmp_path: Path) -> None:
    async def test() -> None:
        async with Dataplane(tmp_path) as dataplane:
            await dataplane.create(partitions=200)
            assert len(dataplane.partitions) == 200
            await dataplane.produce(batch(b"a"), partition=7)
            assert len(dataplane.children.acquired) == 1
            assert names(tmp_path) == [f"{TOPIC}-7"]
            lives = {status["life"] for status in dataplane.partitions.status()}
            assert lives == {"asleep", "awake"}

    run(test)


# failing


def test_a_dead_replica_is_reported_and_leads_again_only_in_a_new_epoch(tmp_path: Path) -> None:
    async def test() -> None:
        async with Dataplane(tmp_path) as dataplane:
            await dataplane.create()
            dataplane.controller_calls.elects = False
            await dataplane.produce(batch(b"a"))
            host = host_of(dataplane)
            dataplane.children.acquired[0].kill()
            await until(lambda: host.life == "failed")
            assert host.log.view is None and host.log.reader is None
            assert [(tp, epoch) for tp, epoch, _ in dataplane.controller_calls.reports] == [((TOPIC, 0), 0)]
            answer = await dataplane.produce(batch(b"lost"))
            assert answer.error_code.value == ErrorCode.NOT_LEADER_OR_FOLLOWER
            topic = dataplane.image.topics[TOPIC]
            same_epoch = type(topic)(topic.name, topic.id, topic.partitions, {"retention.ms": "1000"})
            await dataplane.take(ImageDelta(topics={TOPIC: same_epoch}))
            assert host.life == "failed"
            await dataplane.lead()
            assert (await dataplane.produce(batch(b"b"))).base_offset == 1
            assert await stored(dataplane) == [b"a", b"b"]
            assert host.log.view is not None and host.log.view.leader_epoch == 1
            assert host.failures.count == 1

    run(test)


def test_a_replica_that_hangs_does_not_keep_the_broker_from_the_next_decision(tmp_path: Path) -> None:
    async def test() -> None:
        async with Dataplane(tmp_path) as dataplane:
            await dataplane.create()
            await dataplane.produce(batch(b"a"))
            hanging = dataplane.children.acquired[0]
            hanging.stop_reading()
            for _ in range(3):
                await dataplane.lead()
            await dataplane.create("other")
            assert (await dataplane.produce(batch(b"b"), "other")).base_offset == 0
            hanging.read_on()
            host = host_of(dataplane)
            await until(lambda: host.log.view is not None and host.log.view.leader_epoch == 3)
            assert (await dataplane.produce(batch(b"c"))).base_offset == 1

    run(test)


def test_a_replica_that_diverged_stays_stopped_until_another_epoch(tmp_path: Path) -> None:
    async def test() -> None:
        async with Dataplane(tmp_path) as dataplane:
            await dataplane.create()
            await dataplane.produce(batch(b"a"))
            await dataplane.lead(leader=1)
            host = host_of(dataplane)
            dataplane.children.acquired[0].replica._on_failed("its log diverged", True)
            await until(lambda: host.life == "failed")
            topic = dataplane.image.topics[TOPIC]
            same_epoch = type(topic)(topic.name, topic.id, topic.partitions, {"retention.ms": "1000"})
            await dataplane.take(ImageDelta(topics={TOPIC: same_epoch}))
            assert (host.life, host.describe()["failure"]) == ("failed", "its log diverged")
            assert len(dataplane.children.acquired) == 1
            await dataplane.lead()
            assert (await dataplane.produce(batch(b"b"))).base_offset == 1
            assert host.describe()["failure"] == ""

    run(test)


def test_writes_under_way_to_a_dead_replica_are_answered_retriable(tmp_path: Path) -> None:
    async def test() -> None:
        async with Dataplane(tmp_path) as dataplane:
            await dataplane.create()
            await dataplane.produce(batch(b"a"))
            replica = dataplane.children.acquired[0]
            replica.stop_reading()
            writes = [asyncio.ensure_future(dataplane.produce(batch(b"x"))) for _ in range(3)]
            await asyncio.sleep(0.02)
            assert not any(write.done() for write in writes)
            replica.kill()
            answers = await asyncio.gather(*writes)
            assert {a.error_code.value for a in answers} == {ErrorCode.NOT_LEADER_OR_FOLLOWER}
            await until(lambda: host_of(dataplane).life == "awake")
            assert await stored(dataplane) == [b"a"]

    run(test)


def test_a_successor_waits_for_the_log_and_a_process_that_holds_it_long_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica_process, "LEAVE_WITHIN_S", 0.2)

    async def test() -> None:
        async with Dataplane(tmp_path) as dataplane:
            await dataplane.create()
            await dataplane.produce(batch(b"a"))
            replica = dataplane.children.acquired[0]
            replica.stop_reading()  # it does not notice that its link has ended
            replica.link.transport.abort()
            await until(lambda: host_of(dataplane).failures.count == 1)
            await until(lambda: host_of(dataplane).life == "awake")
            assert len(dataplane.controller_calls.reports) == 1
            assert (await dataplane.produce(batch(b"b"))).base_offset == 1

    run(test)


def test_a_log_that_can_not_be_cut_back_ends_its_leadership(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule 2: what a write left half done, and can't be taken away, must not be taken for a batch of this epoch."""

    def torn(fd: int, data: memoryview, position: int) -> int:
        if not failing:
            return pwrite(fd, data, position)
        pwrite(fd, data[: len(data) // 2], position)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def refuse(fd: int, length: int) -> None:
        if failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        ftruncate(fd, length)

    failing, pwrite, ftruncate = False, os.pwrite, os.ftruncate
    monkeypatch.setattr(os, "pwrite", torn)
    monkeypatch.setattr(os, "ftruncate", refuse)

    async def test() -> None:
        nonlocal failing
        async with Dataplane(tmp_path) as dataplane:
            await dataplane.create()
            await dataplane.produce(batch(b"a"))
            failing, dataplane.controller_calls.elects = True, False
            answer = await dataplane.produce(batch(b"torn"))
            assert answer.error_code.value == ErrorCode.KAFKA_STORAGE_ERROR
            await until(lambda: bool(dataplane.controller_calls.reports))
            failing = False
            answer = await dataplane.produce(batch(b"in the same epoch"))
            assert answer.error_code.value == ErrorCode.NOT_LEADER_OR_FOLLOWER
            await dataplane.lead()
            assert (await dataplane.produce(batch(b"b"))).base_offset == 1
            assert await stored(dataplane) == [b"a", b"b"]

    run(test)


def test_a_full_failure_is_retried_with_each_election(tmp_path: Path) -> None:
    """A directory that can't be opened, until it can."""

    async def test() -> None:
        async with Dataplane(tmp_path) as dataplane:
            await dataplane.create()
            (tmp_path / f"{TOPIC}-0").write_text("in the way")
            answer = await dataplane.produce(batch(b"a"))
            assert answer.error_code.value == ErrorCode.NOT_LEADER_OR_FOLLOWER
            await until(lambda: len(dataplane.controller_calls.reports) >= 2)
            (tmp_path / f"{TOPIC}-0").unlink()
            await until(lambda: host_of(dataplane).life == "awake")
            assert (await dataplane.produce(batch(b"a"))).error_code.value == ErrorCode.NONE

    run(test)


# states and configs


def test_appends_go_to_the_epoch_that_they_name_only(tmp_path: Path) -> None:
    async def test() -> None:
        async with Dataplane(tmp_path) as dataplane:
            await dataplane.create()
            host = host_of(dataplane)
            assert (await append(host, memoryview(batch(b"a")), -1, 1000, 0)).error == ErrorCode.NONE
            await dataplane.lead()
            assert (await append(host, memoryview(batch(b"b")), -1, 1000, 0)).error == ErrorCode.NOT_LEADER_OR_FOLLOWER
            assert (await append(host, memoryview(batch(b"c")), -1, 1000, 1)).error == ErrorCode.NONE
            assert await stored(dataplane) == [b"a", b"c"]

    run(test)


def test_an_applied_image_is_in_force(tmp_path: Path) -> None:
    async def test() -> None:
        async with Dataplane(tmp_path) as dataplane:
            topic_id = await dataplane.create(max_message_bytes="1000000")
            await dataplane.produce(batch(b"a"))
            topic = dataplane.image.topics[TOPIC]
            assert topic.id == topic_id
            small = type(topic)(topic.name, topic.id, topic.partitions, {"max.message.bytes": "100"})
            await dataplane.take(ImageDelta(topics={TOPIC: small}))
            answer = await dataplane.produce(batch(b"x" * 500))
            assert answer.error_code.value == ErrorCode.MESSAGE_TOO_LARGE
            await dataplane.lead(leader=1)
            assert (await dataplane.produce(batch(b"b"))).error_code.value == ErrorCode.NOT_LEADER_OR_FOLLOWER

    run(test)


def test_a_changed_broker_config_reaches_awake_replicas(tmp_path: Path) -> None:
    async def test() -> None:
        async with Dataplane(tmp_path) as dataplane:
            await dataplane.create()
            await dataplane.produce(batch(b"a"))
            changed = ImageDelta(broker_configs={"": {"message.max.bytes": "100"}})
            dataplane.configs.apply(dataplane.image.apply(changed))
            await dataplane.take(changed)
            answer = await dataplane.produce(batch(b"x" * 500))
            assert answer.error_code.value == ErrorCode.MESSAGE_TOO_LARGE

    run(test)


def test_an_older_state_is_refused(tmp_path: Path) -> None:
    """Rule 16: decisions may come from a controller that does not know yet that it is none any more."""

    async def test() -> None:
        async with Dataplane(tmp_path) as dataplane:
            await dataplane.create()
            await dataplane.produce(batch(b"a"))
            before = dataplane.image
            await dataplane.lead(leader=1)
            await dataplane.partitions.apply(before)
            assert host_of(dataplane).state.leader == 1
            answer = await dataplane.produce(batch(b"b"))
            assert answer.error_code.value == ErrorCode.NOT_LEADER_OR_FOLLOWER

    run(test)


# deleting


def test_a_deleted_topic_is_renamed_away_and_its_files_go_after_the_delay(tmp_path: Path) -> None:
    async def test() -> None:
        async with Dataplane(tmp_path) as dataplane:
            await dataplane.create(file_delete_delay_ms="300")
            await dataplane.produce(batch(b"a"))
            await dataplane.delete()
            answer = await dataplane.produce(batch(b"b"))
            assert answer.error_code.value == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            await until(lambda: all(name.endswith("-delete") for name in names(tmp_path)))
            assert names(tmp_path)[0].startswith(f"{TOPIC}-0.")
            await until(lambda: not names(tmp_path))

    run(test)


def test_a_topic_made_again_under_its_name_begins_empty(tmp_path: Path) -> None:
    async def test() -> None:
        async with Dataplane(tmp_path) as dataplane:
            for number in range(5):
                await dataplane.create()
                answers = [await dataplane.produce(batch(b"%d" % number)) for _ in range(2)]
                assert [a.base_offset for a in answers] == [0, 1]
                assert await stored(dataplane) == [b"%d" % number] * 2
                await dataplane.delete()

    run(test)


def test_a_topic_deleted_while_its_log_is_being_opened_leaves_nothing_in_the_way_of_its_successor(
    tmp_path: Path,
) -> None:
    async def test() -> None:
        async with Dataplane(tmp_path) as dataplane:
            children = dataplane.children
            children.hang_new = True
            await dataplane.create()
            write = asyncio.ensure_future(dataplane.produce(batch(b"a")))
            await until(lambda: bool(children.acquired))
            children.hang_new = False
            await dataplane.delete()
            assert (await write).error_code.value == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            await until(lambda: children.acquired[0].link.is_closed)
            children.acquired[0].read_on()  # a process that still runs does what it was asked for before
            await children.acquired[0].replica.ended
            await dataplane.create()
            assert (await dataplane.produce(batch(b"b"))).error_code.value == ErrorCode.NONE
            assert await stored(dataplane) == [b"b"]

    run(test)


def test_a_deletion_that_fails_is_told_to_who_writes_to_the_topics_successor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: object, target: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async def test() -> None:
        async with Dataplane(tmp_path) as dataplane:
            await dataplane.create()
            await dataplane.produce(batch(b"a"))
            monkeypatch.setattr(os, "rename", refuse)
            await dataplane.delete()
            await dataplane.create()
            answer = await dataplane.produce(batch(b"b"))
            assert answer.error_code.value == ErrorCode.NOT_LEADER_OR_FOLLOWER
            assert "holds topic id" in answer.error_message

    run(test)


def test_a_name_of_the_longest_kind_can_be_deleted(tmp_path: Path) -> None:
    async def test() -> None:
        topic = "x" * 249
        async with Dataplane(tmp_path) as dataplane:
            await dataplane.create(topic)
            await dataplane.produce(batch(b"a"), topic)
            await dataplane.delete(topic)
            await until(lambda: [len(name) for name in names(tmp_path)] == [255])

    run(test)


def test_a_deletion_that_a_stop_cut_short_is_finished(tmp_path: Path) -> None:
    async def test() -> None:
        left = tmp_path / f"{TOPIC}-0.{uuid.uuid4().hex}-delete"
        left.mkdir()
        (left / "00000000000000000000.log").touch()
        async with Dataplane(tmp_path) as dataplane:
            await dataplane.create("other")
            await until(lambda: not names(tmp_path))

    run(test)


# coming back


async def first_life(directory: Path) -> tuple[ClusterImage, dict[str, dict[TopicPartition, int]]]:
    """Write two topics and stop; the image and the checkpoints at the end."""
    async with Dataplane(directory) as dataplane:
        await dataplane.create()
        await dataplane.create("other")
        for value in (b"a", b"b"):
            await dataplane.produce(batch(value))
            await dataplane.produce(batch(value), "other")
        assert await dataplane.partitions.close()
        return dataplane.image, dataplane.partitions.checkpoints()


def test_logs_are_back_after_a_clean_stop(tmp_path: Path) -> None:
    async def test() -> None:
        image, checkpoints = await first_life(tmp_path)
        led_again = PartitionState((0,), 0, 1, (0,), 1)
        assert checkpoints["recovery-point-offset-checkpoint"] == {(TOPIC, 0): 2, ("other", 0): 2}
        assert checkpoints["replication-offset-checkpoint"] == {(TOPIC, 0): 2, ("other", 0): 2}
        async with Dataplane(tmp_path) as dataplane:
            dataplane.image = image.apply(
                ImageDelta(partitions={TopicPartition(t, 0): led_again for t in (TOPIC, "other")})
            )
            await dataplane.take(ImageDelta())
            assert host_of(dataplane, "other").life == "asleep"
            assert await stored(dataplane, "other") == [b"a", b"b"]
            assert (await dataplane.produce(batch(b"c"))).base_offset == 2
            assert await stored(dataplane) == [b"a", b"b", b"c"]

    run(test)


def test_checkpoints_are_kept_until_the_first_image_says_whose_they_are(tmp_path: Path) -> None:
    async def test() -> None:
        image, checkpoints = await first_life(tmp_path)
        known = Dataplane(tmp_path)
        known._checkpoints = checkpoints
        async with known as dataplane:
            assert dataplane.partitions.checkpoints() == {**checkpoints, "log-start-offset-checkpoint": {}}
            dataplane.image = image
            await dataplane.delete("other")
            assert list(dataplane.partitions.checkpoints()["recovery-point-offset-checkpoint"]) == [(TOPIC, 0)]

    run(test)


def test_an_epoch_of_an_earlier_life_is_not_led_again(tmp_path: Path) -> None:
    """Rule 1: the controller has not noticed the restart; the replica refuses, and the broker asks for an election."""

    async def test() -> None:
        image, _ = await first_life(tmp_path)
        async with Dataplane(tmp_path) as dataplane:
            dataplane.controller_calls.elects = False
            await dataplane.take(image.as_delta())
            await until(lambda: len(dataplane.controller_calls.reports) == 2)
            assert {epoch for _, epoch, _ in dataplane.controller_calls.reports} == {0}
            answer = await dataplane.produce(batch(b"c"))
            assert answer.error_code.value == ErrorCode.NOT_LEADER_OR_FOLLOWER
            await dataplane.lead()
            assert (await dataplane.produce(batch(b"c"))).base_offset == 2

    run(test)


def test_a_torn_tail_is_cut_and_whole_batches_are_kept(tmp_path: Path) -> None:
    async def test() -> None:
        image, _ = await first_life(tmp_path)
        log = tmp_path / f"{TOPIC}-0" / "00000000000000000000.log"
        whole = log.read_bytes()
        log.write_bytes(whole + whole[:50])
        async with Dataplane(tmp_path) as dataplane:
            dataplane.image = image
            await dataplane.lead()
            assert (await dataplane.produce(batch(b"c"))).base_offset == 2
            assert await stored(dataplane) == [b"a", b"b", b"c"]

    run(test)


def test_directories_of_other_topics_are_set_aside_and_never_read(tmp_path: Path) -> None:
    """Rule 19: a topic that is gone, one that was made again under its name, and one that moved to another broker."""

    async def test() -> None:
        async with Dataplane(tmp_path) as dataplane:
            for topic in ("gone", "again", "moved", "kept"):
                await dataplane.create(topic)
                await dataplane.produce(batch(topic.encode()), topic)
            image = dataplane.image
        (tmp_path / "empty-3").mkdir()
        (tmp_path / "no partition").mkdir()
        async with Dataplane(tmp_path) as dataplane:
            topics = {name: image.topics[name] for name in ("kept", "moved")}
            dataplane.image = dataplane.image.apply(ImageDelta(topics=topics))
            moved = topics["moved"]
            state = moved.partitions[0]
            elsewhere = type(state)((1,), 1, 1, (1,), 1)
            changed = type(moved)(moved.name, moved.id, {0: elsewhere}, moved.config)
            await dataplane.take(ImageDelta(topics={"moved": changed}))
            await dataplane.create("again")
            aside = [name for name in names(tmp_path) if name.endswith("-stray")]
            assert sorted(name.partition(".")[0] for name in aside) == ["again-0", "empty-3", "gone-0", "moved-0"]
            assert (await dataplane.produce(batch(b"new"), "again")).base_offset == 0
            assert await stored(dataplane, "again") == [b"new"]
            await dataplane.lead("kept")
            assert await stored(dataplane, "kept") == [b"kept"]
            assert "no partition" in names(tmp_path)

    run(test)


def test_a_fetch_waits_while_the_log_is_recovered(tmp_path: Path) -> None:
    async def test() -> None:
        image, _ = await first_life(tmp_path)
        (tmp_path / f"{TOPIC}-0" / SEAL_FILE).unlink()
        async with Dataplane(tmp_path) as dataplane:
            dataplane.children.gate.clear()
            dataplane.image = image
            await dataplane.lead()
            host = host_of(dataplane)
            assert host.life == "waking" and host.log.view is None
            read = asyncio.ensure_future(
                dataplane.ask(
                    1,
                    4,
                    # any client, 60 s, 1 byte, 1 MB, read uncommitted, one topic, one partition from 0
                    bytes.fromhex("ffffffff 0000ea60 00000001 00100000 00 00000001 0006")
                    + TOPIC.encode()
                    + bytes.fromhex("00000001 00000000 0000000000000000 00100000"),
                )
            )
            done, _ = await asyncio.wait([read], timeout=0.05)
            assert not done
            dataplane.children.gate.set()
            assert b"a" in await read

    run(test)


@pytest.mark.parametrize("awake", [True, False])
def test_closing_answers_what_waits(awake: bool, tmp_path: Path) -> None:
    async def test() -> None:
        async with Dataplane(tmp_path) as dataplane:
            await dataplane.create()
            if awake:
                await dataplane.produce(batch(b"a"))
            else:
                dataplane.children.gate.clear()
            write = asyncio.ensure_future(dataplane.produce(batch(b"b")))
            await asyncio.sleep(0)
            await dataplane.partitions.close()
            expected = {ErrorCode.NOT_LEADER_OR_FOLLOWER, *([ErrorCode.NONE] if awake else [])}
            assert (await write).error_code.value in expected

    run(test)
