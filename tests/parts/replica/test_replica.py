"""An open replica and its host: appends, views, states, configs, its end."""

from __future__ import annotations

import asyncio
import struct
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.log import DirectoryLocked, Log, LogReader
from raykafka.log.batch import Record, build_batch, crc_of
from raykafka.log.batch_layout import CRC_POSITION
from raykafka.log.compression import GZIP, ZSTD
from raykafka.log.validation import Checked
from raykafka.partition.view import View
from raykafka.replica import upkeep
from tests.lab.loop_waiting import until
from tests.parts.replica.opened import BROKER, Broker, OpenReplica, batch, led, state, stored, with_replica
from tests.parts.replica.streams import FollowersBroker


@with_replica
async def test_appends_are_answered_in_order_and_shown_before_their_answer(replica: OpenReplica) -> None:
    await replica.open()
    assert replica.leads and not replica.calls
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
async def test_a_reader_reads_what_the_view_shows(replica: OpenReplica) -> None:
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
async def test_many_appends_in_one_turn_share_a_view(replica: OpenReplica) -> None:
    await replica.open()
    before = len(replica.views)
    answers = await asyncio.gather(*[replica.append(batch(b"x")) for _ in range(400)])
    assert answers[-1].base_offset == 399
    assert len(replica.views) - before < 200


def slow_checks(replica: OpenReplica) -> tuple[threading.Event, threading.Event]:
    """Have checks in a thread wait. What tells that one has begun, and what lets it go on."""
    checking, go_on, check = threading.Event(), threading.Event(), replica.replica.log.check

    def slow(*args: Any, **kwargs: Any) -> Checked:
        if threading.current_thread() is not threading.main_thread():
            checking.set()
            assert go_on.wait(30)
        return check(*args, **kwargs)

    replica.replica.log.check = slow  # type: ignore[method-assign]
    return checking, go_on


def large_batch() -> bytearray:
    """Of 9,000 records; so many compressed bytes are checked in a thread."""
    return build_batch([Record(b"k", b"%d" % number * 20, 0) for number in range(9000)], codec=GZIP)


@with_replica
async def test_a_batch_that_takes_long_to_check_keeps_its_place_and_holds_up_no_one_else(replica: OpenReplica) -> None:
    await replica.open()
    checking, go_on = slow_checks(replica)
    await replica.appended(batch(b"before"))
    futures = [replica.append(large_batch()), replica.append(batch(b"behind"))]
    await until(checking.is_set)
    await asyncio.sleep(0.05)  # the event loop goes on
    assert not any(future.done() for future in futures)
    go_on.set()
    assert [(await future).base_offset for future in futures] == [1, 9001]


@with_replica
async def test_what_was_written_before_is_answered_and_shown_while_a_batch_is_checked(replica: OpenReplica) -> None:
    await replica.open()
    checking, go_on = slow_checks(replica)
    before, behind = replica.append(batch(b"before")), replica.append(large_batch())
    assert (await before).base_offset == 0
    assert replica.views[-1].high_watermark == 1
    await until(checking.is_set)
    assert not behind.done()
    go_on.set()
    assert (await behind).base_offset == 1


@with_replica
async def test_a_small_batch_that_grows_large_is_checked_in_a_thread(replica: OpenReplica) -> None:
    await replica.open()
    threads: list[bool] = []
    check = replica.replica.log.check

    def noted(*args: Any, **kwargs: Any) -> Checked:
        threads.append(threading.current_thread() is threading.main_thread())
        return check(*args, **kwargs)

    replica.replica.log.check = noted  # type: ignore[method-assign]
    zeros = bytes(build_batch([Record(b"k", bytes(2_000_000), 0)], codec=ZSTD))
    assert len(zeros) < 2000
    futures = [replica.append(zeros), replica.append(batch(b"behind"))]
    assert [(await future).base_offset for future in futures] == [0, 1]
    assert threads == [True, False, True]


@with_replica
async def test_a_large_batch_that_is_not_sound_is_refused_and_those_behind_it_are_taken(replica: OpenReplica) -> None:
    await replica.open()
    large = large_batch()
    struct.pack_into(">i", large, 23, 8998)
    struct.pack_into(">i", large, 57, 8999)
    struct.pack_into(">I", large, CRC_POSITION, crc_of(memoryview(large), 0, len(large)))
    refused, taken = await asyncio.gather(replica.append(bytes(large)), replica.append(batch(b"behind")))
    assert refused.error is ErrorCode.INVALID_RECORD and "follow the last record" in refused.message
    assert (taken.error, taken.base_offset) == (ErrorCode.NONE, 0)


