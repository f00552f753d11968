"""All APIs that a broker serves or forwards, and requests that passed a gate, for tests."""

from __future__ import annotations

from raykafka.broker import api as broker_api
from raykafka.controller import api as controller_api
from raykafka.coordinator import api as coordinator_api
from raykafka.front import api as front_api
from raykafka.protocol.acl import Need
from raykafka.protocol.authorizer import Authorizer
from raykafka.protocol.context import RequestContext
from raykafka.protocol.gate import Gate
from raykafka.protocol.registry import Registry
from raykafka.protocol.session import ClientSession

APIS = Registry(front_api, broker_api, coordinator_api, controller_api)
GATE = Gate(APIS)


class DenyAll:
    """Nobody may do anything. ``asked`` is what was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[Need, str]] = []

    def allows(self, session: ClientSession, need: Need, name: str) -> bool:
        self.asked.append((need, name))
        return False


def request_context(
    api_key: int, version: int, client_id: str | None = "test", listener: str = "INSIDE"
) -> RequestContext:
    """A request as it comes from a connection: no gate has admitted it."""
    return RequestContext(api_key, version, 1, client_id, ClientSession("127.0.0.1", listener))


def admitted(
    api_key: int,
    version: int,
    client_id: str | None = "test",
    listener: str = "INSIDE",
    authorizer: Authorizer | None = None,
) -> RequestContext:
    """A request that passed a gate."""
    context = request_context(api_key, version, client_id, listener)
    api = APIS.get(api_key)
    assert api is not None
    (GATE if authorizer is None else Gate(APIS, authorizer)).admit(api, context, 0)
    return context
