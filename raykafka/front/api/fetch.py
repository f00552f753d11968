"""Fetch: read record batches of the partitions that this broker leads, waiting for some if there are too few.

Versions: 4-17.
v4: isolation level, aborted transactions. v5: log start offset. v7: sessions (KIP-227). v9: leader epoch of the client.
v10: the client reads zstd; where there is some, an older one gets UNSUPPORTED_COMPRESSION_TYPE. v11: rack of the
client. v12: flexible, last fetched epoch, the current leader beside an error. v13: topic ids. v15 and v17: fields of
followers. v16: addresses of the leaders named (KIP-951).
Left out: reads from followers (v11), divergence found by the last fetched epoch (v12; consumers do not send it, and our
followers do not fetch), aborted transactions (always none, until transactions are served).

A response ends each partition at its high watermark, or last stable offset, as the replica told it before (rule 21).
Records are read from the page cache into the buffer that is sent; what is not in memory is read in a thread (rule 22).
A large response is read while it is sent, so that a slow client holds little memory.
"""

from __future__ import annotations

import asyncio

from raykafka.cluster.image import PartitionState
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError, UnanswerableRequestError
from raykafka.front.fetch_codec import FLEXIBLE_FROM as FLEXIBLE_FROM
from raykafka.front.fetch_codec import FetchRequest, Read, ResponseWriter, parse
from raykafka.front.fetch_sessions import NO_SESSION, FetchPartition, FetchPlan
from raykafka.front.leader_hints import LeaderHints
from raykafka.front.serving import PartitionsServer
from raykafka.log import FileRange
from raykafka.log.batch import iter_batches
from raykafka.log.compression import ZSTD
from raykafka.partition.access import PartitionAccess
from raykafka.partition.view import View
from raykafka.process.clock import boot_clock_ns
from raykafka.protocol import acl
from raykafka.protocol.answer import Buffer
from raykafka.protocol.context import RequestContext
from raykafka.protocol.wire import MalformedError

API_KEY = 1
VERSIONS = (4, 17)
NEEDS = (acl.READ_TOPIC,)

STREAMED_ABOVE_BYTES = 2 * 1024 * 1024

_ZSTD_FROM = 10
_HINTS_FROM = 16

# A client that gets an error asks again at once. These, and those of a log that is being opened, may pass by
# themselves: they are told after the wait.
_UNKNOWN = frozenset(
    (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.UNKNOWN_TOPIC_ID, ErrorCode.TOPIC_AUTHORIZATION_FAILED)
)


async def handle_raw(context: RequestContext, body: memoryview, server: PartitionsServer) -> list[Buffer]:
    """Answer one fetch, at the latest after its maximal wait."""
    try:
        request = parse(context.api_version, body)
    except MalformedError as error:
        raise UnanswerableRequestError(f"malformed Fetch request: {error}") from error
    sessions = server.fetch_sessions
    try:
        plan = sessions.plan(
            request.session_id,
            request.session_epoch,
            request.named,
            request.forgotten,
            uses_topic_ids=context.api_version >= 13,
        )
    except KafkaError as error:
        writer = ResponseWriter(context.api_version, read_committed=request.read_committed, hints=None)
        return writer.write((), error=error.code, session_id=NO_SESSION, throttle_ms=context.throttle_ms)
    fetch = _Fetch(context, request, plan, server)
    await fetch.run()
    return fetch.response()


