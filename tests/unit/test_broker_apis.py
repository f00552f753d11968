"""The APIs that a broker answers from its image: every version encodes, and says what Kafka would."""

import asyncio
import threading
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raykafka.broker.api import alter_replica_log_dirs, describe_configs, init_producer_id
from raykafka.broker.configs import Configs
from raykafka.cluster.image import BrokerInfo, ClusterImage, Endpoint, ImageDelta, PartitionState, Topic
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.front.api import (
    create_acls,
    delete_acls,
    describe_acls,
    describe_cluster,
    find_coordinator,
    list_config_resources,
    metadata,
    sasl_handshake,
)
from raykafka.front.image_answers import ImageAnswers
from raykafka.protocol import acl, codec, dispatch
from raykafka.protocol.context import RequestContext
from raykafka.types import OFFSETS_TOPIC, TopicPartition
from tests.lab.dataplane import decode_response
from tests.lab.served import APIS, admitted

FLIGHTS = uuid.UUID(int=7)
OFFSETS = uuid.UUID(int=8)


def _broker(broker_id: int, *listeners: str) -> BrokerInfo:
    endpoints = tuple(Endpoint(name, f"{name.lower()}-{broker_id}", 9092 + broker_id) for name in listeners)
    return BrokerInfo(broker_id, 0, endpoints, "127.0.0.1", 1, "d", "b", False, f"rack-{broker_id}")


def _image() -> ClusterImage:
    """Broker 0 on both listeners, broker 1 inside only, broker 2 down."""

    def led(leader: int, *replicas: int) -> PartitionState:
        return PartitionState(replicas, leader, 5, replicas, 0)

    flights = Topic("flights", FLIGHTS, {0: led(0, 0), 1: led(1, 1), 2: led(-1, 2)}, {"retention.ms": "5"})
    offsets = Topic(OFFSETS_TOPIC, OFFSETS, {0: led(0, 0), 1: led(-1, 2)})
    brokers = {0: _broker(0, "INSIDE", "OUTSIDE"), 1: _broker(1, "INSIDE")}
    delta = ImageDelta(brokers=brokers, topics={"flights": flights, OFFSETS_TOPIC: offsets}, controller_id=1)
    return ClusterImage("cluster").apply(delta)


class _Server:
    """What the handlers ask of a broker, over an image."""

    broker_id = 0

    def __init__(self, creating: bool = True) -> None:
        self.image = _image()
        self.configs = Configs(0, {"log.retention.hours": "3"})
        self.creating = creating
        self.suspects: set[int] = set()
        self.image_answers = ImageAnswers()
        self.asked_for: list[str] = []

    async def auto_create(self, names: Iterable[str], *, internal: bool = False) -> dict[str, ErrorCode]:
        self.asked_for += names
        if not self.creating:
            return {}
        return dict.fromkeys(names, ErrorCode.LEADER_NOT_AVAILABLE)

    async def next_producer_id(self) -> int:
        return 4000


def _context(api: Any, version: int, listener: str = "INSIDE") -> RequestContext:
    return admitted(api.API_KEY, version, listener=listener)


def _ask(api: Any, version: int, request: Any, server: _Server | None = None, listener: str = "INSIDE") -> Any:
    """The response, after it was encoded as that version."""
    response = asyncio.run(api.handle(_context(api, version, listener), request, server or _Server()))
    if isinstance(response, bytes):
        return decode_response(api.API_KEY, version, response)
    codec.encode_response(api.API_KEY, version, response)
    return response


def _versions(api: Any) -> range:
    return range(api.VERSIONS[0], api.VERSIONS[1] + 1)


def _named(*names: str) -> tuple[SimpleNamespace, ...]:
    return tuple(SimpleNamespace(name=name, topic_id=None) for name in names)


def _metadata_request(version: int, topics: Any, **values: Any) -> SimpleNamespace:
    given = {"allow_auto_topic_creation": True} if version >= 4 else {}
    return SimpleNamespace(topics=topics, **{**given, **values})


