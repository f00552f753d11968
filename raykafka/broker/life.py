"""The life of a broker: its states, what it takes and gives back, and the end of one that lost its registration."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable
from enum import StrEnum
from typing import Any

LOST_EXIT_CODE = 70

logger = logging.getLogger(__name__)


class BrokerState(StrEnum):
    """REGISTERED is until the controller's first image; clients are served from RUNNING on."""

    STOPPED = "stopped"
    STARTING = "starting"
    REGISTERED = "registered"
    RUNNING = "running"
    STOPPING = "stopping"


class Unwinding:
    """What has been taken so far, and how each part is given back."""

    def __init__(self) -> None:
        self._steps: list[Callable[[], Any]] = []

    def add(self, step: Callable[[], Any]) -> None:
        """Have ``unwind`` call ``step``, a function or a coroutine function without arguments."""
        self._steps.append(step)

    async def unwind(self) -> None:
        """Give back all that was taken, the last first. A step that fails is logged, and the others follow."""
        while self._steps:
            try:
                result = self._steps.pop()()
                if inspect.isawaitable(result):
                    await result
            except Exception:
                logger.exception("a part of the broker did not stop as it should")


def exit_process(reason: str) -> None:
    """What a broker does that may no longer be one (rule 15): its children follow on end-of-file."""
    logging.shutdown()
    os._exit(LOST_EXIT_CODE)
