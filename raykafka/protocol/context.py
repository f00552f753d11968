"""What a handler knows of the request it answers, and the hooks that every request passes."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

ANONYMOUS = "User:ANONYMOUS"


@dataclass(slots=True)
class RequestContext:
    """One request on its way through a process. ``received_ns`` and ``phases`` are CLOCK_BOOTTIME nanoseconds.

    ``forwarded`` is true where a broker hands another process a request that it has authorized and charged already.
    """

    api_key: int
    api_version: int
    correlation_id: int
    client_id: str | None
    client_host: str
    listener: str
    principal: str = ANONYMOUS
    received_ns: int = field(default_factory=lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME))
    phases: dict[str, int] = field(default_factory=dict)

    def mark(self, phase: str) -> None:
        """Note that ``phase`` (queue, local, remote, send) ended now."""
        self.phases[phase] = time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def to_json(self) -> bytes:
        return json.dumps(
            [
                self.api_key,
                self.api_version,
                self.correlation_id,
                self.client_id,
                self.client_host,
                self.listener,
                self.principal,
                self.received_ns,
            ]
        ).encode()

    @staticmethod
    def from_json(data: bytes) -> RequestContext:
        return RequestContext(*json.loads(data))


def pack_forward(context: RequestContext, body: bytes | bytearray | memoryview) -> tuple[bytes, Any]:
    """The parts of a FORWARD frame that carries ``context`` and a request body (without its header)."""
    head = context.to_json()
    return len(head).to_bytes(4, "big") + head, body


def unpack_forward(payload: memoryview) -> tuple[RequestContext, memoryview]:
    size = int.from_bytes(payload[:4], "big")
    return RequestContext.from_json(bytes(payload[4 : 4 + size])), payload[4 + size :]
