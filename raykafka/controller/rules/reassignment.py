"""Moving a partition from one set of replicas to another (KIP-455). Pure.

A move stands in ZooKeeper from the asking to its end, so that any controller can go on with it: ``/brokers/topics/T``
holds all replicas, new and old, and which of them are ``adding`` and ``removing``; the state node says who is in sync.
The leader streams to new replicas as to any others; once all that were asked for are in sync, the others go: they leave
the ISR, the leadership moves if one of them has it, and their logs are deleted. Asking for something else, or
cancelling, is one more step of the same kind. Each step writes assignment and state in one transaction, and with it the
state's version: a leader's proposal that was made before it is refused (rule 7).
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace

from raykafka.controller.rules.elections import BrokerLife, survivors
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.types import NO_LEADER
from raykafka.zookeeper.znodes import StateNode, TopicNode


@dataclass(frozen=True, slots=True)
class Assignment:
    """A partition's replicas, in order of preference; those that a move adds and removes are among them."""

    replicas: tuple[int, ...]
    adding: tuple[int, ...] = ()
    removing: tuple[int, ...] = ()

    @staticmethod
    def of(node: TopicNode, partition: int) -> Assignment:
        adding, removing = node.adding.get(partition, ()), node.removing.get(partition, ())
        return Assignment(node.replicas[partition], adding, removing)

    @property
    def is_moving(self) -> bool:
        return bool(self.adding or self.removing)

    @property
    def target(self) -> tuple[int, ...]:
        """The replicas when the move is done."""
        return tuple(b for b in self.replicas if b not in self.removing)

    @property
    def origin(self) -> tuple[int, ...]:
        """The replicas before the move."""
        return tuple(b for b in self.replicas if b not in self.adding)

    def towards(self, target: Sequence[int]) -> Assignment:
        """The assignment on the way to ``target``: what an unfinished move has added and nobody wants is dropped."""
        origin = self.origin
        return Assignment(
            tuple(dict.fromkeys((*target, *origin))),
            adding=tuple(b for b in target if b not in origin),
            removing=tuple(b for b in origin if b not in target),
        )


@dataclass(frozen=True, slots=True)
class Step:
    """A new assignment and the state that goes with it, to be written together."""

    assignment: Assignment
    state: StateNode


Lives = Mapping[int, BrokerLife]


def with_assignments(node: TopicNode, steps: Mapping[int, Step]) -> TopicNode:
    """The topic's node after ``steps`` of some of its partitions."""
    replicas, adding, removing = dict(node.replicas), dict(node.adding), dict(node.removing)
    for partition, step in steps.items():
        replicas[partition] = step.assignment.replicas
        adding[partition], removing[partition] = step.assignment.adding, step.assignment.removing
    return replace(node, replicas=replicas, adding=_filled(adding), removing=_filled(removing))


def _filled(table: Mapping[int, tuple[int, ...]]) -> dict[int, tuple[int, ...]]:
    return {partition: brokers for partition, brokers in table.items() if brokers}


def asked(
    current: Assignment,
    state: StateNode,
    wanted: Sequence[int] | None,
    lives: Lives,
    leaving: Container[int],
    controller_epoch: int,
) -> Step:
    """The step that begins the move to ``wanted``, or with None cancels the one under way; what is done at once is done
    with it. ``leaving`` are registered brokers that get nothing new to lead. Raises KafkaError with Kafka's codes."""
    if wanted is None:
        if not current.is_moving:
            raise KafkaError(ErrorCode.NO_REASSIGNMENT_IN_PROGRESS, "No partition reassignment is in progress.")
        wanted = current.origin
    else:
        _check(current, tuple(wanted), lives)
    after = current.towards(wanted)
    begun = _step(after, state, lives, leaving, controller_epoch)
    if begun is None:
        raise KafkaError(
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            f"None of the replicas {list(after.replicas)} is in sync and alive: "
            "leaving the others behind would need an unclean leader election.",
        )
    return next_step(after, begun.state, lives, leaving, controller_epoch) or begun


def _check(current: Assignment, wanted: tuple[int, ...], lives: Lives) -> None:
    if not wanted:
        raise _refused("Empty replica list specified in partition reassignment.")
    if len(set(wanted)) != len(wanted):
        raise _refused(f"Duplicate replica ids in partition reassignment replica list: {list(wanted)}")
    if min(wanted) < 0:
        raise _refused(f"Invalid broker id in replica list: {list(wanted)}")
    adding = current.towards(wanted).adding
    if not set(adding) <= lives.keys():
        raise _refused(
            f"Replica assignment has brokers that are not alive. Replica list: {list(adding)}, "
            f"live broker list: {sorted(lives)}"
        )


def _refused(message: str) -> KafkaError:
    return KafkaError(ErrorCode.INVALID_REPLICA_ASSIGNMENT, message)


def next_step(
    current: Assignment, state: StateNode, lives: Lives, leaving: Container[int], controller_epoch: int
) -> Step | None:
    """The step that ends a move whose replicas are all in sync; None while it has to wait."""
    if not current.is_moving or not set(current.target) <= set(state.isr):
        return None
    return _step(Assignment(current.target), state, lives, leaving, controller_epoch)


def _step(
    after: Assignment, state: StateNode, lives: Lives, leaving: Container[int], controller_epoch: int
) -> Step | None:
    """``after`` with the state that it brings: replicas that are none any more leave the ISR, and their leadership goes
    to one that stays. None if nobody who stays can take it."""
    staying = [b for b in state.isr if b in after.replicas]
    if not staying:
        return None
    epochs = dict(zip(state.isr, state.isr_epochs, strict=True))
    made = replace(
        state, isr=tuple(staying), isr_epochs=tuple(epochs[b] for b in staying), controller_epoch=controller_epoch
    )
    if state.leader == NO_LEADER or state.leader in after.replicas:
        return Step(after, made)
    able = [b for b in survivors(state, lives) if b not in leaving]
    leader = next((b for b in after.replicas if b in able), None)
    if leader is None:
        return None
    return Step(after, replace(made, leader=leader, leader_epoch=state.leader_epoch + 1))
