"""Which brokers hold a new partition's replicas. Pure; the placement is Kafka's, so that tools and people find it
familiar.

Partition ``p`` gets its first replica by going round the brokers, and the others at a distance that grows by one each
time the round is complete, so that two brokers share few partitions. With racks the round alternates between racks,
and a rack gets a second replica only when every rack has one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def assign_replicas(
    brokers: Mapping[int, str | None],
    partitions: int,
    replication_factor: int,
    *,
    start: int,
    shift: int,
    first_partition: int = 0,
) -> dict[int, tuple[int, ...]]:
    """Replicas, the preferred leader first, of ``partitions`` partitions numbered from ``first_partition``.

    ``brokers`` maps ids to racks; unless every broker has a rack, racks do not count. ``start`` is where the round
    begins and ``shift`` the first distance: random for a new topic, so that small topics spread; for more partitions
    of a topic both are the index of partition 0's first replica. Needs 1 <= ``replication_factor`` <= number of
    brokers.
    """
    order = round_of(brokers)
    racks = {b: brokers[b] for b in order} if _has_racks(brokers) else {b: str(b) for b in order}
    rack_count = len(set(racks.values()))
    stride = rack_count if _has_racks(brokers) else 1
    placed: dict[int, tuple[int, ...]] = {}
    for partition in range(first_partition, first_partition + partitions):
        if partition > 0 and partition % len(order) == 0:
            shift += 1
        first = (partition + start) % len(order)
        placed[partition] = _spread(order, racks, rack_count, first, shift * stride, replication_factor)
    return placed


def _spread(
    order: Sequence[int], racks: Mapping[int, str | None], rack_count: int, first: int, shift: int, count: int
) -> tuple[int, ...]:
    chosen = [order[first]]
    step = 0
    while len(chosen) < count:
        broker = order[(first + 1 + (shift + step) % (len(order) - 1)) % len(order)]
        step += 1
        used = {racks[b] for b in chosen}
        if broker not in chosen and (racks[broker] not in used or len(used) == rack_count):
            chosen.append(broker)
    return tuple(chosen)


def _has_racks(brokers: Mapping[int, str | None]) -> bool:
    return all(rack is not None for rack in brokers.values())


def round_of(brokers: Mapping[int, str | None]) -> list[int]:
    """The brokers in the order of the round: by id, or alternating between racks when all have one."""
    if not _has_racks(brokers):
        return sorted(brokers)
    by_rack: dict[str, list[int]] = {}
    for broker in sorted(brokers):
        by_rack.setdefault(brokers[broker] or "", []).append(broker)
    columns = [by_rack[rack] for rack in sorted(by_rack)]
    depth = max((len(column) for column in columns), default=0)
    return [column[i] for i in range(depth) for column in columns if i < len(column)]
