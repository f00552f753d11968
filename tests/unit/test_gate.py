"""The gate: what is not declared is not served, what is not allowed is refused by every API in every version."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import importlib
import io
import types
import typing
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kio.index import load_request_schema
from kio.serial import entity_writer

from raykafka.broker.configs import Configs
from raykafka.cluster.image import BrokerInfo, ClusterImage, Endpoint, ImageDelta, PartitionState, Topic
from raykafka.coordinator.group.config import GroupConfig
from raykafka.coordinator.group_coordinator import Coordinator
from raykafka.error_code import ErrorCode
from raykafka.front.fetch_sessions import FetchSessions
from raykafka.protocol import acl, dispatch
from raykafka.protocol.authorizer import UndeclaredNeedError
from raykafka.protocol.context import pack_forward, unpack_forward
from raykafka.protocol.gate import Gate
from raykafka.protocol.registry import Api, Registry
from raykafka.protocol.session import ClientSession
from raykafka.telemetry.traffic import Traffic
from tests.lab.dataplane import batch, decode_response
from tests.lab.group_log import OffsetsLogOnDisk
from tests.lab.served import APIS, DenyAll, admitted, request_context

TOPIC, TOPIC_ID = "flights", uuid.UUID(int=7)
GROUP = "readers"
# A listener that asks nobody to authenticate has an answer of its own.
REFUSALS = {*acl.REFUSALS.values(), ErrorCode.ILLEGAL_SASL_STATE}
# What the fields of a request hold: what is there to be found, so that only a refusal hides it.
_NAMES = {"name": TOPIC, "topic": TOPIC, "topics": TOPIC, "topic_names": TOPIC, "resource_name": TOPIC}
_NUMBERS = {"replica_id": -1, "acks": -1, "resource_type": 2, "endpoint_type": 1, "producer_id": -1, "count": 4}
_NUMBERS |= {"producer_epoch": -1, "num_partitions": 1, "replication_factor": 1}
_FIELDS = {("DeleteTopicState", "topic_id"): None, ("ListGroupsRequest", "states_filter"): ()}
_FIELDS |= {("ListGroupsRequest", "types_filter"): (), ("CreatableTopic", "assignments"): ()}
# As in Kafka, everybody may learn these.
SHOWN_TO_ALL = {"ApiVersions", "DescribeCluster"}

EVERY_VERSION = [(api, version) for api in APIS for version in range(api.versions[0], api.versions[1] + 1)]


def filled(schema: Any) -> Any:
    """A request with one of everything that it can name."""
    values = {}
    hints = typing.get_type_hints(schema)
    for field in dataclasses.fields(schema):
        found = _FIELDS.get((schema.__name__, field.name), ...)
        if found is ...:
            found = _value(field.name, hints[field.name], field.metadata.get("kafka_type", ""))
        values[field.name] = found
    return schema(**values)


def _value(name: str, kind: Any, kafka_type: str) -> Any:
    options = [option for option in typing.get_args(kind) if option is not types.NoneType]
    if typing.get_origin(kind) is not tuple and options:
        kind = options[0]
    if typing.get_origin(kind) is tuple:
        return (_value(name, typing.get_args(kind)[0], kafka_type),)
    if dataclasses.is_dataclass(kind):
        return filled(kind)
    if name == "transactional_id":
        return None
    if kafka_type.startswith("timedelta"):
        return datetime.timedelta(0)
    match kafka_type:
        case "string":
            return _NAMES.get(name, GROUP)
        case "bool":
            return name != "validate_only"
        case "uuid":
            return TOPIC_ID
        case "bytes":
            return b""
        case "records":
            return bytes(batch(b"value"))
    return _NUMBERS.get(name, 0)


def encoded(request: Any) -> memoryview:
    buffer = io.BytesIO()
    entity_writer(type(request))(buffer, request)
    return memoryview(bytearray(buffer.getvalue()))


class Untouched:
    """What handlers ask of their process: it shows a topic and a group, and may neither be read further nor changed."""

    broker_id = 0
    suspects: frozenset[int] = frozenset()
    gate = Gate(APIS)

    def __init__(self) -> None:
        broker = BrokerInfo(0, 0, (Endpoint("INSIDE", "here", 9092),), "127.0.0.1", 1, "d", "b", False, None)
        topic = Topic(TOPIC, TOPIC_ID, {0: PartitionState((0,), 0, 5, (0,), 0)}, {})
        self.image = ClusterImage("cluster").apply(
            ImageDelta(brokers={0: broker}, topics={TOPIC: topic}, controller_id=0)
        )
        self.state = SimpleNamespace(image=self.image)
        self.configs = Configs(0, {})
        self.fetch_sessions = FetchSessions(10)
        self.traffic = Traffic()
        self.partitions = SimpleNamespace(fetch_sessions=self.fetch_sessions, traffic=self.traffic, get=None)

    def holds_lease(self) -> bool:
        return True

    def describe(self, group_id: str) -> None:
        return None

    def list(self) -> tuple[ErrorCode, list[Any]]:
        return ErrorCode.NONE, [SimpleNamespace(group_id=GROUP, protocol_type="", state=SimpleNamespace(value="Empty"))]


def ask(api: Api, version: int, request: Any, server: Any, gate: Gate) -> Any:
    context = request_context(api.key, version)
    buffers = asyncio.run(dispatch.serve(gate, server, context, encoded(request)))
    return decode_response(api.key, version, b"".join(buffers))


def found_in(response: Any, wanted: str) -> list[Any]:
    """All values of the fields of that name, or of the arrays, anywhere in a response."""
    found: list[Any] = []
    if isinstance(response, tuple):
        for item in response:
            found += found_in(item, wanted)
    elif dataclasses.is_dataclass(response):
        for field in dataclasses.fields(response):
            value = getattr(response, field.name)
            found += [value] if field.name == wanted or (wanted == "[]" and isinstance(value, tuple)) else []
            found += found_in(value, wanted)
    return found


@pytest.mark.parametrize(("api", "version"), EVERY_VERSION, ids=lambda x: x.name if isinstance(x, Api) else str(x))
def test_who_may_do_nothing_is_refused_by_every_api(api: Api, version: int) -> None:
    authorizer = DenyAll()
    request = filled(load_request_schema(api.key, version))
    response = ask(api, version, request, Untouched(), Gate(APIS, authorizer))
    assert {need for need, _ in authorizer.asked} <= {*api.needs, *_listed(api)}
    assert bool(authorizer.asked) == bool(api.needs)
    codes = {ErrorCode(code) for code in found_in(response, "error_code")} - {ErrorCode.NONE}
    assert codes <= REFUSALS
    if not codes and api.name not in SHOWN_TO_ALL:
        assert not any(found_in(response, "[]")), "something is shown"
    for name in ("topic_authorized_operations", "cluster_authorized_operations", "authorized_operations"):
        assert set(found_in(response, name)) <= {acl.NONE, acl.NOT_ASKED}


def _listed(api: Api) -> set[acl.Need]:
    """What is asked to list the operations that are allowed."""
    kinds = {need.resource for need in api.needs}
    return {acl.Need(operation, kind) for kind in kinds for operation in acl.SUPPORTED[kind]}


def test_metadata_of_all_topics_leaves_out_what_is_not_to_be_seen_and_creates_nothing() -> None:
    api, gate = APIS.get(3), Gate(APIS, DenyAll())
    assert api is not None
    for version in range(api.versions[0], api.versions[1] + 1):
        schema = load_request_schema(api.key, version)
        everything = dataclasses.replace(filled(schema), topics=() if version == 0 else None)
        assert ask(api, version, everything, Untouched(), gate).topics == ()
        topic = dataclasses.replace(filled(schema).topics[0], name="new")
        (new,) = ask(api, version, dataclasses.replace(filled(schema), topics=(topic,)), Untouched(), gate).topics
        assert new.error_code.value == ErrorCode.TOPIC_AUTHORIZATION_FAILED
    by_id = dataclasses.replace(filled(schema).topics[0], name=None)
    (answer,) = ask(api, version, dataclasses.replace(everything, topics=(by_id,)), Untouched(), gate).topics
    assert (answer.error_code.value, answer.name) == (ErrorCode.UNKNOWN_TOPIC_ID, None)


def test_a_topic_deleted_by_id_is_not_named_to_who_may_not_describe_it() -> None:
    api = APIS.get(20)
    assert api is not None
    request = filled(load_request_schema(api.key, 6))
    by_id = dataclasses.replace(request.topics[0], name=None, topic_id=TOPIC_ID)
    request = dataclasses.replace(request, topics=(by_id,))
    for authorizer, name in ((DenyAll(), None), (Only(acl.DESCRIBE_TOPIC), TOPIC)):
        (answer,) = ask(api, 6, request, Untouched(), Gate(APIS, authorizer)).responses
        assert (answer.error_code.value, answer.name) == (ErrorCode.TOPIC_AUTHORIZATION_FAILED, name)


class Only:
    """Everybody may do what was given."""

    def __init__(self, *needs: acl.Need) -> None:
        self.needs = needs

    def allows(self, session: ClientSession, need: acl.Need, name: str) -> bool:
        return need in self.needs


@pytest.mark.parametrize(
    ("key", "version", "needs", "bits"),
    [
        (3, 8, (acl.DESCRIBE_TOPIC, acl.WRITE_TOPIC), {1 << 4 | 1 << 8, acl.NONE}),
        (3, 8, (acl.DESCRIBE_TOPIC, acl.DESCRIBE_CLUSTER), {1 << 8}),
        (60, 1, (acl.DESCRIBE_CLUSTER, acl.ALTER_CLUSTER), {1 << 7 | 1 << 8}),
        (60, 1, (acl.ALTER_CLUSTER,), {acl.NONE}),
        (15, 5, (acl.DESCRIBE_GROUP, acl.DELETE_GROUP), {1 << 6 | 1 << 8}),
    ],
)
def test_authorized_operations_are_those_that_the_gate_allows(
    key: int, version: int, needs: tuple[acl.Need, ...], bits: set[int]
) -> None:
    api = APIS.get(key)
    assert api is not None
    response = ask(api, version, filled(load_request_schema(key, version)), Untouched(), Gate(APIS, Only(*needs)))
    told: list[int] = []
    for name in ("topic_authorized_operations", "cluster_authorized_operations", "authorized_operations"):
        told += found_in(response, name)
    assert set(told) == bits


@pytest.mark.parametrize(("key", "need"), [(8, acl.READ_GROUP), (9, acl.DESCRIBE_GROUP), (47, acl.DELETE_GROUP)])
def test_topics_that_a_group_may_not_read_are_refused_one_by_one(key: int, need: acl.Need, tmp_path: Path) -> None:
    """And nothing is written, nor shown: only the group itself is allowed."""

    async def run() -> None:
        log = OffsetsLogOnDisk(tmp_path)
        coordinator = Coordinator(GroupConfig(), log)
        coordinator.lead(0, 1, 1)
        await coordinator.loaded()
        commit = filled(load_request_schema(8, 9))
        commit = dataclasses.replace(commit, member_id="", group_instance_id=None, generation_id_or_member_epoch=-1)
        await dispatch.serve(Gate(APIS), coordinator, request_context(8, 9), encoded(commit))
        appended = log.appended
        api = APIS.get(key)
        assert api is not None and appended == 1
        for version in range(api.versions[0], api.versions[1] + 1):
            request = encoded(filled(load_request_schema(key, version)))
            gate = Gate(APIS, Only(need))
            buffers = await dispatch.serve(gate, coordinator, request_context(key, version), request)
            response = decode_response(key, version, b"".join(buffers))
            codes = [ErrorCode(code) for code in found_in(response, "error_code")]
            assert ErrorCode.TOPIC_AUTHORIZATION_FAILED in codes
            assert {ErrorCode.NONE, ErrorCode.TOPIC_AUTHORIZATION_FAILED} >= set(codes)
            assert set(found_in(response, "committed_offset")) <= {-1}
        assert log.appended == appended
        coordinator.stop()
        log.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ("", "NEEDS is missing"),
        ("NEEDS = ()", "does not say in OPEN_TO_ALL why"),
        ("NEEDS = ()\nOPEN_TO_ALL = ''", "does not say in OPEN_TO_ALL why"),
    ],
)
def test_a_module_that_declares_nothing_keeps_its_process_from_starting(
    declared: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / f"planted_{abs(hash(declared))}"
    package.mkdir()
    (package / "__init__.py").write_text("from raykafka.protocol.registry import Place\n\nPLACE = Place.BROKER\n")
    module = package / "heartbeat.py"
    module.write_text(f"API_KEY = 12\nVERSIONS = (0, 4)\n{declared}\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RuntimeError, match=said):
        Registry(importlib.import_module(package.name))


def test_who_asks_for_what_is_not_declared_is_wrong() -> None:
    context = admitted(12, 0)
    assert context.allows(acl.READ_GROUP, GROUP)
    with pytest.raises(UndeclaredNeedError, match="DELETE on GROUP"):
        context.allows(acl.DELETE_GROUP, GROUP)
    for ask_outside in (lambda c: c.allows(acl.READ_GROUP, GROUP), lambda c: c.charge("request", 1)):
        with pytest.raises(UndeclaredNeedError):
            ask_outside(request_context(12, 0))


def test_a_forwarded_request_is_its_clients_and_earns_what_it_earned() -> None:
    context = request_context(12, 3)
    context.session.principal = "User:alice"
    context.throttle_ms = 250
    forwarded, body = unpack_forward(memoryview(b"".join(pack_forward(context, b"body"))))
    assert (forwarded.session.principal, forwarded.listener, forwarded.client_host, bytes(body)) == (
        *("User:alice", "INSIDE", "127.0.0.1"),
        b"body",
    )
    assert (forwarded.client_id, forwarded.received_ns) == (context.client_id, context.received_ns)

    class Alice:
        def allows(self, session: ClientSession, need: acl.Need, name: str) -> bool:
            return session.principal == "User:alice"

    class Coordinator:
        async def heartbeat(self, group_id: str, event: Any) -> ErrorCode:
            return ErrorCode.NONE

    body = encoded(filled(load_request_schema(12, 3)))
    buffers = asyncio.run(dispatch.serve_forwarded(Gate(APIS, Alice()), Coordinator(), forwarded, body))
    answer = decode_response(12, 3, b"".join(buffers))
    assert (answer.error_code.value, answer.throttle_time) == (ErrorCode.NONE, datetime.timedelta(milliseconds=250))
