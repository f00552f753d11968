"""IncrementalAlterConfigs: set, delete, append to and subtract from single configs of topics and brokers (KIP-339).

Versions: 0-1.
v1: flexible.
Topics (2) and brokers (4; "" is every broker's default) can be altered. Broker loggers, client metrics and groups are
INVALID_REQUEST. A resource named twice is INVALID_REQUEST.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raykafka.controller.api.altered_configs import NEEDS, altered, error_response
from raykafka.controller.decisions.configs import Alteration
from raykafka.controller.rules.configs import altered as plan
from raykafka.protocol.context import RequestContext

if TYPE_CHECKING:
    from kio.schema.incremental_alter_configs.v1.request import IncrementalAlterConfigsRequest

    from raykafka.controller.ledger.ledger import Ledger

__all__ = ["API_KEY", "NEEDS", "VERSIONS", "error_response", "handle"]

API_KEY = 44
VERSIONS = (0, 1)


async def handle(context: RequestContext, request: IncrementalAlterConfigsRequest, server: Ledger) -> Any:
    return await altered(context, request, server, _alteration)


def _alteration(configs: Any) -> Alteration:
    changes = [(c.name, c.config_operation, c.value) for c in configs]
    return lambda kind, current, defaults: plan(kind, current, defaults, changes)
