"""What brokers keep in ZooKeeper: registrations and broker epochs, producer ids, the cluster id. A real ZooKeeper."""

from __future__ import annotations

import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import NoAuthError, UnimplementedError

from raykafka.cluster.image import BrokerInfo, Endpoint
from raykafka.types import TopicPartition
from raykafka.zookeeper import broker_store as store
from raykafka.zookeeper import controller_election, controller_store, multi_read, paths
from raykafka.zookeeper.client import Check, Conflict, Create, commit, reading, reading_all
from raykafka.zookeeper.znodes import ControllerNode, StateNode, TopicNode
from tests.node.controller_parts import LossyProxy

Connect = Callable[..., KazooClient]


@pytest.fixture
def connect(zookeeper: str) -> Iterator[Connect]:
    """Opens sessions in a chroot of this test's own; they end with the test."""
    clients: list[KazooClient] = []
    chroot = f"/test-{uuid.uuid4().hex[:8]}/nested"

    def open_session(secret: bytes | None = None) -> KazooClient:
        clients.append(store.connect(zookeeper + chroot, secret))
        return clients[-1]

    yield open_session
    for client in clients:
        store.close(client)


def broker(broker_id: int = 1, directory_id: str = "dir-a", boot_id: str = "boot-1") -> BrokerInfo:
    endpoints = (Endpoint("INSIDE", "127.0.0.1", 9092), Endpoint("OUTSIDE", "example.org", 9192))
    return BrokerInfo(broker_id, -1, endpoints, "127.0.0.1", 9292, directory_id, boot_id, False, "rack-1")


def test_the_chroot_is_made_and_the_cluster_id_stays(connect: Connect) -> None:
    first = store.ensure_cluster_id(connect())
    assert len(first) == 22
    assert store.ensure_cluster_id(connect()) == first


def test_each_registration_raises_the_broker_epoch_by_one_and_reads_back_whole(connect: Connect) -> None:
    client = connect()
    first = store.register_broker(client, broker())
    standing = store.read_registration(client, 1)
    assert standing == first
    assert standing.info == broker().__class__(**{**_fields(broker()), "epoch": 1})
    assert store.unregister_broker(client, first)
    assert store.read_registration(client, 1) is None
    assert store.register_broker(client, broker()).info.epoch == 2


def test_a_new_life_on_the_same_directory_removes_its_predecessor(connect: Connect) -> None:
    old = store.register_broker(connect(), broker())
    new_client = connect()
    new = store.register_broker(new_client, broker())
    assert new.info.epoch == old.info.epoch + 1
    assert store.read_registration(new_client, 1) == new


def test_a_shutdown_was_clean_if_the_life_that_left_the_mark_was_the_last_one(connect: Connect) -> None:
    """Also if a start failed in between, before it registered: the mark is still there then."""
    first = store.register_broker(connect(), broker(boot_id="a"))
    clean = store.register_broker(connect(), broker(boot_id="b"), closed_in=first.info.epoch)
    assert clean.info.clean_shutdown and clean.intact_since == first.intact_since
    for closed_in in (first.info.epoch, None):
        unclean = store.register_broker(connect(), broker(boot_id=f"c{closed_in}"), closed_in=closed_in)
        assert not unclean.info.clean_shutdown and unclean.intact_since == unclean.info.epoch


def test_a_broker_on_another_directory_is_refused_while_the_id_is_taken(connect: Connect) -> None:
    client = connect()
    held = store.register_broker(client, broker())
    with pytest.raises(store.BrokerIdTaken, match=r"broker id 1 is taken by a broker at 127\.0\.0\.1:9092"):
        store.register_broker(connect(), broker(directory_id="dir-b"))
    assert store.read_registration(client, 1) == held


def test_an_old_life_cannot_take_back_its_successors_registration(connect: Connect) -> None:
    client = connect()
    old = store.register_broker(client, broker())
    new = store.register_broker(connect(), broker())
    assert not store.unregister_broker(client, old)
    assert store.read_registration(client, 1) == new


def test_a_registration_goes_with_its_session(connect: Connect) -> None:
    owner, watcher = connect(), connect()
    store.register_broker(owner, broker())
    gone = threading.Event()
    assert store.read_registration(watcher, 1, watch=lambda event: gone.set()) is not None
    owner.stop()
    assert gone.wait(10)
    assert store.read_registration(watcher, 1) is None


