"""`raykafka brokers`: list and describe them, stop and start one, empty one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from raykafka.cli.console import count, print_table, quiet_terminal
from raykafka.cli.moves import begin, until_done
from raykafka.cli.options import ClusterAddress, cluster_options, file_option, json_option
from raykafka.config.cluster import load_cluster_config
from raykafka.controller.rules.relocation import away_from
from raykafka.errors import ConfigError, DeployError

if TYPE_CHECKING:
    from raykafka.client.admin import Admin

_STOP_WITHIN_S = 60.0


@click.group()
def brokers() -> None:
    """Show brokers, stop and start one, and move everything away from one."""


@brokers.command("list")
@file_option
@json_option
def list_(file: Path | None, as_json: bool) -> None:
    """List the cluster's brokers: what they do, where they are, how much they lead and hold."""
    rows = _rows(file)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    print_table(overview(rows))


def overview(rows: list[dict[str, Any]]) -> Table:
    """A line for each broker of ``cluster_status``'s."""
    table = Table("id", "state", "controller", "leads", "holds", "restarts", "up", "node", "addresses", box=None)
    for row in rows:
        table.add_row(
            str(row["id"]),
            row["state"],
            "active" if row["is_controller"] else "",
            _text(row["leaders"]),
            _text(row["replicas"]),
            _text(row["restarts"]),
            _duration(row["age_s"]),
            row["node"],
            " ".join(f"{name}={address}" for name, address in row["listeners"].items()),
        )
    return table


@brokers.command()
@click.argument("broker_id", metavar="ID", type=int)
@file_option
@json_option
def describe(broker_id: int, file: Path | None, as_json: bool) -> None:
    """Show all that is known of broker ID."""
    row = next((row for row in _rows(file) if row["id"] == broker_id), None)
    if row is None:
        raise DeployError(f"The cluster has no broker {broker_id}.")
    if as_json:
        click.echo(json.dumps(row, indent=2))
        return
    troubled = row.pop("troubled")
    table = Table("what", "value", box=None, pad_edge=False, show_header=False)
    for name, value in row.items():
        table.add_row(name.replace("_", " "), _duration(value) if name == "age_s" else _text(value))
    print_table(table)
    for replica in troubled:
        failed = f"the replica of {replica['topic']}-{replica['partition']} has failed {replica['restarts']} times"
        click.echo(f"{failed}, last {_duration(replica['since_restart_s'])} ago")


@brokers.command()
@click.argument("broker_id", metavar="ID", type=int)
@file_option
def stop(broker_id: int, file: Path | None) -> None:
    """Stop broker ID: its leaderships move first. It stays down, over restarts of anything, until it is started."""
    _ask(file, "stop_broker", broker_id)
    click.echo(f"Broker {broker_id} is stopped; `raykafka brokers start {broker_id}` starts it again.")


@brokers.command()
@click.argument("broker_id", metavar="ID", type=int)
@file_option
def start(broker_id: int, file: Path | None) -> None:
    """Start broker ID after `stop`."""
    _ask(file, "start_broker", broker_id)
    click.echo(f"Broker {broker_id} is started.")


@brokers.command()
@click.argument("broker_id", metavar="ID", type=int)
@click.option(
    "--throttle", "rate", type=click.IntRange(1), metavar="BYTES", help="Per second and broker, for the moves."
)
@cluster_options
def drain(at: ClusterAddress, broker_id: int, rate: int | None) -> None:
    """Move every leadership and replica away from broker ID, and show how far that is.

    Returns when it holds nothing any more. Interrupted, the moves that have begun go on by themselves.
    """
    admin = at.cluster().admin()
    if broker_id not in admin.describe_cluster().brokers:
        raise ConfigError(f"No broker {broker_id} is running.")
    throttled: set[str] = set()
    while wanted := _away(admin, broker_id):
        begun = begin(admin, wanted, rate)
        throttled |= {tp.topic for tp in begun} if rate is not None else set()
        click.echo(f"Broker {broker_id} holds {count(len(wanted), 'replica')} to move to others.")
        until_done(admin, lambda: {tp: move for tp, move in admin.moves().items() if broker_id in move.replicas})
    if throttled:
        admin.unthrottle(throttled)
    click.echo(f"Broker {broker_id} holds nothing.")


def _away(admin: Admin, broker_id: int) -> dict[Any, tuple[int, ...]]:
    moving = admin.moves()
    current = {tp: moving[tp].target if tp in moving else found.replicas for tp, found in admin.partitions().items()}
    return away_from(current, broker_id, admin.describe_cluster().racks)


def _rows(file: Path | None) -> list[dict[str, Any]]:
    from raykafka.deploy.status import cluster_status

    config = load_cluster_config(file)
    with quiet_terminal(Path(os.devnull)):
        return cluster_status(config)["brokers"]


def _ask(file: Path | None, method: str, broker_id: int) -> None:
    from raykafka.deploy import ray_access
    from raykafka.deploy.supervision import ask_supervisor

    config = load_cluster_config(file)
    with quiet_terminal(Path(os.devnull)):
        ray_access.attach_running(config)
        try:
            ask_supervisor(config.cluster, method, broker_id, within_s=_STOP_WITHIN_S)
        finally:
            ray_access.detach()


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(part)}" for name, part in value.items())
    return "" if value is None else str(value)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
