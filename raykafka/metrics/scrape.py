"""One answer to Prometheus: everything that this broker can tell at this moment."""

from __future__ import annotations

import asyncio

from prometheus_client import Metric, ProcessCollector

from raykafka.metrics import catalogue
from raykafka.metrics.broker_families import add_broker
from raykafka.metrics.cluster_families import add_cluster
from raykafka.metrics.consumer_lag import consumer_lags
from raykafka.metrics.exposition import encode
from raykafka.metrics.families import Families
from raykafka.metrics.sources import BrokerSource
from raykafka.process.clock import boot_clock

CONTROLLER_WITHIN_S = 0.5
_LAGS_AT_ONCE = 500


class Scrape:
    """Answers of one broker. Two readers that ask at once are answered one after the other."""

    def __init__(self, broker: BrokerSource) -> None:
        self._broker = broker
        self._process = ProcessCollector(registry=None)
        self._turn = asyncio.Lock()

    async def answer(self, accept: str) -> tuple[bytes, str]:
        """The text for a reader that accepts ``accept``, and its content type."""
        async with self._turn:
            return await encode(await self.metrics(), accept)

    async def metrics(self) -> list[Metric]:
        """Who has to be asked is asked first; the broker's own values are those of one moment after that."""
        began = boot_clock()
        families = Families()
        broker = self._broker
        counts, lags = await asyncio.gather(
            broker.own_controller.cluster_counts(CONTROLLER_WITHIN_S),
            consumer_lags(broker.coordination, broker.log_ends),
        )
        await add_broker(families, broker)
        add_cluster(families, counts)
        for number, lag in enumerate(lags, 1):
            families.add(catalogue.CONSUMER_LAG, lag.records, lag.group, lag.tp.topic, lag.tp.partition)
            if number % _LAGS_AT_ONCE == 0:
                await asyncio.sleep(0)
        families.add(catalogue.SCRAPE_SECONDS, boot_clock() - began)
        return [*families.metrics(), *self._process.collect()]
