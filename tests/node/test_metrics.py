"""A real Prometheus scrapes three brokers, of which every part is killed: its counters are those of ZooKeeper's own
history, its gauges those of the cluster."""

from __future__ import annotations

import secrets
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import NewTopic
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from raykafka.broker.children.child import CONTROLLER, COORDINATOR
from raykafka.deploy.zookeeper_process import ZooKeeperProcess
from raykafka.metrics.catalogue import CATALOGUE
from raykafka.metrics.targets import targets_of, write_targets
from tests.lab.clusters.plain_broker import PlainBroker
from tests.lab.clusters.replicated import WITHIN_S, Load, admin, bootstrap, create, metadata, running_brokers
from tests.lab.free_ports import free_port
from tests.lab.prometheus import Prometheus
from tests.lab.waiting import until
from tests.lab.zookeeper_history import Counts, counts_of

COUNTERS = {
    "elections": "max(raykafka_leader_elections_total)",
    "unclean_elections": "max(raykafka_unclean_leader_elections_total)",
    "isr_shrinks": "max(raykafka_isr_shrinks_total)",
    "isr_expands": "max(raykafka_isr_expands_total)",
}


class Scene:
    def __init__(self, server: ZooKeeperProcess, brokers: list[PlainBroker], prometheus: Prometheus):
        self.server, self.brokers, self.prometheus = server, brokers, prometheus
        self.chroot = "/" + brokers[0].settings.zookeeper.hosts.partition("/")[2]
        self.began = time.time()

    def truth(self) -> Counts:
        return counts_of([self.server.data_dir], self.chroot)

    def value(self, expression: str) -> float | None:
        return self.prometheus.value(expression)

    def check_counters(self) -> Counts:
        """When nothing changes any more, Prometheus has exactly what ZooKeeper was told, two scrapes later."""
        while True:
            before = self.truth()
            self.prometheus.wait_scrapes(2)
            found = {name: self.value(expression) for name, expression in COUNTERS.items()}
            if self.truth() == before and None not in found.values():  # what a busy process did not tell is unknown
                break
        assert found == {name: getattr(before, name) for name in COUNTERS}
        return before

    def check_gauges(self) -> None:
        """Who leads, who is in sync: as clients are told, two scrapes later."""
        alive = [broker for broker in self.brokers if broker.process.poll() is None]
        while True:
            before = _partitions(alive)
            self.prometheus.wait_scrapes(2)
            leaders = self.prometheus.query("raykafka_leaders")
            found = [
                self.value("sum(raykafka_leaders)"),
                self.value("sum(raykafka_under_replicated_partitions)"),
                self.value("sum(raykafka_cluster_partitions)"),
                self.value("sum(raykafka_cluster_under_replicated_partitions)"),
                self.value("sum(raykafka_cluster_offline_partitions)"),
                self.value("sum(raykafka_cluster_brokers)"),
                self.value("sum(raykafka_active_controller)"),
                self.value("sum(raykafka_partitions)"),
            ]
            if _partitions(alive) == before and None not in found:
                break
        led = [p for p in before if p[1] != -1]
        short = [p for p in before if len(p[3]) < len(p[2])]
        assert found == [
            len(led),
            len([p for p in short if p in led]),
            len(before),
            len(short),
            len(before) - len(led),
            len(alive),
            1,
            sum(len([b for b in p[2] if self.brokers[b] in alive]) for p in before),
        ]
        ids = {broker.settings.broker_id for broker in alive}
        by_broker = {int(dict(labels)["broker"]): count for labels, count in leaders.items()}
        assert by_broker == {b: sum(p[1] == b for p in led) for b in ids}


