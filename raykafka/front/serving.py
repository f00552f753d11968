"""What the front needs of the process that it runs in, whichever that is: a broker today.

Handlers in ``raykafka.front.api`` declare the narrowest of these protocols that serves them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Protocol

from raykafka.cluster.image import ClusterImage
from raykafka.error_code import ErrorCode
from raykafka.front.fetch_sessions import FetchSessions
from raykafka.partition.access import Partitions
from raykafka.protocol import acl
from raykafka.protocol.context import RequestContext
from raykafka.telemetry.traffic import Traffic


class Gate(Protocol):
    """Who may do what, and how much of it."""

    def authorize(self, context: RequestContext, operation: acl.Operation, resource: acl.Resource) -> bool:
        """Whether the context's principal may do that."""

    def authorized_operations(self, context: RequestContext, resource: acl.Resource) -> int:
        """The bits of all operations on ``resource`` that the principal may do (KIP-430)."""

    def charge(self, context: RequestContext, kind: str, amount: int) -> int:
        """Count ``amount`` of ``kind`` against the client's quota; the throttle time that it earns, in ms."""


class NumberConfigs(Protocol):
    """Broker configs that are numbers."""

    def number(self, name: str) -> int:
        """The value in force. Raises KeyError for a config without a value."""


class ClusterServer(Gate, Protocol):
    """Serves what the cluster image tells. ``suspects`` are brokers of it that seem to be dead, while the controller
    has not said so."""

    @property
    def image(self) -> ClusterImage: ...

    @property
    def suspects(self) -> Collection[int]: ...

    async def auto_create(self, names: Iterable[str], *, internal: bool = False) -> dict[str, ErrorCode]:
        """Create topics that clients asked for, if config allows it (always if ``internal``): NONE where the topic then
        stands in the image, no entries where config does not allow it."""


class PartitionsServer(Gate, Protocol):
    """Serves reads and writes of partitions."""

    @property
    def image(self) -> ClusterImage: ...

    @property
    def partitions(self) -> Partitions: ...

    @property
    def configs(self) -> NumberConfigs: ...

    @property
    def fetch_sessions(self) -> FetchSessions: ...

    @property
    def traffic(self) -> Traffic: ...

    def holds_lease(self) -> bool:
        """Whether acks 0 and 1 may be answered (rule 15)."""


class FrontServer(ClusterServer, PartitionsServer, Protocol):
    """The process that a front runs in: what its handlers need, and where requests go that others answer."""

    async def forward_to_coordinator(self, context: RequestContext, body: memoryview) -> memoryview:
        """The response body of this broker's coordinator. Raises KafkaError, LinkError, TimeoutError."""

    async def forward_to_controller(self, context: RequestContext, body: memoryview) -> memoryview:
        """The response body of the controller. Raises KafkaError, LinkError, TimeoutError."""
