"""Settings of librdkafka's clients that meet faults."""

from __future__ import annotations

from typing import Any

# Tries again at once, and learns within a second who leads now.
EAGER: dict[str, Any] = {
    "reconnect.backoff.ms": 20,
    "reconnect.backoff.max.ms": 200,
    "retry.backoff.ms": 20,
    "retry.backoff.max.ms": 100,
    "topic.metadata.refresh.interval.ms": 1000,
}
# A client notices a silent host by its own time-outs alone (docs/deploy.md): gives one up after a second or two.
QUICK_TO_NOTICE: dict[str, Any] = {"socket.timeout.ms": 2000, "socket.connection.setup.timeout.ms": 1500}
