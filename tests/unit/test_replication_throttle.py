"""How a broker shares its replication rate among its replicas: never more than the rate and one burst, in turn, by the
rate that is set now."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from hypothesis import given
from hypothesis import strategies as st

from raykafka.broker.partitions.replication_throttle import BURST_S, MOST_BYTES, SHARE_S, Budget, ReplicationThrottle

UNLIMITED = (1 << 63) - 1

TIMES = st.floats(0, 5, allow_nan=False)
RATES = st.integers(0, 1 << 30)


@given(RATES, st.lists(st.tuples(TIMES, st.integers(0, 1 << 20), st.integers(0, 1 << 20))))
def test_no_more_is_granted_than_the_rate_and_one_burst(rate: int, steps: list[tuple[float, int, int]]) -> None:
    now, granted = 0.0, 0
    budget = Budget(rate, now)
    for later_s, owed, spent in steps:
        now += later_s
        granted += owed
        budget.owe(owed)
        budget.spend(spent, now)
        while grant := budget.grant(now):
            granted += grant
            assert granted <= rate * (now + BURST_S) * 1.000001


@given(st.lists(st.tuples(TIMES, RATES), min_size=1))
def test_each_rate_bounds_the_time_in_which_it_holds(steps: list[tuple[float, int]]) -> None:
    now, granted, allowed = 0.0, 0, steps[0][1] * BURST_S
    budget = Budget(steps[0][1], now)
    for later_s, rate in steps:
        allowed += budget.rate * later_s if budget.rate else 0
        now += later_s
        budget.change(rate, now)
        while grant := budget.grant(now):
            granted += grant
        assert granted <= allowed * 1.000001


def test_the_whole_rate_is_granted_to_who_asks_when_told_to() -> None:
    budget, now, granted = Budget(1_000_000, 0.0), 0.0, 0
    while now < 10:
        while grant := budget.grant(now):
            granted += grant
        wait_s = budget.wait_s()
        assert wait_s is not None and 0 < wait_s <= SHARE_S * 1.001
        now += wait_s
    assert granted >= 10 * 1_000_000


def test_a_batch_beyond_the_grant_is_paid_for_by_the_time_after_it() -> None:
    budget = Budget(1000, 0.0)
    while budget.grant(0.0):
        pass
    budget.owe(5000)
    assert budget.grant(5.0) == 0
    assert budget.grant(5.11) == 100


def test_in_sync_traffic_takes_from_the_rate_but_not_for_longer_than_a_burst() -> None:
    budget = Budget(1000, 0.0)
    for tenth in range(100):
        budget.spend(10_000, tenth / 10)
        assert budget.grant(tenth / 10) == 0
    assert budget.grant(9.9 + BURST_S + 0.11) == 100


def test_without_a_rate_there_is_always_a_grant_and_a_rate_of_nothing_grants_nothing() -> None:
    budget = Budget(None, 0.0)
    assert [budget.grant(0.0) for _ in range(100)] == [MOST_BYTES] * 100
    budget.change(0, 1.0)
    assert (budget.grant(1000.0), budget.wait_s()) == (0, None)
    budget.change(None, 1000.0)
    assert budget.grant(1000.0) == MOST_BYTES


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


def test_replicas_that_wait_are_served_in_turn_until_the_throttle_is_taken_back() -> None:
    async def test() -> None:
        throttle = ReplicationThrottle()
        throttle.configure(20_000, UNLIMITED)
        for _ in range(10):  # what was saved
            await throttle.take({"side": "leader", "owed": 0})
        got: list[int] = []

        async def replica(number: int) -> None:
            for _ in range(4):
                granted = await throttle.take({"side": "leader", "owed": 0})
                assert granted == {"bytes": 2000}
                got.append(number)

        await asyncio.gather(*(replica(number) for number in range(3)))
        assert all(sorted(got[at : at + 3]) == [0, 1, 2] for at in range(0, 12, 3))
        assert len(got) == 12
        throttle.configure(0, UNLIMITED)
        waiting = [asyncio.ensure_future(throttle.take({"side": "leader", "owed": 0})) for _ in range(3)]
        assert await throttle.take({"side": "follower", "owed": 1 << 30}) == {"bytes": MOST_BYTES}
        waiting[1].cancel()
        assert not any(waiter.done() for waiter in waiting)
        throttle.configure(UNLIMITED, UNLIMITED)
        assert await waiting[0] == await waiting[2] == {"bytes": MOST_BYTES}

    run(test)
