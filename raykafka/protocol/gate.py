"""The gate: the one place that every request passes in a process before it is served there or forwarded.

The gate of a replica actor is asked first, when a request comes on a client's connection: there a quota is charged. The
gates of other processes are made without quotas, so that nobody is charged twice. A request that is forwarded passes
the gate of the process that serves it as well, and there it is authorized: the names of its topics and groups are known
where its handler reads them, and Kafka refuses per topic and group. The forwarded context carries the principal;
processes that hold the cluster's secret believe each other's.

Everything is allowed and free. ACLs will be part of the cluster image: the controller holds them as it holds configs, a
broker takes them with the image and relays them to its replica actors, which tell its coordinator of them as they tell
it what topics there are; each of the four then makes its gate with an authorizer over them.
"""

from __future__ import annotations

from raykafka.protocol.authorizer import Access, AllowAll, Authorizer, Free, Quotas
from raykafka.protocol.context import RequestContext
from raykafka.protocol.registry import Api, Registry


class Gate:
    """Admits requests of ``apis``. Handlers then ask their context, which asks ``authorizer`` and ``quotas``."""

    def __init__(self, apis: Registry, authorizer: Authorizer | None = None, quotas: Quotas | None = None) -> None:
        self.apis = apis
        authorizer, quotas = authorizer or AllowAll(), quotas or Free()
        self._accesses = {api.key: Access(api.needs, authorizer, quotas) for api in apis}

    def admit(self, api: Api, context: RequestContext, size: int) -> None:
        """Let in a request whose body has ``size`` bytes: from here on its handler may ask what it needs."""
        context.access = self._accesses[api.key]
        context.charge("request", size)