class _Fetch:
    """One request on its way. ``_reads`` and ``_places`` are what the last look at the partitions found, ``_seen`` what
    there was to go by."""

    def __init__(
        self, context: RequestContext, request: FetchRequest, plan: FetchPlan, server: PartitionsServer
    ) -> None:
        self._context = context
        self._request = request
        self._plan = plan
        self._server = server
        self._max_bytes = min(request.max_bytes, server.configs.number("fetch.max.bytes"))
        if context.api_version < _ZSTD_FROM:
            self._max_bytes = min(self._max_bytes, STREAMED_ABOVE_BYTES)  # it is looked at before it is sent
        self._min_bytes = min(request.min_bytes, self._max_bytes)
        self._accesses: list[PartitionAccess | None] = []
        self._refusals: list[ErrorCode] = []
        self._reads: list[Read] = []
        self._places: list[FileRange | None] = []
        self._seen: list[tuple[View | None, PartitionState] | None] = []
        self._failed = False

    async def run(self) -> None:
        """Look, wait while there is too little, and read what there is."""
        found = await self._look()
        if found < self._min_bytes and not self._failed and self._request.max_wait_ms > 0 and any(self._accesses):
            began_ns = boot_clock_ns()
            await self._wait()
            self._context.waited_ns += boot_clock_ns() - began_ns
        found = sum(place.length for place in self._places if place is not None)
        knows_zstd = self._context.api_version >= _ZSTD_FROM
        is_streamed = knows_zstd and found > STREAMED_ABOVE_BYTES
        for number, (access, place) in enumerate(zip(self._accesses, self._places, strict=True)):
            if place is not None and access is not None:
                read = self._reads[number]
                read.records = access.log.slice(place) if is_streamed else await access.log.load(place)
                if not knows_zstd and isinstance(read.records, memoryview) and _holds_zstd(read.records):
                    self._reads[number] = Read(read.partition, ErrorCode.UNSUPPORTED_COMPRESSION_TYPE)
                elif read.records is not None:
                    offsets = place.next_offset - read.partition.offset if place.next_offset >= 0 else 0
                    self._server.partitions.traffic[access.tp.topic].sent(place.length, offsets)

    async def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._request.max_wait_ms / 1000
        woken = asyncio.Event()
        timer = loop.call_at(deadline, woken.set)
        watched = [access for access in self._accesses if access is not None]
        for access in watched:
            access.log.watch(woken.set)
        if self._seen != [_shown(access) for access in self._accesses]:
            woken.set()  # there is news since that partition was looked at: others were read from the disk meanwhile
        try:
            while True:
                await woken.wait()
                woken.clear()
                if await self._look() >= self._min_bytes or self._failed or loop.time() >= deadline:
                    return
        finally:
            timer.cancel()
            for access in watched:
                access.log.unwatch(woken.set)

    async def _look(self) -> int:
        """Find what there is to read now, and how many bytes of it."""
        self._resolve()
        self._reads, self._places, self._seen, self._failed = [], [], [], False
        left, first = self._max_bytes, True
        for partition, access, refusal in zip(self._plan.partitions, self._accesses, self._refusals, strict=True):
            place = None
            self._seen.append(_shown(access))
            try:
                if access is None:
                    raise KafkaError(refusal)
                view = _readable(access, partition)
                read = Read(
                    partition, ErrorCode.NONE, view.high_watermark, view.last_stable_offset, view.log_start_offset
                )
                end = view.last_stable_offset if self._request.read_committed else view.high_watermark
                if partition.offset < end:
                    room = min(left, partition.max_bytes)
                    if room > 0 or first:
                        place = await access.log.locate(
                            partition.offset, room, committed=self._request.read_committed, min_one_batch=first
                        )
            except KafkaError as error:
                read = Read(partition, error.code)
                opening = access is not None and access.is_opening
                self._failed = self._failed or not (opening or error.code in _UNKNOWN)
            if place is not None:
                left, first = max(0, left - place.length), False
            self._reads.append(read)
            self._places.append(place)
        return sum(place.length for place in self._places if place is not None)

    def _resolve(self) -> None:
        """Find the partitions. Again at each look: topics come and go while a fetch waits."""
        server, context = self._server, self._context
        names, local = server.image.names_by_id, server.partitions
        allowed: dict[str, bool] = {}
        self._accesses, self._refusals = [], []
        for partition in self._plan.partitions:
            if partition.topic_id is not None:
                partition.topic = names.get(partition.topic_id)
            access, refusal = None, ErrorCode.UNKNOWN_TOPIC_ID
            topic = partition.topic
            if topic is not None:
                if topic not in allowed:
                    allowed[topic] = context.allows(acl.READ_TOPIC, topic)
                if not allowed[topic]:
                    refusal = ErrorCode.TOPIC_AUTHORIZATION_FAILED
                else:
                    access = local.get((topic, partition.partition))
                    if access is None:
                        refusal = local.missing_error((topic, partition.partition))
                    elif partition.topic_id is not None and access.topic_id != partition.topic_id:
                        access, refusal = None, ErrorCode.INCONSISTENT_TOPIC_ID
            self._accesses.append(access)
            self._refusals.append(refusal)

    def response(self) -> list[Buffer]:
        """The parts of the body. Streamed if any of them has yet to be read."""
        context, plan = self._context, self._plan
        reads = self._reads
        if plan.session is not None:
            reads = [read for read in reads if _tells_news(read) or not plan.incremental]
            for read in reads:
                if read.records is not None:
                    plan.session.move_to_end(read.partition.key)
        size = sum(len(read.records) for read in reads if read.records is not None)
        throttle_ms = context.charge("fetch", size)
        hints = LeaderHints(self._server.image, context.listener) if context.api_version >= _HINTS_FROM else None
        writer = ResponseWriter(context.api_version, read_committed=self._request.read_committed, hints=hints)
        session_id = plan.session.id if plan.session else NO_SESSION
        return writer.write(reads, error=ErrorCode.NONE, session_id=session_id, throttle_ms=throttle_ms)


def _holds_zstd(records: memoryview) -> bool:
    return any(header.codec == ZSTD for _, header in iter_batches(records))


def _shown(access: PartitionAccess | None) -> tuple[View | None, PartitionState] | None:
    return (access.log.view, access.state) if access is not None else None


def _readable(access: PartitionAccess, partition: FetchPartition) -> View:
    """The view that ``partition`` may be read by. Raises KafkaError with what a client gets that asks in vain."""
    error = access.leader_error(partition.current_leader_epoch)
    if error is not ErrorCode.NONE:
        raise KafkaError(error)
    view = access.log.view
    if view is None:
        raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER, "the log is being opened")
    # a leader whose own epoch is not in its view yet can't know where the log ends (rule 9)
    behind = partition.offset > view.log_end_offset and view.leader_epoch == access.state.leader_epoch
    if partition.offset < view.log_start_offset or behind:
        raise KafkaError(ErrorCode.OFFSET_OUT_OF_RANGE)
    return view


def _tells_news(read: Read) -> bool:
    """Whether an incremental response has to name this partition; remembers what it tells."""
    partition = read.partition
    news = (
        bool(read.records)
        or read.error is not ErrorCode.NONE
        or read.high_watermark != partition.told_high_watermark
        or read.log_start_offset != partition.told_log_start
    )
    partition.told_high_watermark = -1 if read.error else read.high_watermark
    partition.told_log_start = read.log_start_offset
    return news