def test_producer_id_blocks_never_overlap(connect: Connect) -> None:
    clients = [connect() for _ in range(3)]
    blocks: list[tuple[int, int]] = []

    def take(broker_id: int, client: KazooClient) -> None:
        for _ in range(10):
            blocks.append(store.allocate_producer_id_block(client, broker_id))

    threads = [threading.Thread(target=take, args=pair) for pair in enumerate(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(blocks) == [(n * 1000, n * 1000 + 999) for n in range(30)]
    assert clients[0].get(paths.PRODUCER_ID_BLOCK)[0].startswith(b'{"version":1,"broker":')


def test_with_a_secret_nodes_are_for_holders_of_it_alone(connect: Connect) -> None:
    owner, holder, stranger = connect(b"secret"), connect(b"secret"), connect()
    registration = store.register_broker(owner, broker())
    assert store.read_registration(holder, 1) == registration
    with pytest.raises(NoAuthError):
        store.read_registration(stranger, 1)


def test_a_transaction_whose_condition_fails_writes_nothing_and_says_which_one(connect: Connect) -> None:
    client = connect()
    client.create("/a", b"")

    with pytest.raises(Conflict, match=r"Check of /a: BadVersionError"):
        commit(client, [Create("/b"), Check("/a", 7)])
    assert client.exists("/b") is None


def test_a_session_is_granted_the_timeout_it_reports(connect: Connect) -> None:
    assert connect().negotiated_session_timeout_ms == 6000


def test_a_server_that_takes_no_connection_costs_only_a_part_of_the_session(zookeeper: str) -> None:
    with ExitStack() as held:
        full = held.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):  # fills its backlog: whoever comes now hears nothing
            waiting = held.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        silent = f"127.0.0.1:{full.getsockname()[1]}"
        client = store.connect(f"{silent},{zookeeper}", session_timeout_ms=10_000, connect_timeout_s=8.0)
        store.close(client)


@pytest.fixture
def lossy(zookeeper: str) -> Iterator[tuple[LossyProxy, KazooClient]]:
    """A session whose connection can lose an answer."""
    proxy = LossyProxy(zookeeper)
    client = store.connect(f"{proxy.hosts}/lossy-{uuid.uuid4().hex[:8]}", None)
    yield proxy, client
    store.close(client)
    proxy.close()


def test_a_server_that_takes_a_connection_and_never_answers_costs_no_session(
    lossy: tuple[LossyProxy, KazooClient],
) -> None:
    """As one that is being started may do."""
    proxy, client = lossy
    session = client.client_id
    proxy.swallows, proxy.marker = 1, b"/cut"
    assert reading(lambda: client.exists("/cut")) is None
    assert (proxy.cuts, proxy.swallows) == (1, 0)
    assert client.client_id == session


def test_a_registration_whose_answer_was_lost_is_recognized_as_ones_own(lossy: tuple[LossyProxy, KazooClient]) -> None:
    proxy, client = lossy
    store.register_broker(client, broker())
    proxy.marker = b"INSIDE://127.0.0.1"
    second = store.register_broker(client, broker())
    assert proxy.cuts == 1
    assert second.info.epoch == 2
    assert store.read_registration(client, 1) == second
    assert client.exists("/brokers/epochs/1").version == 2


def test_a_won_election_whose_answer_was_lost_is_recognized_as_ones_own(
    lossy: tuple[LossyProxy, KazooClient],
) -> None:
    proxy, client = lossy
    proxy.marker = b"kraftControllerEpoch"
    claim = controller_election.claim_controller(client, ControllerNode(0, "127.0.0.1", 1, "me"))
    assert proxy.cuts == 1 and claim is not None and claim.epoch == 1
    proxy.marker = b"kraftControllerEpoch"
    assert controller_election.claim_controller(client, ControllerNode(1, "127.0.0.1", 1, "another")) is None
    assert proxy.cuts == 2


def test_a_topic_whose_creation_lost_its_answer_exists_once(lossy: tuple[LossyProxy, KazooClient]) -> None:
    proxy, client = lossy
    claim = controller_election.claim_controller(client, ControllerNode(0, "127.0.0.1", 1, "me"))
    assert claim is not None
    node = TopicNode(uuid.uuid4(), {0: (1,), 1: (1,)}, {}, {})
    state = StateNode(1, 0, (1,), (1,), claim.epoch)
    metadata = controller_store.ControllerStore(client, claim)
    proxy.marker = node.pack()
    record = metadata.create_topic("t", node, {}, {0: state, 1: state})
    proxy.marker = b"/brokers/topics/t/partitions/1/state"
    (written,) = metadata.write_states({TopicPartition("t", 1): record.states[1]}).values()
    assert proxy.cuts == 2
    assert metadata.load().topics["t"].states == {0: record.states[0], 1: written}
    assert written.version == 1


def test_a_block_of_producer_ids_whose_answer_was_lost_is_never_handed_out(
    lossy: tuple[LossyProxy, KazooClient],
) -> None:
    proxy, client = lossy
    store.allocate_producer_id_block(client, 7)
    proxy.marker = b'"block_start":"1000"'
    assert store.allocate_producer_id_block(client, 7) == (2000, 2999)
    assert proxy.cuts == 1


def _fields(info: BrokerInfo) -> dict:
    return {name: getattr(info, name) for name in info.__slots__}


@pytest.mark.parametrize("knows_multi_read", [True, False], ids=["3.6", "3.5"])
def test_thousands_of_nodes_are_read_together_and_missing_ones_are_told(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, knows_multi_read: bool
) -> None:
    client = connect()
    count = 2_500
    there = {f"/n/{i}": b"%d" % i if i % 5 else b"" for i in range(count) if i % 3}
    commit(client, [Create("/n")])
    for start in range(0, count, 500):
        commit(client, [Create(f"/n/{i}", there[f"/n/{i}"]) for i in range(start, start + 500) if i % 3])
    client.set("/n/1", b"written again")
    if not knows_multi_read:

        def refused(client: KazooClient, paths: list[str]) -> Any:
            result = client.handler.async_result()
            result.set_exception(UnimplementedError())
            return result

        monkeypatch.setattr(multi_read, "read_async", refused)
    found = reading_all(client, [f"/n/{i}" for i in range(count)])
    values = {f"/n/{i}": node[0] for i, node in enumerate(found) if node is not None}
    assert values == {**there, "/n/1": b"written again"}
    assert [node[1].version for node in found[1:3] if node is not None] == [1, 0]


def test_nodes_that_may_not_be_read_are_an_error(connect: Connect) -> None:
    connect(b"secret").create("/own", b"x")
    with pytest.raises(NoAuthError):
        reading_all(connect(), ["/missing", "/own"])
