"""The APIs that the active controller serves: one module for each."""

from raykafka.protocol.registry import Place

PLACE = Place.CONTROLLER
