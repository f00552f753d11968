"""The APIs that the front serves from the image and the partitions: one module for each."""

from raykafka.protocol.registry import Place

PLACE = Place.FRONT
