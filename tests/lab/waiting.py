"""Waiting in a thread until something holds, instead of for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, TypeVar

_T = TypeVar("_T")

WITHIN_S = 120.0
LOOK_EVERY_S = 0.05


def until(
    holds: Callable[..., _T | Literal[False] | None],
    what: str | Callable[[], str],
    within_s: float = WITHIN_S,
    *,
    despite: tuple[type[Exception], ...] = (),
    look_every_s: float = LOOK_EVERY_S,
) -> _T:
    """Wait until ``holds()`` is true, and return it. Raises TimeoutError, which says ``what`` did not come, once
    that takes longer than ``within_s``.

    ``holds`` is called without arguments; a lambda that is made in a loop keeps the loop's variables as its defaults.
    An error of ``despite`` counts as false.
    """
    deadline, problem = time.monotonic() + within_s, ""
    while True:
        try:
            if found := holds():
                return found
            problem = ""
        except despite as error:
            problem = f" ({error})"
        if time.monotonic() > deadline:
            said = what if isinstance(what, str) else what()
            raise TimeoutError(f"not within {within_s:g} s: {said}{problem}")
        time.sleep(look_every_s)
