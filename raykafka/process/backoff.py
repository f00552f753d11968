"""Growing delays between attempts."""

from __future__ import annotations

_FIRST_DELAY_S = 0.1
_LONGEST_DELAY_S = 10.0


class Backoff:
    """``delay_s`` to wait before the next attempt: 0 at first, then doubling from 0.1 s to 10 s while attempts fail."""

    def __init__(self) -> None:
        self.delay_s = 0.0

    def succeeded(self) -> None:
        """The next attempt may follow at once."""
        self.delay_s = 0.0

    def failed(self) -> None:
        """Wait longer before the next attempt."""
        self.delay_s = min(max(_FIRST_DELAY_S, self.delay_s * 2), _LONGEST_DELAY_S)
