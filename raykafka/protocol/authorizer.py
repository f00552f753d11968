"""What a request may do, and what it costs: the questions that a gate's authorizer and quotas answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from raykafka.errors import RaykafkaError
from raykafka.protocol.acl import Need
from raykafka.protocol.session import ClientSession


class UndeclaredNeedError(RaykafkaError):
    """A handler asked for what its module's ``NEEDS`` do not name, or of a request that passed no gate."""


class Authorizer(Protocol):
    def allows(self, session: ClientSession, need: Need, name: str) -> bool:
        """Whether the session's principal may do ``need.operation`` on the resource called ``name``."""


class Quotas(Protocol):
    def charge(self, session: ClientSession, client_id: str | None, kind: str, amount: int) -> int:
        """Count ``amount`` of ``kind`` against the client's quota. Returns the throttle time that it earns, in ms.

        Kinds: ``request`` (bytes of a request's body), ``produce`` and ``fetch`` (bytes of records).
        """


class AllowAll:
    """Everybody may do everything."""

    def allows(self, session: ClientSession, need: Need, name: str) -> bool:
        return True


class Free:
    """Nothing is counted."""

    def charge(self, session: ClientSession, client_id: str | None, kind: str, amount: int) -> int:
        return 0


class _Unadmitted:
    """Who asks on behalf of a request that passed no gate is wrong."""

    def charge(self, session: ClientSession, client_id: str | None, kind: str, amount: int) -> int:
        raise UndeclaredNeedError("a request is charged that passed no gate")


@dataclass(frozen=True, slots=True)
class Access:
    """What the requests of one API may ask, and of whom."""

    needs: tuple[Need, ...]
    authorizer: Authorizer
    quotas: Quotas


NOT_ADMITTED = Access((), AllowAll(), _Unadmitted())
"""Of a request that has passed no gate: to ask is an error."""
