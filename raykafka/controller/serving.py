"""What the process of a controller serves, and the gate before it."""

from __future__ import annotations

import functools

from raykafka.controller import api
from raykafka.protocol.gate import Gate
from raykafka.protocol.registry import Registry


@functools.cache
def gate() -> Gate:
    """Made once in a process."""
    return Gate(Registry(api))