@pytest.mark.parametrize("version", _versions(metadata))
def test_metadata_shows_leaders_where_the_client_came_in(version: int) -> None:
    inside = _ask(metadata, version, _metadata_request(version, _named("flights")))
    assert [(b.node_id, b.host) for b in inside.brokers] == [(0, "inside-0"), (1, "inside-1")]
    (topic,) = inside.topics
    assert [p.leader_id for p in topic.partitions] == [0, 1, -1]
    codes = [p.error_code for p in topic.partitions]
    assert codes == [ErrorCode.NONE, ErrorCode.NONE, ErrorCode.LEADER_NOT_AVAILABLE]
    assert [tuple(p.replica_nodes) for p in topic.partitions] == [(0,), (1,), () if version == 0 else (2,)]

    outside = _ask(metadata, version, _metadata_request(version, _named("flights")), listener="OUTSIDE")
    assert [(b.node_id, b.host) for b in outside.brokers] == [(0, "outside-0")]
    lacking = ErrorCode.LISTENER_NOT_FOUND if version >= 6 else ErrorCode.LEADER_NOT_AVAILABLE
    assert outside.topics[0].partitions[1].error_code == lacking


@pytest.mark.parametrize("version", _versions(metadata))
def test_a_leader_that_seems_dead_is_no_leader_to_clients(version: int) -> None:
    server = _Server()
    server.suspects.add(1)
    (topic,) = _ask(metadata, version, _metadata_request(version, _named("flights")), server).topics
    assert [(p.leader_id, p.error_code) for p in topic.partitions][:2] == [
        (0, ErrorCode.NONE),
        (-1, ErrorCode.LEADER_NOT_AVAILABLE),
    ]
    server.suspects.add(0)
    if version >= 4:
        (found,) = _ask(find_coordinator, 4, SimpleNamespace(key_type=0, coordinator_keys=("b",)), server).coordinators
        assert found.error_code == ErrorCode.COORDINATOR_NOT_AVAILABLE


@pytest.mark.parametrize("version", _versions(metadata))
def test_metadata_of_all_topics_and_of_none(version: int) -> None:
    server = _Server()
    everything = _ask(metadata, version, _metadata_request(version, () if version == 0 else None), server)
    assert {t.name for t in everything.topics} == {"flights", OFFSETS_TOPIC}
    if version >= 1:
        assert {t.name for t in everything.topics if t.is_internal} == {OFFSETS_TOPIC}
        assert _ask(metadata, version, _metadata_request(version, ()), server).topics == ()
    assert server.asked_for == []


@pytest.mark.parametrize("version", [0, 4, 12])
def test_metadata_creates_what_it_may(version: int) -> None:
    server = _Server()
    (topic,) = _ask(metadata, version, _metadata_request(version, _named("new")), server).topics
    assert (topic.error_code, server.asked_for) == (ErrorCode.LEADER_NOT_AVAILABLE, ["new"])

    server = _Server(creating=False)
    unknown, impossible = _ask(metadata, version, _metadata_request(version, _named("new", "no good")), server).topics
    assert unknown.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert impossible.error_code == ErrorCode.INVALID_TOPIC_EXCEPTION


