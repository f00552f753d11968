"""Work that goes on beside a test or a measurement."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self


class Background:
    """As a context: does ``_run`` in a thread of its own. The end of the context sets ``_over`` and waits for it."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
