"""A broker may open as many files as its machine allows."""

from __future__ import annotations

import subprocess
import sys

_LOOK = """
import asyncio, resource
from raykafka.broker.actor import BrokerActor

resource.setrlimit(resource.RLIMIT_NOFILE, (100, 4000))
BrokerActor("test", 0)
print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_a_broker_raises_its_limit_and_says_when_it_is_low() -> None:
    done = subprocess.run([sys.executable, "-c", _LOOK], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "(4000, 4000)\n"), done.stderr
    assert "only 4000 files and connections" in done.stderr
