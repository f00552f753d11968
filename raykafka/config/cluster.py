"""The cluster file: what a person asks `raykafka deploy` for, as checked models with defaults and units.

Keys of raykafka's own are in snake_case with their unit in the name; Kafka's keys keep Kafka's names, and
``replica.actors`` is written as they are. An unknown key, a value of the wrong kind or two servers on one port are
errors of one sentence that name the place in the file.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from raykafka.config.broker_definitions import BROKER_CONFIGS
from raykafka.config.listeners import ListenerAddress, check_protocols, parse_listeners
from raykafka.config.nodes import NodeChoice, Nodes
from raykafka.errors import ConfigError

DEFAULT_FILE = Path("configs/local.yaml")
_LONGEST_RAY_FOLDER = 40
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HOST_PORT = re.compile(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\]):(?P<port>\d{1,5})")


def _text(value: Any) -> Any:
    """A YAML scalar as Kafka's configs write it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    return value


MOST_REPLICA_ACTORS = 64


def _replica_actors(value: Any) -> Any:
    known = value in ("auto", "each") if isinstance(value, str) else type(value) is int
    if not known or (type(value) is int and not 1 <= value <= MOST_REPLICA_ACTORS):
        raise ValueError(f"must be auto, each, or a number from 1 to {MOST_REPLICA_ACTORS}, not {value!r}")
    return value


Port = Annotated[int, Field(ge=1, le=65535)]
ConfigText = Annotated[str, BeforeValidator(_text)]
ReplicaActors = Annotated[Literal["auto", "each"] | int, BeforeValidator(_replica_actors)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, validate_default=True)


class RayConfig(_Model):
    """Which Ray cluster to live in. ``auto`` is RAY_ADDRESS, else the one that runs on this machine (``temp_dir``)."""

    address: str = "auto"
    start_local: bool = True
    temp_dir: Path = Path("/tmp/ray")
    port: Port = 6379
    num_cpus: Annotated[int, Field(ge=1)] | None = None
    object_store_memory_mb: Annotated[int, Field(ge=80)] = 100

    @field_validator("temp_dir")
    @classmethod
    def _short(cls, value: Path) -> Path:
        if len(str(value)) > _LONGEST_RAY_FOLDER:
            raise ValueError(
                f"must have at most {_LONGEST_RAY_FOLDER} characters, since Ray makes Unix sockets below it"
            )
        return value

    @field_validator("address")
    @classmethod
    def _address(cls, value: str) -> str:
        if value != "auto" and not _HOST_PORT.fullmatch(value):
            raise ValueError(f"must be auto or host:port, not {value!r}")
        return value


class ManagedZooKeeper(_Model):
    """ZooKeeper servers that raykafka runs itself; on one machine the second has each port plus 1, and so on.

    Where brokers have ``nodes``, each server has a node of its own, among ``nodes`` (None: the brokers' ones), and an
    empty ``host`` is that node's address.
    """

    servers: int = 1
    nodes: Nodes | None = None
    host: str = "127.0.0.1"
    client_port: Port = 2181
    peer_port: Port = 2888
    election_port: Port = 3888
    tick_time_ms: Annotated[int, Field(ge=100, le=10_000)] = 500
    sync_limit: Annotated[int, Field(ge=2, le=100)] = 10
    heap_mb: Annotated[int, Field(ge=32)] = 128

    @field_validator("servers")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value not in (1, 3, 5):
            raise ValueError(f"must be 1, 3 or 5, not {value}")
        return value


