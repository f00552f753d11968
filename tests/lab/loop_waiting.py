"""Waiting in an event loop until something holds, instead of for a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Literal, TypeVar

_T = TypeVar("_T")

WITHIN_S = 120.0
LOOK_EVERY_S = 0.005


async def until(
    holds: Callable[..., _T | Literal[False] | None], what: str = "what the test waits for", within_s: float = WITHIN_S
) -> _T:
    """``waiting.until`` for coroutines: the loop runs on meanwhile."""
    deadline = time.monotonic() + within_s
    while not (found := holds()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {within_s:g} s: {what}")
        await asyncio.sleep(LOOK_EVERY_S)
    return found
