"""A replica process over its broker's socket: appends, views, states, configs, its end."""

from __future__ import annotations

import asyncio
import os

from raykafka.error_code import ErrorCode
from raykafka.log import LogReader
from raykafka.partition.view import View
from tests.parts.replica.process import ReplicaProcess, batch, refused, state, stored, with_replica


@with_replica
async def test_appends_are_answered_in_order_and_shown_before_their_answer(replica: ReplicaProcess) -> None:
    answer = await replica.open()
    assert (answer["leads"], answer["refused"], answer["log_end_offset"]) == (True, "", 0)
    futures = [replica.append(batch(b"%d" % n, b"more"), acks=acks) for n, acks in enumerate((-1, 1, 0) * 20)]
    answers = await asyncio.gather(*futures)
    assert [a.base_offset for a in answers] == list(range(0, 120, 2))
    assert all(a.error == ErrorCode.NONE and a.log_append_time_ms == -1 for a in answers)
    shown = 0
    for frame in replica.frames:
        if isinstance(frame, View):
            assert frame.high_watermark >= shown
            shown = frame.high_watermark
        else:
            assert frame.base_offset + 2 <= shown, "an answer overtook the view that shows its records"
    assert [offset for offset, _, _ in stored(replica.directory)] == list(range(120))


@with_replica
async def test_a_reader_in_another_process_reads_what_the_view_shows(replica: ReplicaProcess) -> None:
    await replica.open()
    for n in range(5):
        await replica.appended(batch(b"%d" % n))
    view = replica.views[-1]
    assert view.log_end_offset == view.high_watermark == view.last_stable_offset == 5
    reader = LogReader(replica.directory)
    reader.update(next(v.segments for v in reversed(replica.views) if v.segments), view.truncations)
    found = reader.read(2, 1 << 20, view.high_watermark_position)
    assert found is not None
    size = (replica.directory / "00000000000000000000.log").stat().st_size
    assert (found.position + found.length) == view.high_watermark_position.position == size
    reader.close()


@with_replica
async def test_many_appends_in_one_turn_share_a_view(replica: ReplicaProcess) -> None:
    await replica.open()
    before = len(replica.views)
    answers = await asyncio.gather(*[replica.append(batch(b"x")) for _ in range(400)])
    assert answers[-1].base_offset == 399
    assert len(replica.views) - before < 200


@with_replica
async def test_it_answers_pings_while_it_opens_a_log(replica: ReplicaProcess) -> None:
    replica.directory.mkdir()
    # Opening reads the leader-epoch file: a pipe holds it there until somebody writes.
    pipe = replica.directory / "leader-epoch-checkpoint"
    os.mkfifo(pipe)
    opening = asyncio.ensure_future(replica.open())
    await replica.link.ping(30)
    early = await replica.appended(batch(b"early"))
    assert early.error == ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert not opening.done()
    await asyncio.to_thread(pipe.write_text, "0\n0\n")
    assert (await opening)["leads"]


@with_replica
async def test_no_epoch_is_led_that_is_not_newer_than_those_on_disk(replica: ReplicaProcess) -> None:
    await replica.open(state(5))
    await replica.appended(batch(b"five"))
    assert (await replica.tell(state(5, version=1)))["leads"], "the process that began an epoch goes on leading it"
    await replica.kill()
    again = ReplicaProcess(replica.directory.parent)
    await again.start()
    answer = await again.open(state(5))
    assert not answer["leads"] and answer["refused"]
    assert (await again.appended(batch(b"no"))).error == ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert (await again.tell(state(6)))["leads"]
    assert (await again.appended(batch(b"six"))).base_offset == 1
    assert stored(again.directory) == [(0, 5, b"five"), (1, 6, b"six")]
    await again.stop()


@with_replica
async def test_an_older_state_is_not_obeyed(replica: ReplicaProcess) -> None:
    await replica.open(state(3, version=9))
    assert (await replica.tell(state(2, leader=2, isr=(2,), version=10)))["leads"]
    assert (await replica.tell(state(3, leader=-1, version=8)))["leads"]
    assert not (await replica.tell(state(4, leader=2, isr=(1, 2), version=10)))["leads"]


