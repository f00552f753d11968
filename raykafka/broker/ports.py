"""The ports of a broker: its listeners for clients, the inter-broker port, and one for metrics where that is asked for.

All are bound before the broker registers, so that an address in use is found before anybody hears of it. The listeners
refuse connections until ``open_listeners``; on the other two, who connects waits.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Protocol

from raykafka.broker.acceptor import Acceptor
from raykafka.broker.life import Unwinding
from raykafka.broker.neighbourhood.inter_broker_port import InterBrokerPort
from raykafka.broker.settings import BrokerSettings, ListenerAddress
from raykafka.cluster.image import Endpoint
from raykafka.errors import DeployError


class Exporter(Protocol):
    """What serves metrics. Its port is bound once it is made."""

    host: str
    port: int

    async def start(self) -> None:
        """Answer readers from now on."""

    def stop(self) -> None:
        """Close the port."""


class Ports:
    """``make_exporter(host, port)`` makes what serves metrics; it raises OSError. ``link_port`` is the number of the
    inter-broker port, ``metrics`` what serves metrics, if anything does."""

    def __init__(
        self,
        settings: BrokerSettings,
        inter_broker: InterBrokerPort,
        listeners: Sequence[Acceptor],
        make_exporter: Callable[[str, int], Exporter] | None,
    ) -> None:
        self._settings = settings
        self._inter_broker = inter_broker
        self._make_exporter = make_exporter
        self.listeners = listeners
        self.link_port = -1
        self.metrics: Exporter | None = None

    async def bind(self, unwinding: Unwinding) -> None:
        """Take all addresses. Raises DeployError naming the one that can't be taken."""
        settings = self._settings
        binding = ListenerAddress("the inter-broker port", settings.link_host, settings.link_port)
        try:
            self.link_port = self._inter_broker.open(binding.host, binding.port)
            for listener in self.listeners:
                binding = ListenerAddress(listener.name, listener.host, listener.port)
                unwinding.add(listener.stop)
                listener.bind()
            if settings.metrics_port is not None and self._make_exporter is not None:
                binding = ListenerAddress("metrics", settings.link_host, settings.metrics_port)
                self.metrics = self._make_exporter(binding.host, binding.port)
                unwinding.add(self.metrics.stop)
        except OSError as error:
            raise DeployError(
                f"broker {settings.broker_id} can't listen on {binding.host}:{binding.port} ({binding.name}): "
                f"{os.strerror(error.errno) if error.errno else error}"
            ) from None

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Where clients are sent, for each listener. An advertised port 0 is the one that the listener got."""
        return tuple(self._endpoint(listener) for listener in self.listeners)

    def open_listeners(self) -> None:
        """Accept clients' connections."""
        for listener in self.listeners:
            listener.start()

    def go_on(self) -> None:
        """Accept again: there is somebody to serve them."""
        for listener in self.listeners:
            listener.go_on()

    def close_listeners(self) -> None:
        """Accept no more."""
        for listener in self.listeners:
            listener.stop()

    def _endpoint(self, listener: Acceptor) -> Endpoint:
        name, settings = listener.name, self._settings
        advertised = settings.advertised_address(name) or ListenerAddress(name, listener.host, listener.port)
        return Endpoint(name, advertised.host, advertised.port or listener.port, settings.security_protocol(name))
