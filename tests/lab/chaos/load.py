"""The clients of a run, in one process: writers of each kind, watchers, a group, an observer of latest offsets.

    python -m tests.lab.chaos.load BOOTSTRAP TOPIC PARTITIONS FOLDER [--quick]

They go on until FOLDER/enough exists; then writers wait for their last acknowledgements, and readers read to the end.
FOLDER/history.jsonl gets every event, FOLDER/progress.json shows how far it is. ``--quick``: clients give a silent host
up after a second or two; where hosts can fall silent they need that to find the next leader.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from tests.lab.chaos import history
from tests.lab.chaos.checker import GROUP
from tests.lab.chaos.history import Acked, Assigned, Committed, Event, Failed, Latest, Read, Refused, Sent
from tests.lab.client_settings import EAGER, QUICK_TO_NOTICE

RATE_PER_S = {"idempotent": 120.0, "keyed": 60.0, "plain": 40.0, "leader": 40.0}
KEYS = 50
LARGEST_PADDING = 1000
MOST_IN_FLIGHT = 5000
MEMBERS = 2
COMMIT_EVERY_S = 0.5
LATEST_EVERY_S = 0.25
FLUSH_WITHIN_S = 120.0
READ_WITHIN_S = 120.0
SHOWN_EVERY_S = 0.2
CLIENT = {"log_level": 0, **EAGER}
WRITER = {"linger.ms": 2, "message.timeout.ms": 600_000}
SETTINGS: dict[str, dict[str, Any]] = {
    "idempotent": {"enable.idempotence": True},
    "keyed": {"enable.idempotence": True},
    "plain": {"acks": "all", "enable.idempotence": False},
    "leader": {"acks": 1, "enable.idempotence": False},
}
# What Kafka's table of errors and librdkafka call retriable, or report for information while they try on.
RETRIABLE = {
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TIMED_OUT,
    KafkaError._RESOLVE,
    KafkaError._WAIT_COORD,
    KafkaError._NO_OFFSET,
    KafkaError._NOENT,  # list_offsets: nobody leads any of the partitions
    KafkaError._ASSIGNMENT_LOST,
    KafkaError._TIMED_OUT_QUEUE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.ILLEGAL_GENERATION,  # a commit of a member that was late: it joins again
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.NETWORK_EXCEPTION,
    KafkaError.NOT_ENOUGH_REPLICAS,
    KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.KAFKA_STORAGE_ERROR,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
}


class Clients:
    """What they share: where the cluster is, the history, and when to end."""

    def __init__(self, bootstrap: str, topic: str, partitions: int, folder: Path, quick: bool) -> None:
        self.topic, self.partitions = topic, partitions
        self.settings = {"bootstrap.servers": bootstrap, **CLIENT, **(QUICK_TO_NOTICE if quick else {})}
        self.enough = threading.Event()
        self.ends: list[int] | None = None  # of each partition, once nobody writes any more
        self.acknowledged = [0.0] * partitions  # when a partition last acknowledged acks=all
        self._file = (folder / "history.jsonl").open("w")
        self._events: deque[Event] = deque()

    def note(self, event: Event) -> None:
        """Keep an event for the file, from any thread."""
        self._events.append(event)

    def write_down(self) -> None:
        events = [self._events.popleft() for _ in range(len(self._events))]
        self._file.write(history.write(events))
        self._file.flush()

    def note_error(self, client: str, error: KafkaError) -> None:
        if error.fatal() or not (error.retriable() or error.code() in RETRIABLE):
            self.note(Refused(client, f"{error.name()}: {error.str()}", time.time()))


class WriterThread(threading.Thread):
    """Sends numbers at an even pace, round the partitions or by key."""

    def __init__(self, clients: Clients, name: str) -> None:
        super().__init__(name=name)
        self._clients = clients
        self._kind = history.WRITERS[name]
        self._random = random.Random(name)
        self._number = 0
        self._producer = self._make()

    def _make(self) -> Producer:
        def show(error: KafkaError) -> None:
            self._clients.note_error(self.name, error)

        return Producer({**self._clients.settings, **WRITER, **SETTINGS[self.name], "error_cb": show})

    def run(self) -> None:
        while not self._clients.enough.is_set():
            try:
                self._write()
            except KafkaException as raised:  # a fatal error, after which a producer takes no more records
                self._clients.note(Refused(self.name, str(raised), time.time()))
                self._producer.purge()
                self._producer.flush(1.0)
                self._producer = self._make()
        deadline = time.monotonic() + FLUSH_WITHIN_S
        while len(self._producer) and time.monotonic() < deadline:
            self._producer.flush(0.5)
        if len(self._producer):
            error = f"{len(self._producer)} records are neither acknowledged nor given up after {FLUSH_WITHIN_S:.0f} s"
            self._clients.note(Refused(self.name, error, time.time()))

    def _write(self) -> None:
        pause_s, next_at = 1 / RATE_PER_S[self.name], time.monotonic()
        while not self._clients.enough.is_set():
            if len(self._producer) < MOST_IN_FLIGHT:
                self._send(self._number)
                self._number += 1
            next_at = max(next_at + pause_s, time.monotonic() - 1.0)
            while (left_s := next_at - time.monotonic()) > 0:
                self._producer.poll(left_s)

    def _send(self, number: int) -> None:
        clients, name = self._clients, self.name
        value = history.pack_value(name, number, self._random.randrange(LARGEST_PADDING))
        key = f"k{number % KEYS}" if self._kind.keyed else ""
        partition = -1 if self._kind.keyed else number % clients.partitions
        clients.note(Sent(name, number, partition, key, time.time()))

        def delivered(error: KafkaError | None, message: Message) -> None:
            now = time.time()
            if error is not None:
                clients.note(Failed(name, number, f"{error.name()}: {error.str()}", now))
                clients.note_error(name, error)
                return
            offset = message.offset()
            clients.note(Acked(name, number, message.partition(), -1 if offset is None else offset, now))
            if self._kind.kept:
                clients.acknowledged[message.partition()] = now

        self._producer.produce(clients.topic, value, key or None, partition, on_delivery=delivered)


class ReaderThread(threading.Thread):
    """Reads whatever its consumer gives until it has every partition's end."""

    def __init__(self, clients: Clients, name: str, settings: dict[str, Any]) -> None:
        super().__init__(name=name)
        self.clients = clients
        self.next = [0] * clients.partitions
        self.consumer = Consumer({**clients.settings, "enable.auto.commit": False, "group.id": name, **settings})

    def run(self) -> None:
        clients, deadline = self.clients, float("inf")
        while True:
            if clients.ends is not None:
                if self.has_all(clients.ends):
                    break
                deadline = min(deadline, time.monotonic() + READ_WITHIN_S)
            if time.monotonic() > deadline:
                error = (
                    f"the end {clients.ends} was not read {READ_WITHIN_S:.0f} s after the last was written: {self.next}"
                )
                clients.note(Refused(self.name, error, time.time()))
                break
            for message in self.consumer.consume(500, 0.2):
                self._take(message)
            self.after()
        self.finish()
        self.consumer.close()

    def has_all(self, ends: list[int]) -> bool:
        return all(mine >= end for mine, end in zip(self.next, ends, strict=True))

    def after(self) -> None:
        """After each round of reading."""

    def finish(self) -> None:
        """Once there is no more to read."""

    def _take(self, message: Message) -> None:
        error = message.error()
        if error is not None:
            self.clients.note_error(self.name, error)
            return
        partition, offset = message.partition(), message.offset()
        writer, number = history.unpack_value(message.value()) or ("?", -1)
        self.clients.note(Read(self.name, partition, offset, writer, number, time.time()))
        self.next[partition] = offset + 1


