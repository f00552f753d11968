"""What the front needs of the process that it runs in, whichever that is: a replica actor.

Handlers in ``raykafka.front.api`` declare the narrowest of these protocols that serves them.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import Protocol

from raykafka.cluster.image import ClusterImage
from raykafka.error_code import ErrorCode
from raykafka.front.fetch_sessions import FetchSessions
from raykafka.front.image_answers import ImageAnswers
from raykafka.partition.access import Partitions
from raykafka.protocol.context import RequestContext
from raykafka.protocol.gate import Gate
from raykafka.telemetry.traffic import Traffic


class GatedServer(Protocol):
    """Lets requests in."""

    @property
    def gate(self) -> Gate:
        """Admits what it serves and what it forwards."""


class NumberConfigs(Protocol):
    """Broker configs that are numbers."""

    def number(self, name: str) -> int:
        """The value in force. Raises KeyError for a config without a value."""


class ServedPartitions(Partitions, Protocol):
    """The partitions that this front serves. ``traffic`` counts what goes in and out, by topic."""

    @property
    def traffic(self) -> Traffic: ...


class ClusterServer(Protocol):
    """Serves what the cluster image tells. ``suspects`` are brokers of it that seem to be dead, while the controller
    has not said so."""

    @property
    def image(self) -> ClusterImage: ...

    @property
    def suspects(self) -> Set[int]: ...

    @property
    def image_answers(self) -> ImageAnswers: ...

    async def auto_create(self, names: Iterable[str], *, internal: bool = False) -> dict[str, ErrorCode]:
        """Create topics that clients asked for, if config allows it (always if ``internal``): NONE where the topic then
        stands in the image, no entries where config does not allow it."""


class PartitionsServer(Protocol):
    """Serves reads and writes of partitions. ``fetch_sessions`` are those of its clients (KIP-227)."""

    @property
    def image(self) -> ClusterImage: ...

    @property
    def partitions(self) -> ServedPartitions: ...

    @property
    def configs(self) -> NumberConfigs: ...

    @property
    def fetch_sessions(self) -> FetchSessions: ...

    def holds_lease(self) -> bool:
        """Whether acks 0 and 1 may be answered (rule 15)."""


class FrontServer(GatedServer, ClusterServer, PartitionsServer, Protocol):
    """The process that a front runs in: what its handlers need, and where requests go that others answer."""

    async def forward_to_coordinator(self, context: RequestContext, body: memoryview) -> memoryview:
        """The response body of this broker's coordinator. Raises KafkaError, LinkError, TimeoutError."""

    async def forward_to_broker(self, context: RequestContext, body: memoryview) -> memoryview:
        """The response body of the broker, or of the controller that it asks. Raises KafkaError, LinkError,
        TimeoutError."""
