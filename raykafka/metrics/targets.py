"""The file that tells Prometheus where the brokers are: its file-based service discovery, kept by the Supervisor."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from raykafka.process.durable import write_whole

FILE_NAME = "prometheus-targets.json"


def targets_of(cluster: str, brokers: Iterable[tuple[int, str, int | None]]) -> list[dict[str, Any]]:
    """One target for each (broker id, host, metrics port) that has a port, labelled ``cluster`` and ``broker``."""
    return [
        {
            "targets": [f"[{host}]:{port}" if ":" in host else f"{host}:{port}"],
            "labels": {"cluster": cluster, "broker": str(broker_id)},
        }
        for broker_id, host, port in sorted(brokers)
        if port
    ]


def write_targets(path: Path, targets: list[dict[str, Any]]) -> None:
    """Replace the file whole, if it says something else. It holds no secret: everybody may read it."""
    text = json.dumps(targets, indent=1) + "\n"
    try:
        if path.read_text() == text:
            return
    except FileNotFoundError:
        pass
    write_whole(path, text.encode())