def test_metadata_is_encoded_once_for_an_image_a_listener_a_version_and_a_list_of_topics(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoded: list[threading.Thread] = []

    def encode(*args: Any) -> bytes:
        encoded.append(threading.current_thread())
        return codec.encode_response(*args)

    monkeypatch.setattr(metadata, "encode_response", encode)
    server = _Server()
    large = Topic("large", uuid.UUID(int=9), {p: PartitionState((0,), 0, 0, (0,), 0) for p in range(3000)})
    server.image = server.image.apply(ImageDelta(topics={"large": large}))

    async def asked(version: int, topics: Any, listener: str = "INSIDE") -> bytes:
        context = _context(metadata, version, listener)
        request: Any = _metadata_request(version, topics)
        answer = await metadata.handle(context, request, server)
        assert isinstance(answer, bytes)
        return answer

    async def run() -> None:
        all_at_once = await asyncio.gather(*(asked(12, _named("large")) for _ in range(50)))
        assert len({id(answer) for answer in all_at_once}) == len(encoded) == 1
        assert encoded[0] is not threading.main_thread()
        assert await asked(12, _named("large")) is all_at_once[0]
        assert await asked(12, _named("flights")) is await asked(12, _named("flights"))
        assert len(encoded) == 2 and encoded[1] is threading.main_thread()
        others = [(11, _named("flights"), "INSIDE"), (12, _named("flights"), "OUTSIDE"), (12, None, "INSIDE")]
        answers = [await asked(*other) for other in others]
        assert len(encoded) == 5 and len({*answers, all_at_once[0]}) == 4
        server.image = server.image.apply(ImageDelta(controller_id=0))
        assert await asked(12, _named("large")) != all_at_once[0]
        server.suspects = {0}
        await asked(12, _named("large"))
        assert len(encoded) == 7

    asyncio.run(run())


def test_metadata_counts_and_fails_as_well_when_who_asked_first_is_gone() -> None:
    image, answers = _image(), ImageAnswers()
    suspects: frozenset[int] = frozenset()
    go_on = threading.Event()

    async def gone(make: Callable[[], bytes]) -> None:
        asking = asyncio.ensure_future(answers.answer(image, suspects, "asked", make, slow=lambda: True))
        await asyncio.sleep(0.01)
        asking.cancel()
        go_on.set()
        await asyncio.sleep(0.1)

    async def run() -> None:
        await gone(lambda: bytes(1 // (go_on.wait(10) - 1)))
        go_on.clear()
        await gone(lambda: bytes([go_on.wait(10)]))
        assert await answers.answer(image, suspects, "asked", lambda: b"again", slow=lambda: True) == b"\x01"
        assert answers._bytes == 1

    asyncio.run(run())


def test_metadata_that_could_not_be_made_is_made_at_the_next_request(monkeypatch: pytest.MonkeyPatch) -> None:
    server = _Server()
    monkeypatch.setattr(metadata, "_MANY_PARTITIONS", 0)

    async def run() -> None:
        request: Any = _metadata_request(12, _named("flights"))
        with monkeypatch.context() as broken:
            broken.setattr(metadata, "encode_response", lambda *_: 1 // 0)
            with pytest.raises(ZeroDivisionError):
                await metadata.handle(_context(metadata, 12), request, server)
        assert isinstance(await metadata.handle(_context(metadata, 12), request, server), bytes)

    asyncio.run(run())


def test_metadata_leaves_unknown_topics_alone_where_the_client_says_so() -> None:
    server = _Server()
    request = _metadata_request(9, _named("new"), allow_auto_topic_creation=False)
    assert _ask(metadata, 9, request, server).topics[0].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert server.asked_for == []


def test_metadata_by_topic_id() -> None:
    topics = (SimpleNamespace(name=None, topic_id=FLIGHTS), SimpleNamespace(name=None, topic_id=uuid.UUID(int=99)))
    known, unknown = _ask(metadata, 12, _metadata_request(12, topics)).topics
    assert (known.name, known.topic_id, known.error_code) == ("flights", FLIGHTS, ErrorCode.NONE)
    assert (unknown.name, unknown.error_code) == (None, ErrorCode.UNKNOWN_TOPIC_ID)


def test_authorized_operations_are_told_when_asked_for() -> None:
    plain = _ask(metadata, 8, _metadata_request(8, _named("flights")))
    assert plain.topics[0].topic_authorized_operations == plain.cluster_authorized_operations == acl.NOT_ASKED
    asked = _metadata_request(
        8,
        _named("flights"),
        include_topic_authorized_operations=True,
        include_cluster_authorized_operations=True,
    )
    told = _ask(metadata, 8, asked)
    # all operations that Kafka knows of a topic and of a cluster: it answers these where there is no authorizer
    assert (told.topics[0].topic_authorized_operations, told.cluster_authorized_operations) == (3576, 8096)


@pytest.mark.parametrize("version", _versions(describe_cluster))
def test_describe_cluster(version: int) -> None:
    told = _ask(describe_cluster, version, SimpleNamespace(include_cluster_authorized_operations=False))
    assert (told.cluster_id, told.controller_id, [b.broker_id for b in told.brokers]) == ("cluster", 1, [0, 1])


def test_describe_cluster_of_controllers_is_refused() -> None:
    request = SimpleNamespace(include_cluster_authorized_operations=False, endpoint_type=2)
    with pytest.raises(KafkaError) as refused:
        _ask(describe_cluster, 1, request)
    assert refused.value.code is ErrorCode.MISMATCHED_ENDPOINT_TYPE


@pytest.mark.parametrize("version", _versions(find_coordinator))
def test_find_coordinator_leads_to_the_leader_of_the_groups_partition(version: int) -> None:
    # "b" hashes to 98 and "a" to 97: partitions 0 and 1 of two
    if version >= 4:
        request = SimpleNamespace(key_type=0, coordinator_keys=("b", "a"))
        found, lost = _ask(find_coordinator, version, request).coordinators
    else:
        values = {"key_type": 0} if version >= 1 else {}
        found, lost = (_ask(find_coordinator, version, SimpleNamespace(key=key, **values)) for key in ("b", "a"))
    assert (found.error_code, found.node_id, found.host, found.port) == (ErrorCode.NONE, 0, "inside-0", 9092)
    assert (lost.error_code, lost.node_id) == (ErrorCode.COORDINATOR_NOT_AVAILABLE, -1)


def test_coordinators_of_transactions_are_refused() -> None:
    request = SimpleNamespace(key_type=1, coordinator_keys=("tx",))
    (answer,) = _ask(find_coordinator, 4, request).coordinators
    assert answer.error_code == ErrorCode.INVALID_REQUEST and "consumer groups" in answer.error_message


@pytest.mark.parametrize("version", _versions(init_producer_id))
def test_init_producer_id(version: int) -> None:
    values = {"producer_id": -1, "producer_epoch": -1} if version >= 3 else {}
    told = _ask(init_producer_id, version, SimpleNamespace(transactional_id=None, **values))
    assert (told.error_code, told.producer_id, told.producer_epoch) == (ErrorCode.NONE, 4000, 0)


@pytest.mark.parametrize(
    "values", [{"transactional_id": "tx"}, {"transactional_id": None, "producer_id": 5, "producer_epoch": -1}]
)
def test_init_producer_id_refuses_what_it_can_not_serve(values: dict[str, Any]) -> None:
    with pytest.raises(KafkaError) as refused:
        _ask(init_producer_id, 3, SimpleNamespace(**values))
    assert refused.value.code is ErrorCode.INVALID_REQUEST


def _configs_request(kind: int, name: str, keys: tuple[str, ...] | None = None) -> SimpleNamespace:
    resource = SimpleNamespace(resource_type=kind, resource_name=name, configuration_keys=keys)
    return SimpleNamespace(resources=(resource,), include_synonyms=True, include_documentation=True)


@pytest.mark.parametrize("version", _versions(describe_configs))
def test_describe_configs_tells_values_with_their_sources(version: int) -> None:
    keys = ("retention.ms", "retention.bytes")
    (topic,) = _ask(describe_configs, version, _configs_request(2, "flights", keys)).results
    told = {c.name: c for c in topic.configs}
    assert {name: (c.value, c.config_source) for name, c in told.items()} == {
        "retention.ms": ("5", 1),
        "retention.bytes": ("-1", 5),
    }
    assert [(s.name, s.value, s.source) for s in told["retention.ms"].synonyms] == [
        ("retention.ms", "5", 1),
        ("log.retention.hours", "3", 4),
        ("log.retention.hours", "168", 5),
    ]
    (broker,) = _ask(describe_configs, version, _configs_request(4, "0")).results
    told = {c.name: c for c in broker.configs}
    assert (told["log.retention.hours"].value, told["log.retention.hours"].config_source) == ("3", 4)
    assert told["log.retention.hours"].read_only
    if version >= 3:
        assert all(c.documentation for c in broker.configs) and told["log.retention.hours"].config_type == 3


@pytest.mark.parametrize(
    ("kind", "name", "code"),
    [
        (2, "missing", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (2, "no good", ErrorCode.INVALID_TOPIC_EXCEPTION),
        (4, "1", ErrorCode.INVALID_REQUEST),
        (4, "x", ErrorCode.INVALID_REQUEST),
        (8, "0", ErrorCode.INVALID_REQUEST),
    ],
)
def test_describe_configs_refuses_each_resource_by_itself(kind: int, name: str, code: ErrorCode) -> None:
    (result,) = _ask(describe_configs, 4, _configs_request(kind, name)).results
    assert (result.error_code, result.configs) == (code, ())


@pytest.mark.parametrize("version", _versions(sasl_handshake))
def test_a_listener_that_asks_nobody_to_authenticate_says_so(version: int) -> None:
    told = _ask(sasl_handshake, version, SimpleNamespace(mechanism="PLAIN"))
    assert (told.error_code, tuple(told.mechanisms)) == (ErrorCode.ILLEGAL_SASL_STATE, ())


@pytest.mark.parametrize("api", [describe_acls, create_acls, delete_acls])
def test_there_are_no_acls_without_an_authorizer(api: Any) -> None:
    served = APIS.get(api.API_KEY)
    assert served is not None
    for version in _versions(api):
        request = SimpleNamespace(creations=(1, 2), filters=(1, 2))
        with pytest.raises(KafkaError) as refusal:
            _ask(api, version, request)
        response = dispatch.error_response(served, _context(api, version), request, refusal.value)
        codec.encode_response(api.API_KEY, version, response)
        answers = {create_acls: "results", delete_acls: "filter_results"}
        found = getattr(response, answers[api]) if api in answers else (response, response)
        assert [answer.error_code for answer in found] == [ErrorCode.SECURITY_DISABLED] * 2


def test_what_has_configs_is_listed_by_type() -> None:
    def listed(version: int, *types: int) -> set[tuple[str, int]]:
        told = _ask(list_config_resources, version, SimpleNamespace(resource_types=types))
        return {(found.resource_name, getattr(found, "resource_type", 16)) for found in told.config_resources}

    topics, brokers = {("flights", 2), (OFFSETS_TOPIC, 2)}, {("0", 4), ("1", 4)}
    assert listed(0) == set()
    assert listed(1, 2) == topics
    assert listed(1, 4, 16, 4) == brokers
    assert listed(1) == {*topics, *brokers, ("0", 8), ("1", 8)}
    with pytest.raises(KafkaError, match="not known"):
        listed(1, 3)


@pytest.mark.parametrize("version", _versions(alter_replica_log_dirs))
def test_a_broker_has_one_directory(version: int, tmp_path: Path) -> None:
    here = SimpleNamespace(tp=TopicPartition("flights", 0))
    server: Any = SimpleNamespace(partitions=[here], data_dir=tmp_path)

    def told(path: str) -> dict[int, int]:
        topic = SimpleNamespace(name="flights", partitions=(0, 1))
        dirs = (SimpleNamespace(path=path, topics=(topic,)),)
        (result,) = _ask(alter_replica_log_dirs, version, SimpleNamespace(dirs=dirs), server).results
        return {found.partition_index: found.error_code for found in result.partitions}

    assert told(str(tmp_path)) == {0: ErrorCode.NONE, 1: ErrorCode.REPLICA_NOT_AVAILABLE}
    assert told("/elsewhere") == dict.fromkeys((0, 1), ErrorCode.LOG_DIR_NOT_FOUND)
