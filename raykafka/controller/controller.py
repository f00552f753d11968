"""The controller: the only writer of partition state, for as long as its epoch lasts (rule 16).

It is made of a ledger (all of ZooKeeper's metadata, and the turns in which decisions are written), the channels to the
brokers, and their membership. Decisions are in ``decisions/``: brokers ask for them up their channels (``calls``), and
so do clients, whose requests brokers forward (``api/``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from functools import partial

from kazoo.client import KazooClient

from raykafka.cluster.image import ClusterImage, ImageDelta
from raykafka.controller import calls
from raykafka.controller.broker_channels import BrokerChannels, Silences
from raykafka.controller.decisions import leadership
from raykafka.controller.decisions.elections import elect
from raykafka.controller.decisions.isr_changes import IsrChanges
from raykafka.controller.decisions.topics import begin_partitions, finish_deletion
from raykafka.controller.ledger.ledger import Ledger
from raykafka.controller.ledger.state import State
from raykafka.controller.ledger.tenure import Tenure
from raykafka.controller.ledger.turn_queue import Urgency
from raykafka.controller.membership import Membership, without
from raykafka.controller.serving import gate
from raykafka.protocol import dispatch
from raykafka.protocol.answer import Buffer
from raykafka.protocol.context import unpack_forward
from raykafka.zookeeper.controller_election import Claim
from raykafka.zookeeper.controller_store import ControllerStore
from raykafka.zookeeper.znodes import Registration

# How long a new controller waits for brokers to take its connection before it decides: those of dead ones are refused
# at once, and their partitions are settled with all others.
_MEET_WITHIN_S = 0.25

logger = logging.getLogger(__name__)


class Controller:
    """One won election. ``start`` it, then it works until ``resigned`` is done (its result is the reason) or ``stop``.

    ``config`` holds the static broker configs of this controller's broker; ``silent_after_s`` is the session timeout;
    ``silences`` says of brokers which life of them (epoch) has been silent for how many seconds.
    """

    def __init__(
        self,
        *,
        client: KazooClient,
        claim: Claim,
        cluster_id: str,
        broker_id: int,
        secret: bytes,
        config: Mapping[str, str],
        silent_after_s: float,
        silences: Silences | None = None,
    ) -> None:
        self.epoch = claim.epoch
        self.broker_id = broker_id
        self.static_config = dict(config)
        self._store = ControllerStore(client, claim)
        self._tenure = Tenure()
        self._channels = BrokerChannels(
            self._tenure,
            identity={"role": "controller", "broker_id": broker_id, "controller_epoch": claim.epoch},
            secret=secret,
            silent_after_s=silent_after_s,
            silences=silences or {},
            current=lambda: (self.state.image, self.state.sequence),
            on_call=lambda broker, method, args: calls.answer(self.ledger, self._isr_changes, broker, method, args),
            on_forward=self._on_forward,
            died=lambda registration: self._membership.died(registration),
        )
        image = ClusterImage(cluster_id, broker_id, claim.epoch)
        self.ledger = Ledger(State(image, self.static_config), self._store, self._tenure, self._channels)
        self._isr_changes = IsrChanges(self.ledger, self._tenure.run)
        self._membership = Membership(self._store, self.ledger, self._channels, self._tenure)

    @property
    def resigned(self) -> asyncio.Future[str]:
        """Done when this controller is over; the result is the reason."""
        return self._tenure.resigned

    @property
    def state(self) -> State:
        """What it knows now."""
        return self.ledger.state

    async def start(self) -> None:
        """Connect to the brokers, read everything, settle what changed while nobody was active."""
        async with self.ledger.turn(Urgency.BROKERS) as turn:
            loading = asyncio.ensure_future(self._tenure.in_store(self._store.load))
            try:
                registered: dict[int, Registration] = await self._membership.read()
                for registration in registered.values():
                    self._channels.open(registration)
                metadata = await loading
            finally:
                loading.cancel()
            await self._channels.met(_MEET_WITHIN_S)
            dead = self._membership.take_dead(registered)
            turn.take_over(without(registered, dead), metadata)
            await begin_partitions(turn)
            await elect(turn, turn.state.all_partitions(), dead=dead, news=ImageDelta())
            self._channels.ready.set()
            deleting = list(turn.state.deleting)
        for name in deleting:
            self._tenure.run(partial(finish_deletion, self.ledger, name))
        self._tenure.run(partial(leadership.keep_balanced, self.ledger))
        logger.info("controller on broker %d is active with epoch %d", self.broker_id, self.epoch)

    async def stop(self) -> None:
        """Stop deciding. The session, and with it ``/controller``, belong to the caller."""
        self._tenure.resign("it was stopped")
        await self._tenure.close()

    async def _on_forward(self, payload: memoryview) -> list[Buffer]:
        return await dispatch.serve_forwarded(gate(), self.ledger, *unpack_forward(payload))
