"""How many replica actors each broker of a cluster has: an option of everything here that starts clusters."""

from __future__ import annotations

import argparse
import os
from typing import Literal

from raykafka.deploy import placement

Actors = Literal["auto", "each"] | int
AUTO: Actors = "auto"


def actors(text: str) -> Actors:
    """What ``replica.actors`` of a cluster file may be, from a command line. Raises ArgumentTypeError."""
    if text in ("auto", "each"):
        return text  # type: ignore[return-value]
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is neither auto, each, nor a number of replica actors")
    return int(text)


def add_option(parser: argparse.ArgumentParser) -> None:
    """``--actors``."""
    parser.add_argument(
        "--actors",
        type=actors,
        default=AUTO,
        metavar="auto|N|each",
        help="replica.actors: how many replica actors each broker has (default auto)",
    )


def here(asked: Actors, brokers: int) -> int:
    """``BrokerSettings.replica_actors`` of ``brokers`` brokers that share this machine."""
    return placement.replica_actors(asked, os.cpu_count() or 1, brokers)
