"""What a handler knows of the request that it answers, and what it asks about it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from raykafka.errors import KafkaError
from raykafka.process.clock import boot_clock_ns
from raykafka.protocol.acl import REFUSALS, SUPPORTED, Need, ResourceType, operation_bits
from raykafka.protocol.authorizer import NOT_ADMITTED, Access, AllowAll, UndeclaredNeedError
from raykafka.protocol.session import ClientSession


@dataclass(slots=True)
class RequestContext:
    """One request on its way through a process. All times are CLOCK_BOOTTIME nanoseconds.

    ``throttle_ms`` is what the request's charges have earned so far: it is told in the answer, and the connection is
    muted for so long. ``begun_ns`` is when the request's turn came; ``waits_from_ns`` when nothing was left to do but
    to wait for others, 0 if that never was; ``waited_ns`` what was waited before.
    """

    api_key: int
    api_version: int
    correlation_id: int
    client_id: str | None
    session: ClientSession
    received_ns: int = field(default_factory=boot_clock_ns)
    access: Access = NOT_ADMITTED
    throttle_ms: int = 0
    begun_ns: int = 0
    waits_from_ns: int = 0
    waited_ns: int = 0

    @property
    def client_host(self) -> str:
        return self.session.host

    @property
    def listener(self) -> str:
        return self.session.listener

    @property
    def is_open_to_all(self) -> bool:
        """Whether everybody may do everything: what one client is answered, any other is as well."""
        return isinstance(self.access.authorizer, AllowAll)

    def allows(self, need: Need, name: str) -> bool:
        """Whether the client may do ``need`` on the resource called ``name``. Raises UndeclaredNeedError for what the
        API's module does not declare."""
        access = self.access
        if need not in access.needs:
            raise UndeclaredNeedError(
                f"API {self.api_key} asks for {need.operation.name} on {need.resource.name}, which is not in its NEEDS"
            )
        return access.authorizer.allows(self.session, need, name)

    def require(self, need: Need, name: str) -> None:
        """Raises KafkaError with the resource type's authorization error where ``allows`` is false."""
        if not self.allows(need, name):
            raise KafkaError(REFUSALS[need.resource])

    def authorized_operations(self, resource: ResourceType, name: str) -> int:
        """The bits of all operations on a resource that the client may do (KIP-430)."""
        allows = self.access.authorizer.allows
        return operation_bits(
            operation for operation in SUPPORTED[resource] if allows(self.session, Need(operation, resource), name)
        )

    def charge(self, kind: str, amount: int) -> int:
        """Count ``amount`` of ``kind`` against the client's quota. Returns the request's throttle time so far, in
        ms."""
        earned = self.access.quotas.charge(self.session, self.client_id, kind, amount)
        if earned > self.throttle_ms:
            self.throttle_ms = earned
        return self.throttle_ms

    def to_json(self) -> bytes:
        """What another process has to know to serve this request."""
        session = self.session
        return json.dumps(
            [
                self.api_key,
                self.api_version,
                self.correlation_id,
                self.client_id,
                [session.host, session.listener, session.principal],
                self.received_ns,
                self.throttle_ms,
            ]
        ).encode()

    @staticmethod
    def from_json(data: bytes) -> RequestContext:
        key, version, correlation, client_id, session, received_ns, throttle_ms = json.loads(data)
        return RequestContext(
            key, version, correlation, client_id, ClientSession(*session), received_ns, throttle_ms=throttle_ms
        )


def pack_forward(context: RequestContext, body: bytes | bytearray | memoryview) -> tuple[bytes, Any]:
    """The parts of a FORWARD frame that carries ``context`` and a request body (without its header)."""
    head = context.to_json()
    return len(head).to_bytes(4, "big") + head, body


def unpack_forward(payload: memoryview) -> tuple[RequestContext, memoryview]:
    size = int.from_bytes(payload[:4], "big")
    return RequestContext.from_json(bytes(payload[4 : 4 + size])), payload[4 + size :]
