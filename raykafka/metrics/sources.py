"""What metrics read, and of whom: protocols, so that metrics know no broker and no broker knows metrics.

Everything is read at the scrape, on the event loop of the process that it describes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from raykafka.cluster.image import BrokerInfo, ClusterImage, PartitionState
from raykafka.telemetry.durations import RequestDurations
from raykafka.telemetry.traffic import Traffic
from raykafka.types import TopicPartition


class ListenerSource(Protocol):
    """A listener for Kafka clients."""

    @property
    def name(self) -> str: ...


class ActorSource(Protocol):
    """A replica actor, as it told last. ``connections``: how many of clients, by listener; ``busy``: the share of a
    core that it used of late, 0 to 1; ``age_s``: seconds since it was started."""

    @property
    def number(self) -> int: ...

    @property
    def replicas(self) -> int: ...

    @property
    def leaders(self) -> int: ...

    @property
    def connections(self) -> Mapping[str, int]: ...

    @property
    def busy(self) -> float: ...

    @property
    def age_s(self) -> float: ...


class ActorsSource(Protocol):
    """The replica actors of a broker that live."""

    def rows(self) -> Sequence[ActorSource]: ...


class ConfigsSource(Protocol):
    """The configs in force on a broker, as texts."""

    @property
    def texts(self) -> Mapping[str, str]: ...


class ChildSource(Protocol):
    """A child process; ``role`` is one of ``catalogue.ROLES``."""

    @property
    def role(self) -> str: ...


class ChildrenSource(Protocol):
    """The child processes of a broker. ``restarts`` counts those that ended and were replaced, by role."""

    @property
    def restarts(self) -> Mapping[str, int]: ...

    def living(self) -> Sequence[ChildSource]:
        """Those that were started and have not ended."""


class LeaseSource(Protocol):
    """The lease of rule 15."""

    def age_s(self, now: float) -> float:
        """Seconds between the read that renewed it last and ``now`` (``boot_clock``)."""


class SessionSource(Protocol):
    """A broker's ZooKeeper session; ``state`` is one of ``catalogue.SESSION_STATES``."""

    @property
    def state(self) -> str: ...

    @property
    def lease(self) -> LeaseSource: ...


class PartitionSource(Protocol):
    """A partition with a replica on this broker. ``actor`` is the number of the replica actor that has it, or None;
    ``ends`` are those of its log, None while it is not open. ``follower_progress`` is what the leader told last: the
    ``leader_epoch`` in which it did, and ``followers``, by broker id {``lag_records``: None while unknown, ``lag_ms``:
    -1 while unknown}; or nothing."""

    @property
    def tp(self) -> TopicPartition: ...

    @property
    def state(self) -> PartitionState: ...

    @property
    def is_leader(self) -> bool: ...

    @property
    def actor(self) -> int | None: ...

    @property
    def ends(self) -> object | None: ...

    @property
    def follower_progress(self) -> Mapping[str, Any]: ...


class PartitionsSource(Protocol):
    """The local partitions, and how often a replica of one has failed."""

    @property
    def replica_restarts(self) -> int: ...

    def __iter__(self) -> Iterator[PartitionSource]: ...


class CoordinationSource(Protocol):
    """The groups that this broker coordinates."""

    async def committed(self, most: int, within_s: float) -> list[tuple[str, TopicPartition, int]]:
        """(group, partition, offset) of committed offsets, ``most`` at most, as far as they are known."""


class LogEndsSource(Protocol):
    """Where logs end, whichever broker leads them."""

    async def ends(self, partitions: Iterable[TopicPartition], within_s: float) -> Mapping[TopicPartition, int | None]:
        """The high watermark of each partition, as its leader knows it; None or no entry where it is not known."""


class ControllerSource(Protocol):
    """The controller process beside this broker."""

    async def cluster_counts(self, within_s: float) -> dict[str, Any] | None:
        """Counts over the whole cluster, {} unless that controller is the active one; None when it gave no answer."""


class BrokerSource(Protocol):
    """A broker that is registered. ``state`` is one of ``catalogue.BROKER_STATES``."""

    @property
    def state(self) -> str: ...

    @property
    def registration(self) -> BrokerInfo: ...

    @property
    def image(self) -> ClusterImage: ...

    @property
    def listeners(self) -> Sequence[ListenerSource]: ...

    @property
    def children(self) -> ChildrenSource: ...

    @property
    def session(self) -> SessionSource: ...

    @property
    def configs(self) -> ConfigsSource: ...

    @property
    def replica_actors(self) -> ActorsSource: ...

    @property
    def partitions(self) -> PartitionsSource: ...

    @property
    def traffic(self) -> Traffic: ...

    @property
    def durations(self) -> RequestDurations: ...

    @property
    def coordination(self) -> CoordinationSource: ...

    @property
    def log_ends(self) -> LogEndsSource: ...

    @property
    def own_controller(self) -> ControllerSource: ...

    def holds_lease(self) -> bool:
        """Whether the lease of rule 15 has not run out."""
