"""The calls that brokers make on the controller, decoded and given to whoever decides."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from raykafka.controller.decisions.controlled_shutdown import shut_down
from raykafka.controller.decisions.elections import FailedLeader, partition_failed
from raykafka.controller.decisions.isr_changes import IsrProposal, alter_partition, alter_partitions
from raykafka.controller.decisions.topics import create_automatically
from raykafka.controller.ledger.ledger import Ledger
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.types import TopicPartition


async def answer(ledger: Ledger, broker: int, method: str, args: Mapping[str, Any]) -> Any:
    """The answer to a call of ``broker``, as plain data. Raises KafkaError for one that is refused."""
    match method:
        case "create_topics":
            return await create_automatically(ledger, args["topics"])
        case "alter_partition":
            await alter_partition(ledger, _proposal(args))
        case "alter_partitions":
            return {"written": await alter_partitions(ledger, [_proposal(one) for one in args["partitions"]])}
        case "partition_failed":
            await partition_failed(ledger, _failed_leader(args))
        case "controlled_shutdown":
            await shut_down(ledger, broker)
        case _:
            raise KafkaError(ErrorCode.INVALID_REQUEST, f"a controller does not answer {method!r}")
    return {}


def _proposal(args: Mapping[str, Any]) -> IsrProposal:
    return IsrProposal(
        TopicPartition(args["topic"], args["partition"]),
        uuid.UUID(args["topic_id"]),
        isr=tuple(args["isr"]),
        broker_epochs=tuple(args["broker_epochs"]),
        leader_epoch=args["leader_epoch"],
        version=args["version"],
    )


def _failed_leader(args: Mapping[str, Any]) -> FailedLeader:
    return FailedLeader(
        TopicPartition(args["topic"], args["partition"]),
        uuid.UUID(args["topic_id"]),
        leader_epoch=args["leader_epoch"],
        reason=args["reason"],
        short_log=args.get("short_log", False),
    )
