"""How the cluster and its clients do while faults are done: asked of the brokers, and of the load's progress file."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

from confluent_kafka import ElectionType, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

ASK_WITHIN_S = 5.0
CREATE_WITHIN_S = 60.0
POLL_S = 0.1
CLIENT = {"log_level": 0, "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 200, "socket.timeout.ms": 5000}


class Watch:
    """``folder`` is the load's."""

    def __init__(self, bootstrap: str, topic: str, brokers: int, folder: Path) -> None:
        self.topic = topic
        self._brokers = brokers
        self._folder = folder
        self._bootstrap = bootstrap
        self._admin = AdminClient({"bootstrap.servers": bootstrap, **CLIENT})

    def create(self, partitions: int, config: dict[str, str]) -> None:
        new = NewTopic(self.topic, partitions, self._brokers, config=config)
        self._admin.create_topics([new])[self.topic].result(CREATE_WITHIN_S)

    def _metadata(self) -> Any:
        return self._admin.list_topics(timeout=ASK_WITHIN_S)

    def controller(self) -> int:
        """The broker of the active controller; -1 when nobody says."""
        with contextlib.suppress(KafkaException):
            return int(self._metadata().controller_id)
        return -1

    def out_of_sync(self) -> list[str]:
        """The partitions of all topics that lack an in-sync replica or a leader; what is not known is said as well."""
        try:
            answer = self._metadata()
        except KafkaException as error:
            return [str(error)]
        found = [
            f"{name}-{p.id}: leader {p.leader}, in sync {sorted(p.isrs)} of {sorted(p.replicas)}"
            for name, topic in sorted(answer.topics.items())
            for p in topic.partitions.values()
            if len(p.isrs) < len(p.replicas) or p.leader < 0
        ]
        if len(answer.brokers) < self._brokers:
            found.append(f"brokers {sorted(answer.brokers)} of {self._brokers} are there")
        return found

    def in_sync(self) -> bool:
        return not self.out_of_sync()

    def wait_in_sync(self, within_s: float) -> list[str]:
        """Until all is well again; what is not, after that time."""
        deadline = time.monotonic() + within_s
        while (wrong := self.out_of_sync()) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return wrong

    def offline(self) -> list[TopicPartition]:
        """Partitions that nobody leads though every broker is there."""
        with contextlib.suppress(KafkaException):
            answer = self._metadata()
            if len(answer.brokers) == self._brokers:
                topics = answer.topics.items()
                return [
                    TopicPartition(name, p.id)
                    for name, topic in topics
                    for p in topic.partitions.values()
                    if p.leader < 0
                ]
        return []

    def elect_unclean(self, partitions: list[TopicPartition]) -> None:
        """Ask for leaders that may have lost records."""
        if not partitions:
            return
        with contextlib.suppress(KafkaException):
            self._admin.elect_leaders(ElectionType.UNCLEAN, partitions).result(ASK_WITHIN_S)

    def views(self) -> list[str]:
        """What each broker says of the topic, for who wonders why nothing is acknowledged."""
        found = []
        for address in self._bootstrap.split(","):
            try:
                answer = AdminClient({"bootstrap.servers": address, **CLIENT}).list_topics(self.topic, ASK_WITHIN_S)
            except KafkaException as error:
                found.append(f"{address}: {error}")
                continue
            states = {p.id: (p.leader, sorted(p.isrs)) for p in answer.topics[self.topic].partitions.values()}
            brokers = sorted(answer.brokers)
            found.append(f"{address}: brokers {brokers}, controller {answer.controller_id}, leader and ISR {states}")
        return found

    def acknowledged(self) -> list[float]:
        """When each partition last acknowledged an acks=all record to the load."""
        with contextlib.suppress(FileNotFoundError):
            found: list[float] = json.loads((self._folder / "progress.json").read_text())["acknowledged"]
            return found
        return [0.0]

    def wait_acknowledged(self, moment: float, deadline: float) -> bool:
        """Until every partition acknowledged something after ``moment``; at most until ``deadline``, of the monotonic
        clock. Whether it did."""
        while min(self.acknowledged()) <= moment:
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_S)
        return True

    def topics(self) -> dict[str, int]:
        """Every topic and its number of partitions."""
        return {name: len(topic.partitions) for name, topic in self._metadata().topics.items()}

    def ends(self) -> dict[TopicPartition, int]:
        """The latest offset of every partition of every topic."""
        wanted = {
            TopicPartition(name, p): OffsetSpec.latest() for name, count in self.topics().items() for p in range(count)
        }
        return {place: future.result().offset for place, future in self._admin.list_offsets(wanted).items()}
