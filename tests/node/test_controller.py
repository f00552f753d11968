"""The elected controller, with a real ZooKeeper and real sockets to brokers: it decides once, in order, and survives
its end."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from raykafka.broker.neighbourhood import controller_calls
from raykafka.broker.partitions.isr_proposals import IsrProposals
from raykafka.cluster.image import PartitionState
from raykafka.controller import channel
from raykafka.controller.broker_channels import Silences
from raykafka.controller.controller import Controller
from raykafka.controller.decisions import isr_changes
from raykafka.controller.decisions.configs import Resource, alter_configs
from raykafka.controller.decisions.topics import Growth, create_partitions, create_topics, delete_topics
from raykafka.controller.rules.configs import ResourceType
from raykafka.controller.rules.elections import BrokerLife, first_state
from raykafka.controller.rules.topics import TopicRequest
from raykafka.deploy.zookeeper_process import ZooKeeperProcess
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.link import Link, serve_tcp, serve_unix
from raykafka.replica.rules.events import Propose
from raykafka.types import TopicPartition
from raykafka.zookeeper import broker_store as store
from raykafka.zookeeper import controller_election, znodes
from raykafka.zookeeper.controller_store import ControllerFenced, ControllerStore
from raykafka.zookeeper.znodes import ControllerNode, TopicNode
from tests.lab.free_ports import free_port
from tests.lab.loop_waiting import until
from tests.node.controller_parts import SECRET, SESSION_MS, WITHIN_S, BrokerEnd, Parts, parts, random_id

Scenario = Callable[[Parts], Awaitable[None]]


def play(zookeeper: str, scenario: Scenario, session_ms: int = SESSION_MS) -> None:
    async def run() -> None:
        async with parts(zookeeper, session_ms) as made:
            await scenario(made)

    asyncio.run(run())


async def create(active: Controller, name: str, partitions: int = 1, **config: str) -> None:
    request = TopicRequest(name, partitions, 1, (), tuple((k.replace("_", "."), v) for k, v in config.items()))
    (result,) = await create_topics(active.ledger, [request], timeout_s=WITHIN_S)
    assert result.error is None and not result.timed_out, result


async def set_topic_config(active: Controller, topic: str, **config: str) -> None:
    texts = {k.replace("_", "."): v for k, v in config.items()}
    resource = Resource(ResourceType.TOPIC, topic)
    outcome = await alter_configs(active.ledger, [(resource, lambda *_: texts)], validate_only=False)
    assert outcome[resource] is None


def test_a_created_topic_is_in_force_on_every_broker_when_the_answer_comes(zookeeper: str) -> None:
    async def scenario(made: Parts) -> None:
        brokers = [await made.broker(b) for b in range(3)]
        active = await made.active(1)
        await create(active, "t", 6, retention_ms="1000")
        for broker in brokers:
            topic = broker.applied[-1].topics["t"]
            assert sorted(topic.partitions) == [0, 1, 2, 3, 4, 5]
            assert topic.config == {"retention.ms": "1000"}
            assert broker.image.controller_id == 1
            assert sorted(broker.image.brokers) == [0, 1, 2]
        leaders = [p.leader for p in brokers[0].image.topics["t"].partitions.values()]
        assert sorted(leaders) == [0, 0, 1, 1, 2, 2]

    play(zookeeper, scenario)


def test_what_stands_in_zookeeper_is_laid_out_as_kafkas(zookeeper: str) -> None:
    async def scenario(made: Parts) -> None:
        await made.broker(0)
        active = await made.active(0)
        await create(active, "t", 1, retention_ms="1000")
        client = await made.client()
        topic_id = znodes.kafka_uuid_text(active.state.records["t"].node.id)
        expected = (
            f'{{"partitions":{{"0":[0]}},"topic_id":"{topic_id}",'
            '"adding_replicas":{},"removing_replicas":{},"version":3}'
        )
        assert client.get("/brokers/topics/t")[0].decode() == expected
        state = client.get("/brokers/topics/t/partitions/0/state")[0].decode()
        assert state.startswith('{"controller_epoch":1,"leader":0,"version":1,"leader_epoch":0,"isr":[0]')
        assert client.get("/config/topics/t")[0] == b'{"version":1,"config":{"retention.ms":"1000"}}'
        assert client.get("/controller")[0].startswith(b'{"version":2,"brokerid":0,"timestamp":"')
        assert client.get("/controller_epoch")[0] == b"1"

    play(zookeeper, scenario)


def test_a_dead_brokers_partitions_go_offline_at_once_and_come_back_with_it(zookeeper: str) -> None:
    async def scenario(made: Parts) -> None:
        survivor, victim = await made.broker(0), await made.broker(1)
        active = await made.active(0)
        await create(active, "t", 2)
        lost = next(p for p, s in survivor.image.topics["t"].partitions.items() if s.leader == 1)
        before = survivor.partition("t", lost)
        assert before is not None
        victim.die()
        # the victim's session is alive: only its socket can have told
        offline = await until(
            lambda: (s := survivor.partition("t", lost)) is not None and s.leader == -1 and s, "it is offline"
        )
        assert (offline.leader_epoch, offline.isr) == (before.leader_epoch + 1, (1,))
        assert sorted(survivor.image.brokers) == [0]
        assert victim.client.exists("/brokers/ids/1") is None
        without = [image.topics["t"].partitions[lost] for image in survivor.applied if 1 not in image.brokers]
        assert not [state for state in without if state.leader == 1], "its death and what follows are told together"
        await victim.start()
        back = await until(
            lambda: (s := survivor.partition("t", lost)) is not None and s.leader == 1 and s, "it is back"
        )
        assert back.leader_epoch == before.leader_epoch + 2
        assert await until(lambda: victim.applied and victim.partition("t", lost) == back, "the victim knows it leads")

    play(zookeeper, scenario)


def test_a_new_controller_settles_at_once_what_a_broker_led_that_is_dead(zookeeper: str) -> None:
    async def scenario(made: Parts) -> None:
        survivor, victim = await made.broker(0), await made.broker(1)
        first = made.controller(1)
        active = await until(lambda: first.active, "active")
        await create(active, "t", 2)
        lost = next(p for p, s in survivor.image.topics["t"].partitions.items() if s.leader == 1)
        await made.end_controller(first)
        victim.die()
        await made.active(0)
        told = await until(lambda: [i for i in survivor.applied if i.controller_epoch == 2], "it is told of")
        settled = told[0]
        assert sorted(settled.brokers) == [0]
        assert settled.topics["t"].partitions[lost].leader == -1

    play(zookeeper, scenario)


def test_a_broker_that_restarted_unseen_leads_on_in_a_new_epoch(zookeeper: str) -> None:
    async def scenario(made: Parts) -> None:
        broker = await made.broker(0)
        first = made.controller(0)
        active = await until(lambda: first.active, "active")
        await create(active, "t")
        await made.end_controller(first)
        broker.die()
        await broker.start()
        await made.active(0)
        await until(lambda: broker.applied, "the new life has an image")
        state = broker.partition("t")
        assert state is not None and (state.leader, state.leader_epoch) == (0, 1)

    play(zookeeper, scenario)


def test_a_broker_that_can_not_be_reached_is_left_to_its_session(
    zookeeper: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "_CONNECT_WITHIN_S", 0.2)

    async def scenario(made: Parts) -> None:
        await made.broker(0)
        silent = await made.broker(1, serve=False)
        active = await made.active(0)
        # several times as long as one connect may take
        done, _ = await asyncio.wait({active._channels._running[1]}, timeout=1)
        assert not done
        assert silent.client.exists("/brokers/ids/1") is not None
        await asyncio.to_thread(store.close, silent.client)
        silent.client = await asyncio.to_thread(store.connect, made.hosts, None, SESSION_MS)
        await until(lambda: 1 not in active.state.image.brokers, "its session has ended, and it is gone")

    play(zookeeper, scenario)


def test_a_new_controller_knows_from_its_broker_who_has_been_silent(zookeeper: str) -> None:
    async def scenario(made: Parts) -> None:
        broker = await made.broker(0)
        silent, other_life = await made.broker(1, serve=False), await made.broker(2, serve=False)

        async def silences() -> Silences:
            return {1: (silent.registration.info.epoch, 60.0), 2: (other_life.registration.info.epoch - 1, 60.0)}

        controller = made.controller(0, silences=silences)
        await until(lambda: controller.active, "active")
        await until(lambda: broker.applied and sorted(broker.image.brokers) == [0, 2], "the silent one is dead")
        assert await asyncio.to_thread(silent.client.exists, "/brokers/ids/1") is None
        assert silent.client.connected

    play(zookeeper, scenario)


def test_a_standby_goes_on_listening_while_zookeeper_is_away(zookeeper_server: ZooKeeperProcess) -> None:
    """The host of a controller falls silent, and with it the ZooKeeper server that led."""

    async def scenario(made: Parts) -> None:
        silent: list[Link] = []
        identity = {"role": "controller", "incarnation": "silent"}
        server: Any = await serve_tcp("127.0.0.1", 0, SECRET, identity, silent.append)
        port = server.sockets[0].getsockname()[1]
        client = await made.client()
        node = ControllerNode(7, "127.0.0.1", port, "silent")
        await asyncio.to_thread(controller_election.claim_controller, client, node)
        await made.broker(0)
        standby = made.controller(0)
        await until(lambda: standby.standing_by, "it listens")
        session = client.client_id
        await asyncio.to_thread(zookeeper_server.kill)
        server.close()
        with socket.create_server(("127.0.0.1", port)):  # whoever connects anew hears nothing
            await asyncio.to_thread(zookeeper_server.start)
            await asyncio.to_thread(zookeeper_server.wait_ready, 60)
            active = await until(lambda: standby.active, "it has taken the silent one's place")
        assert active.epoch == 2
        await until(lambda: client.connected, "its session's client has found the server again")
        assert client.client_id == session, "the session of the silent one had not ended"

    play(zookeeper_server.hosts, scenario)


def test_a_replica_on_another_directory_leads_only_by_unclean_election(
    zookeeper: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(made: Parts) -> None:
        broker = await made.broker(0)
        active = await made.active(0)
        await create(active, "t")
        await broker.stop()
        await until(lambda: 0 not in active.state.image.brokers, "the broker is gone")
        broker.directory_id = "an empty disk"
        await broker.start()
        await until(lambda: broker.applied, "it has an image")
        state = broker.partition("t")
        assert state is not None and state.leader == -1
        with caplog.at_level(logging.ERROR):
            await set_topic_config(active, "t", unclean_leader_election_enable="true")
        await until(lambda: (s := broker.partition("t")) is not None and s.leader == 0, "it leads")
        assert "t-0: unclean election of broker 0, records may be lost" in caplog.text

    play(zookeeper, scenario)


def test_a_failed_replica_leads_again_only_in_a_new_epoch(zookeeper: str) -> None:
    async def scenario(made: Parts) -> None:
        broker = await made.broker(0)
        active = await made.active(0)
        await create(active, "t")
        before = broker.partition("t")
        assert before is not None
        await broker.report_failed("t", "its process ended", before)
        await until(lambda: broker.partition("t") != before, "the new epoch has come")
        after = broker.partition("t")
        assert after is not None and (after.leader, after.leader_epoch) == (0, before.leader_epoch + 1)
        link = await broker.controller_link.active(WITHIN_S)
        stale = {"topic": "t", "topic_id": str(broker.image.topics["t"].id), "partition": 0, "reason": "late"}
        late = {**stale, "leader_epoch": before.leader_epoch, "short_log": False}
        assert await link.call("partitions_failed", {"partitions": [late]}) == {}
        assert active.state.records["t"].states[0].leader_epoch == after.leader_epoch

    play(zookeeper, scenario)


def test_a_follower_that_failed_is_out_of_the_isr_and_its_leader_leads_on(zookeeper: str) -> None:
    """No write waits for a replica whose actor has ended, though its broker lives."""

    async def scenario(made: Parts) -> None:
        leading, failing = [await made.broker(b) for b in range(2)]
        active = await made.active(0)
        request = TopicRequest("t", assignments=((0, (0, 1)),))
        (result,) = await create_topics(active.ledger, [request], timeout_s=WITHIN_S)
        assert result.error is None
        before = failing.image.topics["t"].partitions[0]
        assert (before.leader, set(before.isr)) == (0, {0, 1})
        await failing.report_failed("t", "its replica actor ended", before)
        await until(lambda: (s := leading.partition("t")) is not None and s.isr == (0,), "the follower is out")
        after = leading.partition("t")
        assert after is not None and (after.leader, after.leader_epoch) == (0, before.leader_epoch)
        await failing.report_failed("t", "its replica actor ended", before)
        assert active.state.records["t"].states[0].isr == (0,)

    play(zookeeper, scenario)


def test_leaders_that_failed_together_are_followed_in_one_transaction_and_one_update(zookeeper: str) -> None:
    """Rule 1: those that are not led so any more, or never were, keep nobody else waiting."""

    async def scenario(made: Parts) -> None:
        brokers = [await made.broker(b) for b in range(2)]
        failing, other = brokers
        active = await made.active(0)
        request = TopicRequest("t", assignments=tuple((p, (0, 1)) for p in range(50)))
        (result,) = await create_topics(active.ledger, [request], timeout_s=WITHIN_S)
        assert result.error is None
        led = [failing.image.topics["t"].partitions[p] for p in range(50)]
        await failing.report_failed("t", "its disk broke", led[0])
        await until(lambda: (s := other.partition("t")) is not None and s.leader == 1, "t-0 is led by the other")
        updates = len(other.applied)
        link = await failing.controller_link.active(WITHIN_S)
        topic_id = failing.image.topics["t"].id
        reports = [
            {
                "topic": topic,
                "topic_id": str(topic_id),
                "partition": p,
                "leader_epoch": led[0].leader_epoch,
                "reason": "its actor ended",
                "short_log": False,
            }
            for topic, p in (("gone", 0), ("t", 50), *(("t", p) for p in range(50)))
        ]
        assert await link.call("partitions_failed", {"partitions": reports}) == {}
        await until(lambda: (s := other.partition("t", 49)) is not None and s.leader == 1, "t-49 is led by the other")
        states = active.state.records["t"].states
        assert {(s.leader, s.leader_epoch) for s in states.values()} == {(1, led[0].leader_epoch + 1)}
        assert len(other.applied) == updates + 1
        client = await made.client()
        paths = [f"/brokers/topics/t/partitions/{p}/state" for p in range(50)]
        first, *together = [client.get(path)[1].mzxid for path in paths]
        assert first < together[0] and set(together) == {together[0]}

    play(zookeeper, scenario)


def test_many_isrs_are_written_at_once_each_only_for_the_state_and_the_lives_it_names(zookeeper: str) -> None:
    async def scenario(made: Parts) -> None:
        brokers = [await made.broker(b) for b in range(3)]
        active = await made.active(0)
        count = 2 * isr_changes.ISRS_AT_ONCE
        (result,) = await create_topics(active.ledger, [TopicRequest("t", count, 3)], timeout_s=WITHIN_S)
        assert result.error is None
        leader = brokers[0]
        topic = leader.image.topics["t"]
        epochs = {b.id: b.registration.info.epoch for b in brokers}
        states = {TopicPartition("t", p): state for p, state in topic.partitions.items()}

        def proposal(state: PartitionState, **changes: Any) -> Propose:
            isr = (state.leader,)
            return Propose(isr, (epochs[state.leader],), state.leader_epoch, state.version)._replace(**changes)

        asked_for = {tp: proposal(state) for tp, state in states.items()}
        old, dead, other = (TopicPartition("t", p) for p in (0, 1, count - 1))
        asked_for[old] = proposal(states[old], version=states[old].version - 1)
        asked_for[dead] = proposal(states[dead], broker_epochs=(7,))
        ids = dict.fromkeys(states, topic.id) | {other: random_id()}
        codes = await leader.controller_calls.alter_partitions([(tp, ids[tp], asked_for[tp]) for tp in states])
        refused = {
            old: ErrorCode.INVALID_UPDATE_VERSION,
            dead: ErrorCode.INELIGIBLE_REPLICA,
            other: ErrorCode.UNKNOWN_TOPIC_ID,
        }
        assert dict(zip(states, codes, strict=True)) == {tp: refused.get(tp, ErrorCode.NONE) for tp in states}

        def heard() -> bool:
            now = leader.image.topics["t"].partitions
            return all(
                (now[tp.partition].version > state.version) == (tp not in refused) for tp, state in states.items()
            )

        await until(heard, "the broker has heard of them, and of nothing else")
        assert {tp for tp in states if len(active.state.records["t"].states[tp.partition].isr) == 3} == refused.keys()

    play(zookeeper, scenario)


def test_an_isr_is_written_only_for_the_state_and_the_lives_it_names(zookeeper: str) -> None:
    async def scenario(made: Parts) -> None:
        brokers = [await made.broker(b) for b in range(3)]
        active = await made.active(0)
        (result,) = await create_topics(active.ledger, [TopicRequest("t", 1, 3)], timeout_s=WITHIN_S)
        assert result.error is None
        tp, leader = TopicPartition("t", 0), brokers[0]
        first = await until(lambda: leader.partition("t"), "the topic is known")
        assert set(first.isr) == {0, 1, 2}
        epochs = {b.id: b.registration.info.epoch for b in brokers}
        follower = next(b for b in first.replicas if b != first.leader)
        smaller = (first.leader, follower)

        def proposal(isr: tuple[int, ...], version: int, **changes: int) -> Propose:
            named = {**epochs, **{int(b[1:]): e for b, e in changes.items()}}
            return Propose(isr, tuple(named[b] for b in isr), first.leader_epoch, version)

        assert await leader.propose("t", 0, proposal(smaller, first.version)) is ErrorCode.NONE
        await until(lambda: (s := leader.partition("t")) and s.isr == smaller, "the smaller ISR has come")
        second = leader.partition("t")
        assert second is not None
        assert (second.version, second.leader_epoch) == (first.version + 1, first.leader_epoch)
        everybody = first.replicas
        refused = [
            (proposal(everybody, first.version), ErrorCode.INVALID_UPDATE_VERSION),
            (proposal(everybody, second.version)._replace(leader_epoch=9), ErrorCode.INVALID_UPDATE_VERSION),
            (proposal((follower,), second.version), ErrorCode.INELIGIBLE_REPLICA),
            (proposal(everybody, second.version, **{f"b{follower}": 7}), ErrorCode.INELIGIBLE_REPLICA),
        ]
        for asked, code in refused:
            assert await leader.propose("t", 0, asked) is code
        # a life that ended since, unknown to this controller: the transaction itself refuses it
        record = active.state.records["t"].states[0]
        stale = dataclasses.replace(record, isr=everybody, isr_epochs=tuple(epochs[b] + 1 for b in everybody))
        assert await asyncio.to_thread(active._store.write_isrs, {tp: stale}) is None
        assert leader.partition("t") == second
        assert await leader.propose("t", 0, proposal(everybody, second.version)) is ErrorCode.NONE
        await until(lambda: (s := leader.partition("t")) and s.isr == everybody, "all are in sync")

    play(zookeeper, scenario)


def test_of_a_partition_only_the_newest_proposal_waits_and_all_that_wait_are_written_at_once(zookeeper: str) -> None:
    async def scenario(made: Parts) -> None:
        brokers = [await made.broker(b) for b in range(3)]
        active = await made.active(0)
        count = 10
        request = TopicRequest("t", assignments=tuple((p, (p % 2, 1 - p % 2, 2)) for p in range(count)))
        (result,) = await create_topics(active.ledger, [request], timeout_s=WITHIN_S)
        assert result.error is None
        epochs = {b.id: b.registration.info.epoch for b in brokers}
        partitions = active.state.image.topics["t"].partitions

        async def ask(partition: int, *isr: int, version: int = 0) -> ErrorCode:
            state = partitions[partition]
            proposal = Propose(isr, tuple(epochs[b] for b in isr), state.leader_epoch, state.version + version)
            return await brokers[state.leader].propose("t", partition, proposal)

        async with active.ledger.turn():
            old: list[asyncio.Task[ErrorCode]] = []
            for _ in range(3):
                old += [asyncio.create_task(ask(p, partitions[p].leader)) for p in range(count)]
                await until(lambda: len(active._isr_changes) == count, "one for each partition waits")
            new = [asyncio.create_task(ask(p, 0, 1)) for p in range(count)]
            replaced = await asyncio.wait_for(asyncio.gather(*old), WITHIN_S)
            assert set(replaced) == {ErrorCode.INVALID_UPDATE_VERSION}
            assert await asyncio.wait_for(ask(0, 0, 1, version=-1), WITHIN_S) is ErrorCode.INVALID_UPDATE_VERSION
            assert len(active._isr_changes) == count and active.ledger.waiting == 1
        assert set(await asyncio.gather(*new)) == {ErrorCode.NONE}
        assert {state.isr for state in active.state.records["t"].states.values()} == {(0, 1)}
        client = await made.client()
        written = [client.get(f"/brokers/topics/t/partitions/{p}/state")[1].mzxid for p in range(count)]
        assert len(set(written)) == 1

    play(zookeeper, scenario)


def test_proposals_that_wait_for_a_controller_that_is_deposed_are_refused(zookeeper: str) -> None:
    async def scenario(made: Parts) -> None:
        broker = await made.broker(0)
        active = await made.active(0)
        await create(active, "t")
        state = broker.partition("t")
        assert state is not None
        proposal = isr_changes.IsrProposal(
            TopicPartition("t", 0),
            broker.image.topics["t"].id,
            state.isr,
            (broker.registration.info.epoch,),
            state.leader_epoch,
            state.version,
        )
        client = await made.client()
        async with active.ledger.turn():
            asked = asyncio.create_task(active._isr_changes.ask([proposal]))
            await until(lambda: len(active._isr_changes) == 1, "it waits")
            client.set("/controller_epoch", b"9")
        with pytest.raises(KafkaError) as refused:
            await asyncio.wait_for(asked, WITHIN_S)
        assert refused.value.code is ErrorCode.NOT_CONTROLLER
        assert len(active._isr_changes) == 0

    play(zookeeper, scenario)


def test_a_deposed_controller_can_write_nothing(zookeeper: str) -> None:
    async def scenario(made: Parts) -> None:
        client = await made.client()

        def claim(name: str) -> controller_election.Claim:
            won = controller_election.claim_controller(client, ControllerNode(0, "127.0.0.1", 1, name))
            assert won is not None
            return won

        def use() -> None:
            first = claim("first")
            old = ControllerStore(client, first)
            lives = {0: BrokerLife(1, 1, 1)}
            node = TopicNode(random_id(), {0: (0,)}, {}, {})
            record = old.create_topic("t", node, {}, {0: first_state((0,), lives, 1)})
            assert controller_election.claim_controller(client, ControllerNode(0, "127.0.0.1", 1, "x")) is None
            controller_election.depose_controller(client, first.version)
            assert claim("second").epoch == first.epoch + 1
            controller_election.depose_controller(client, first.version)
            standing, _ = controller_election.read_controller(client)
            assert standing is not None and standing.incarnation == "second"
            writes: list[Callable[[], object]] = [
                lambda: old.write_states({TopicPartition("t", 0): record.states[0]}),
                lambda: old.create_topic("u", node, {}, {0: first_state((0,), lives, 1)}),
                lambda: old.mark_deleting("t"),
                lambda: old.write_topic_config("t", {"retention.ms": "1"}),
                lambda: old.add_partitions(record, node, {1: first_state((0,), lives, 1)}),
            ]
            for write in writes:
                with pytest.raises(ControllerFenced):
                    write()
            assert client.get_children("/brokers/topics") == ["t"]
            assert client.get("/brokers/topics/t/partitions/0/state")[1].version == 0

        await asyncio.to_thread(use)

    play(zookeeper, scenario)


def test_a_fenced_controller_resigns_and_stands_by(zookeeper: str) -> None:
    async def scenario(made: Parts) -> None:
        await made.broker(0)
        controller = made.controller(0)
        active = await until(lambda: controller.active, "active")
        client = await made.client()
        await asyncio.to_thread(client.delete, "/controller")
        usurper = await asyncio.to_thread(
            controller_election.claim_controller, client, ControllerNode(7, "127.0.0.1", 1, "usurper")
        )
        assert usurper is not None or controller.active is not active
        await until(lambda: active.resigned.done(), "the old epoch has ended")
        # nobody listens on the usurper's port: it is found dead, and the epoch goes on rising
        again = await until(lambda: controller.active is not active and controller.active, "active again")
        assert again.epoch > active.epoch

    play(zookeeper, scenario)


def test_a_deposed_controller_tells_a_new_life_nothing_though_it_has_nothing_to_decide(zookeeper: str) -> None:
    """A broker sets directories aside that the first image it hears of does not know."""

    async def scenario(made: Parts) -> None:
        await made.broker(0)
        active = await made.active(0)
        await create(active, "t")
        client = await made.client()
        await asyncio.to_thread(client.set, "/controller_epoch", b"%d" % (active.epoch + 1))
        broker = await made.broker(1)
        await until(lambda: active.resigned.done() or broker.applied, "the old epoch has ended")
        assert broker.applied == []

    play(zookeeper, scenario)


def test_a_begun_deletion_is_finished_by_the_next_controller(zookeeper: str) -> None:
    async def scenario(made: Parts) -> None:
        broker = await made.broker(0)
        controller = made.controller(0)
        active = await until(lambda: controller.active, "active")
        await create(active, "doomed", 3)
        await create(active, "kept")
        await asyncio.to_thread(active._store.mark_deleting, "doomed")
        await made.end_controller(controller)
        client = await made.client()
        assert client.exists("/brokers/topics/doomed") is not None
        await made.active(0)
        await until(lambda: client.get_children("/admin/delete_topics") == [], "the mark is gone")
        assert client.get_children("/brokers/topics") == ["kept"]
        assert client.get_children("/config/topics") == ["kept"]
        await until(lambda: list(broker.image.topics) == ["kept"], "the broker has let go")

    play(zookeeper, scenario)


def test_a_half_created_topic_is_completed_by_the_next_controller(zookeeper: str) -> None:
    async def scenario(made: Parts) -> None:
        broker = await made.broker(0)
        client = await made.client()
        store.ensure_layout(client)
        node = TopicNode(random_id(), {0: (0,), 1: (0,)}, {}, {})
        client.create("/brokers/topics/t", node.pack())
        client.create("/brokers/topics/t/partitions", b"")
        client.create("/brokers/topics/t/partitions/0", b"")
        await made.active(0)
        await until(lambda: "t" in broker.image.topics, "the topic is there")
        states = broker.image.topics["t"].partitions
        assert [(s.leader, s.leader_epoch, s.isr) for s in states.values()] == [(0, 0, (0,)), (0, 0, (0,))]

    play(zookeeper, scenario)


def test_a_deleted_topic_is_gone_everywhere_and_its_name_is_free(zookeeper: str) -> None:
    async def scenario(made: Parts) -> None:
        brokers = [await made.broker(b) for b in range(2)]
        active = await made.active(0)
        await create(active, "t", 4)
        old = active.state.image.topics["t"].id
        assert await delete_topics(active.ledger, ["t"], timeout_s=WITHIN_S) == {"t": None}
        assert all("t" not in broker.applied[-1].topics for broker in brokers)
        await create(active, "t", 1)
        assert all(broker.applied[-1].topics["t"].id != old for broker in brokers)

    play(zookeeper, scenario)


def test_a_grown_topic_keeps_its_partitions_and_a_new_controller_knows_them_all(zookeeper: str) -> None:
    async def scenario(made: Parts) -> None:
        brokers = [await made.broker(b) for b in range(3)]
        controller = made.controller(0)
        active = await until(lambda: controller.active, "active")
        await create(active, "t", 2)
        before = dict(active.state.image.topics["t"].partitions)
        outcome = await create_partitions(active.ledger, [Growth("t", 5)], timeout_s=WITHIN_S, validate_only=False)
        assert outcome == {"t": None}
        after = brokers[2].applied[-1].topics["t"].partitions
        assert {p: after[p] for p in before} == before and sorted(after) == [0, 1, 2, 3, 4]
        await made.end_controller(controller)
        successor = await made.active(1)
        assert successor.state.image.topics["t"].partitions == after

    play(zookeeper, scenario)


def test_more_partitions_than_one_transaction_takes(zookeeper: str) -> None:
    async def scenario(made: Parts) -> None:
        broker = await made.broker(0)
        active = await made.active(0)
        await create(active, "wide", 1500)
        assert len(broker.applied[-1].topics["wide"].partitions) == 1500
        await delete_topics(active.ledger, ["wide"], timeout_s=WITHIN_S)
        client = await made.client()
        assert client.get_children("/brokers/topics") == []

    play(zookeeper, scenario)


def test_topics_that_clients_ask_for_are_capped_and_internal_ones_have_their_own_configs(zookeeper: str) -> None:
    async def scenario(made: Parts) -> None:
        broker = await made.broker(0)
        config = {"auto.create.max.partitions.per.broker": "52", "num.partitions": "2"}
        await made.active(0, config | {"offsets.topic.replication.factor": "1"})
        asked = ["__consumer_offsets", "t", "u", "bad name"]
        assert await broker.controller_calls.create_topics(asked) == {
            "__consumer_offsets": ErrorCode.NONE,
            "t": ErrorCode.NONE,
            "u": ErrorCode.POLICY_VIOLATION,
            "bad name": ErrorCode.POLICY_VIOLATION,
        }
        assert await broker.controller_calls.create_topics(["t"]) == {"t": ErrorCode.NONE}
        offsets = broker.image.topics["__consumer_offsets"]
        assert len(offsets.partitions) == 50
        assert offsets.config == {
            "cleanup.policy": "compact",
            "compression.type": "producer",
            "segment.bytes": "104857600",
        }
        assert len(broker.image.topics["t"].partitions) == 2

    play(zookeeper, scenario)


def test_a_zookeeper_outage_is_a_wait_and_a_write_in_it_lands_once(zookeeper_server: ZooKeeperProcess) -> None:
    async def scenario(made: Parts) -> None:
        broker = await made.broker(0)
        active = await made.active(0)
        await create(active, "before")
        zookeeper_server.kill()
        creating = asyncio.create_task(create(active, "during", 3))
        done, _ = await asyncio.wait({creating}, timeout=1)
        assert not done
        await asyncio.to_thread(zookeeper_server.start)
        await asyncio.to_thread(zookeeper_server.wait_ready, WITHIN_S)
        await creating
        assert sorted(broker.image.topics) == ["before", "during"]
        assert not active.resigned.done() and active.epoch == 1
        assert broker.partition("before") == active.state.image.partition(TopicPartition("before", 0))

    play(zookeeper_server.hosts, scenario)


def test_proposals_do_not_pile_up_while_zookeeper_is_away(
    zookeeper_server: ZooKeeperProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leaders propose again and again, and their broker gives up waiting for answers meanwhile."""
    monkeypatch.setattr(controller_calls, "ANSWER_WITHIN_S", 0.1)
    asked = answered = 0
    ask = isr_changes.IsrChanges.ask

    async def counted(self: isr_changes.IsrChanges, *args: Any) -> Any:
        nonlocal asked, answered
        asked += 1
        try:
            return await ask(self, *args)
        finally:
            answered += 1

    monkeypatch.setattr(isr_changes.IsrChanges, "ask", counted)

    async def scenario(made: Parts) -> None:
        leader, follower = [await made.broker(b) for b in range(2)]
        active = await made.active(0)
        count = 5
        request = TopicRequest("t", assignments=tuple((p, (0, 1)) for p in range(count)))
        (result,) = await create_topics(active.ledger, [request], timeout_s=WITHIN_S)
        assert result.error is None
        topic = leader.image.topics["t"]
        epochs = {b.id: b.registration.info.epoch for b in (leader, follower)}
        proposals = IsrProposals(leader.controller_calls)

        def propose(*isr: int) -> None:
            for p, state in leader.image.topics["t"].partitions.items():
                if state.isr != isr or state.version == topic.partitions[p].version:
                    named = tuple(epochs[b] for b in isr)
                    proposals.propose(TopicPartition("t", p), topic.id, Propose(isr, named, 0, state.version))

        await asyncio.to_thread(zookeeper_server.kill)
        begun = 0
        while asked < 10:
            propose(*((0,), (0, 1))[begun % 2])
            begun += 1
            await asyncio.sleep(0.01)
            assert len(active._isr_changes) <= count and active.ledger.waiting <= 1
            assert asked - answered <= 3, "the one that is being written, the newest, and one on its way"
        assert begun > asked
        await asyncio.to_thread(zookeeper_server.start)
        await asyncio.to_thread(zookeeper_server.wait_ready, WITHIN_S)

        def decided() -> bool:
            propose(0)
            states = leader.image.topics["t"].partitions
            return all(s.isr == (0,) and s.version > topic.partitions[p].version for p, s in states.items())

        await until(decided, "the newest ISR of each is written")
        await proposals.close()
        assert active.epoch == 1 and not active.resigned.done()

    play(zookeeper_server.hosts, scenario)