def _partitions(brokers: list[PlainBroker]) -> list[tuple[str, int, list[int], list[int]]]:
    """(partition, leader, replicas, ISR) of everything there is, as clients are told."""
    topics = admin(brokers).list_topics(timeout=10).topics
    return sorted(
        (f"{name}-{p.id}", p.leader, sorted(p.replicas), sorted(p.isrs))
        for name, topic in topics.items()
        for p in topic.partitions.values()
    )


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One cluster for all tests here: they leave it whole."""
    folder = tmp_path_factory.mktemp("metrics")
    server = ZooKeeperProcess(folder / "zookeeper", free_port())
    targets = folder / "targets.json"
    server.start()
    try:
        server.wait_ready(30)
        # nobody elects but who is killed: what was counted once must be the same a while later
        with running_brokers(folder, server.hosts, auto_leader_rebalance_enable="false") as brokers:
            places = [(b.settings.broker_id, "127.0.0.1", b.settings.metrics_port) for b in brokers]
            write_targets(targets, targets_of("test", places))
            with Prometheus(folder / "prometheus", targets) as prometheus:
                prometheus.wait("sum(up)", lambda up: up == len(brokers))
                yield Scene(server, brokers, prometheus)
    finally:
        server.kill()


def _active(scene: Scene) -> PlainBroker:
    ((labels, _),) = scene.prometheus.query("raykafka_active_controller == 1").items()
    return scene.brokers[int(dict(labels)["broker"])]


def _all_in_sync(scene: Scene) -> bool:
    return all(leader != -1 and replicas == isr for _, leader, replicas, isr in _partitions(scene.brokers))


def _restart(broker: PlainBroker) -> None:
    broker.start()
    broker.wait_serving(WITHIN_S)


def test_counters_are_zookeepers_history_and_gauges_the_cluster(scene: Scene) -> None:
    brokers, prometheus = scene.brokers, scene.prometheus
    create(brokers, "kept", 4, min_insync_replicas="2")
    create(brokers, "doomed", 2)
    unclean = NewTopic("unclean", 1, replica_assignment=[[1, 2]], config={"unclean.leader.election.enable": "true"})
    client = admin(brokers)
    client.create_topics([unclean])["unclean"].result(WITHIN_S)
    scene.check_counters()
    scene.check_gauges()

    # the replica actor of a leader, the active controller's process
    load = Load(brokers, "kept")
    load.wait_more()
    brokers[metadata(brokers, "kept").leader].actor_of("kept").kill()
    load.wait_more()
    active = _active(scene)
    (controller,) = active.children(CONTROLLER)
    controller.kill()
    prometheus.wait("max(raykafka_controller_epoch)", lambda epoch: epoch is not None and epoch >= 2)
    load.wait_more()
    until(lambda: _all_in_sync(scene), "the replicas of that actor are in sync again")

    # the broker of the active controller, and then one more: what only those two had is offline
    first, second = brokers[2], brokers[1]
    first.kill()
    load.wait_more()
    until(lambda: metadata(brokers[:2], "unclean").isrs == [1], "broker 2 has left the ISR")
    scene.check_gauges()
    load.stop()
    second.kill()
    until(lambda: metadata(brokers[:1], "unclean").leader == -1, "nobody is left to lead")
    scene.check_gauges()
    assert scene.value("sum(raykafka_cluster_offline_partitions)") == 1
    assert scene.value("sum(raykafka_under_min_isr_partitions)") == 4
    _restart(first)
    until(lambda: metadata(brokers[:1], "unclean").leader == 2, "the other one leads, which may have lost records")
    _restart(second)
    until(lambda: _all_in_sync(scene), "all replicas are in sync")

    before = scene.check_counters()
    client.delete_topics(["doomed"])["doomed"].result(WITHIN_S)
    counts = scene.check_counters()
    assert counts == before and counts.unclean_elections == 1
    assert counts.elections >= 4 and counts.isr_shrinks >= 8 and counts.isr_expands >= 8
    scene.check_gauges()
    assert scene.value("sum(raykafka_cluster_under_replicated_partitions)") == 0
    for expression in COUNTERS.values():
        history = prometheus.history(expression, scene.began)
        assert history == sorted(history), (expression, history)


def _committed_lag(scene: Scene, group: str) -> dict[int, float]:
    series = scene.prometheus.query(f'raykafka_consumer_lag_records{{group="{group}"}}')
    return {int(dict(labels)["partition"]): lag for labels, lag in series.items()}


def test_lag_and_traffic_are_what_clients_did(scene: Scene) -> None:
    brokers, prometheus = scene.brokers, scene.prometheus
    topic, group = "traffic", f"group-{secrets.token_hex(3)}"
    create(brokers, topic, 3)
    producer = Producer({"bootstrap.servers": bootstrap(brokers), "linger.ms": 20, "compression.type": "gzip"})
    for partition in range(3):
        for number in range(100):
            producer.produce(topic, b"%d" % number, partition=partition)
    assert producer.flush(WITHIN_S) == 0
    consumer = Consumer(
        {"bootstrap.servers": bootstrap(brokers), "group.id": group, "enable.auto.commit": False, "log_level": 0}
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    taken: list[Any] = []

    def is_read() -> bool:
        taken.extend(consumer.consume(200, 0.5))
        return len(taken) == 100

    until(is_read, "partition 0 was read")
    commits = [TopicPartition(topic, 0, 90), TopicPartition(topic, 1, 0), TopicPartition(topic, 2, 100)]
    consumer.commit(offsets=commits, asynchronous=False)
    lag: dict[int, float] = {}
    while not lag:  # what a busy process did not tell is unknown
        prometheus.wait_scrapes(2)
        lag = _committed_lag(scene, group)
    assert lag == {0: 10, 1: 100, 2: 0}
    # replica actors report each second
    prometheus.wait(f'sum(raykafka_topic_records_in_total{{topic="{topic}"}})', lambda records: records == 300)
    prometheus.wait(f'sum(raykafka_topic_records_out_total{{topic="{topic}"}})', lambda records: records == 100)
    bytes_in = scene.value(f'sum(raykafka_topic_bytes_in_total{{topic="{topic}"}})')
    stored = sum(p.stat().st_size for b in brokers for p in b.data_dir.glob(f"{topic}-*/*.log"))
    assert bytes_in is not None and bytes_in * len(brokers) == stored
    count = 'sum(raykafka_request_duration_seconds_count{request="Produce",phase="total"})'
    prometheus.wait(count, lambda produced: produced is not None and produced >= 3)

    # followers that have everything lag by nothing, and are all there
    prometheus.wait(f'count(raykafka_follower_lag_records{{topic="{topic}"}} == 0)', lambda count: count == 6)
    prometheus.wait(f'max(raykafka_follower_lag_seconds{{topic="{topic}"}})', lambda behind: behind == 0)

    # every replica is in one replica actor, and clients' connections are those of all actors
    prometheus.wait("sum(raykafka_partitions) - sum(raykafka_replica_actor_replicas)", lambda missing: missing == 0)
    prometheus.wait("sum(raykafka_leaders) - sum(raykafka_replica_actor_leaders)", lambda missing: missing == 0)
    prometheus.wait("sum(raykafka_connections) - sum(raykafka_replica_actor_connections)", lambda gone: gone == 0)

    # while nobody has the group, its lag is unknown and not 0; who takes it over knows it again
    coordinator = prometheus.query(f'raykafka_consumer_lag_records{{group="{group}",partition="0"}}')
    holder = brokers[int(dict(next(iter(coordinator)))["broker"])]
    (process,) = holder.children(COORDINATOR)
    process.suspend()
    prometheus.wait_scrapes(1)
    process.kill()
    seen = prometheus.history(f'sum(raykafka_consumer_lag_records{{group="{group}"}})', scene.began)
    assert set(seen) <= {110.0, 10.0, 100.0}, seen
    prometheus.wait(f'sum(raykafka_consumer_lag_records{{group="{group}"}})', lambda now: now == 110)
    restarts = f'raykafka_child_restarts_total{{role="coordinator",broker="{holder.settings.broker_id}"}}'
    assert (prometheus.value(restarts) or 0) >= 1

    consumer.close()
    client = admin(brokers)
    client.delete_consumer_groups([group])[group].result(WITHIN_S)
    prometheus.wait_scrapes(2)
    assert _committed_lag(scene, group) == {}


def test_every_sample_is_one_of_the_catalogue_in_both_formats(scene: Scene) -> None:
    create(scene.brokers, "topic")
    known = {name for definition in CATALOGUE.values() for name in definition.sample_names}
    for broker in scene.brokers:
        url = f"http://127.0.0.1:{broker.settings.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            text = answer.read().decode()
        accept = {"Accept": "application/openmetrics-text;version=1.0.0"}
        with urllib.request.urlopen(urllib.request.Request(url, headers=accept), timeout=10) as answer:
            openmetrics = answer.read().decode()
        names = {sample.name for family in parse_text(text) for sample in family.samples}
        assert {name for name in names if not name.startswith("process_")} <= known
        assert {sample.name for family in parse_openmetrics(openmetrics) for sample in family.samples} == names
