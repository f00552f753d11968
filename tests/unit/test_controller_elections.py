"""Elections: who leads and who is in sync after deaths and returns."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from raykafka.controller.rules.elections import BrokerLife, after_changes, first_state
from raykafka.types import NO_LEADER
from raykafka.zookeeper.znodes import StateNode

EPOCH = 5


def lives(**epochs: int) -> dict[int, BrokerLife]:
    """``b1=4``: broker 1 lives with epoch 4, on the directory and with the logs that it always had."""
    return {int(name[1:]): BrokerLife(epoch, 1, 1) for name, epoch in epochs.items()}


def state(leader: int, isr: dict[int, int], leader_epoch: int = 3) -> StateNode:
    return StateNode(leader, leader_epoch, tuple(isr), tuple(isr.values()), 1, version=9)


def test_a_new_partition_is_led_by_its_first_live_replica() -> None:
    made = first_state((2, 0, 1), lives(b0=1, b1=1), EPOCH)
    assert (made.leader, made.leader_epoch, made.isr, made.isr_epochs) == (0, 0, (0, 1), (1, 1))


def test_a_new_partition_without_live_replicas_waits_for_its_first() -> None:
    made = first_state((2,), lives(b0=1), EPOCH)
    assert (made.leader, made.isr) == (NO_LEADER, (2,))
    first_life = {2: BrokerLife(epoch=4, directory_since=4, intact_since=4)}
    back = after_changes((2,), made, first_life, EPOCH)
    assert back is not None and (back.leader, back.isr_epochs) == (2, (4,))


def test_nothing_changes_while_everybody_lives() -> None:
    assert after_changes((0, 1), state(0, {0: 1, 1: 1}), lives(b0=1, b1=1), EPOCH) is None


def test_the_next_in_sync_replica_in_assignment_order_takes_over() -> None:
    after = after_changes((0, 2, 1), state(0, {0: 1, 1: 1, 2: 1}), lives(b1=1, b2=1), EPOCH)
    assert after is not None
    assert (after.leader, after.leader_epoch, after.isr, after.controller_epoch) == (2, 4, (1, 2), EPOCH)
    assert after.version == 9


def test_a_dead_follower_leaves_the_isr_in_the_same_epoch() -> None:
    after = after_changes((0, 1), state(0, {0: 1, 1: 1}), lives(b0=1), EPOCH)
    assert after is not None
    assert (after.leader, after.leader_epoch, after.isr, after.isr_epochs) == (0, 3, (0,), (1,))


def test_a_follower_that_restarted_unseen_leaves_the_isr() -> None:
    after = after_changes((0, 1), state(0, {0: 1, 1: 1}), lives(b0=1, b1=2), EPOCH)
    assert after is not None
    assert (after.leader, after.isr) == (0, (0,))


def test_a_replica_out_of_sync_is_not_elected() -> None:
    after = after_changes((0, 1), state(0, {0: 1}), lives(b1=1), EPOCH)
    assert after is not None
    assert (after.leader, after.leader_epoch, after.isr) == (NO_LEADER, 4, (0,))
    assert after_changes((0, 1), after, lives(b1=1), EPOCH) is None


def test_the_last_in_sync_replica_leads_again_when_it_is_back() -> None:
    offline = state(NO_LEADER, {0: 1}, leader_epoch=4)
    after = after_changes((0, 1), offline, lives(b0=2, b1=1), EPOCH)
    assert after is not None
    assert (after.leader, after.leader_epoch, after.isr, after.isr_epochs) == (0, 5, (0,), (2,))


def test_of_several_that_died_together_a_survivor_leads_before_one_that_came_back() -> None:
    after = after_changes((0, 1), state(0, {0: 1, 1: 1}), lives(b0=2, b1=1), EPOCH)
    assert after is not None
    assert (after.leader, after.isr) == (1, (1,))


def test_a_member_that_may_have_lost_its_tail_does_not_lead_cleanly() -> None:
    crashed = {0: BrokerLife(epoch=2, directory_since=1, intact_since=2)}
    offline = after_changes((0, 1), state(0, {0: 1}), crashed, EPOCH)
    assert offline is not None and offline.leader == NO_LEADER
    chosen = after_changes((0, 1), offline, crashed, EPOCH, unclean=True)
    assert chosen is not None and chosen.leader == 0
    assert chosen.unclean_epoch == chosen.leader_epoch


def test_a_partition_with_one_replica_leads_from_what_is_on_its_disk() -> None:
    crashed = {0: BrokerLife(epoch=2, directory_since=1, intact_since=2)}
    after = after_changes((0,), state(0, {0: 1}), crashed, EPOCH)
    assert after is not None and (after.leader, after.unclean_epoch) == (0, -1)


def test_another_directory_does_not_lead_cleanly_even_alone() -> None:
    emptied = {0: BrokerLife(epoch=2, directory_since=2, intact_since=2)}
    after = after_changes((0,), state(0, {0: 1}), emptied, EPOCH)
    assert after is not None and after.leader == NO_LEADER


def test_an_unclean_leader_is_alone_in_the_isr() -> None:
    after = after_changes((0, 1), state(0, {0: 1}), lives(b1=1), EPOCH, unclean=True)
    assert after is not None
    assert (after.leader, after.leader_epoch, after.isr) == (1, 4, (1,))


def test_a_failed_leader_gives_way_to_a_survivor_or_begins_a_new_epoch() -> None:
    pair = after_changes((0, 1), state(0, {0: 1, 1: 1}), lives(b0=1, b1=1), EPOCH, failed=0)
    assert pair is not None and (pair.leader, pair.leader_epoch, pair.isr) == (1, 4, (1,))
    alone = after_changes((0,), state(0, {0: 1}), lives(b0=1), EPOCH, failed=0)
    assert alone is not None and (alone.leader, alone.leader_epoch, alone.isr) == (0, 4, (0,))


broker_lives = st.builds(
    lambda epoch, directory, intact: BrokerLife(epoch, min(directory, epoch), min(max(directory, intact), epoch)),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 4),
)


@settings(max_examples=1000, deadline=None)
@given(st.data())
def test_every_election_is_safe_and_settles(data: st.DataObject) -> None:
    replicas = tuple(data.draw(st.permutations(range(4)))[: data.draw(st.integers(1, 4))])
    isr = data.draw(st.lists(st.sampled_from(replicas), min_size=1, unique=True))
    epochs = [data.draw(st.integers(1, 4)) for _ in isr]
    leader = data.draw(st.sampled_from([NO_LEADER, *isr]))
    before = StateNode(leader, 7, tuple(isr), tuple(epochs), 1, version=3)
    alive = data.draw(st.dictionaries(st.integers(0, 3), broker_lives))
    failed = data.draw(st.sampled_from([None, *([leader] if leader in alive else [])]))
    unclean = data.draw(st.booleans())
    after = after_changes(replicas, before, alive, EPOCH, failed=failed, unclean=unclean)
    now = after or before
    known = dict(zip(isr, epochs, strict=True))
    # the ISR is never empty, and of replicas only; who leads is alive and in sync
    assert now.isr and set(now.isr) <= set(replicas)
    assert now.leader == NO_LEADER or (now.leader in now.isr and now.leader in alive)
    # epochs only grow, and every change of leadership has its own
    assert now.leader_epoch >= before.leader_epoch
    if now.leader_epoch == before.leader_epoch:
        assert now.leader == before.leader
        assert now.leader == NO_LEADER or (alive[now.leader].epoch == known[now.leader] and failed != now.leader)
    if now.leader != NO_LEADER:
        assert now.isr_epochs == tuple(alive[b].epoch for b in now.isr)
        # without leave, only a member leads that holds every acknowledged record
        since = alive[now.leader].directory_since if len(replicas) == 1 else alive[now.leader].intact_since
        if now.unclean_epoch == before.unclean_epoch:
            assert now.leader in known
            assert known[now.leader] == alive[now.leader].epoch or known[now.leader] >= since
        if len(now.isr) > 1:
            assert all(b in known and alive[b].epoch == known[b] for b in now.isr)
    # losing records takes leave, and is marked for followers to know
    if now.unclean_epoch != before.unclean_epoch:
        assert unclean and now.unclean_epoch == now.leader_epoch and now.isr == (now.leader,)
    # asked again, nothing is left to do
    if after is not None:
        assert after_changes(replicas, now, alive, EPOCH, unclean=unclean) is None
