"""Where the leader is, told beside the error that it is elsewhere (KIP-951): clients need not ask for metadata."""

from __future__ import annotations

import struct

from raykafka.cluster.image import ClusterImage
from raykafka.protocol.wire import nullable_string, uvarint
from raykafka.types import NO_LEADER, TopicPartition

_LEADER = struct.Struct(">ii")
_I32 = struct.Struct(">i")


class LeaderHints:
    """The leaders named in one response, as its tagged fields. ``listener``: the one that the client came through."""

    def __init__(self, image: ClusterImage, listener: str) -> None:
        self._image = image
        self._listener = listener
        self._named: tuple[int, ...] = ()

    def leader(self, topic: str, partition: int) -> bytes | None:
        """LeaderIdAndEpoch of a partition; None where no living leader is known."""
        state = self._image.partition(TopicPartition(topic, partition))
        if state is None or state.leader == NO_LEADER:
            return None
        if state.leader not in self._named:
            self._named += (state.leader,)
        return _LEADER.pack(state.leader, state.leader_epoch) + b"\0"

    def endpoints(self) -> bytes | None:
        """NodeEndpoints of all leaders named; None when none was."""
        if not self._named:
            return None
        found = []
        for broker in self._named:
            info = self._image.brokers.get(broker)
            endpoint = info.endpoint(self._listener) if info else None
            if info is not None and endpoint is not None:
                found.append(
                    _I32.pack(broker)
                    + nullable_string(endpoint.host, flexible=True)
                    + _I32.pack(endpoint.port)
                    + nullable_string(info.rack, flexible=True)
                    + b"\0"
                )
        return uvarint(len(found) + 1) + b"".join(found) if found else None


def tagged(tag: int, value: bytes | None) -> bytes:
    """The tagged fields of a structure that has at most this one."""
    return b"\0" if value is None else b"\x01" + uvarint(tag) + uvarint(len(value)) + value