@with_replica
async def test_no_epoch_is_led_that_is_not_newer_than_those_on_disk(replica: OpenReplica) -> None:
    await replica.open(state(5))
    await replica.appended(batch(b"five"))
    assert await replica.tell(state(5, version=1)), "the opened replica that began an epoch goes on leading it"
    await replica.close()
    again = replica.actor.on()
    await again.open(state(5))
    assert not again.leads
    assert (await again.called("refused"))["leader_epoch"] == 5
    assert (await again.appended(batch(b"no"))).error == ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert await again.tell(state(6))
    assert (await again.appended(batch(b"six"))).base_offset == 1
    assert stored(again.directory) == [(0, 5, b"five"), (1, 6, b"six")]


@with_replica
async def test_an_older_state_is_not_obeyed(replica: OpenReplica) -> None:
    await replica.open(state(3, version=9))
    assert await replica.tell(state(2, leader=2, isr=(2,), version=10))
    assert await replica.tell(state(3, leader=-1, version=8))
    assert not await replica.tell(state(4, leader=2, isr=(1, 2), version=10))


@with_replica
async def test_an_append_names_the_only_epoch_that_may_take_it(replica: OpenReplica) -> None:
    await replica.open(state(4))
    assert (await replica.appended(batch(b"a"), leader_epoch=4)).error == ErrorCode.NONE
    for other in (3, 5):
        assert (await replica.appended(batch(b"b"), leader_epoch=other)).error == ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert len(stored(replica.directory)) == 1


@with_replica
async def test_min_insync_replicas_is_checked_before_an_append_of_acks_all(replica: OpenReplica) -> None:
    await replica.open(led(isr=(BROKER,)), config={"min.insync.replicas": "2"})
    assert (await replica.appended(batch(b"a"))).error == ErrorCode.NOT_ENOUGH_REPLICAS
    assert (await replica.appended(batch(b"b"), acks=1)).error == ErrorCode.NONE
    assert [value for _, _, value in stored(replica.directory)] == [b"b"]


@with_replica
async def test_min_insync_replicas_above_the_number_of_replicas_is_that_number(replica: OpenReplica) -> None:
    await replica.open(state(), config={"min.insync.replicas": "3"})
    assert (await replica.appended(batch(b"a"))).error == ErrorCode.NONE


@with_replica
async def test_acks_all_says_so_when_too_few_were_left_in_sync_meanwhile(replica: OpenReplica) -> None:
    await replica.open(state(isr=(1, 2)), config={"min.insync.replicas": "2"})
    waiting = replica.append(batch(b"alone"))
    await replica.tell(led(isr=(BROKER,), version=1))
    assert (await waiting).error == ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND
    assert stored(replica.directory) == [(0, 0, b"alone")]


