"""What the handlers in ``raykafka.broker.api`` need of their broker."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from raykafka.broker.configs import Configs
from raykafka.broker.partitions.partition_host import PartitionHost
from raykafka.cluster.image import ClusterImage


class ConfigsServer(Protocol):
    @property
    def broker_id(self) -> int: ...

    @property
    def image(self) -> ClusterImage: ...

    @property
    def configs(self) -> Configs: ...


class LogDirsServer(Protocol):
    @property
    def data_dir(self) -> Path: ...

    @property
    def partitions(self) -> Iterable[PartitionHost]: ...


class ProducerIdServer(Protocol):
    async def next_producer_id(self) -> int:
        """One that no producer of this cluster was given before."""
