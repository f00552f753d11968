"""Keeps every transaction log that ZooKeeper's servers begin: they purge old ones, and a run needs all of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests.lab.background import Background

LOOK_EVERY_S = 0.2
LOGS = "version-2"


class Archive(Background):
    """As a context: links each log into a folder beside its server's data directory, and so sees it grow. ``places``
    are those folders, laid out like data directories."""

    def __init__(self, servers: Sequence[Path]) -> None:
        super().__init__()
        self._servers = servers
        self.places = [server.with_name(f"{server.name}-history") for server in servers]

    def __enter__(self) -> Self:
        for place in self.places:
            (place / LOGS).mkdir(parents=True)
        return super().__enter__()

    def _run(self) -> None:
        while True:
            over = self._over.wait(LOOK_EVERY_S)
            for server, place in zip(self._servers, self.places, strict=True):
                for log in (server / LOGS).glob("log.*"):
                    with contextlib.suppress(FileExistsError, FileNotFoundError):
                        os.link(log, place / LOGS / log.name)
            if over:
                return