@with_replica
async def test_acks_all_times_out_while_an_in_sync_replica_is_away_and_the_record_stays(
    replica: OpenReplica,
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
async def test_a_leader_that_resigns_answers_those_who_wait(replica: OpenReplica) -> None:
    await replica.open(state(isr=(1, 2)))
    waiting = [replica.append(batch(b"a")) for _ in range(3)]
    await replica.tell(state(1, leader=2, isr=(2,)))
    assert {(await w).error for w in waiting} == {ErrorCode.NOT_LEADER_OR_FOLLOWER}
    assert (await replica.appended(batch(b"b"), acks=1)).error == ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert len(stored(replica.directory)) == 3


@with_replica
async def test_a_batch_that_is_sent_again_is_answered_with_its_first_place(replica: OpenReplica) -> None:
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
async def test_a_damaged_batch_is_refused_with_a_reason_and_nothing_of_it_stays(replica: OpenReplica) -> None:
    await replica.open()
    damaged = batch(b"abc")
    damaged[-2] ^= 1
    answer = await replica.appended(damaged)
    assert answer.error == ErrorCode.CORRUPT_MESSAGE and answer.message
    assert (await replica.appended(batch(b"good"))).base_offset == 0


@with_replica
async def test_a_changed_config_is_obeyed(replica: OpenReplica) -> None:
    await replica.open()
    assert (await replica.appended(batch(b"x" * 2000))).error == ErrorCode.NONE
    replica.replica.configure({"max.message.bytes": "1000"})
    assert (await replica.appended(batch(b"x" * 2000))).error == ErrorCode.MESSAGE_TOO_LARGE


@with_replica
async def test_flush_messages_holds_answers_until_the_disk_has_them(replica: OpenReplica) -> None:
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
async def test_rolled_segments_are_flushed_and_shown(replica: OpenReplica) -> None:
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
async def test_retention_takes_old_segments_away(replica: OpenReplica) -> None:
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
    assert answer.base_offset == 30
    assert view.log_start_offset <= answer.log_start_offset <= replica.views[-1].log_start_offset


@with_replica
async def test_a_closed_log_is_whole_and_opens_as_clean(replica: OpenReplica) -> None:
    await replica.open()
    for n in range(10):
        await replica.appended(batch(b"%d" % n))
    left = await replica.close()
    assert left.to_json() == {
        "note": {"seal": [0, False, 10, 10, 10, 0]},
        "log_start_offset": 0,
        "log_end_offset": 10,
        "high_watermark": 10,
        "recovery_point": 10,
    }
    again = replica.actor.on()
    log = await again.open(state(1), recovery_point=10, high_watermark=10)
    assert (again.leads, log.log_end_offset, log.recovered_bytes_cut) == (True, 10, 0)


@with_replica
async def test_a_log_that_is_closed_without_a_flush_is_whole_while_the_machine_runs(replica: OpenReplica) -> None:
    await replica.open()
    await replica.appended(batch(b"a"))
    left = await replica.close(flush=False)
    assert (left.log_end_offset, left.recovery_point) == (1, 0)
    again = replica.actor.on()
    log = await again.open(state(1))
    assert log.note == left.note
    assert stored(again.directory) == [(0, 0, b"a")]


@with_replica
async def test_a_closed_replica_takes_nothing_and_shows_nothing(replica: OpenReplica) -> None:
    await replica.open(state(isr=(1, 2)))
    waiting = replica.append(batch(b"waits"))
    closing = asyncio.ensure_future(replica.close())
    assert (await waiting).error == ErrorCode.NOT_LEADER_OR_FOLLOWER
    await closing
    assert not replica.shows
    told = len(replica.frames)
    assert (await replica.appended(batch(b"late"))).error == ErrorCode.NOT_LEADER_OR_FOLLOWER
    await replica.tell(state(1))
    assert not replica.leads and len(replica.frames) == told + 1
    assert await replica.close() == closing.result()


@with_replica
async def test_an_answer_that_waits_for_a_flush_is_given_when_the_log_is_closed(replica: OpenReplica) -> None:
    await replica.open(config={"flush.messages": "1"})
    first = replica.append(batch(b"a"), acks=1)
    left = await replica.close()
    assert (await first).base_offset == 0 and left.recovery_point == 1


@with_replica
async def test_a_leader_goes_on_in_its_epoch_with_another_actor(replica: OpenReplica) -> None:
    await replica.open(state(3))
    await replica.appended(batch(b"a"))
    left = await replica.replica.leave()
    assert left is not None and left.note is not None
    assert (await replica.appended(batch(b"late"))).error == ErrorCode.NOT_LEADER_OR_FOLLOWER
    again = replica.actor.on()
    await again.open(state(3), left=left)
    assert again.leads and not again.calls
    assert (await again.appended(batch(b"b"))).base_offset == 1
    assert stored(again.directory) == [(0, 3, b"a"), (1, 3, b"b")]


@with_replica
async def test_nobody_leads_on_by_a_seal_that_is_found_on_the_disk(replica: OpenReplica) -> None:
    await replica.open(state(3))
    await replica.appended(batch(b"a"))
    assert await replica.replica.leave() is not None
    again = replica.actor.on()
    await again.open(state(3))
    assert not again.leads
    assert (await again.called("refused"))["leader_epoch"] == 3


@with_replica
async def test_a_leader_with_a_produce_that_waits_does_not_leave(replica: OpenReplica) -> None:
    await replica.open(state(isr=(1, 2)))
    waiting = replica.append(batch(b"a"))
    assert await replica.replica.leave() is None
    assert not waiting.done()
    await replica.tell(state(isr=(1,), version=1))
    assert (await waiting).error == ErrorCode.NONE
    assert await replica.replica.leave() is not None


@with_replica
async def test_one_replica_at_a_time_writes_a_partition(replica: OpenReplica) -> None:
    await replica.open()
    other = await Broker(BROKER, replica.actor.broker.path).start()
    with pytest.raises(DirectoryLocked):
        await other.actors[0].on().open(state(1))
    assert (await replica.appended(batch(b"still mine"))).error == ErrorCode.NONE
    await other.close()


@with_replica
async def test_a_log_shorter_than_its_high_watermark_was_does_not_lead(replica: OpenReplica) -> None:
    await replica.open(high_watermark=5)
    assert not replica.leads
    assert (await replica.called("refused"))["reason"]
    assert (await replica.appended(batch(b"a"))).error == ErrorCode.NOT_LEADER_OR_FOLLOWER
    left = await replica.replica.leave()
    again = replica.actor.on()
    await again.open(state(1), left=left)
    assert not again.leads, "another actor opens it"


def test_a_log_that_is_not_written_any_more_is_flushed_and_its_files_are_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "REST_EVERY_MS", 20)

    @with_replica
    async def test(replica: OpenReplica) -> None:
        log = await replica.open()

        def open_files() -> list[str]:
            files = psutil.Process().open_files()
            return [file.path for file in files if file.path.endswith(".log") and file.path.startswith(str(tmp_path))]

        for n in range(2):
            await replica.appended(batch(b"a"))
            assert open_files()
            await until(lambda: not open_files())
            assert log.recovery_point == n + 1
        assert stored(replica.directory) == [(0, 0, b"a"), (1, 0, b"a")]

    test(tmp_path)


