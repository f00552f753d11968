"""A replica actor's link to its broker: what the broker says and asks, and what it is told (docs/architecture.md)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError, UnanswerableRequestError
from raykafka.link import Link
from raykafka.protocol.context import RequestContext, pack_forward
from raykafka.types import PartitionKey

# the slowest answers are those of the controller, which the broker bounds itself
_ANSWER_WITHIN_S = 120.0

Call = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class BrokerLink:
    """``calls`` has what answers each call of the broker; ``ended`` is called when the link has ended."""

    def __init__(self, link: Link, calls: Mapping[str, Call], ended: Callable[[], None]) -> None:
        self._link = link
        self._calls = calls
        link.start(on_call=self._answer, on_close=lambda _: ended())

    async def _answer(self, method: str, args: dict[str, Any]) -> dict[str, Any]:
        call = self._calls.get(method)
        if call is None:
            raise KafkaError(ErrorCode.INVALID_REQUEST, f"a replica actor does not know the call {method!r}")
        return await call(args)

    def tell(self, method: str, key: PartitionKey, args: Mapping[str, Any]) -> None:
        """Tell something of one replica. Nothing once the link has ended."""
        if not self._link.is_closed:
            self._link.tell(method, {**key.to_json(), **args})

    def report(self, report: Mapping[str, Any]) -> None:
        if not self._link.is_closed:
            self._link.tell("report", dict(report))

    async def allowance(self, side: str, owed: int) -> int:
        """How many bytes a throttled stream may carry, once there are some. Raises LinkError."""
        return int((await self._link.call("allowance", {"side": side, "owed": owed}))["bytes"])

    def spent(self, side: str, size: int) -> None:
        """Count what in-sync replicas carried against a throttle."""
        if not self._link.is_closed:
            self._link.tell("spent", {"side": side, "bytes": size})

    async def auto_create(self, names: list[str], *, internal: bool) -> dict[str, ErrorCode]:
        """Raises KafkaError, LinkError."""
        answer = await self._link.call("auto_create", {"names": names, "internal": internal})
        return {name: ErrorCode(code) for name, code in answer.items()}

    async def forward(self, context: RequestContext, body: memoryview) -> memoryview:
        """The response body of the broker, or of whom it asks. Raises LinkError, UnanswerableRequestError,
        TimeoutError."""
        response = await self._link.forward(*pack_forward(context, body), timeout_s=_ANSWER_WITHIN_S)
        if not len(response):
            raise UnanswerableRequestError(f"the broker could not answer API {context.api_key}")
        return response
