"""`raykafka deploy` and `raykafka undeploy`."""

from __future__ import annotations

import time
from pathlib import Path

import click

from raykafka.cli.console import quiet_terminal
from raykafka.cli.options import file_option
from raykafka.config.cluster import load_cluster_config


@click.command()
@file_option
def deploy(file: Path | None) -> None:
    """Bring up a cluster, or apply a changed cluster file to a running one.

    Attaches to the Ray cluster that runs (or starts one on this machine where the file says so), starts ZooKeeper, the
    Supervisor and the brokers, and returns when clients can connect. The same file again changes nothing.
    """
    from raykafka.deploy.deploy import deploy as bring_up
    from raykafka.deploy.folder import ClusterFolder

    config = load_cluster_config(file)
    started = time.monotonic()
    ClusterFolder(config.data_dir).make()
    with quiet_terminal(config.data_dir / "deploy.log") as console:

        def say(line: str) -> None:
            console.print(f"{time.monotonic() - started:5.1f} s  {line}", markup=False)

        addresses = bring_up(config, say)
        say(f"Cluster {config.cluster} is ready")
        for listener, bootstrap in addresses.items():
            console.print(f"  {listener:<9} {bootstrap}", markup=False)
        if config.brokers.metrics_port:
            targets = ClusterFolder(config.data_dir).metrics_targets
            console.print(f"  metrics   for Prometheus: {targets}", markup=False)


@click.command()
@file_option
@click.option("--delete-data", is_flag=True, help="Delete the cluster's data folder as well.")
def undeploy(file: Path | None, delete_data: bool) -> None:
    """Stop a cluster. Its data stays, unless told otherwise, for the next deploy."""
    from raykafka.deploy.deploy import undeploy as take_down

    config = load_cluster_config(file)
    with quiet_terminal(config.data_dir / "deploy.log") as console:

        def say(line: str) -> None:
            console.print(line, markup=False)

        take_down(config, say, delete_data=delete_data)
        say(f"Cluster {config.cluster} is down")
