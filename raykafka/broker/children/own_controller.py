"""The controller process of this broker: a candidate, or the active one of the cluster.

Not the link to the active controller, wherever that runs: that is ``broker.neighbourhood``'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from raykafka.broker.children.child import CONTROLLER, Child
from raykafka.broker.children.children import Children
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError, LinkError
from raykafka.link import Link

Silences = Mapping[int, tuple[int, float]]


class OwnController:
    """Keeps one controller process among ``children``. ``silences()`` tells, by broker id, the broker epoch and for how
    many seconds that life of a neighbour has been silent; ``highest_epoch()`` is the highest controller epoch that this
    broker knows."""

    def __init__(self, children: Children, silences: Callable[[], Silences], highest_epoch: Callable[[], int]) -> None:
        self._children = children
        self._silences = silences
        self._highest_epoch = highest_epoch
        self._is_kept = False
        self._link: Link | None = None

    def keep(self) -> None:
        """Have one at all times from now on."""
        if not self._is_kept:
            self._is_kept = True
            self._children.keep(CONTROLLER, self._adopt)

    async def keep_after(self, delay_s: float) -> None:
        """``keep`` when ``delay_s`` seconds have gone by."""
        await asyncio.sleep(delay_s)
        self.keep()

    async def cluster_counts(self, within_s: float) -> dict[str, Any] | None:
        """The cluster's counts (``controller.cluster_counts``) from this process, {} unless it is the active
        controller; None when it did not answer in ``within_s`` seconds."""
        link = self._link
        if link is None or link.is_closed:
            return {}
        try:
            found: dict[str, Any] = await link.call("cluster_counts", {}, within_s)
        except LinkError:
            return {}
        except (KafkaError, TimeoutError):
            return None
        # one that was stopped for a while may not know yet that another has been elected
        return found if found.get("epoch", -1) >= self._highest_epoch() else {}

    def _adopt(self, child: Child) -> None:
        self._link = child.link
        child.link.start(on_call=self._answer)

    async def _answer(self, method: str, args: dict[str, Any]) -> dict[str, Any]:
        """What the process asks: ``silences`` {}, those of the neighbours by broker id."""
        if method != "silences":
            raise KafkaError(ErrorCode.INVALID_REQUEST, f"a broker does not know the call {method} of its controller")
        return {str(broker): silence for broker, silence in self._silences().items()}
