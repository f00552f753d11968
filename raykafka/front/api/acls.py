"""What all requests for ACLs are answered: there is no authorizer, as on a Kafka broker without one."""

from __future__ import annotations

from typing import NoReturn

from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.protocol import acl
from raykafka.protocol.context import RequestContext


def refuse(context: RequestContext, need: acl.Need) -> NoReturn:
    """Raises KafkaError: SECURITY_DISABLED for whoever may do ``need`` on the cluster."""
    context.require(need, acl.CLUSTER_NAME)
    raise KafkaError(ErrorCode.SECURITY_DISABLED, "there is no authorizer")
