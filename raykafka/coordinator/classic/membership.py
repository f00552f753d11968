"""Who is in a group: its members, the static ones by instance id, the leader, and the protocol they can agree on."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from raykafka.coordinator.classic.events import Join, JoinedMember, MemberSnapshot, Protocols
from raykafka.error_code import ErrorCode

CONSUMER_PROTOCOL_TYPE = "consumer"
NEVER = 1 << 62


@dataclass(slots=True)
class Member:
    """``expires_at_ms`` is its heartbeat deadline; ``join_request`` and ``sync_request`` are what it waits with.

    ``is_new`` until its first join is answered: it cannot send heartbeats before that, so it may expire while it waits.
    """

    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocols: Protocols
    assignment: bytes = b""
    join_request: Any = None
    sync_request: Any = None
    is_new: bool = False
    expires_at_ms: int = NEVER

    @property
    def is_awaiting(self) -> bool:
        return self.join_request is not None or self.sync_request is not None

    def metadata(self, protocol: str | None) -> bytes:
        return next((metadata for name, metadata in self.protocols if name == protocol), b"")

    def snapshot(self, protocol: str | None, assignment: bytes) -> MemberSnapshot:
        return MemberSnapshot(
            self.member_id,
            self.instance_id,
            self.client_id,
            self.client_host,
            self.rebalance_timeout_ms,
            self.session_timeout_ms,
            self.metadata(protocol),
            assignment,
        )

    @staticmethod
    def joining(event: Join, member_id: str) -> Member:
        return Member(
            member_id,
            event.instance_id,
            event.client_id,
            event.client_host,
            event.session_timeout_ms,
            event.rebalance_timeout_ms,
            event.protocols,
            join_request=event.request,
            is_new=True,
        )

    @staticmethod
    def stored(snapshot: MemberSnapshot, protocol: str) -> Member:
        return Member(
            snapshot.member_id,
            snapshot.instance_id,
            snapshot.client_id,
            snapshot.client_host,
            snapshot.session_timeout_ms,
            snapshot.rebalance_timeout_ms,
            ((protocol, snapshot.subscription),),
            snapshot.assignment,
        )


class Membership:
    """The members in the order in which they joined. The leader is the first, until it is gone or does not rejoin."""

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self.leader: str | None = None
        self._static: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.members)

    def __contains__(self, member_id: object) -> bool:
        return member_id in self.members

    def static_member_id(self, instance_id: str | None) -> str | None:
        return None if instance_id is None else self._static.get(instance_id)

    def error_of(self, member_id: str, instance_id: str | None) -> ErrorCode:
        """Kafka's check of who asks: an instance id must be known and be this member's, and the member id known."""
        if instance_id is not None:
            current = self.static_member_id(instance_id)
            if current is None:
                return ErrorCode.UNKNOWN_MEMBER_ID
            if current != member_id:
                return ErrorCode.FENCED_INSTANCE_ID
        return ErrorCode.NONE if member_id in self.members else ErrorCode.UNKNOWN_MEMBER_ID

    def add(self, member: Member) -> None:
        self.members[member.member_id] = member
        if member.instance_id is not None:
            self._static[member.instance_id] = member.member_id
        if self.leader is None:
            self.leader = member.member_id

    def remove(self, member_id: str) -> None:
        member = self.members.pop(member_id, None)
        if member is not None and member.instance_id is not None:
            self._static.pop(member.instance_id, None)
        if self.leader == member_id:
            self.leader = next(iter(self.members), None)

    def rename(self, member: Member, member_id: str) -> None:
        """A static member that comes back takes its old place under a new member id."""
        if self.leader == member.member_id:
            self.leader = member_id
        del self.members[member.member_id]
        member.member_id = member_id
        self.members[member_id] = member
        if member.instance_id is not None:
            self._static[member.instance_id] = member_id

    def elect_joined_leader(self) -> bool:
        """Keep the leader if it has joined, else take any member that has. False if none has."""
        if self.leader is None:
            return False
        if self.members[self.leader].join_request is None:
            joined = next((m.member_id for m in self.members.values() if m.join_request is not None), None)
            if joined is None:
                return False
            self.leader = joined
        return True

    @property
    def awaiting_join(self) -> int:
        return sum(member.join_request is not None for member in self.members.values())

    @property
    def rebalance_timeout_ms(self) -> int:
        return max((member.rebalance_timeout_ms for member in self.members.values()), default=0)

    def common_protocols(self) -> set[str]:
        """Protocols that every member supports."""
        counts = Counter(name for member in self.members.values() for name, _ in member.protocols)
        return {name for name, count in counts.items() if count == len(self.members)}

    def supports(self, protocols: Protocols) -> bool:
        """Whether one who supports only ``protocols`` could agree with all members."""
        common = self.common_protocols()
        return any(name in common for name, _ in protocols)

    def select_protocol(self) -> str:
        """The protocol that most members put first among those that all support; the earlier voter decides a tie."""
        candidates = self.common_protocols()
        votes = Counter(
            next(name for name, _ in member.protocols if name in candidates) for member in self.members.values()
        )
        return max(votes, key=lambda name: votes[name])

    def joined(self, protocol: str | None) -> tuple[JoinedMember, ...]:
        return tuple(JoinedMember(m.member_id, m.instance_id, m.metadata(protocol)) for m in self.members.values())

    def subscribed_topics(self, protocol_type: str | None, protocol: str | None) -> frozenset[str] | None:
        """What the members of a consumer group subscribe to; None for other groups and where it can't be read."""
        if protocol_type != CONSUMER_PROTOCOL_TYPE:
            return None
        if not self.members:
            return frozenset()
        try:
            return frozenset().union(*(_subscription_topics(m.metadata(protocol)) for m in self.members.values()))
        except (struct.error, UnicodeDecodeError, ValueError):
            return None


def _subscription_topics(metadata: bytes) -> Iterable[str]:
    """The topics of a ConsumerProtocolSubscription: version:2, then an array of strings."""
    _, count = struct.unpack_from(">hi", metadata)
    position, topics = 6, []
    for _ in range(count):
        (size,) = struct.unpack_from(">h", metadata, position)
        topic = metadata[position + 2 : position + 2 + size]
        if size < 0 or len(topic) != size:
            raise ValueError("a topic name reaches past the end of the subscription")
        topics.append(topic.decode())
        position += 2 + size
    return topics
