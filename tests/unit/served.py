"""All APIs that a broker serves or forwards, for tests."""

from __future__ import annotations

from raykafka.broker import api as broker_api
from raykafka.controller import api as controller_api
from raykafka.coordinator import api as coordinator_api
from raykafka.front import api as front_api
from raykafka.protocol.registry import Registry

APIS = Registry(front_api, broker_api, coordinator_api, controller_api)