class Watcher(ReaderThread):
    """Reads every partition from its beginning, and is told where to go on by nobody. It begins anew where it learns
    that records are gone: nothing else may make it."""

    def __init__(self, clients: Clients) -> None:
        super().__init__(clients, "watcher", {"auto.offset.reset": "earliest"})
        places = [TopicPartition(clients.topic, p, OFFSET_BEGINNING) for p in range(clients.partitions)]
        self.consumer.assign(places)


class Member(ReaderThread):
    """A member of the group: reads what it is given and commits."""

    group: ClassVar[list[Member]] = []

    def __init__(self, clients: Clients, number: int) -> None:
        super().__init__(
            clients,
            f"{GROUP}-{number}",
            {"group.id": GROUP, "auto.offset.reset": "earliest", "session.timeout.ms": 10_000},
        )
        self._commit_at = 0.0
        self._committed: dict[int, int] = {}
        self.group.append(self)
        self.consumer.subscribe([clients.topic], on_assign=self._assigned)

    def _assigned(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        for place in partitions:
            self._committed.pop(place.partition, None)
            self.clients.note(Assigned(self.name, place.partition, time.time()))

    def has_all(self, ends: list[int]) -> bool:
        return all(max(m.next[p] for m in self.group) >= end for p, end in enumerate(ends))

    def after(self) -> None:
        if time.monotonic() >= self._commit_at:
            self._commit_at = time.monotonic() + COMMIT_EVERY_S
            self._commit()

    def finish(self) -> None:
        self._commit()

    def _commit(self) -> None:
        try:
            positions = self.consumer.position(self.consumer.assignment())
            known = self._committed
            wanted = [place for place in positions if place.offset >= 0 and known.get(place.partition) != place.offset]
            if not wanted:
                return
            for place in self.consumer.commit(offsets=wanted, asynchronous=False):
                if place.error is not None:
                    self.clients.note_error(self.name, place.error)
                    continue
                self._committed[place.partition] = place.offset
                self.clients.note(Committed(self.name, place.partition, place.offset, time.time()))
        except KafkaException as raised:
            self.clients.note_error(self.name, raised.args[0])


class Observer(threading.Thread):
    """Asks for the latest offsets, one question after the other."""

    def __init__(self, clients: Clients) -> None:
        super().__init__(name="observer")
        self._clients = clients
        self._admin = AdminClient(clients.settings)

    def run(self) -> None:
        while not self._clients.enough.is_set():
            for partition, offset in self.ask().items():
                self._clients.note(Latest(self.name, partition, offset, time.time()))
            self._clients.enough.wait(LATEST_EVERY_S)

    def ask(self) -> dict[int, int]:
        """The latest offset of each partition that answers."""
        clients = self._clients
        places = {TopicPartition(clients.topic, p): OffsetSpec.latest() for p in range(clients.partitions)}
        found: dict[int, int] = {}
        for place, future in self._admin.list_offsets(places, request_timeout=5.0).items():
            try:
                offset = future.result().offset
            except KafkaException as raised:
                clients.note_error(self.name, raised.args[0])
                continue
            if offset >= 0:  # librdkafka's OFFSET_INVALID: nobody answered for that partition
                found[place.partition] = offset
        return found

    def ends(self) -> list[int]:
        """Where every partition ends, once all of them say so."""
        while len(found := self.ask()) < self._clients.partitions:
            time.sleep(0.2)
        return [found[p] for p in range(self._clients.partitions)]


def run(clients: Clients, folder: Path) -> None:
    writers = [WriterThread(clients, name) for name in history.WRITERS]
    readers: list[ReaderThread] = [Watcher(clients), *(Member(clients, number) for number in range(MEMBERS))]
    observer = Observer(clients)
    begin_all(*writers, *readers, observer)

    def wait(done: Callable[[], bool]) -> None:
        while not done():
            clients.write_down()
            show(folder, clients, [thread.name for thread in threading.enumerate()])
            time.sleep(SHOWN_EVERY_S)

    wait((folder / "enough").exists)
    clients.enough.set()
    wait(lambda: not any(thread.is_alive() for thread in (*writers, observer)))
    clients.ends = observer.ends()
    wait(lambda: not any(thread.is_alive() for thread in readers))
    clients.write_down()


def begin_all(*threads: threading.Thread) -> None:
    for thread in threads:
        thread.daemon = True
        thread.start()


def show(folder: Path, clients: Clients, threads: list[str]) -> None:
    fresh = folder / "progress.json.new"
    fresh.write_text(json.dumps({"acknowledged": clients.acknowledged, "threads": threads}))
    fresh.rename(folder / "progress.json")


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.lab.chaos.load", description=__doc__)
    parser.add_argument("bootstrap")
    parser.add_argument("topic")
    parser.add_argument("partitions", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(argv)
    run(Clients(options.bootstrap, options.topic, options.partitions, options.folder, options.quick), options.folder)


if __name__ == "__main__":
    main(sys.argv[1:])
