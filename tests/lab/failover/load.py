"""A steady acks=all load on every partition, and the longest time for which one of them acknowledged nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from confluent_kafka import Producer

from tests.lab.background import Background
from tests.lab.client_settings import EAGER
from tests.lab.waiting import until

RECORDS_PER_S = 600
FLUSH_WITHIN_S = 60.0
BEGUN_WITHIN_S = 90.0
STUCK_RECORDS = 100
SETTINGS = {
    "acks": "all",
    "enable.idempotence": True,
    "linger.ms": 0,
    "message.timeout.ms": 120_000,
    **EAGER,
}


@dataclass(frozen=True, slots=True)
class Gap:
    """The longest time between two acknowledgements of ``partition``, and how long after the fault it ended."""

    seconds: float
    partition: int
    ended_after_s: float


class Load(Background):
    """As a context: sends a record to each partition, again and again, until it ends: RECORDS_PER_S in all, so that
    each of 12 partitions gets one every 20 ms."""

    def __init__(self, bootstrap: str, topic: str, partitions: int, settings: Mapping[str, Any] = SETTINGS) -> None:
        super().__init__()
        self.topic, self.partitions = topic, partitions
        self.interval_s = partitions / RECORDS_PER_S
        self.errors: list[str] = []
        self.sent = 0
        self._acks: list[list[float]] = [[] for _ in range(partitions)]
        self._statistics = ""
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "log_level": 0,
                "statistics.interval.ms": 2000,
                "stats_cb": self._note_statistics,
                **settings,
            }
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if kind is not None:
            self._producer.purge()
        left = self._producer.flush(FLUSH_WITHIN_S)
        if left:
            self.errors.append(f"{left} records were not acknowledged within {FLUSH_WITHIN_S:.0f} s of the end")
            self.errors += self.stuck()

    def _run(self) -> None:
        reports = [self._report(partition) for partition in range(self.partitions)]
        next_at = time.monotonic()
        while not self._over.is_set():
            for partition, report in enumerate(reports):
                try:
                    self._producer.produce(self.topic, b"%d" % self.sent, partition=partition, on_delivery=report)
                except BufferError:
                    break  # the queue is full until the brokers are back
            self.sent += 1
            # callbacks as they come, not when the next record is due
            next_at += self.interval_s
            while (left_s := next_at - time.monotonic()) > 0:
                self._producer.poll(left_s)

    def _report(self, partition: int) -> Callable[[Any, Any], None]:
        times = self._acks[partition]

        def report(error: Any, _: Any) -> None:
            if error is None:
                times.append(time.time())
            else:
                self.errors.append(f"partition {partition}: {error}")

        return report

    def wait_begun(self) -> None:
        """Until every partition has acknowledged something. Raises TimeoutError."""
        until(lambda: all(self._acks), "every partition is written", BEGUN_WITHIN_S)

    def _note_statistics(self, text: str) -> None:
        self._statistics = text

    def stuck(self) -> list[str]:
        """The partitions that have records on their way, as librdkafka's last statistics show them."""
        if not self._statistics:
            return []
        shown = ("leader", "broker", "msgq_cnt", "xmit_msgq_cnt", "msgs_inflight", "next_ack_seq", "next_err_seq")
        found = json.loads(self._statistics)
        partitions = found["topics"].get(self.topic, {}).get("partitions", {})
        return [
            f"partition {number}: " + ", ".join(f"{name} {partition.get(name)}" for name in shown)
            for number, partition in partitions.items()
            if partition["msgq_cnt"] + partition["xmit_msgq_cnt"] + partition["msgs_inflight"] > STUCK_RECORDS
        ]

    def acknowledged(self) -> int:
        return sum(map(len, self._acks))

    def all_acknowledged_since(self, moment: float) -> bool:
        """Whether every partition has acknowledged something after ``moment``."""
        return all(times and times[-1] > moment for times in self._acks)

    def longest_gap(self, begin: float, end: float, fault_at: float) -> Gap:
        """Of all partitions, between ``begin`` and ``end``; one that has not ended by then counts up to ``end``."""
        return max(self.longest_gaps(begin, end, fault_at), key=lambda gap: gap.seconds)

    def longest_gaps(self, begin: float, end: float, fault_at: float) -> list[Gap]:
        """That of each partition, in their order."""
        return [_longest_gap(partition, times, begin, end, fault_at) for partition, times in enumerate(self._acks)]


def _longest_gap(partition: int, times: list[float], begin: float, end: float, fault_at: float) -> Gap:
    longest, last = Gap(0.0, partition, 0.0), begin
    for moment in (*(t for t in _since(times, begin) if t < end), end):
        if moment - last > longest.seconds:
            longest = Gap(moment - last, partition, moment - fault_at)
        last = moment
    return longest


def _since(times: list[float], begin: float) -> list[float]:
    """Those of ``times`` that are not before ``begin``, in order; the list is long and what is asked for is its end."""
    first = len(times)
    while first and times[first - 1] >= begin:
        first -= 1
    return times[first:]
