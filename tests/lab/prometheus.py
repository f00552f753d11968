"""A real Prometheus for tests: Debian's package, with data, port and config of the test's own."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.lab.free_ports import free_port

SCRAPE_INTERVAL_MS = 700  # brokers wait 400 ms for what a silent process of theirs has to say


class NotInstalled(Exception):
    """There is no prometheus on the PATH."""


class Prometheus:
    """Scrapes the targets of a file-sd file all the time. As a context: started, and ended with its data."""

    def __init__(self, directory: Path, targets: Path) -> None:
        self._binary = shutil.which("prometheus")
        if self._binary is None:
            raise NotInstalled("Prometheus is missing: run scripts/setup --extra test (Debian: apt install prometheus)")
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        config = {
            "global": dict.fromkeys(("scrape_interval", "scrape_timeout"), f"{SCRAPE_INTERVAL_MS}ms"),
            "scrape_configs": [{"job_name": "raykafka", "file_sd_configs": [{"files": [str(targets)]}]}],
        }
        (directory / "prometheus.yaml").write_text(yaml.safe_dump(config))

    def __enter__(self) -> Prometheus:
        command = [
            str(self._binary),
            f"--config.file={self._directory / 'prometheus.yaml'}",
            f"--storage.tsdb.path={self._directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{self._port}",
            "--log.level=warn",
        ]
        with open(self._directory / "prometheus.log", "wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(30)

    def query(self, expression: str) -> dict[tuple[tuple[str, str], ...], float]:
        """The value of each series now, by its sorted labels without its name."""
        found = self._ask("query", query=expression)["result"]
        return {
            tuple(sorted((k, v) for k, v in series["metric"].items() if k != "__name__")): float(series["value"][1])
            for series in found
        }

    def value(self, expression: str) -> float | None:
        """The one value of an expression, None when there is none."""
        values = list(self.query(expression).values())
        assert len(values) <= 1, (expression, values)
        return values[0] if values else None

    def wait(self, expression: str, holds: Callable[[float | None], Any], within_s: float = 60) -> float | None:
        """Until the value of ``expression`` is as it should be."""
        deadline = time.monotonic() + within_s
        while not holds(value := self._value_or_none(expression)):
            ended = self._process is None or self._process.poll() is not None
            late = ended or time.monotonic() > deadline
            assert not late, f"{expression} is {value} after {within_s} s\n{self.log_text}"
            time.sleep(0.2)
        return value

    def _value_or_none(self, expression: str) -> float | None:
        try:
            return self.value(expression)
        except OSError:
            return None  # it is starting

    @property
    def log_text(self) -> str:
        return (self._directory / "prometheus.log").read_text(errors="replace")

    def _ask(self, api: str, **arguments: str) -> Any:
        url = f"http://127.0.0.1:{self._port}/api/v1/{api}?{urllib.parse.urlencode(arguments)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            body = json.load(answer)
        assert body["status"] == "success", body
        return body["data"]

    def wait_scrapes(self, scrapes: int = 2, within_s: float = 60) -> None:
        """Until every target that is up has been scraped so many times from now on."""
        began, deadline = time.time(), time.monotonic() + within_s
        seen: dict[tuple[tuple[str, str], ...], set[float]] = {}
        while not seen or min(map(len, seen.values())) < scrapes:
            assert time.monotonic() < deadline, f"no {scrapes} scrapes in {within_s} s: {seen}\n{self.log_text}"
            time.sleep(0.1)
            up = self.query("up == 1")
            times = {target: at for target, at in self.query("timestamp(up)").items() if target in up}
            seen = {
                target: seen.get(target, set()) | ({scraped} if scraped > began else set())
                for target, scraped in times.items()
            }

    def samples(self, metric: str, since: float) -> list[tuple[float, float]]:
        """Every scraped sample of ``metric`` since then, of all its series: when its scrape began, and its value."""
        found = self._ask("query", query=f"{metric}[{int(time.time() - since) + 1}s]")["result"]
        return sorted((float(at), float(value)) for series in found for at, value in series["values"])

    def history(self, expression: str, since: float) -> list[float]:
        """The one value of ``expression`` at every second since then."""
        found = self._ask("query_range", query=expression, start=str(since), end=str(time.time()), step="1")["result"]
        assert len(found) == 1, found
        return [float(value) for _, value in found[0]["values"]]
