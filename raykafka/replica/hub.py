"""All replication connections of one replica actor, and the streams of its partitions on them."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from raykafka.replica.host import PartitionKey
from raykafka.replica.receiving import Receiver
from raykafka.replica.rules.events import Hello
from raykafka.replica.sending import Holder, Sender


class StreamHub:
    """``find`` says where the replica of a partition is: its Receiver when it is open here, the number of the other
    actor of this broker that has it, None while that is not known."""

    def __init__(
        self, secret: bytes, broker_id: int, actor: int, find: Callable[[PartitionKey], Receiver | int | None]
    ) -> None:
        raise NotImplementedError

    def configure(self, silent_after_ms: int) -> None:
        """A connection whose other end has been silent for longer than this ends (rule 12)."""
        raise NotImplementedError

    def take(self, sock: socket.socket, peer: dict[str, Any]) -> None:
        """Serve a leader's connection, which the broker handed over. ``peer`` is what the leader showed."""
        raise NotImplementedError

    def look_again(self, key: PartitionKey) -> None:
        """The replica of that partition was opened, told something, or placed elsewhere: streams wait for it."""
        raise NotImplementedError

    def open(self, follower: int, holder: Holder, key: PartitionKey, hello: Hello, sender: Sender) -> None:
        """Open a stream to the replica on broker ``follower``."""
        raise NotImplementedError

    def close(self) -> None:
        """End all connections; none is taken or made any more."""
        raise NotImplementedError
