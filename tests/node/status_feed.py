"""What `raykafka status` says, from one process that stays attached to Ray.

The command itself takes most of a second of CPU: asked again and again, it would take from a cluster that starts what
that waits for. ``python -m tests.node.status_feed CLUSTER.yaml`` answers each line with one of JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from raykafka.config.cluster import load_cluster_config
from raykafka.deploy import ray_access
from raykafka.deploy.status import summarize
from raykafka.deploy.supervision import ask_supervisor

_SUPERVISOR_WITHIN_S = 15.0
_DETACH_WITHIN_S = 10.0


class StatusFeed:
    """As a context: ``status`` is that of the cluster which ``file`` describes; without actors, and with a problem,
    while there is none."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._end()

    def status(self) -> dict[str, Any]:
        if self._process is None:
            command = [sys.executable, "-m", "tests.node.status_feed", str(self._file)]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            print(file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        found: dict[str, Any] = json.loads(answer) if answer else {"actors": [], "problems": ["Ray has ended"]}
        if not found["actors"]:
            self._end()  # the next one looks for the Ray of then
        return found

    def _end(self) -> None:
        """Let it detach: an undeploy leaves a Ray alone that others use."""
        if self._process is None:
            return
        process, self._process = self._process, None
        try:
            process.communicate(timeout=_DETACH_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def main(file: Path) -> None:
    config = load_cluster_config(file)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    with open(os.devnull, "w") as nowhere:  # where Ray has its say
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
    for _ in sys.stdin:
        try:
            ray_access.attach_running(config)
            found = summarize(ask_supervisor(config.cluster, "status", False, within_s=_SUPERVISOR_WITHIN_S))
        except Exception as error:
            found = {"actors": [], "problems": [str(error)]}
        print(json.dumps(found), file=answers, flush=True)
    ray_access.detach()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