def test_an_answer_that_waits_for_a_flush_that_fails_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(log: Log, **_: object) -> None:
        failure = KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, "planted")
        log._failure = failure
        raise failure

    @with_replica
    async def test(replica: OpenReplica) -> None:
        await replica.open(config={"flush.messages": "1"})
        monkeypatch.setattr(Log, "_sync", fail)
        answer = replica.append(batch(b"a"), acks=1)
        assert not (await replica.called("failed"))["diverged"]
        assert not replica.shows and not answer.done()
        with pytest.raises(KafkaError):
            await replica.close()
        assert (await answer).error == ErrorCode.NOT_LEADER_OR_FOLLOWER

    test(tmp_path)


@with_replica
async def test_batches_in_flight_behind_one_that_too_few_replicas_refused_get_its_answer(leader: OpenReplica) -> None:
    """Also when there are enough by then. For an order that it can't explain, librdkafka begins a new producer epoch,
    and writes again what is there."""

    def numbered(sequence: int) -> bytearray:
        return batch(b"x", producer_id=7, producer_epoch=0, base_sequence=sequence)

    config = {"min.insync.replicas": "2"}
    broker = FollowersBroker()
    holders = await broker.start()
    await leader.open(led(isr=(BROKER,)), holders=holders, config=config)
    follower = await broker.stream()
    follower.answer(0, -1)
    assert (await leader.append(numbered(0))).error is ErrorCode.NOT_ENOUGH_REPLICAS
    await leader.tell(led(version=1), holders=holders)
    assert (await leader.append(numbered(1))).error is ErrorCode.NOT_ENOUGH_REPLICAS
    again = [leader.append(numbered(sequence)) for sequence in (0, 1)]
    await until(lambda: leader.replica.log.log_end_offset == 2)
    await follower.data()
    follower.ack(2)
    answers = await asyncio.gather(*again)
    assert [(answer.error, answer.base_offset) for answer in answers] == [(ErrorCode.NONE, 0), (ErrorCode.NONE, 1)]
    assert (await leader.append(numbered(9))).error is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    broker.close()


@with_replica
async def test_what_one_leadership_refused_does_not_hold_back_the_next(leader: OpenReplica) -> None:
    """Another leader may have taken it between them."""

    def numbered(sequence: int) -> bytearray:
        return batch(b"x", producer_id=7, producer_epoch=0, base_sequence=sequence)

    config = {"min.insync.replicas": "2"}
    await leader.open(led(isr=(BROKER,)), config=config)
    assert (await leader.append(numbered(0))).error is ErrorCode.NOT_ENOUGH_REPLICAS
    leader.replica.configure({"min.insync.replicas": "1"})
    assert (await leader.append(numbered(1))).error is ErrorCode.NOT_ENOUGH_REPLICAS
    await leader.tell(led(1, isr=(BROKER,), version=1))
    assert (await leader.append(numbered(1))).error is ErrorCode.NONE
