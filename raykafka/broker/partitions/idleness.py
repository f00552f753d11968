"""When a partition has been idle long enough to fall asleep (rule 17). Times are seconds of the event loop's clock."""

from __future__ import annotations

import asyncio

# how long one stays awake that was only woken for others to catch up
BRIEFLY_S = 1.0
# how soon one is asked again that could not fall asleep
DOZE_AGAIN_S = 1.0


class Idleness:
    """Of one partition. ``used_at_s`` is when it was last written, ``briefly`` whether it is only awake for others to
    catch up."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.used_at_s = self._loop.time()
        self.briefly = False

    def used(self) -> None:
        """It is written now."""
        self.used_at_s = self._loop.time()

    def is_due(self, idle_s: float) -> bool:
        """Whether it was idle for ``idle_s``; if so, it is due again in DOZE_AGAIN_S at the earliest."""
        idle_s = min(idle_s, BRIEFLY_S) if self.briefly else idle_s
        now_s = self._loop.time()
        if now_s - self.used_at_s < idle_s:
            return False
        self.used_at_s = now_s - idle_s + min(idle_s, DOZE_AGAIN_S)
        return True
