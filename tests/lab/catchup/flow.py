"""A producer in a process of its own: ``python -m tests.lab.catchup.flow BOOTSTRAP TOPIC BYTES_PER_S BYTES``.

Idempotent, acks=all, records of 1 KB in batches of up to 1 MB. Either figure may be 0: as fast as it goes; until it is
terminated. The first error is told on standard error, and ends it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

from confluent_kafka import Producer

RECORD_BYTES = 1000
SLICE_S = 0.01
FLUSH_WITHIN_S = 120.0


class Flow:
    def __init__(self, bootstrap: str, topic: str) -> None:
        self.produced = 0
        self.failed = False
        self._topic = topic
        self._value = os.urandom(RECORD_BYTES)
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "log_level": 0,
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": 10,
                "batch.size": 1_000_000,
                "queue.buffering.max.kbytes": 64 * 1024,
                "message.timeout.ms": 120_000,
            }
        )

    def send(self) -> None:
        """One record, once there is room for it."""
        while True:
            try:
                self._producer.produce(self._topic, self._value, partition=0, on_delivery=self._delivered)
                self.produced += RECORD_BYTES
                return
            except BufferError:
                self.poll(0.01)

    def _delivered(self, error: Any, _: Any) -> None:
        if error is not None and not self.failed:
            self.failed = True
            print(f"a record was not acknowledged: {error}", file=sys.stderr, flush=True)

    def poll(self, within_s: float) -> None:
        self._producer.poll(within_s)

    def end(self) -> None:
        left = 0 if self.failed else self._producer.flush(FLUSH_WITHIN_S)
        if left:
            self.failed = True
            print(f"{left} records were not acknowledged within {FLUSH_WITHIN_S:.0f} s", file=sys.stderr, flush=True)


def main() -> int:
    bootstrap, topic, rate, size = sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4])
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    flow = Flow(bootstrap, topic)
    began = time.monotonic()
    while not stopped and not flow.failed and not (size and flow.produced >= size):
        due = (time.monotonic() - began) * rate if rate else flow.produced + 1_000_000
        while flow.produced < due:
            flow.send()
        flow.poll(SLICE_S if rate else 0)
    flow.end()
    return 1 if flow.failed else 0


if __name__ == "__main__":
    sys.exit(main())