@with_replica
async def test_an_append_names_the_only_epoch_that_may_take_it(replica: ReplicaProcess) -> None:
    await replica.open(state(4))
    assert (await replica.appended(batch(b"a"), leader_epoch=4)).error == ErrorCode.NONE
    for other in (3, 5):
        assert (await replica.appended(batch(b"b"), leader_epoch=other)).error == ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert len(stored(replica.directory)) == 1


@with_replica
async def test_min_insync_replicas_is_checked_before_an_append_of_acks_all(replica: ReplicaProcess) -> None:
    await replica.open(config={"min.insync.replicas": "2"})
    assert (await replica.appended(batch(b"a"))).error == ErrorCode.NOT_ENOUGH_REPLICAS
    assert (await replica.appended(batch(b"b"), acks=1)).error == ErrorCode.NONE
    assert [value for _, _, value in stored(replica.directory)] == [b"b"]


@with_replica
async def test_acks_all_says_so_when_too_few_were_left_in_sync_meanwhile(replica: ReplicaProcess) -> None:
    await replica.open(state(isr=(1, 2)), config={"min.insync.replicas": "2"})
    waiting = replica.append(batch(b"alone"))
    await replica.tell(state(isr=(1,), version=1))
    assert (await waiting).error == ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND
    assert stored(replica.directory) == [(0, 0, b"alone")]


@with_replica
async def test_acks_all_times_out_while_an_in_sync_replica_is_away_and_the_record_stays(
    replica: ReplicaProcess,
) -> None:
    await replica.open(state(isr=(1, 2)))
    assert (await replica.appended(batch(b"a"), timeout_ms=30)).error == ErrorCode.REQUEST_TIMED_OUT
    assert (await replica.appended(batch(b"b"), acks=1)).error == ErrorCode.NONE
    view = await replica.view_where(lambda view: view.log_end_offset == 2)
    assert view.high_watermark == 0
    waiting = replica.append(batch(b"c"))
    await replica.tell(state(isr=(1,), version=1))
    assert (await waiting).error == ErrorCode.NONE
    view = await replica.view_where(lambda v: v.high_watermark == 3)
    assert view.log_end_offset == 3


@with_replica
async def test_a_leader_that_resigns_answers_those_who_wait(replica: ReplicaProcess) -> None:
    await replica.open(state(isr=(1, 2)))
    waiting = [replica.append(batch(b"a")) for _ in range(3)]
    await replica.tell(state(1, leader=2, isr=(2,)))
    assert {(await w).error for w in waiting} == {ErrorCode.NOT_LEADER_OR_FOLLOWER}
    assert (await replica.appended(batch(b"b"), acks=1)).error == ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert len(stored(replica.directory)) == 3


@with_replica
async def test_a_batch_that_is_sent_again_is_answered_with_its_first_place(replica: ReplicaProcess) -> None:
    await replica.open()
    first = bytes(batch(b"a", b"b", producer_id=7, producer_epoch=0, base_sequence=0))
    assert (await replica.appended(first)).base_offset == 0
    assert (await replica.appended(batch(b"between"))).base_offset == 2
    again = await replica.appended(first)
    assert (again.error, again.base_offset) == (ErrorCode.NONE, 0)
    gap = await replica.appended(batch(b"c", producer_id=7, producer_epoch=0, base_sequence=9))
    assert gap.error == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER and gap.message
    assert len(stored(replica.directory)) == 3


@with_replica
async def test_a_damaged_batch_is_refused_with_a_reason_and_nothing_of_it_stays(replica: ReplicaProcess) -> None:
    await replica.open()
    damaged = batch(b"abc")
    damaged[-2] ^= 1
    answer = await replica.appended(damaged)
    assert answer.error == ErrorCode.CORRUPT_MESSAGE and answer.message
    assert (await replica.appended(batch(b"good"))).base_offset == 0


@with_replica
async def test_a_changed_config_is_obeyed(replica: ReplicaProcess) -> None:
    await replica.open()
    assert (await replica.appended(batch(b"x" * 2000))).error == ErrorCode.NONE
    await replica.link.call("config", {"config": {"max.message.bytes": "1000"}})
    assert (await replica.appended(batch(b"x" * 2000))).error == ErrorCode.MESSAGE_TOO_LARGE


