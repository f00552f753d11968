"""Every leader epoch of a topic, as ZooKeeper's transaction log has it."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from raykafka.epoch_history import EpochEntry
from tests.lab.chaos.checker import Election
from tests.lab.zookeeper_history import Change


class Led(NamedTuple):
    """A state of a partition in which a leader epoch began."""

    epoch: int
    leader: int
    at: float
    unclean: bool


def led(changes: Iterable[Change], chroot: str, topic: str) -> dict[int, list[Led]]:
    """The epochs of each partition of ``topic``, in order, its first one left out."""
    prefix = f"{chroot}/brokers/topics/{topic}/partitions/"
    found: dict[int, list[Led]] = defaultdict(list)
    before: dict[int, dict] = {}
    for change in changes:
        if change.data is None or not change.path.startswith(prefix) or not change.path.endswith("/state"):
            continue
        partition, state = int(change.path.removeprefix(prefix).partition("/")[0]), json.loads(change.data)
        was = before.get(partition)
        before[partition] = state
        if was is not None and state["leader_epoch"] != was["leader_epoch"] and state["leader"] != -1:
            unclean = state["raykafka"]["unclean_epoch"] != was["raykafka"]["unclean_epoch"]
            found[partition].append(Led(state["leader_epoch"], state["leader"], change.at, unclean))
    return found


def elections(epochs: Iterable[Led], starts: Sequence[EpochEntry], log_end: int) -> list[Election]:
    """``epochs`` with where each began: an epoch in which nothing was written has no entry in ``starts``, the leader's
    epoch file, and began where the next one did."""
    known = sorted(starts)
    found = []
    for epoch in epochs:
        at = bisect_left(known, (epoch.epoch, -1))
        start = known[at].start_offset if at < len(known) else log_end
        found.append(Election(epoch.epoch, start, epoch.at, epoch.unclean))
    return found
