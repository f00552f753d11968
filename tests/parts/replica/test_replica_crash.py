"""What a replica leaves behind when its process is killed, and when its disk is full."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from raykafka.error_code import ErrorCode
from tests.lab.log_parts import crash, files_limited_to
from tests.parts.replica.opened import BROKER, KEY, Broker, OpenReplica, batch, state, stored, with_replica

LIVES = 4


def killed_after(folder: Path, epoch: int, acks: int, count: int) -> dict[int, bytes]:
    """What a process answered that led ``epoch`` and was killed after so many answers, by offset."""
    command = [sys.executable, "-m", "tests.parts.replica.appending_process", str(folder), str(epoch), str(acks)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(count)]
        process.kill()
        lines += [line for line in process.stdout.read().splitlines(keepends=True) if line.endswith(b"\n")]
    return {int(line.split()[0]): line.split()[1] for line in lines}


@pytest.mark.parametrize("acks", [1, -1])
def test_every_answered_append_survives_kill_9(tmp_path: Path, acks: int) -> None:
    """The process dies in the middle of a stream of appends, several times over; nothing it answered is lost, moved or
    doubled."""
    answered: dict[int, bytes] = {}
    for life in range(LIVES):
        answered |= killed_after(tmp_path, life, acks, 100 + 50 * life)
    assert len(answered) >= 700

    async def check() -> None:
        broker = await Broker(BROKER, tmp_path).start()
        replica = broker.actors[0].on()
        log = await replica.open(state(LIVES))
        records = stored(replica.directory)
        assert [offset for offset, _, _ in records] == list(range(log.log_end_offset))
        held = {offset: value for offset, _, value in records}
        assert {offset: held.get(offset) for offset in answered} == answered
        assert len(set(held.values())) == len(held)
        await broker.close()

    asyncio.run(check())


def crashed(replica: OpenReplica) -> OpenReplica:
    """The next opening of a replica whose process ended without closing anything."""
    del replica.actor.replicas[KEY]
    crash(replica.replica.log)
    return replica.actor.on()


@with_replica
async def test_a_torn_tail_is_cut_and_nothing_whole_goes_with_it(replica: OpenReplica) -> None:
    await replica.open()
    for n in range(10):
        await replica.appended(batch(b"%d" % n))
    again = crashed(replica)
    torn = bytes(batch(b"torn", base_offset=10, leader_epoch=0))[:-3]
    with (replica.directory / "00000000000000000000.log").open("ab") as log:
        log.write(torn)
    opened = await again.open(state(1))
    assert (opened.recovered_bytes_cut, opened.log_end_offset) == (len(torn), 10)
    assert (await again.appended(batch(b"on"))).base_offset == 10


@with_replica
async def test_a_full_disk_refuses_appends_keeps_the_log_whole_and_goes_on_when_there_is_room(
    replica: OpenReplica,
) -> None:
    await replica.open()
    path = replica.directory / "00000000000000000000.log"
    await replica.appended(batch(b"first"))
    with files_limited_to(path.stat().st_size + 250_000):
        answers = [await replica.appended(batch(b"%d" % n * 100_000)) for n in range(4)]
        assert [a.error for a in answers] == [ErrorCode.NONE, ErrorCode.NONE] + [ErrorCode.KAFKA_STORAGE_ERROR] * 2
        assert answers[-1].message
        position = replica.views[-1].high_watermark_position.position
        assert path.stat().st_size == position, "a partial batch was left"
    assert (await replica.appended(batch(b"after"))).base_offset == 3
    values = [value for _, _, value in stored(replica.directory)]
    assert values == [b"first", b"0" * 100_000, b"1" * 100_000, b"after"]


@with_replica
async def test_killed_while_the_disk_is_full_the_log_opens_again(replica: OpenReplica) -> None:
    await replica.open()
    await replica.appended(batch(b"first"))
    with files_limited_to(50_000):
        assert (await replica.appended(batch(b"x" * 100_000))).error == ErrorCode.KAFKA_STORAGE_ERROR
    again = crashed(replica)
    assert (await again.open(state(1))).log_end_offset == 1
    assert (await again.appended(batch(b"second"))).base_offset == 1
