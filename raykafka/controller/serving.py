"""The APIs that the process of a controller serves."""

from __future__ import annotations

import functools

from raykafka.controller import api
from raykafka.protocol.registry import Registry


@functools.cache
def apis() -> Registry:
    """Made once, for every election that this process wins."""
    return Registry(api)
