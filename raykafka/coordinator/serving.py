"""The APIs that the process of a coordinator serves."""

from __future__ import annotations

import functools

from raykafka.coordinator import api
from raykafka.protocol.registry import Registry


@functools.cache
def apis() -> Registry:
    """Made once in a process."""
    return Registry(api)
