"""What a replica process leaves behind when it is killed, and when its disk is full."""

from __future__ import annotations

import asyncio
import random
import resource
from pathlib import Path

import pytest

from raykafka.error_code import ErrorCode
from tests.parts.replica.process import ReplicaProcess, batch, state, stored, with_replica


@pytest.mark.parametrize("acks", [1, -1])
def test_every_answered_append_survives_kill_9(tmp_path: Path, acks: int) -> None:
    """The process dies in the middle of a stream of appends, several times over; nothing it answered is lost, moved or
    doubled."""

    async def run() -> None:
        answered: dict[int, bytes] = {}
        for life in range(4):
            replica = ReplicaProcess(tmp_path)
            await replica.start()
            opened = await replica.open(state(life))
            assert opened["leads"]
            futures = []
            for n in range(400):
                value = b"%d-%d-" % (life, n) + b"x" * random.randrange(3000)
                futures.append((replica.append(batch(value), acks=acks), value))
                if n % 20 == 0:
                    await asyncio.sleep(0)
            await futures[100 + 50 * life][0]
            await replica.kill()
            for future, value in futures:
                if future.done():
                    assert future.result().error == ErrorCode.NONE
                    answered[future.result().base_offset] = value
        replica = ReplicaProcess(tmp_path)
        await replica.start()
        end = (await replica.open(state(9)))["log_end_offset"]
        records = stored(replica.directory)
        assert [offset for offset, _, _ in records] == list(range(end))
        held = {offset: value for offset, _, value in records}
        assert {offset: held.get(offset) for offset in answered} == answered
        values = [value for _, _, value in records]
        assert len(set(values)) == len(values)
        assert len(answered) >= 400
        await replica.stop()

    asyncio.run(run())


@with_replica
async def test_a_torn_tail_is_cut_and_nothing_whole_goes_with_it(replica: ReplicaProcess) -> None:
    await replica.open()
    for n in range(10):
        await replica.appended(batch(b"%d" % n))
    await replica.kill()
    torn = bytes(batch(b"torn", base_offset=10, leader_epoch=0))[:-3]
    with (replica.directory / "00000000000000000000.log").open("ab") as log:
        log.write(torn)
    again = ReplicaProcess(replica.directory.parent)
    await again.start()
    answer = await again.open(state(1))
    assert (answer["recovered_bytes_cut"], answer["log_end_offset"]) == (len(torn), 10)
    assert (await again.appended(batch(b"on"))).base_offset == 10
    await again.stop()


@with_replica
async def test_a_full_disk_refuses_appends_keeps_the_log_whole_and_goes_on_when_there_is_room(
    replica: ReplicaProcess,
) -> None:
    await replica.open()
    path = replica.directory / "00000000000000000000.log"
    await replica.appended(batch(b"first"))
    room = path.stat().st_size + 2500
    resource.prlimit(replica.process.pid, resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    answers = [await replica.appended(batch(b"%d" % n * 1000)) for n in range(4)]
    assert [a.error for a in answers] == [ErrorCode.NONE, ErrorCode.NONE] + [ErrorCode.KAFKA_STORAGE_ERROR] * 2
    assert answers[-1].message
    assert path.stat().st_size == replica.views[-1].high_watermark_position.position, "a partial batch was left"
    resource.prlimit(replica.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert (await replica.appended(batch(b"after"))).base_offset == 3
    values = [value for _, _, value in stored(replica.directory)]
    assert values == [b"first", b"0" * 1000, b"1" * 1000, b"after"]


@with_replica
async def test_killed_while_the_disk_is_full_the_log_opens_again(replica: ReplicaProcess) -> None:
    await replica.open()
    await replica.appended(batch(b"first"))
    resource.prlimit(replica.process.pid, resource.RLIMIT_FSIZE, (200, resource.RLIM_INFINITY))
    assert (await replica.appended(batch(b"x" * 1000))).error == ErrorCode.KAFKA_STORAGE_ERROR
    await replica.kill()
    again = ReplicaProcess(replica.directory.parent)
    await again.start()
    assert (await again.open(state(1)))["log_end_offset"] == 1
    assert (await again.appended(batch(b"second"))).base_offset == 1
    await again.stop()
