"""`raykafka topics`: create, list, describe, alter, delete."""

from __future__ import annotations

import click
from rich.table import Table

from raykafka.cli.console import print_table
from raykafka.cli.options import ClusterAddress, cluster_options
from raykafka.errors import ConfigError


@click.group()
def topics() -> None:
    """Create, show, change and delete topics."""


@topics.command()
@click.argument("name")
@click.option("-p", "--partitions", type=click.IntRange(1), help="Number of partitions (default: num.partitions).")
@click.option("-r", "--replication-factor", type=click.IntRange(1), help="(default: default.replication.factor)")
@click.option("-c", "--config", "configs", multiple=True, metavar="KEY=VALUE", help="A topic config; may be repeated.")
@cluster_options
def create(
    at: ClusterAddress, name: str, partitions: int | None, replication_factor: int | None, configs: tuple[str, ...]
) -> None:
    """Create topic NAME."""
    at.cluster().admin().create_topic(name, partitions, replication_factor, dict(_pair(text) for text in configs))
    click.echo(f"Created topic {name}.")


@topics.command("list")
@click.option("--internal", is_flag=True, help="Also the topics that raykafka keeps for itself.")
@cluster_options
def list_(at: ClusterAddress, internal: bool) -> None:
    """List topics."""
    for name in at.cluster().admin().topics(internal):
        click.echo(name)


@topics.command()
@click.argument("name")
@cluster_options
def describe(at: ClusterAddress, name: str) -> None:
    """Show the partitions of topic NAME, their leaders and replicas, and the topic's own configs."""
    found = at.cluster().admin().describe_topic(name)
    configs = " ".join(f"{key}={value}" for key, value in found.config.items())
    click.echo(f"{found.name}: {len(found.partitions)} partitions{f', {configs}' if configs else ''}")
    table = Table("partition", "leader", "replicas", "isr", box=None, pad_edge=False)
    for part in found.partitions:
        leader = "none" if part.leader < 0 else str(part.leader)
        table.add_row(str(part.partition), leader, _numbers(part.replicas), _numbers(part.isr))
    print_table(table)


@topics.command()
@click.argument("name")
@click.option("-p", "--partitions", type=click.IntRange(1), required=True, help="The new, higher number of partitions.")
@cluster_options
def alter(at: ClusterAddress, name: str, partitions: int) -> None:
    """Give topic NAME more partitions."""
    at.cluster().admin().grow_topic(name, partitions)
    click.echo(f"Topic {name} has {partitions} partitions.")


@topics.command()
@click.argument("name")
@cluster_options
def delete(at: ClusterAddress, name: str) -> None:
    """Delete topic NAME and its records."""
    at.cluster().admin().delete_topic(name)
    click.echo(f"Deleted topic {name}.")


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--config takes KEY=VALUE, not {text!r}.")
    return key, value


def _numbers(values: tuple[int, ...]) -> str:
    return ",".join(map(str, values))
