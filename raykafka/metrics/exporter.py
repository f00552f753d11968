"""What serves a broker's metrics: its port is taken when the broker starts, and answers once it is registered."""

from __future__ import annotations

import asyncio
import importlib

from raykafka.metrics.http import MetricsEndpoint
from raykafka.metrics.sources import BrokerSource


class Exporter:
    """Listens on ``host:port`` once made (port 0 takes a free one, which ``port`` then tells), and answers from
    ``start`` on. Raises OSError when the address can't be bound."""

    def __init__(self, broker: BrokerSource, host: str, port: int) -> None:
        self._broker = broker
        self._endpoint = MetricsEndpoint(host, port)
        self.host = host
        self.port = self._endpoint.port

    async def start(self) -> None:
        """Answer readers, those that wait already first."""
        # in a thread: prometheus-client takes a while to import, and nobody waits for it
        scrape = await asyncio.to_thread(importlib.import_module, "raykafka.metrics.scrape")
        await self._endpoint.start(scrape.Scrape(self._broker).answer)

    def stop(self) -> None:
        """Close the port and all connections."""
        self._endpoint.stop()
