"""Options that several commands share."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from raykafka.config.cluster import load_cluster_config

if TYPE_CHECKING:
    from raykafka.client import Cluster

file_option = click.option(
    "-f",
    "--file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The cluster file (default: configs/local.yaml).",
)


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@dataclass(frozen=True, slots=True)
class ClusterAddress:
    """Where a command finds its cluster: at ``bootstrap``, else where the cluster file says."""

    file: Path | None
    bootstrap: str | None

    def cluster(self) -> Cluster:
        """A handle; nothing is connected yet."""
        from raykafka.client import connect

        # librdkafka repeats itself while a broker is away; a command says once how it ended.
        logging.getLogger("raykafka.client").setLevel(logging.CRITICAL)
        if self.bootstrap:
            return connect(self.bootstrap)
        config = load_cluster_config(self.file)
        # Where brokers are spread over nodes, only the running cluster knows their addresses.
        return connect(config.bootstrap() if config.brokers.nodes is None else config.cluster)


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ``-f`` and ``-b``; it gets them as a ClusterAddress in its first argument."""

    @file_option
    @click.option("-b", "--bootstrap-server", "bootstrap", metavar="HOST:PORT,...", help="Instead of a cluster file.")
    @functools.wraps(command)
    def with_address(file: Path | None, bootstrap: str | None, **rest: Any) -> Any:
        return command(ClusterAddress(file, bootstrap), **rest)

    return with_address
