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

from raykafka.cli.console import quiet_terminal
from raykafka.cli.options import file_option
from raykafka.config.cluster import load_cluster_config


@click.command()
@file_option
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object.")
def status(file: Path | None, as_json: bool) -> None:
    """Show a cluster's actors and listeners, its controller, and what is wrong. Exits with 2 when something is."""
    from raykafka.deploy.status import cluster_status

    config = load_cluster_config(file)
    with quiet_terminal(Path(os.devnull)) as console:
        found = cluster_status(config)
        if as_json:
            console.file.write(json.dumps(found, indent=2) + "\n")
        else:
            _show(found, console)
    if found["problems"]:
        sys.exit(2)


def _show(found: dict[str, Any], console: Console) -> None:
    console.print(f"Cluster [bold]{found['cluster']}[/], Ray at {found['ray']}, data in {found['data_dir']}")
    controller = found["controller"]
    console.print(f"Controller: {'none' if controller is None else f'broker {controller}'}")
    for name, addresses in found["listeners"].items():
        console.print(f"  {name:<9} {addresses}", markup=False)
    if found["metrics"]:
        console.print(f"  metrics   {' '.join(found['metrics'])}", markup=False)
        console.print(f"  Prometheus finds the brokers in {found['prometheus_targets']}", markup=False)
    table = Table("role", "id", "for", "state", "pid", "restarts", "node", "actor", box=None, pad_edge=False)
    for row in found["actors"]:
        table.add_row(
            row["role"],
            "" if row["id"] is None else str(row["id"]),
            row["for"],
            row["state"],
            str(row["pid"] or ""),
            "" if row["restarts"] is None else str(row["restarts"]),
            row["node"],
            row["actor_id"][:16],
        )
    console.print(table)
    for problem in found["problems"]:
        console.print(f"[bold red]![/] {problem}")
    if not found["problems"]:
        console.print("Everything is as it should be")
