"""Thousands of random schedules of a partition's life in its broker: what its rules promise holds in all of them.

A failure names its seed; ``World(seed).run()`` plays it again, step for step.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest

from raykafka.broker.partitions import life_events as events
from raykafka.broker.partitions.life import Life, Phase
from raykafka.cluster.image import PartitionState
from tests.unit.partition_life.world import LEADS, ONE_LINEAGE, ONE_WRITER, OPENS, PLACED, RELEASED, Violation, World

SCHEDULES = int(os.environ.get("RAYKAFKA_SCHEDULES", 5_000))
FIRST_SEED = int(os.environ.get("RAYKAFKA_FIRST_SEED", 0))
FOUND_WITHIN = 2_000


def test_no_schedule_breaks_a_promise() -> None:
    happened: Counter[str] = Counter()
    broken = []
    for seed in range(FIRST_SEED, FIRST_SEED + SCHEDULES):
        try:
            happened.update(World(seed).run().counts)
        except Violation as violation:
            broken.append(f"seed {seed}: {violation}")
    assert not broken, "\n".join([f"{len(broken)} are broken", *broken[:10]])
    often = {"opened": 2.0, "lost actors": 0.5, "left": 0.2, "failed": 0.2, "elected again": 0.5, "Refused": 0.1}
    rarely = {"diverged": 0.02, "LeaveFailed": 0.02, "CloseTimedOut": 0.005, "OpenFailed": 0.2, "Released": 0.2}
    for what, least in {**often, **rarely}.items():
        assert happened[what] >= least * SCHEDULES, f"{what} happened {happened[what]} times in {SCHEDULES} schedules"


# without a rule, some schedule breaks the promise that it keeps


class OpensWhatIsLocked(Life):
    __slots__ = ()

    def _actor_gone(self, actor: int) -> None:
        super()._actor_gone(actor)
        if actor not in (self.actor, self.to) and self.phase is Phase.WAITING:
            self._directory_free = True
            self._go_on()


class UsesASealTwice(Life):
    __slots__ = ("kept",)

    def _open(self, actor: int) -> None:
        self.kept = self._seal or getattr(self, "kept", None)
        self._seal = self.kept
        super()._open(actor)


class ForgetsWhatWasRefusedEarly(Life):
    __slots__ = ()

    def _report_refused(self) -> None:
        super()._report_refused()
        self._refused = None


class TakesAnyAnswer(Life):
    __slots__ = ()

    def _take(self, event: events.Event) -> None:
        if isinstance(event, events.Answer):
            self._opening = event.opening
            super()._take(event)
        else:
            super()._take(event)


class TellsNobodyOfAFailure(Life):
    __slots__ = ()

    def _failed(self, reason: str, *, diverged: bool = False) -> None:
        super()._failed(reason, diverged=diverged)
        self._effects = [effect for effect in self._effects if not isinstance(effect, events.Place)]


class WaitsForNoTimer(Life):
    __slots__ = ()

    def _do(self, effect: events.Effect) -> None:
        if not isinstance(effect, events.SetTimer):
            super()._do(effect)


class KillsNobody(Life):
    __slots__ = ()

    def _do(self, effect: events.Effect) -> None:
        if not isinstance(effect, events.Kill):
            super()._do(effect)


class ForgetsARelease(Life):
    """While the log is being opened."""

    __slots__ = ()

    def _opened(self) -> None:
        self._released = False
        super()._opened()


class StaysFailed(Life):
    __slots__ = ()

    def _changed(self, state: PartitionState) -> None:
        failed = self.phase is Phase.FAILED
        super()._changed(state)
        if failed:
            self.phase = Phase.FAILED


@pytest.mark.parametrize(
    ("rules", "promises"),
    [
        (OpensWhatIsLocked, {ONE_WRITER}),
        (UsesASealTwice, {ONE_LINEAGE}),
        (ForgetsWhatWasRefusedEarly, {LEADS}),
        (TakesAnyAnswer, {ONE_WRITER, OPENS, PLACED, LEADS, RELEASED}),
        (TellsNobodyOfAFailure, {PLACED, RELEASED}),
        (WaitsForNoTimer, {OPENS, PLACED, RELEASED}),
        (ForgetsARelease, {RELEASED}),
        (StaysFailed, {OPENS, RELEASED}),
        (KillsNobody, {OPENS, RELEASED}),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_schedule_breaks_a_promise_without_the_rule(rules: type[Life], promises: set[str]) -> None:
    for seed in range(FOUND_WITHIN):
        try:
            World(seed, rules).run()
        except Violation as violation:
            assert violation.name in promises, violation
            World(seed).run()
            return
    pytest.fail(f"{FOUND_WITHIN} schedules break nothing")
