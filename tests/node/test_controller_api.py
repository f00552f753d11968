"""The admin APIs that the active controller answers, in every version, on real metadata in a real ZooKeeper."""

from __future__ import annotations

import asyncio
import datetime
import io
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from kio.index import load_payload_module, load_request_schema, load_response_schema
from kio.serial import entity_reader, entity_writer
from kio.static.constants import EntityType

from raykafka.controller.controller import Controller
from raykafka.controller.serving import gate
from raykafka.error_code import ErrorCode
from raykafka.protocol import acl
from raykafka.protocol.acl import Need
from raykafka.protocol.authorizer import Authorizer
from raykafka.protocol.dispatch import serve
from raykafka.protocol.gate import Gate
from raykafka.protocol.session import ClientSession
from tests.lab.served import APIS, DenyAll, request_context
from tests.node.controller_parts import BrokerEnd, parts

CREATE, DELETE, ALTER, GROW, INCREMENTAL = 19, 20, 33, 37, 44
TIMEOUT = datetime.timedelta(seconds=30)
TOPIC, BROKER = 2, 4


class Admin:
    """Sends requests to a controller as the broker forwards them, and reads its answers."""

    def __init__(self, active: Controller, broker: BrokerEnd) -> None:
        self.active = active
        self.broker = broker
        self.gate = gate()

    async def ask(self, key: int, version: int, request: Any) -> Any:
        body = io.BytesIO()
        entity_writer(load_request_schema(key, version))(body, request)
        context = request_context(key, version)
        buffers = await serve(self.gate, self.active.ledger, context, memoryview(body.getvalue()))
        answer = memoryview(b"".join(buffers))
        entity, size = entity_reader(load_response_schema(key, version))(answer, 0)
        assert size == len(answer)
        return entity

    async def create(
        self,
        name: str,
        partitions: int = 1,
        version: int = 7,
        *,
        validate: bool = False,
        timeout: datetime.timedelta = TIMEOUT,
        **config: str,
    ) -> Any:
        m = request_module(CREATE, version)
        configs = tuple(m.CreatableTopicConfig(name=k.replace("_", "."), value=v) for k, v in config.items())
        topic = m.CreatableTopic(
            name=name, num_partitions=partitions, replication_factor=1, assignments=(), configs=configs
        )
        request = m.CreateTopicsRequest(topics=(topic,), timeout=timeout, validate_only=validate)
        (result,) = (await self.ask(CREATE, version, request)).topics
        return result

    async def alter(self, kind: int, name: str, *changes: tuple[str, int, str | None], validate: bool = False) -> Any:
        m = request_module(INCREMENTAL, 1)
        configs = tuple(m.AlterableConfig(name=n, config_operation=o, value=v) for n, o, v in changes)
        resource = m.AlterConfigsResource(resource_type=kind, resource_name=name, configs=configs)
        request = m.IncrementalAlterConfigsRequest(resources=(resource,), validate_only=validate)
        (response,) = (await self.ask(INCREMENTAL, 1, request)).responses
        return response


def request_module(key: int, version: int) -> Any:
    return load_payload_module(key, version, EntityType.request)


def play(zookeeper: str, scenario: Callable[[Admin], Awaitable[None]], config: dict[str, str] | None = None) -> None:
    async def run() -> None:
        async with parts(zookeeper) as made:
            broker = await made.broker(0)
            await scenario(Admin(await made.active(0, config), broker))

    asyncio.run(run())


def code(result: Any) -> ErrorCode:
    return ErrorCode(result.error_code.value)


def versions(key: int) -> range:
    served = gate().apis.get(key)
    assert served is not None
    return range(served.versions[0], served.versions[1] + 1)