class ControllerProcess:
    """A controller as the plain process that a broker starts; its broker is a Unix socket."""

    def __init__(self, directory: Path, hosts: str, broker_id: int, session_ms: int = SESSION_MS) -> None:
        self._socket_path = str(directory / f"{broker_id}.sock")
        zookeeper = {"hosts": hosts, "auth": False, "session_timeout_ms": session_ms}
        arguments = {"broker_id": broker_id, "zookeeper": zookeeper, "config": {}}
        self._arguments = ["--token", "t", "--arguments", json.dumps(arguments)]
        self._links: list[Link] = []

    async def start(self) -> None:
        self.server = await serve_unix(self._socket_path, SECRET, {"role": "broker"}, self._accept)
        command = [sys.executable, "-m", "raykafka.controller.actor", "--socket", self._socket_path]
        self.process = await asyncio.create_subprocess_exec(
            *command,
            *self._arguments,
            env={**os.environ, "RAYKAFKA_SECRET_HEX": SECRET.hex()},
        )

    def _accept(self, link: Link) -> None:
        link.start()
        self._links.append(link)

    def close_socket(self) -> None:
        self.server.close()
        for link in self._links:
            link.close()

    async def end(self) -> None:
        self.close_socket()
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


def test_a_killed_controller_is_followed_by_a_standby_before_its_session_expires(tmp_path: Path) -> None:
    # a server that grants sessions of twice the time that this test waits for anything
    session_ms = int(2 * WITHIN_S * 1000)
    server = ZooKeeperProcess(tmp_path / "zookeeper", free_port(), tick_time_ms=session_ms // 20)

    async def scenario(made: Parts) -> None:
        brokers = [await made.broker(0), await made.broker(1)]
        process = ControllerProcess(tmp_path, made.hosts, 0, session_ms)
        await process.start()
        try:
            await until(lambda: brokers[1].applied, "the first controller is active")
            assert brokers[1].image.controller_id == 0
            standby = made.controller(1)
            await until(lambda: standby.standing_by, "the standby holds a socket to it")
            assert standby.active is None
            os.kill(process.process.pid, signal.SIGKILL)
            active = await until(lambda: standby.active, "the standby is active")
            assert active.epoch == 2
            await create(active, "t", 2)
            assert all(broker.image.controller_id == 1 for broker in brokers)
        finally:
            await process.end()

    server.start()
    try:
        server.wait_ready(WITHIN_S)
        play(server.hosts, scenario, session_ms)
    finally:
        server.kill()


def test_a_controller_ends_with_its_broker(zookeeper: str, tmp_path: Path) -> None:
    async def scenario(made: Parts) -> None:
        broker = await made.broker(0)
        process = ControllerProcess(tmp_path, made.hosts, 0)
        await process.start()
        try:
            await until(lambda: broker.applied, "it is active")
            process.close_socket()
            async with asyncio.timeout(WITHIN_S):
                assert await process.process.wait() == 0
        finally:
            await process.end()

    play(zookeeper, scenario)


def test_brokers_that_come_and_go_while_topics_are_made_agree_in_the_end(zookeeper: str) -> None:
    async def scenario(made: Parts) -> None:
        steady = await made.broker(0)
        active = await made.active(0)

        async def flapping(broker_id: int) -> BrokerEnd:
            broker = await made.broker(broker_id)
            for _ in range(3):
                await asyncio.sleep(0.05 * broker_id)
                broker.die()
                await broker.start()
            return broker

        async def making() -> None:
            for n in range(12):
                await create_topics(active.ledger, [TopicRequest(f"t{n}", 3, 1)], timeout_s=WITHIN_S)

        one, two, _ = await asyncio.gather(flapping(1), flapping(2), making())
        for broker in (steady, one, two):
            await until(lambda b=broker: b.image.topics == active.state.image.topics, "the images agree")
        assert len(active.state.image.topics) == 12
        leaders = [s.leader for t in active.state.image.topics.values() for s in t.partitions.values()]
        assert -1 not in leaders

    play(zookeeper, scenario)


def test_a_death_is_decided_before_questions_that_wait(zookeeper: str) -> None:
    async def scenario(made: Parts) -> None:
        brokers = [await made.broker(b) for b in range(3)]
        leader, victim, _ = brokers
        active = await made.active(0)
        count = 10
        places = (("lost", [(1, 0)]), ("t", [(0, 2)] * count))
        requests = [TopicRequest(name, assignments=tuple(enumerate(replicas))) for name, replicas in places]
        assert [made.error for made in await create_topics(active.ledger, requests, timeout_s=WITHIN_S)] == [None, None]
        topic = leader.image.topics["t"]
        epoch = leader.registration.info.epoch
        async with active.ledger.turn():
            waiting: list[asyncio.Task[Any]] = [asyncio.create_task(create(active, f"later-{n}")) for n in range(count)]
            for p, state in topic.partitions.items():
                smaller = Propose((0,), (epoch,), state.leader_epoch, state.version)
                waiting.append(asyncio.create_task(leader.propose("t", p, smaller)))
            await until(lambda: len(active._isr_changes) == count, "all proposals wait")
            # the proposals as one of them
            await until(lambda: active.ledger.waiting == count + 1, "all questions wait")
            victim.die()
            await until(lambda: active.ledger.waiting == count + 2, "the death is known")
        await asyncio.gather(*waiting)
        client = await made.client()

        def written_at(path: str) -> int:
            """In the order in which ZooKeeper took it (zxid)."""
            return client.get(path)[1].mzxid

        settled = written_at("/brokers/topics/lost/partitions/0/state")
        assert active.state.records["lost"].states[0].leader == 0
        later = [f"/brokers/topics/later-{n}/partitions/0/state" for n in range(count)]
        later += [f"/brokers/topics/t/partitions/{p}/state" for p in range(count)]
        assert settled < min(written_at(path) for path in later)

    play(zookeeper, scenario)