@with_replica
async def test_flush_messages_holds_answers_until_the_disk_has_them(replica: ReplicaProcess) -> None:
    await replica.open(config={"flush.messages": "1"})
    answers = [replica.append(batch(b"%d" % n), acks=1) for n in range(30)]
    await asyncio.gather(*answers)
    flushed = 0
    for frame in replica.frames:
        if isinstance(frame, View):
            flushed = frame.recovery_point
        else:
            assert frame.base_offset < flushed, "an answer came before its fsync"
    assert [a.result().base_offset for a in answers] == list(range(30))


@with_replica
async def test_rolled_segments_are_flushed_and_shown(replica: ReplicaProcess) -> None:
    await replica.open(config={"segment.bytes": "1000"})
    for n in range(20):
        await replica.appended(batch(b"%03d" % n * 100))
    view = await replica.view_where(lambda v: v.recovery_point >= 15)
    assert view.log_end_offset == 20
    told = [v.segments for v in replica.views if v.segments]
    on_disk = tuple(sorted(int(path.stem) for path in replica.directory.glob("*.log")))
    assert told[-1] == on_disk and len(on_disk) > 5
    assert len({segments for segments in told}) == len(told), "segments are told when they change, and only then"


@with_replica
async def test_retention_takes_old_segments_away(replica: ReplicaProcess) -> None:
    config = {
        "segment.bytes": "1000",
        "retention.bytes": "3000",
        "file.delete.delay.ms": "1",
        "log.retention.check.interval.ms": "50",
    }
    await replica.open(config=config)
    for n in range(30):
        await replica.appended(batch(b"%03d" % n * 100))
    view = await replica.view_where(lambda v: v.log_start_offset > 10 and v.segments is not None)
    assert view.segments and view.segments[0] <= view.log_start_offset
    async with asyncio.timeout(60):
        while list(replica.directory.glob("*.deleted")):
            await asyncio.sleep(0.01)
    answer = await replica.appended(batch(b"on"))
    assert (answer.base_offset, answer.log_start_offset) == (30, replica.views[-1].log_start_offset)


@with_replica
async def test_a_closed_log_is_whole_and_opens_as_clean(replica: ReplicaProcess) -> None:
    await replica.open()
    for n in range(10):
        await replica.appended(batch(b"%d" % n))
    closed = await replica.link.call("close", {})
    assert closed.pop("note")["seal"] == [0, False, 10, 10, 10, 0]
    assert closed == {"log_end_offset": 10, "high_watermark": 10, "recovery_point": 10}
    assert await replica.exited() == 0
    again = ReplicaProcess(replica.directory.parent)
    await again.start()
    answer = await again.open(state(1), recovery_point=10, high_watermark=10)
    assert (answer["leads"], answer["log_end_offset"], answer["recovered_bytes_cut"]) == (True, 10, 0)
    await again.stop()


@with_replica
async def test_the_process_ends_with_its_brokers_socket(replica: ReplicaProcess) -> None:
    await replica.open()
    await replica.appended(batch(b"a"))
    replica.link.close()
    assert await replica.exited() == 0


@with_replica
async def test_one_process_at_a_time_writes_a_partition(replica: ReplicaProcess) -> None:
    await replica.open()
    other = ReplicaProcess(replica.directory.parent)
    other.socket += "2"
    await other.start()
    assert await refused(other.open(state(1))) == ErrorCode.KAFKA_STORAGE_ERROR
    await other.stop()
    assert (await replica.appended(batch(b"still mine"))).error == ErrorCode.NONE


@with_replica
async def test_a_log_shorter_than_its_high_watermark_was_does_not_lead(replica: ReplicaProcess) -> None:
    answer = await replica.open(high_watermark=5)
    assert not answer["leads"] and answer["refused"]
    assert (await replica.appended(batch(b"a"))).error == ErrorCode.NOT_LEADER_OR_FOLLOWER


@with_replica
async def test_unknown_calls_and_early_calls_are_refused_by_name(replica: ReplicaProcess) -> None:
    assert await refused(replica.tell(state())) == ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert await refused(replica.link.call("frobnicate", {})) == ErrorCode.INVALID_REQUEST
    await replica.open()
    assert await refused(replica.open()) == ErrorCode.INVALID_REQUEST