def test_topics_are_created_and_deleted_in_every_version(zookeeper: str) -> None:
    async def scenario(admin: Admin) -> None:
        for version in versions(CREATE):
            created = await admin.create(f"t{version}", 2, version, retention_ms="1000")
            assert code(created) is ErrorCode.NONE
            assert len(admin.broker.applied[-1].topics[f"t{version}"].partitions) == 2
            if version >= 5:
                assert (created.num_partitions, created.replication_factor) == (2, 1)
                shown = {c.name: c for c in created.configs}
                assert (shown["retention.ms"].value, shown["retention.ms"].config_source) == ("1000", 1)
                assert (shown["segment.ms"].value, shown["segment.ms"].config_source) == ("604800000", 5)
            if version >= 7:
                assert created.topic_id == admin.active.state.image.topics[f"t{version}"].id
        names = list(admin.active.state.image.topics)
        for version, name in zip(versions(DELETE), names, strict=True):
            m = request_module(DELETE, version)
            if version >= 6:
                asked = m.DeleteTopicsRequest(topics=(m.DeleteTopicState(name=name, topic_id=None),), timeout=TIMEOUT)
            else:
                asked = m.DeleteTopicsRequest(topic_names=(name,), timeout=TIMEOUT)
            (deleted,) = (await admin.ask(DELETE, version, asked)).responses
            assert (deleted.name, code(deleted)) == (name, ErrorCode.NONE)
            assert name not in admin.broker.applied[-1].topics

    play(zookeeper, scenario)


