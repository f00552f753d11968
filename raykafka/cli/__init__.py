"""The `raykafka` command: one module per group of commands. An error is one sentence on stderr, and exit code 1."""

from __future__ import annotations

import sys

import click

from raykafka.cli.brokers import brokers
from raykafka.cli.deploy import deploy, undeploy
from raykafka.cli.partitions import partitions
from raykafka.cli.status import status
from raykafka.cli.stream import consume, produce
from raykafka.cli.topics import topics
from raykafka.errors import RaykafkaError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="raykafka")
def raykafka() -> None:
    """A Kafka that lives inside a Ray cluster."""


for command in (deploy, undeploy, status, topics, partitions, brokers, produce, consume):
    raykafka.add_command(command)


def main() -> None:
    try:
        raykafka.main(standalone_mode=False)
    except click.exceptions.Exit as exit_asked:
        sys.exit(exit_asked.exit_code)
    except click.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except RaykafkaError as error:
        click.echo(f"raykafka: {error}", err=True)
        sys.exit(1)
