"""Moves of partitions as commands begin, show and wait for them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from raykafka.cli.console import count, print_table
from raykafka.errors import ClientError
from raykafka.types import TopicPartition

if TYPE_CHECKING:
    from raykafka.client.admin import Admin
    from raykafka.client.partitions import PartitionMove

_LOOK_EVERY_S = 1.0
_TELL_EVERY_S = 5.0
_MANY = 20

Wanted = Mapping[TopicPartition, tuple[int, ...]]


def begin(admin: Admin, wanted: Wanted, rate: int | None) -> set[TopicPartition]:
    """Begin to move, throttled first if ``rate`` is given. Returns what moves now; raises the first error."""
    from raykafka.client.partitions import PartitionMove

    known = admin.partitions()
    different = {tp: brokers for tp, brokers in wanted.items() if tp not in known or known[tp].replicas != brokers}
    if rate is not None and different:
        planned = {}
        for tp, brokers in different.items():
            before = known[tp].replicas if tp in known else ()
            added = tuple(b for b in brokers if b not in before)
            planned[tp] = PartitionMove((*before, *added), added, ())
        admin.throttle(planned, rate)
    outcomes = admin.reassign(different) if different else {}
    failed = {tp: error for tp, error in outcomes.items() if error is not None}
    for tp, error in sorted(failed.items()):
        click.echo(f"{tp}: {error}", err=True)
    if failed:
        raise ClientError(f"{len(failed)} of {len(different)} partitions could not begin to move.")
    return set(different)


def wait_for(admin: Admin, begun: set[TopicPartition], *, throttled: bool) -> None:
    """Return when none of ``begun`` moves any more."""
    until_done(admin, lambda: {tp: move for tp, move in admin.moves().items() if tp in begun})
    if throttled:
        admin.unthrottle({tp.topic for tp in begun})
    click.echo("Nothing moves any more.")


def until_done(admin: Admin, look: Callable[[], dict[TopicPartition, PartitionMove]]) -> None:
    """Show every few seconds how far the moves are that ``look`` finds, until it finds none."""
    told = 0.0
    while moving := look():
        now = time.monotonic()
        if now - told >= _TELL_EVERY_S:
            told = now
            done, whole = map(sum, zip(*_bytes(admin, moving).values(), strict=True))
            click.echo(f"{count(len(moving), 'partition')} on the move, {_share(done, whole)} copied")
        time.sleep(_LOOK_EVERY_S)


def report(admin: Admin, moving: Mapping[TopicPartition, PartitionMove], as_json: bool) -> None:
    """Print the moves and how far they are."""
    progress = _bytes(admin, moving) if moving else {}
    if as_json:
        click.echo(json.dumps({"moving": [_row(tp, move, *progress[tp]) for tp, move in sorted(moving.items())]}))
        return
    if not moving:
        click.echo("No partition is moving.")
        return
    table = Table("partition", "to", "adding", "removing", "copied", box=None, pad_edge=False)
    for tp, move in sorted(moving.items())[:_MANY]:
        ids = (",".join(map(str, brokers)) or "-" for brokers in (move.target, move.adding, move.removing))
        table.add_row(str(tp), *ids, _share(*progress[tp]))
    print_table(table)
    if len(moving) > _MANY:
        click.echo(f"and {len(moving) - _MANY} more; --json has them all.")


def _row(tp: TopicPartition, move: PartitionMove, copied: int, whole: int) -> dict[str, Any]:
    return {
        "topic": tp.topic,
        "partition": tp.partition,
        "target": list(move.target),
        "adding": list(move.adding),
        "removing": list(move.removing),
        "copied_bytes": copied,
        "bytes": whole,
    }


def _bytes(admin: Admin, moving: Mapping[TopicPartition, PartitionMove]) -> dict[TopicPartition, tuple[int, int]]:
    """For each move the bytes that its new replicas have, and will have."""
    sizes, leaders = admin.sizes(), admin.partitions()
    found = {}
    for tp, move in moving.items():
        leader = leaders[tp].leader if tp in leaders else -1
        whole = sizes.get(leader, {}).get(tp, 0)
        copied = [min(whole, sizes.get(broker, {}).get(tp, 0)) for broker in move.adding]
        found[tp] = (sum(copied), whole * len(copied))
    return found


def _share(done: int, whole: int) -> str:
    return f"{100 * done // whole}%" if whole else "all"
