"""AlterConfigs: replace all configs of topics and brokers by those that are named. IncrementalAlterConfigs is the
better way.

Versions: 0-2.
v2: flexible.
Topics (2) and brokers (4; "" is every broker's default) can be altered; other resources are INVALID_REQUEST.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raykafka.controller.api.altered_configs import NEEDS, altered, error_response
from raykafka.controller.decisions.configs import Alteration
from raykafka.controller.rules.configs import replaced
from raykafka.protocol.context import RequestContext

if TYPE_CHECKING:
    from kio.schema.alter_configs.v2.request import AlterConfigsRequest

    from raykafka.controller.ledger.ledger import Ledger

__all__ = ["API_KEY", "NEEDS", "VERSIONS", "error_response", "handle"]

API_KEY = 33
VERSIONS = (0, 2)


async def handle(context: RequestContext, request: AlterConfigsRequest, server: Ledger) -> Any:
    return await altered(context, request, server, _alteration)


def _alteration(configs: Any) -> Alteration:
    return lambda kind, current, defaults: replaced([(c.name, c.value) for c in configs])
