"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

file_option = click.option(
    "-f",
    "--file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The cluster file (default: configs/local.yaml).",
)
