"""What the handlers in ``raykafka.broker.api`` need of their broker."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from raykafka.broker.configs import Configs
from raykafka.cluster.image import ClusterImage
from raykafka.types import TopicPartition


class ConfigsServer(Protocol):
    @property
    def broker_id(self) -> int: ...

    @property
    def image(self) -> ClusterImage: ...

    @property
    def configs(self) -> Configs: ...


class LogDirsEnds(Protocol):
    @property
    def high_watermark(self) -> int: ...

    @property
    def log_end_offset(self) -> int: ...


class LogDirsPartition(Protocol):
    """A partition with a replica on this broker; ``ends`` of its log, None while it is not open."""

    @property
    def tp(self) -> TopicPartition: ...

    @property
    def directory(self) -> Path: ...

    @property
    def has_files(self) -> bool: ...

    @property
    def ends(self) -> LogDirsEnds | None: ...


class LogDirsServer(Protocol):
    @property
    def data_dir(self) -> Path: ...

    @property
    def partitions(self) -> Iterable[LogDirsPartition]: ...


class ProducerIdServer(Protocol):
    async def next_producer_id(self) -> int:
        """One that no producer of this cluster was given before."""
