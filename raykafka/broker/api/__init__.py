"""The APIs that the broker itself serves: one module for each."""

from raykafka.protocol.registry import Place

PLACE = Place.BROKER