class ZooKeeperConfig(_Model):
    """Either ``managed``, or ``connect`` to servers of yours: ``host:port,host:port/chroot``."""

    managed: ManagedZooKeeper | None = None
    connect: str | None = None
    session_timeout_ms: Annotated[int, Field(ge=1000, le=300_000)] = 6000

    @field_validator("connect")
    @classmethod
    def _connect(cls, value: str | None) -> str | None:
        servers = (value or "").partition("/")[0].split(",")
        if value is not None and not all(_HOST_PORT.fullmatch(server) for server in servers):
            raise ValueError(f"must look like host:port,host:port/chroot, not {value!r}")
        return value

    @model_validator(mode="before")
    @classmethod
    def _managed_by_default(cls, data: Any) -> Any:
        if isinstance(data, dict) and "connect" not in data and data.get("managed") is None:
            return {**data, "managed": {}}
        return data

    @model_validator(mode="after")
    def _one_of_both(self) -> ZooKeeperConfig:
        if (self.managed is None) == (self.connect is None):
            raise ValueError("must have either managed or connect, not both")
        managed = self.managed
        if managed is not None and not 2 * managed.tick_time_ms <= self.session_timeout_ms <= 20 * managed.tick_time_ms:
            raise ValueError(
                f"session_timeout_ms must lie between 2 and 20 times managed.tick_time_ms "
                f"({2 * managed.tick_time_ms} to {20 * managed.tick_time_ms}), not {self.session_timeout_ms}"
            )
        return self


class BrokersConfig(_Model):
    """The brokers. Addresses are broker 0's; on one machine broker ``i`` has each port plus ``i``.

    With ``nodes`` there is one broker on each of these nodes, also on those that join later, and deploy waits until
    there are ``count`` of them. An empty host in an address is the node's own then. Prometheus finds a broker at
    ``link_host:metrics_port``, or with ``metrics_port`` 0 nowhere.

    ``replica_actors`` is how many replica actors each broker has: that number of them, or ``auto``: its share of its
    node's cores; or ``each``: one for each replica.
    """

    count: Annotated[int, Field(ge=1, le=1000)] = 3
    nodes: Nodes | None = None
    listeners: str = "INSIDE://127.0.0.1:9092,OUTSIDE://127.0.0.1:9192"
    advertised_listeners: str | None = Field(None, alias="advertised.listeners")
    protocol_map: str | None = Field(None, alias="listener.security.protocol.map")
    inter_broker_listener_name: str | None = Field(None, alias="inter.broker.listener.name")
    link_host: str = "127.0.0.1"
    link_port: Port = 9292
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 9392
    rack: str | None = None
    rack_label: str | None = None
    replica_actors: ReplicaActors = Field("auto", alias="replica.actors")
    memory_mb: Annotated[int, Field(ge=0)] = 256
    config: dict[str, ConfigText] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _checks(self) -> BrokersConfig:
        names = [listener.name for listener in self.parsed_listeners]
        advertised = [listener.name for listener in self.parsed_advertised]
        if unknown := sorted(set(advertised) - set(names)):
            raise ValueError(f"advertised.listeners names {unknown[0]}, which listeners does not have")
        if missing := [name for name in names if name not in advertised]:
            raise ValueError(f"advertised.listeners lacks {missing[0]}")
        check_protocols(names, self.protocols)
        if self.nodes is not None:
            self._check_reachable()
        elif self.rack_label is not None:
            raise ValueError("rack_label names a label of nodes, and nodes is not set")
        inter = self.inter_broker_listener_name
        if inter is not None and inter not in names:
            raise ValueError(f"inter.broker.listener.name is {inter}, which listeners does not have")
        for key, text in self.config.items():
            _check_broker_config(key, text)
        return self

    def _check_reachable(self) -> None:
        """Raise ValueError where other nodes would be sent to a node's own loopback address."""
        hosts = {f"{name}://{host}": host for name, host, _ in self.parsed_advertised} | {"link_host": self.link_host}
        for place, host in hosts.items():
            if host in ("localhost", "::1", "0.0.0.0", "::") or host.startswith("127."):
                raise ValueError(
                    f"nodes is set, and other nodes can't reach {place if '://' in place else f'{place} {host}'}: "
                    "leave the host empty for each node's own address"
                )

    def port_shift(self, broker_id: int) -> int:
        """How far the ports of a broker are from those in the file: brokers of one machine need ports of their own."""
        return 0 if self.nodes is not None else broker_id

    @property
    def parsed_listeners(self) -> tuple[ListenerAddress, ...]:
        return parse_listeners("listeners", self.listeners, empty_host=self.nodes is not None)

    @property
    def parsed_advertised(self) -> tuple[ListenerAddress, ...]:
        if self.advertised_listeners is None:
            return self.parsed_listeners
        return parse_listeners("advertised.listeners", self.advertised_listeners, empty_host=self.nodes is not None)

    @property
    def protocols(self) -> dict[str, str]:
        """Security protocol by listener name, as ``listener.security.protocol.map`` says it."""
        pairs = [part.strip() for part in (self.protocol_map or "").split(",") if part.strip()]
        if wrong := [pair for pair in pairs if not re.fullmatch(r"\w+:\w+", pair)]:
            raise ValueError(f"listener.security.protocol.map must look like NAME:PLAINTEXT, not {wrong[0]!r}")
        return {name: protocol.upper() for name, _, protocol in (pair.partition(":") for pair in pairs)}

    @property
    def inter_broker_listener(self) -> str:
        """The listener that brokers, and clients inside Ray, use: the one that is named, else the first."""
        return self.inter_broker_listener_name or self.parsed_listeners[0].name


