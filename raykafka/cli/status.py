"""`raykafka status`: every actor, the listeners, the controller, and what is not as it should be."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from raykafka.cli.console import count, quiet_terminal
from raykafka.cli.options import file_option
from raykafka.config.cluster import load_cluster_config

_MOVES_SHOWN = 10
_OF_REPLICA_ACTORS = ("replicas", "leaders", "connections", "busy")
_ACTOR_COLUMNS = ("role", "id", "number", "state", "pid", "restarts", *_OF_REPLICA_ACTORS, "node", "actor")


@click.command()
@file_option
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object.")
@click.option("--partitions", is_flag=True, help="Also every partition of every broker, well or not.")
def status(file: Path | None, as_json: bool, partitions: bool) -> None:
    """Show a cluster's actors, listeners and partitions, and what is wrong. Exits with 2 when something is.

    Of the partitions only sums are shown, and those that are not as they should be.
    """
    from raykafka.deploy.status import cluster_status

    config = load_cluster_config(file)
    with quiet_terminal(Path(os.devnull)) as console:
        found = cluster_status(config, partitions=partitions)
        if as_json:
            console.file.write(json.dumps(found, indent=2) + "\n")
        else:
            show(found, console)
            if partitions:
                show_partitions(found["partitions"], console)
    if found["problems"]:
        sys.exit(2)


def show(found: dict[str, Any], console: Console) -> None:
    """Print a cluster's status for people."""
    console.print(f"Cluster [bold]{found['cluster']}[/], Ray at {found['ray']}, data in {found['data_dir']}")
    controller = found["controller"]
    console.print(f"Controller: {'none' if controller is None else f'broker {controller}'}")
    for name, addresses in found["listeners"].items():
        console.print(f"  {name:<9} {addresses}", markup=False)
    if found["metrics"]:
        console.print(f"  metrics   {' '.join(found['metrics'])}", markup=False)
        console.print(f"  Prometheus finds the brokers in {found['prometheus_targets']}", markup=False)
    table = Table(*_ACTOR_COLUMNS, box=None, pad_edge=False)
    for row in found["actors"]:
        table.add_row(
            row["role"],
            str(row["id"]),
            _text(row["number"]),
            row["state"],
            str(row["pid"] or ""),
            _text(row["restarts"]),
            *(_text(row[what]) for what in ("replicas", "leaders", "connections")),
            "" if row["busy"] is None else f"{row['busy']:.0%}",
            row["node"],
            row["actor_id"][:16],
        )
    console.print(table)
    if found["summary"] is not None:
        _show_summary(found["summary"], console)
    for problem in found["problems"]:
        console.print(f"[bold red]![/] {problem}")
    if not found["problems"]:
        console.print("Everything is as it should be")


def _show_summary(summary: dict[str, Any], console: Console) -> None:
    sums = [count(summary[f"{what}s"], what) for what in ("topic", "partition", "replica")]
    for kind in ("offline", "under_min_isr", "under_replicated", "moving"):
        if summary[kind]:
            sums.append(f"{len(summary[kind])} {kind.replace('_', ' ')}")
    console.print(", ".join(sums))
    for row in summary["moving"][:_MOVES_SHOWN]:
        to = [broker for broker in row["replicas"] if broker not in row["removing"]]
        console.print(f"  {row['topic']}-{row['partition']} moves to {to}, in sync {row['isr']}", markup=False)


def show_partitions(by_broker: dict[str, Any], console: Console) -> None:
    """Print every local partition of every broker."""
    columns = ("broker", "partition", "life", "leader", "epoch", "start", "high watermark", "end", "actor", "failures")
    table = Table(*columns, box=None, pad_edge=False)
    for broker, rows in by_broker.items():
        for row in sorted(rows or (), key=lambda row: (row["topic"], row["partition"])):
            offsets = (row["log_start_offset"], row["high_watermark"], row["log_end_offset"])
            cells = (row["life"], row["leader"], row["leader_epoch"], *offsets, row["actor"], row["restarts"])
            table.add_row(broker, f"{row['topic']}-{row['partition']}", *map(_text, cells))
    console.print(table)


def _text(cell: Any) -> str:
    return "" if cell is None else str(cell)
