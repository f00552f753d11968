"""The calls that brokers make on the controller, decoded and given to whoever decides."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from raykafka.controller.decisions.controlled_shutdown import shut_down
from raykafka.controller.decisions.elections import FailedReplica, partitions_failed
from raykafka.controller.decisions.isr_changes import IsrChanges, IsrProposal
from raykafka.controller.decisions.topics import create_automatically
from raykafka.controller.ledger.ledger import Ledger
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.types import TopicPartition


async def answer(ledger: Ledger, isr_changes: IsrChanges, broker: int, method: str, args: Mapping[str, Any]) -> Any:
    """The answer to a call of ``broker``, as plain data. Raises KafkaError for one that is refused."""
    match method:
        case "create_topics":
            return await create_automatically(ledger, args["topics"])
        case "alter_partitions":
            refusals = await isr_changes.ask([_proposal(one) for one in args["partitions"]])
            return {"codes": [int(refusal.code if refusal else ErrorCode.NONE) for refusal in refusals]}
        case "partitions_failed":
            await partitions_failed(ledger, broker, [_failed_replica(one) for one in args["partitions"]])
        case "controlled_shutdown":
            await shut_down(ledger, broker)
        case _:
            raise KafkaError(ErrorCode.INVALID_REQUEST, f"a controller does not answer {method!r}")
    return {}


def _proposal(args: Mapping[str, Any]) -> IsrProposal:
    if len(args["isr"]) != len(args["broker_epochs"]):
        raise KafkaError(ErrorCode.INVALID_REQUEST, "each member of an ISR is named with its broker epoch")
    return IsrProposal(
        TopicPartition(args["topic"], args["partition"]),
        uuid.UUID(args["topic_id"]),
        isr=tuple(args["isr"]),
        broker_epochs=tuple(args["broker_epochs"]),
        leader_epoch=args["leader_epoch"],
        version=args["version"],
    )


def _failed_replica(args: Mapping[str, Any]) -> FailedReplica:
    return FailedReplica(
        TopicPartition(args["topic"], args["partition"]),
        uuid.UUID(args["topic_id"]),
        leader_epoch=args["leader_epoch"],
        reason=args["reason"],
        short_log=args["short_log"],
    )