_ELSEWHERE = {
    "broker.id": "raykafka itself",
    "node.id": "raykafka itself",
    "log.dirs": "data_dir",
    "log.dir": "data_dir",
    "zookeeper.connect": "zookeeper.connect",
    "zookeeper.session.timeout.ms": "zookeeper.session_timeout_ms",
    "listeners": "brokers.listeners",
    "advertised.listeners": "brokers.advertised.listeners",
    "listener.security.protocol.map": "brokers.listener.security.protocol.map",
    "inter.broker.listener.name": "brokers.inter.broker.listener.name",
    "broker.rack": "brokers.rack",
    "replica.actors": "brokers.replica.actors",
}


def _check_broker_config(key: str, text: str) -> None:
    """Raise ValueError unless ``key`` is a broker config of Kafka's that the file may set to ``text``."""
    if key in _ELSEWHERE:
        raise ValueError(f"config.{key} is set by {_ELSEWHERE[key]}")
    definition = BROKER_CONFIGS.get(key)
    if definition is None:
        near = difflib.get_close_matches(key, BROKER_CONFIGS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else "see raykafka's table of broker configs"
        raise ValueError(f"config.{key} is not a broker config that raykafka knows; {hint}")
    try:
        definition.parse(text)
    except ConfigError as error:
        raise ValueError(f"config.{key}: {error}") from None


class ClusterConfig(_Model):
    """A whole cluster file. Its defaults are those of ``configs/local.yaml``."""

    cluster: str = "local"
    data_dir: Path = Path("~/.raykafka/local")
    ray: RayConfig = Field(default_factory=RayConfig)
    zookeeper: ZooKeeperConfig = Field(default_factory=lambda: ZooKeeperConfig.model_validate({}))
    brokers: BrokersConfig = Field(default_factory=lambda: BrokersConfig.model_validate({}))

    @field_validator("cluster")
    @classmethod
    def _name(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError(f"must be letters, digits, dots, dashes and underscores, at most 64, not {value!r}")
        return value

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @model_validator(mode="after")
    def _nodes_for_all(self) -> ClusterConfig:
        managed = self.zookeeper.managed
        if managed is None:
            return self
        if self.brokers.nodes is None and managed.nodes is not None:
            raise ValueError("zookeeper.managed.nodes is set and brokers.nodes is not: set brokers.nodes as well")
        if self.brokers.nodes is None and not managed.host:
            raise ValueError("zookeeper.managed.host is empty: write 127.0.0.1")
        if self.brokers.nodes is not None and (managed.host.startswith("127.") or managed.host == "localhost"):
            raise ValueError(
                f"brokers.nodes is set, and other nodes can't reach zookeeper.managed.host {managed.host}: "
                'write host: "" for each node\'s own address'
            )
        return self

    @model_validator(mode="after")
    def _ports_differ(self) -> ClusterConfig:
        seen: dict[tuple[str, int], str] = {}
        for host, port, owner in self.ports():
            if port > 65535:
                raise ValueError(f"{owner} would listen on port {port}, and ports end at 65535")
            if (host, port) in seen:
                raise ValueError(f"{owner} and {seen[host, port]} would both listen on {host}:{port}")
            seen[host, port] = owner
        return self

    def ports(self) -> Iterator[tuple[str, int, str]]:
        """Every (host, port, owner) that this cluster listens on, on one machine: with ``brokers.nodes``, on a node
        that has a broker and a ZooKeeper server."""
        managed = self.zookeeper.managed
        if managed is not None:
            for index in range(1 if self.brokers.nodes is not None else managed.servers):
                yield managed.host, managed.client_port + index, f"ZooKeeper server {index + 1}"
                if managed.servers > 1:
                    yield managed.host, managed.peer_port + index, f"the peer port of ZooKeeper server {index + 1}"
                    yield managed.host, managed.election_port + index, f"the election port of ZooKeeper {index + 1}"
        for broker_id in range(1 if self.brokers.nodes is not None else self.brokers.count):
            for name, host, port in self.brokers.parsed_listeners:
                yield host, port + broker_id, f"listener {name} of broker {broker_id}"
            yield self.brokers.link_host, self.brokers.link_port + broker_id, f"the link port of broker {broker_id}"
            if self.brokers.metrics_port:
                port = self.brokers.metrics_port + broker_id
                yield self.brokers.link_host, port, f"the metrics port of broker {broker_id}"

    def bootstrap(self, listener: str | None = None) -> str:
        """``host:port,...`` of every broker on ``listener`` (the inter-broker listener unless named).

        Raises ConfigError for a cluster with ``brokers.nodes``: only the running cluster knows its nodes' addresses.
        """
        wanted = listener or self.brokers.inter_broker_listener
        if self.brokers.nodes is not None:
            raise ConfigError(f"The brokers of {self.cluster} are where its nodes are: ask Ray for it by name.")
        for name, host, port in self.brokers.parsed_advertised:
            if name == wanted:
                return ",".join(f"{host}:{port + broker_id}" for broker_id in range(self.brokers.count))
        names = ", ".join(address.name for address in self.brokers.parsed_listeners)
        raise ConfigError(f"cluster {self.cluster} has no listener {wanted}; it has {names}")

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def load_cluster_config(path: Path | str | None) -> ClusterConfig:
    """Read a cluster file; without a path ``configs/local.yaml``, or the same defaults where that does not exist.

    Raises ConfigError with one sentence that names the file and the place in it.
    """
    if path is None:
        if not DEFAULT_FILE.exists():
            return ClusterConfig.model_validate({})
        path = DEFAULT_FILE
    try:
        text = Path(path).read_text()
    except OSError as error:
        raise ConfigError(f"The cluster file {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"The cluster file {path} is not a text file.") from None
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        raise ConfigError(f"{path}{line} is not YAML: {getattr(error, 'problem', None) or error}.") from None
    return parse_cluster_config({} if data is None else data, str(path))


def parse_cluster_config(data: Any, origin: str) -> ClusterConfig:
    """Check the content of a cluster file that came from ``origin``. Raises ConfigError."""
    if not isinstance(data, Mapping):
        raise ConfigError(f"{origin}: a cluster file holds keys and values, not {data!r}.")
    try:
        return ClusterConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{origin}: {_sentence(error)}") from None


def _sentence(error: ValidationError) -> str:
    """The first thing that pydantic found wrong, said as one sentence."""
    first = min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"{place} is not a known key; {_nearest(first['loc'])}"
    if first["type"] == "value_error":
        sentence = f"{place}{' ' if place else ''}{first['msg'].removeprefix('Value error, ')}"
        return sentence if sentence.endswith(("?", ".")) else f"{sentence}."
    limits = first.get("ctx", {})
    for start, wanted in _WANTED.items():
        if first["type"].startswith(start):
            return f"{place} must be {wanted.format(**limits)}, not {first['input']!r}."
    return f"{place} is {first['input']!r}: {first['msg']}."


_WANTED = {
    "int": "a whole number",
    "bool": "true or false",
    "string": "text",
    "path": "a path",
    "dict": "keys and values",
    "model": "keys and values",
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
}


def _nearest(location: tuple[int | str, ...]) -> str:
    model: type[BaseModel] = ClusterConfig
    for part in location[:-1]:
        model = _MODELS[str(part)]
    known = [field.alias or name for name, field in model.model_fields.items()]
    near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}."


_MODELS: dict[str, type[BaseModel]] = {
    "ray": RayConfig,
    "zookeeper": ZooKeeperConfig,
    "managed": ManagedZooKeeper,
    "brokers": BrokersConfig,
    "nodes": NodeChoice,
}
