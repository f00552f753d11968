"""What one broker is told by the supervisor: everything that it needs to start, as plain JSON-able data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from raykafka.errors import ConfigError

# ``replica_actors`` where every replica has an actor of its own
EACH = 0


class ListenerAddress(NamedTuple):
    """A named listener's address: where it is bound (``listeners``), or where clients are sent (``advertised``)."""

    name: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class ZooKeeperSettings:
    """``hosts`` as ZooKeeper clients take it: ``host:port,host:port/chroot``. ``auth`` is true where raykafka runs the
    ZooKeeper itself, and opens sessions with a digest made of the cluster secret."""

    hosts: str
    auth: bool = False
    session_timeout_ms: int = 6000


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """Settings of one broker. ``config`` holds Kafka's broker config keys with their text; what it lacks is at its
    default.

    ``link_host:link_port`` is the inter-broker port, ``secret_hex`` the cluster secret, ``replica_actors`` the number
    of replica actors (``EACH``: one for each replica), which alone may change while the broker runs.
    ``controller_first``: start the controller before registering, not only once another broker's has had its chance to
    come up. ``metrics_port``: where Prometheus finds this broker, at ``link_host`` (0: any free port, None: nowhere).
    """

    cluster: str
    broker_id: int
    secret_hex: str
    data_dir: str
    zookeeper: ZooKeeperSettings
    listeners: tuple[ListenerAddress, ...]
    advertised: tuple[ListenerAddress, ...]
    link_host: str
    link_port: int
    inter_broker_listener_name: str
    protocol_map: Mapping[str, str] = field(default_factory=dict)
    rack: str | None = None
    config: Mapping[str, str] = field(default_factory=dict)
    replica_actors: int = 1
    controller_first: bool = True
    metrics_port: int | None = None

    @property
    def secret(self) -> bytes:
        return bytes.fromhex(self.secret_hex)

    def security_protocol(self, listener: str) -> str:
        """Kafka's name of the listener's protocol: PLAINTEXT unless ``protocol_map`` says otherwise."""
        return self.protocol_map.get(listener, "PLAINTEXT")

    def advertised_address(self, listener: str) -> ListenerAddress | None:
        """Where clients of the listener are sent; None where no address is advertised for it."""
        return next((a for a in self.advertised if a.name == listener), None)

    def differs_in_actors_alone(self, other: BrokerSettings) -> bool:
        """Whether ``other`` says another ``replica_actors``, and else the same."""
        return self != other and dataclasses.replace(self, replica_actors=other.replica_actors) == other

    def to_json(self) -> dict[str, Any]:
        """Plain data: what an actor's ``configure`` takes, and what a plain process reads from a file."""
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        data["zookeeper"] = dataclasses.asdict(self.zookeeper)
        data["listeners"] = [list(a) for a in self.listeners]
        data["advertised"] = [list(a) for a in self.advertised]
        data["protocol_map"] = dict(self.protocol_map)
        data["config"] = dict(self.config)
        return data

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> BrokerSettings:
        """The inverse of ``to_json``. Raises ConfigError for a missing or unknown key."""
        known = {f.name for f in dataclasses.fields(BrokerSettings)}
        unknown = sorted(set(data) - known)
        if unknown:
            raise ConfigError(f"broker settings hold unknown keys: {', '.join(unknown)}")
        values = dict(data)
        try:
            values["zookeeper"] = ZooKeeperSettings(**values["zookeeper"])
            values["listeners"] = tuple(ListenerAddress(*a) for a in values["listeners"])
            values["advertised"] = tuple(ListenerAddress(*a) for a in values["advertised"])
            return BrokerSettings(**values)
        except (KeyError, TypeError) as error:
            raise ConfigError(f"broker settings are incomplete: {error}") from None
