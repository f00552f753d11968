"""Group APIs, served in the coordinator's process: one module each."""

from raykafka.protocol.registry import Place

PLACE = Place.COORDINATOR