def test_topics_are_deleted_by_id_and_each_entry_has_its_own_answer(zookeeper: str) -> None:
    async def scenario(admin: Admin) -> None:
        first, second = await admin.create("first"), await admin.create("second")
        m = request_module(DELETE, 6)
        nobody = uuid.uuid4()
        asked = [(None, first.topic_id), (None, nobody), ("second", second.topic_id), ("missing", None), (None, None)]
        states = tuple(m.DeleteTopicState(name=name, topic_id=topic_id) for name, topic_id in asked)
        answer = await admin.ask(DELETE, 6, m.DeleteTopicsRequest(topics=states, timeout=TIMEOUT))
        assert [(r.name, r.topic_id, code(r)) for r in answer.responses] == [
            ("first", first.topic_id, ErrorCode.NONE),
            (None, nobody, ErrorCode.UNKNOWN_TOPIC_ID),
            ("second", second.topic_id, ErrorCode.INVALID_REQUEST),
            ("missing", None, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
            (None, None, ErrorCode.INVALID_REQUEST),
        ]
        assert list(admin.active.state.image.topics) == ["second"]

    play(zookeeper, scenario)


def test_topics_are_not_deleted_where_that_is_disabled(zookeeper: str) -> None:
    async def scenario(admin: Admin) -> None:
        await admin.create("t")
        m = request_module(DELETE, 5)
        (answer,) = (await admin.ask(DELETE, 5, m.DeleteTopicsRequest(topic_names=("t",), timeout=TIMEOUT))).responses
        assert code(answer) is ErrorCode.TOPIC_DELETION_DISABLED
        assert "t" in admin.active.state.image.topics

    play(zookeeper, scenario, {"delete.topic.enable": "false"})


def test_a_topic_named_twice_is_refused_and_the_others_are_created(zookeeper: str) -> None:
    async def scenario(admin: Admin) -> None:
        m = request_module(CREATE, 7)
        topics = tuple(
            m.CreatableTopic(name=n, num_partitions=1, replication_factor=1, assignments=(), configs=())
            for n in ("twice", "once", "twice", "bad name")
        )
        answer = await admin.ask(CREATE, 7, m.CreateTopicsRequest(topics=topics, timeout=TIMEOUT, validate_only=False))
        assert sorted((t.name, code(t), t.error_message) for t in answer.topics) == [
            (
                "bad name",
                ErrorCode.INVALID_TOPIC_EXCEPTION,
                "Topic name is invalid: 'bad name' contains one or more characters "
                "other than ASCII alphanumerics, '.', '_' and '-'",
            ),
            ("once", ErrorCode.NONE, None),
            ("twice", ErrorCode.INVALID_REQUEST, "Found multiple entries for this topic."),
            ("twice", ErrorCode.INVALID_REQUEST, "Found multiple entries for this topic."),
        ]
        assert list(admin.active.state.image.topics) == ["once"]

    play(zookeeper, scenario)


def test_validating_only_changes_nothing(zookeeper: str) -> None:
    async def scenario(admin: Admin) -> None:
        assert code(await admin.create("t", validate=True)) is ErrorCode.NONE
        assert code(await admin.create("t", 0, validate=True)) is ErrorCode.INVALID_PARTITIONS
        assert admin.active.state.image.topics == {}
        await admin.create("t")
        grown = request_module(GROW, 3)
        asked = grown.CreatePartitionsTopic(name="t", count=5, assignments=None)
        await admin.ask(GROW, 3, grown.CreatePartitionsRequest(topics=(asked,), timeout=TIMEOUT, validate_only=True))
        assert code(await admin.alter(TOPIC, "t", ("retention.ms", 0, "5"), validate=True)) is ErrorCode.NONE
        topic = admin.active.state.image.topics["t"]
        assert len(topic.partitions) == 1 and topic.config == {}

    play(zookeeper, scenario)


def test_without_time_the_topic_is_created_and_the_answer_says_timed_out(zookeeper: str) -> None:
    async def scenario(admin: Admin) -> None:
        for name, timeout_ms in (("none", 0), ("less", -1)):
            timeout = datetime.timedelta(milliseconds=timeout_ms)
            late = await admin.create(name, timeout=timeout)
            assert code(late) is ErrorCode.REQUEST_TIMED_OUT
            assert late.topic_id == admin.active.state.image.topics[name].id

    play(zookeeper, scenario)


@pytest.mark.parametrize("version", versions(GROW))
def test_every_topic_asked_to_grow_is_answered_for(zookeeper: str, version: int) -> None:
    async def scenario(admin: Admin) -> None:
        for name in ("a", "b", "c"):
            await admin.create(name, 2)
        m = request_module(GROW, version)
        by_hand = (m.CreatePartitionsAssignment(broker_ids=(0,)),)
        asked = [
            ("a", 4, None),
            ("b", 3, by_hand),
            ("c", 2, None),
            ("missing", 3, None),
            ("b", 5, None),
            ("d", 1, None),
        ]
        topics = tuple(m.CreatePartitionsTopic(name=n, count=c, assignments=a) for n, c, a in asked)
        request = m.CreatePartitionsRequest(topics=topics, timeout=TIMEOUT, validate_only=False)
        answer = await admin.ask(GROW, version, request)
        assert {r.name: (code(r), r.error_message) for r in answer.results} == {
            "a": (ErrorCode.NONE, None),
            "b": (ErrorCode.INVALID_REQUEST, "Duplicate topic in request."),
            "c": (ErrorCode.INVALID_PARTITIONS, "Topic already has 2 partitions."),
            "missing": (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "The topic 'missing' does not exist."),
            "d": (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "The topic 'd' does not exist."),
        }
        image = admin.broker.applied[-1]
        assert {name: len(topic.partitions) for name, topic in image.topics.items()} == {"a": 4, "b": 2, "c": 2}

    play(zookeeper, scenario)


def test_configs_of_topics_are_altered_one_by_one_or_replaced(zookeeper: str) -> None:
    async def scenario(admin: Admin) -> None:
        await admin.create("t", retention_ms="5", cleanup_policy="delete")
        assert code(await admin.alter(TOPIC, "t", ("segment.ms", 0, "7"), ("cleanup.policy", 2, "compact"))) is (
            ErrorCode.NONE
        )
        now = {"retention.ms": "5", "cleanup.policy": "delete,compact", "segment.ms": "7"}
        assert admin.broker.applied[-1].topics["t"].config == now
        assert code(await admin.alter(TOPIC, "t", ("segment.ms", 0, "0"))) is ErrorCode.INVALID_CONFIG
        assert code(await admin.alter(TOPIC, "missing", ("segment.ms", 0, "7"))) is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        assert code(await admin.alter(3, "t")) is ErrorCode.INVALID_REQUEST
        assert admin.broker.applied[-1].topics["t"].config == now
        for version in versions(ALTER):
            m = request_module(ALTER, version)
            texts = (m.AlterableConfig(name="retention.ms", value=str(version)),)
            resource = m.AlterConfigsResource(resource_type=TOPIC, resource_name="t", configs=texts)
            answer = await admin.ask(ALTER, version, m.AlterConfigsRequest(resources=(resource,), validate_only=False))
            assert [code(r) for r in answer.responses] == [ErrorCode.NONE]
            assert admin.broker.applied[-1].topics["t"].config == {"retention.ms": str(version)}

    play(zookeeper, scenario)


def test_dynamic_configs_of_brokers_reach_them_and_new_topics(zookeeper: str) -> None:
    async def scenario(admin: Admin) -> None:
        assert code(await admin.alter(BROKER, "", ("log.retention.ms", 0, "5000"))) is ErrorCode.NONE
        assert code(await admin.alter(BROKER, "0", ("log.segment.bytes", 0, "4096"))) is ErrorCode.NONE
        assert admin.broker.applied[-1].broker_configs == {
            "": {"log.retention.ms": "5000"},
            "0": {"log.segment.bytes": "4096"},
        }
        shown = {c.name: (c.value, c.config_source) for c in (await admin.create("t")).configs}
        assert shown["retention.ms"] == ("5000", 3)
        assert shown["segment.bytes"] == ("4096", 2)
        assert code(await admin.alter(BROKER, "", ("log.retention.ms", 1, None))) is ErrorCode.NONE
        assert admin.broker.applied[-1].broker_configs[""] == {}
        refused = await admin.alter(BROKER, "0", ("broker.id", 0, "7"))
        assert (code(refused), refused.error_message) == (
            ErrorCode.INVALID_REQUEST,
            "Cannot update these configs dynamically: Set(broker.id)",
        )

    play(zookeeper, scenario)


def test_a_resource_named_twice_is_refused_in_both_places(zookeeper: str) -> None:
    async def scenario(admin: Admin) -> None:
        await admin.create("t")
        m = request_module(INCREMENTAL, 1)
        resources = tuple(
            m.AlterConfigsResource(
                resource_type=TOPIC,
                resource_name="t",
                configs=(m.AlterableConfig(name=name, config_operation=0, value="5"),),
            )
            for name in ("retention.ms", "segment.ms")
        )
        request = m.IncrementalAlterConfigsRequest(resources=resources, validate_only=False)
        answer = await admin.ask(INCREMENTAL, 1, request)
        assert [(code(r), r.error_message) for r in answer.responses] == [
            (ErrorCode.INVALID_REQUEST, "Each resource must appear at most once.")
        ] * 2
        assert admin.active.state.image.topics["t"].config == {}

    play(zookeeper, scenario)


class OnlyOf:
    """Everybody may do everything with what is called so, and nothing else."""

    def __init__(self, name: str, *refused: Need) -> None:
        self.name = name
        self.refused = refused

    def allows(self, session: ClientSession, need: Need, name: str) -> bool:
        return name == self.name and need not in self.refused


def test_what_is_not_allowed_is_refused_beside_what_is_and_changes_nothing(zookeeper: str) -> None:
    async def scenario(admin: Admin) -> None:
        def allow(authorizer: Authorizer) -> None:
            admin.gate = Gate(APIS, authorizer)

        refused = ErrorCode.TOPIC_AUTHORIZATION_FAILED
        allow(OnlyOf("mine", acl.DESCRIBE_TOPIC_CONFIGS))
        created = await admin.create("mine", 2)
        assert (code(created), created.num_partitions, created.configs) == (ErrorCode.NONE, -1, ())
        assert ErrorCode(created.topic_config_error_code) is refused
        assert code(await admin.create("yours")) is refused

        allow(OnlyOf(acl.CLUSTER_NAME))
        yours = await admin.create("yours")
        assert (code(yours), ErrorCode(yours.topic_config_error_code)) == (ErrorCode.NONE, refused)
        image = admin.active.state.image
        for authorizer in (DenyAll(), OnlyOf("mine")):
            allow(authorizer)
            assert code(await admin.alter(TOPIC, "yours", ("retention.ms", 0, "1"))) is refused
            assert code(await admin.alter(BROKER, "", ("log.retention.ms", 0, "1"))) is (
                ErrorCode.CLUSTER_AUTHORIZATION_FAILED
            )
            m = request_module(GROW, 3)
            topic = m.CreatePartitionsTopic(name="yours", count=3, assignments=None)
            grown = await admin.ask(
                GROW, 3, m.CreatePartitionsRequest(topics=(topic,), timeout=TIMEOUT, validate_only=False)
            )
            assert code(grown.results[0]) is refused
            m = request_module(DELETE, 5)
            deleted = await admin.ask(DELETE, 5, m.DeleteTopicsRequest(topic_names=("yours",), timeout=TIMEOUT))
            assert code(deleted.responses[0]) is refused
        assert admin.active.state.image is image

        m = request_module(DELETE, 5)
        both = m.DeleteTopicsRequest(topic_names=("yours", "mine"), timeout=TIMEOUT)
        answer = await admin.ask(DELETE, 5, both)
        assert [(r.name, code(r)) for r in answer.responses] == [("yours", refused), ("mine", ErrorCode.NONE)]
        assert list(admin.active.state.image.topics) == ["yours"]

    play(zookeeper, scenario)
