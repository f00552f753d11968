"""Thousands of random schedules of partitions that share brokers and actors: what replication promises holds in all of
them.

``RAYKAFKA_SCHEDULES`` and ``RAYKAFKA_FIRST_SEED`` choose other seeds. A failure names its seed;
``Schedule(seed).run()`` runs it again, step for step.
"""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.unit.partition.removals import RULES
from tests.unit.partition.schedule import Schedule
from tests.unit.partition.world import CONVERGES, Violation

SCHEDULES = int(os.environ.get("RAYKAFKA_SCHEDULES", 10_000))
FIRST_SEED = int(os.environ.get("RAYKAFKA_FIRST_SEED", 0))
_CHUNK = 250


def run_chunk(first_seed: int, count: int) -> tuple[Counter[str], list[tuple[int, str]]]:
    """What happened in some schedules, and the seeds that broke a property."""
    happened: Counter[str] = Counter()
    broken = []
    for seed in range(first_seed, first_seed + count):
        try:
            happened.update(Schedule(seed).run())
        except Violation as violation:
            broken.append((seed, str(violation)))
    return happened, broken


@pytest.mark.timeout(600)
def test_no_schedule_breaks_a_promise() -> None:
    happened: Counter[str] = Counter()
    broken: list[tuple[int, str]] = []
    with ProcessPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        starts = range(FIRST_SEED, FIRST_SEED + SCHEDULES, _CHUNK)
        counts = [min(_CHUNK, FIRST_SEED + SCHEDULES - start) for start in starts]
        for part, failures in pool.map(run_chunk, starts, counts):
            happened.update(part)
            broken += failures
    assert not broken, "\n".join(f"seed {seed}: {what}" for seed, what in broken[:10])
    often = {"acked": 2.0, "reads": 1.0, "elections": 0.3, "faults": 3.0, "truncations": 0.02, "restarts": 0.05}
    rarely = {"damaged": 0.1, "killed between effects": 0.02, "offline by rule": 0.02, "failed": 0.1, "closed": 0.05}
    rarely |= {"left": 1.0, "led on": 0.2, "replicas ended together": 0.02, "closed at its broker's death": 0.1}
    for what, least in {**often, **rarely}.items():
        assert happened[what] >= least * SCHEDULES, f"{what} happened {happened[what]} times in {SCHEDULES} schedules"


# The rules whose absence shows in some schedule within the first seeds; the others need the scenarios.
FOUND_WITHIN = 1000
FOUND_BY_CHANCE = [
    "a pending ISR counts in the high watermark",
    "an old stream's frame is not taken",
    "the high watermark never decides a truncation",
    "no epoch is led twice",
    "an ISR is written at its version only",
    "a registration is removed at its broker epoch only",
    "a leader leaves only clean",
    "acks=all waits for the high watermark",
    "reads end at the high watermark",
    "latest is unknown until the high watermark reaches the epoch's start",
]


@pytest.mark.parametrize("name", FOUND_BY_CHANCE)
def test_a_schedule_breaks_a_promise_without_the_rule(name: str) -> None:
    rule = RULES[name]
    for seed in range(FOUND_WITHIN):
        schedule = Schedule(
            seed,
            partition_rules=rule.partition,
            controller_rules=rule.controller(),
            broker_rules=rule.broker(),
            unclean=False,
        )
        try:
            schedule.run()
        except Violation as violation:
            if violation.name == CONVERGES:
                continue
            assert violation.name in rule.fails
            Schedule(seed, unclean=False).run()
            return
    pytest.fail(f"no schedule among {FOUND_WITHIN} needs this rule: {name}")
