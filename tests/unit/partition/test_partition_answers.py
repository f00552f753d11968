"""What a leader makes of a follower's answer to its Hello (rule 11)."""

from __future__ import annotations

import pytest

from raykafka.cluster.image import PartitionState
from raykafka.epoch_history import EpochHistory
from raykafka.replica.rules.events import Answered, CloseStream, OpenStream, Propose, Told
from raykafka.replica.rules.log_state import Settings
from raykafka.replica.rules.partition import Partition

LEADER, FOLLOWER = 1, 2


def leading() -> tuple[Partition, OpenStream]:
    """A leader of epoch 3, whose log holds offsets 4 to 9: epoch 1 up to 6, epoch 2 behind; and its open stream."""
    history = EpochHistory.of([(1, 0), (2, 7)])
    partition = Partition(LEADER, Settings(), log_start=4, log_end=10, history=history, checkpoint=10)
    state = PartitionState((LEADER, FOLLOWER), LEADER, 3, (LEADER,), 5)
    effects = partition.step(Told(state, {LEADER: 0, FOLLOWER: 0}), 1000)
    (opened,) = (effect for effect in effects if isinstance(effect, OpenStream))
    return partition, opened


@pytest.mark.parametrize(
    ("log_end", "last_epoch"),
    [(11, 2), (10, 1), (7, 2), (7, 0), (3, 1), (10, 3)],
    ids=["behind the end", "an older epoch", "a newer epoch", "an unknown epoch", "before the start", "an empty epoch"],
)
def test_a_log_that_is_not_the_beginning_of_the_leaders_is_given_up(log_end: int, last_epoch: int) -> None:
    partition, opened = leading()
    effects = partition.step(Answered(FOLLOWER, opened.hello.stream, 0, log_end, last_epoch), 1001)
    assert effects == [CloseStream(FOLLOWER, opened.hello.stream)]


@pytest.mark.parametrize(("log_end", "last_epoch", "joins"), [(10, 2, True), (7, 1, False), (4, -1, False)])
def test_a_log_that_is_the_beginning_of_the_leaders_is_followed_on(log_end: int, last_epoch: int, joins: bool) -> None:
    partition, opened = leading()
    effects = partition.step(Answered(FOLLOWER, opened.hello.stream, 0, log_end, last_epoch), 1001)
    assert [type(effect) for effect in effects] == ([Propose] if joins else [])
