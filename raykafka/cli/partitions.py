"""`raykafka partitions`: move them, watch the moves, elect leaders."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from raykafka.cli.console import count
from raykafka.cli.moves import begin, report, wait_for
from raykafka.cli.options import ClusterAddress, cluster_options, json_option
from raykafka.controller.rules.relocation import Replicas, spread, with_factor
from raykafka.errors import ConfigError
from raykafka.types import TopicPartition

if TYPE_CHECKING:
    from raykafka.client.admin import Admin


@click.group()
def partitions() -> None:
    """Move partitions between brokers, see how far they are, and elect leaders."""


@partitions.command()
@click.argument("topics", nargs=-1)
@click.option("--to", "brokers", metavar="ID,ID,...", help="Lay the topics' partitions out anew over these brokers.")
@click.option("-r", "--replication-factor", "factor", type=click.IntRange(1), help="Give them more or fewer replicas.")
@click.option("--plan", type=click.File("r"), help="Move as this JSON file says (kafka-reassign-partitions' format).")
@click.option("--cancel", is_flag=True, help="Cancel the moves of the topics (default: all moves).")
@click.option(
    "--throttle", "rate", type=click.IntRange(1), metavar="BYTES", help="Per second and broker, for the moves."
)
@click.option("--dry-run", is_flag=True, help="Print the plan, as a file for --plan, and move nothing.")
@click.option("--wait", is_flag=True, help="Return when the moves are done, and show how far they are meanwhile.")
@cluster_options
def reassign(
    at: ClusterAddress,
    topics: tuple[str, ...],
    brokers: str | None,
    factor: int | None,
    plan: Any,
    cancel: bool,
    rate: int | None,
    dry_run: bool,
    wait: bool,
) -> None:
    """Move the partitions of TOPICS to other brokers, or give them another number of replicas.

    Clients go on meanwhile. Without --wait this returns once the moves have begun; `raykafka partitions verify` tells
    how far they are.
    """
    if sum((brokers is not None, factor is not None, plan is not None, cancel)) != 1:
        raise ConfigError("Say one of --to, --replication-factor, --plan and --cancel.")
    admin = at.cluster().admin()
    if cancel:
        _cancel(admin, topics)
        return
    wanted = _read_plan(plan) if plan is not None else _planned(admin, topics, brokers, factor)
    if dry_run:
        click.echo(json.dumps(_as_plan(wanted)))
        return
    begun = begin(admin, wanted, rate)
    click.echo(f"{count(len(begun), 'partition')} of {len(wanted)} to move: the others are where they should be.")
    if wait:
        wait_for(admin, begun, throttled=rate is not None)


def _planned(admin: Admin, topics: tuple[str, ...], brokers: str | None, factor: int | None) -> Replicas:
    if not topics:
        raise ConfigError("Say which topics are meant.")
    current = {tp: found.replicas for tp, found in admin.partitions().items()}
    unknown = sorted(set(topics) - {tp.topic for tp in current})
    if unknown:
        raise ConfigError(f"There is no topic {', '.join(unknown)}.")
    racks = admin.describe_cluster().racks
    if factor is not None:
        return with_factor(current, [tp for tp in current if tp.topic in topics], factor, racks)
    ids = _broker_ids(brokers or "")
    missing = sorted(ids - racks.keys())
    if missing:
        raise ConfigError(f"No broker {', '.join(map(str, missing))} is running; running are {sorted(racks)}.")
    shapes = {name: (sum(tp.topic == name for tp in current), len(current[TopicPartition(name, 0)])) for name in topics}
    return spread(shapes, {broker: racks[broker] for broker in ids})


def _broker_ids(text: str) -> set[int]:
    try:
        return {int(part) for part in text.split(",")}
    except ValueError:
        raise ConfigError(f"--to takes broker ids, such as 0,1,2, not {text!r}.") from None


def _read_plan(file: Any) -> Replicas:
    try:
        rows = json.load(file)["partitions"]
        return {TopicPartition(row["topic"], int(row["partition"])): tuple(map(int, row["replicas"])) for row in rows}
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{Path(file.name).name} is not a plan of kafka-reassign-partitions' format: {error}."
        ) from None


def _as_plan(wanted: Replicas) -> dict[str, Any]:
    rows = [{"topic": tp.topic, "partition": tp.partition, "replicas": list(r)} for tp, r in sorted(wanted.items())]
    return {"version": 1, "partitions": rows}


def _cancel(admin: Admin, topics: tuple[str, ...]) -> None:
    moving = [tp for tp in admin.moves() if not topics or tp.topic in topics]
    for error in admin.reassign(dict.fromkeys(moving)).values() if moving else ():
        if error is not None:
            raise error
    admin.unthrottle(tp.topic for tp in moving)
    click.echo(f"Cancelled the moves of {count(len(moving), 'partition')}.")


@partitions.command()
@click.argument("topics", nargs=-1)
@click.option("--partition", type=click.IntRange(0), help="Only this partition (of the one topic named).")
@click.option("--unclean", is_flag=True, help="Where nobody leads, take any live replica: this may LOSE RECORDS.")
@json_option
@cluster_options
def elect(at: ClusterAddress, topics: tuple[str, ...], partition: int | None, unclean: bool, as_json: bool) -> None:
    """Have the preferred replicas of TOPICS lead again (default: of all topics)."""
    if partition is not None and len(topics) != 1:
        raise ConfigError("--partition needs the one topic that it is of.")
    if unclean and not topics:
        raise ConfigError("An unclean election can lose records: name the topics that may.")
    admin = at.cluster().admin()
    known = admin.partitions()
    unknown = sorted(set(topics) - {tp.topic for tp in known})
    if unknown:
        raise ConfigError(f"There is no topic {', '.join(unknown)}.")
    wanted = [tp for tp in known if (not topics or tp.topic in topics) and partition in (None, tp.partition)]
    if not wanted:
        raise ConfigError(f"Topic {', '.join(topics)} has no partition {partition}.")
    from raykafka.error_code import ErrorCode

    outcomes = admin.elect_leaders(wanted, unclean=unclean)
    elected = sorted(tp for tp, error in outcomes.items() if error is None)
    failed = {tp: e for tp, e in outcomes.items() if e is not None and e.code is not ErrorCode.ELECTION_NOT_NEEDED}
    if as_json:
        rows = {str(tp): {"error": e.code.name, "message": e.message} for tp, e in failed.items()}
        click.echo(json.dumps({"elected": [str(tp) for tp in elected], "failed": rows}))
    else:
        needless = len(outcomes) - len(elected) - len(failed)
        click.echo(f"Elected {count(len(elected), 'leader')}; {count(needless, 'partition')} needed none.")
        for tp, error in sorted(failed.items()):
            click.echo(f"{tp}: {error}", err=True)
    if failed:
        sys.exit(1)


@partitions.command()
@click.argument("topics", nargs=-1)
@click.option("--keep-throttle", is_flag=True, help="Leave throttles as they are when nothing moves any more.")
@json_option
@cluster_options
def verify(at: ClusterAddress, topics: tuple[str, ...], keep_throttle: bool, as_json: bool) -> None:
    """Show the moves of partitions that are under way, and how far they are. Exits with 2 while there are any.

    Once there are none, the throttles that were set for them are taken back.
    """
    admin = at.cluster().admin()
    moving = {tp: move for tp, move in admin.moves().items() if not topics or tp.topic in topics}
    report(admin, moving, as_json)
    if moving:
        sys.exit(2)
    if not keep_throttle:
        admin.unthrottle(topics or admin.topics(internal=True))
