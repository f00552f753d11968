"""What a broker tells Prometheus: names, values and text; and the listener that tells it."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from raykafka.broker.status import ActorRow
from raykafka.cluster.image import PartitionState, Topic
from raykafka.controller.cluster_counts import partition_counts
from raykafka.error_code import ErrorCode
from raykafka.log.compression import GZIP
from raykafka.metrics import catalogue
from raykafka.metrics.broker_families import add_actors, add_partitions, add_traffic
from raykafka.metrics.catalogue import CATALOGUE, Kind
from raykafka.metrics.cluster_families import add_cluster
from raykafka.metrics.exposition import SAMPLES_AT_ONCE, encode
from raykafka.metrics.families import Families
from raykafka.metrics.http import MetricsEndpoint
from raykafka.metrics.targets import targets_of, write_targets
from raykafka.telemetry.durations import BOUNDS_NS, FETCH, PRODUCE, RequestDurations
from raykafka.telemetry.traffic import Traffic
from raykafka.types import TopicPartition
from tests.lab import REPOSITORY
from tests.lab.dataplane import TOPIC, Dataplane, batch
from tests.lab.fetching import fetch_one
from tests.lab.loop_waiting import until

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


class AllOf:
    """A registry of prometheus-client over ready families."""

    def __init__(self, metrics: list[Metric]) -> None:
        self.collect = lambda: metrics


def many_families() -> Families:
    families = Families()
    families.add(catalogue.LEADERS, 3)
    for number in range(3 * SAMPLES_AT_ONCE + 1):
        families.add(catalogue.CONSUMER_LAG, number, f'group "{number}"\n', "topic", number)
    families.add(catalogue.ELECTIONS, 7)
    families.add(catalogue.BUILD, 1, "0.1", "3.11")
    durations = RequestDurations()
    durations.answered(PRODUCE, 3_000_000)
    for request, phase, histogram in durations.phases():
        families.observe(catalogue.REQUEST_DURATION, histogram, request, phase)
    return families


def test_text_written_in_pieces_is_what_prometheus_client_writes() -> None:
    metrics = many_families().metrics()
    for accept, whole, parse in (
        ("", generate_latest, parse_text),
        (OPENMETRICS, generate_openmetrics, parse_openmetrics),
    ):
        text, content_type = asyncio.run(encode(metrics, accept))
        assert content_type.startswith("application/openmetrics-text" if accept else "text/plain")
        assert text == whole(AllOf(metrics))
        parsed = {family.name: family for family in parse(text.decode())}
        lags = parsed[catalogue.CONSUMER_LAG.name].samples
        assert sum(sample.value for sample in lags) == sum(range(3 * SAMPLES_AT_ONCE + 1))
        assert lags[5].labels["group"] == 'group "5"\n'


def test_other_work_goes_on_while_text_is_written() -> None:
    metrics = many_families().metrics()

    async def turns() -> int:
        count, writing = 0, asyncio.ensure_future(encode(metrics, ""))
        while not writing.done():
            await asyncio.sleep(0)
            count += 1
        return count

    assert asyncio.run(turns()) >= len(metrics) + 3


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 2 * BOUNDS_NS[-1])))
def test_histograms_hold_every_duration_once(durations_ns: list[int]) -> None:
    durations, families = RequestDurations(), Families()
    for duration_ns in durations_ns:
        durations.answered(FETCH, duration_ns)
        durations.answered(3, duration_ns)  # Metadata is not measured
    for request, phase, histogram in durations.phases():
        families.observe(catalogue.REQUEST_DURATION, histogram, request, phase)
    (family,) = families.metrics()
    samples = [
        sample for sample in family.samples if (sample.labels["request"], sample.labels["phase"]) == ("Fetch", "total")
    ]
    buckets = {sample.labels["le"]: sample.value for sample in samples if sample.name.endswith("_bucket")}
    assert buckets.pop("+Inf") == len(durations_ns)
    assert [float(bound) * 1e9 for bound in buckets] == pytest.approx(BOUNDS_NS)
    for bound_ns, count in zip(BOUNDS_NS, buckets.values(), strict=True):
        assert count == sum(duration_ns <= bound_ns for duration_ns in durations_ns)
    rest = {sample.name.rpartition("_")[2]: sample.value for sample in samples if "le" not in sample.labels}
    assert rest == {"count": len(durations_ns), "sum": pytest.approx(sum(durations_ns) / 1e9)}


def test_a_metric_has_so_many_samples_and_says_what_it_leaves_out() -> None:
    families = Families(most_samples=3)
    for partition in range(5):
        families.add(catalogue.CONSUMER_LAG, 1, "g", "t", partition)
    lag, left_out = families.metrics()
    assert len(lag.samples) == 3
    assert [(s.name, s.labels, s.value) for s in left_out.samples] == [
        (catalogue.LEFT_OUT.name, {"metric": catalogue.CONSUMER_LAG.name}, 2)
    ]


def test_what_the_controller_did_not_tell_is_no_sample() -> None:
    for figures, told in ((None, []), ({}, [(catalogue.ACTIVE_CONTROLLER.name, 0)])):
        families = Families()
        add_cluster(families, figures)
        assert [(s.name, s.value) for metric in families.metrics() for s in metric.samples] == told


# partitions


def values(families: Families) -> dict[str, float]:
    """The values of what has no labels."""
    return {s.name: s.value for metric in families.metrics() for s in metric.samples if not s.labels}


def host(partition: int, leader: int, isr: tuple[int, ...], adding: tuple[int, ...] = (), **figures: Any) -> Any:
    """A partition on broker 0 as metrics see it, with replicas on 0, 1 and 2, those of ``adding`` and two in sync
    asked for."""
    state = PartitionState((0, 1, 2, *adding), leader, 4, isr, 0, adding=adding)
    tp = TopicPartition(TOPIC, partition)
    return SimpleNamespace(state=state, is_leader=leader == 0, tp=tp, actor=0, ends=(), follower_progress=figures or {})


def two_in_sync(topic: str) -> int:
    """The ``min.insync.replicas`` of every topic here."""
    assert topic == TOPIC
    return 2


def test_partitions_are_counted_with_kafkas_meanings() -> None:
    hosts = [
        host(0, 0, (0, 1, 2)),
        host(1, 0, (0, 1)),
        host(2, 0, (0,)),
        host(3, 0, (0, 1, 2), adding=(3,)),
        host(4, 1, (1,)),
        host(5, -1, (2,)),
    ]
    families = Families()
    asyncio.run(add_partitions(families, hosts, two_in_sync))
    assert values(families) == {
        catalogue.LEADERS.name: 4,
        catalogue.UNDER_REPLICATED.name: 2,
        catalogue.UNDER_MIN_ISR.name: 1,
        catalogue.AT_MIN_ISR.name: 1,
        catalogue.OFFLINE.name: 1,
    }


def test_a_replica_is_open_once_an_actor_told_where_its_log_ends() -> None:
    nowhere, opening, opened = (host(partition, 1, (0, 1)) for partition in range(3))
    nowhere.actor = nowhere.ends = opening.ends = None
    families = Families()
    asyncio.run(add_partitions(families, [nowhere, opening, opened], two_in_sync))
    found = {s.labels["state"]: s.value for m in families.metrics() for s in m.samples if "state" in s.labels}
    assert found == {catalogue.OPEN: 1, catalogue.WAITING: 2}


def test_each_replica_actor_tells_what_it_does() -> None:
    families = Families()
    rows = [
        ActorRow(0, 71, "a", 12, 5, {"INSIDE": 3, "OUTSIDE": 30}, 0.25, 60.5),
        ActorRow(4, 72, "b", 1, 0, {}, 0.0, 1.0),
    ]
    asyncio.run(add_actors(families, rows))
    found: dict[str, list[float]] = {"0": [], "4": []}
    for metric in families.metrics():
        for sample in metric.samples:
            found[sample.labels["actor"]].append(sample.value)
    assert found == {"0": [12, 5, 33, 0.25, 60.5], "4": [1, 0, 0, 0.0, 1.0]}


def test_the_lag_of_a_follower_is_that_of_this_leadership_and_only_where_it_is_known() -> None:
    known = {"lag_records": 7, "lag_ms": 1500}
    hosts = [
        host(0, 0, (0, 1), leader_epoch=4, followers={1: known, 2: {"lag_records": None, "lag_ms": -1}}),
        host(1, 0, (0, 1), leader_epoch=3, followers={1: known}),
        host(2, 1, (0, 1), leader_epoch=4, followers={1: known}),
        host(3, 0, (0, 1)),
    ]
    families = Families()
    asyncio.run(add_partitions(families, hosts, two_in_sync))
    told = [
        (s.name, s.labels, s.value) for metric in families.metrics() for s in metric.samples if "follower" in s.labels
    ]
    labels = {"topic": TOPIC, "partition": "0", "follower": "1"}
    assert sorted(told, key=str) == [
        (catalogue.FOLLOWER_LAG_RECORDS.name, labels, 7),
        (catalogue.FOLLOWER_LAG_SECONDS.name, labels, 1.5),
    ]


def test_the_controllers_counts_are_of_every_partition() -> None:
    def topic(name: str, states: list[tuple[int, tuple[int, ...]]], **config: str) -> Topic:
        partitions = {p: PartitionState((0, 1), leader, 4, isr, 0) for p, (leader, isr) in enumerate(states)}
        return Topic(name, uuid.uuid4(), partitions, {key.replace("_", "."): value for key, value in config.items()})

    topics = {
        "a": topic("a", [(0, (0, 1)), (1, (1,)), (-1, (0,))], min_insync_replicas="2"),
        "b": topic("b", [(0, (0,))]),
    }
    assert partition_counts(topics, 1) == {
        "topics": 2,
        "partitions": 4,
        "under_replicated": 3,
        "under_min_isr": 1,
        "offline": 1,
        "not_preferred": 1,
    }


# traffic


def run(directory: Path, test: Callable[[Dataplane], Awaitable[None]]) -> None:
    async def body() -> None:
        async with Dataplane(directory) as dataplane:
            await test(dataplane)

    asyncio.run(asyncio.wait_for(body(), 60))


def counted(dataplane: Dataplane) -> Traffic:
    """What the actor has reported of clients' traffic, and what it will report next."""
    found = Traffic()
    for method, args in dataplane.heard:
        if method == "report":
            found.take(args["traffic"])
    for topic, more in dataplane.partitions.traffic.items():
        found.take({topic: [more.bytes_in, more.records_in, more.bytes_out, more.records_out]})
    return found


async def counts(dataplane: Dataplane, direction: str, records: int, size: int) -> None:
    """Wait until so many records, and bytes, have gone ``in`` or ``out``: a report may be on its way."""
    names = (f"records_{direction}", f"bytes_{direction}")

    def figures() -> list[int]:
        found = counted(dataplane)[TOPIC]
        return [getattr(found, name) for name in names]

    await until(lambda: figures() == [records, size], f"{records} records and {size} bytes {direction}")


def test_records_and_bytes_in_are_those_appended(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        await dataplane.create(max_message_bytes="2000")
        plain, packed = batch(b"a", b"b", b"c"), batch(*[b"x" * 100] * 50, codec=GZIP)
        for records, acks in ((plain, -1), (packed, 1), (plain, 0)):
            await dataplane.produce(bytearray(records), acks=acks)
        refused = await dataplane.produce(batch(b"y" * 3000))
        assert refused.error_code.value == ErrorCode.MESSAGE_TOO_LARGE
        await counts(dataplane, "in", 3 + 50 + 3, 2 * len(plain) + len(packed))

    run(tmp_path, test)


def test_records_and_bytes_out_are_those_sent(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        await dataplane.create(segment_bytes="300")
        sizes = []
        for number in range(6):
            sent = batch(*[b"%d" % number * 20] * 3)
            sizes.append(len(sent))
            await dataplane.produce(sent)
        records = size = offset = 0
        while offset < 18:
            read = await fetch_one(dataplane, offset, partition_bytes=250)
            got = len(read.records)
            assert got
            batches = got // sizes[0]
            size, records, offset = size + got, records + 3 * batches, offset + 3 * batches
            await counts(dataplane, "out", records, size)
        # from the middle of a batch the whole batch is sent, and one record of it was asked for
        read = await fetch_one(dataplane, 17)
        await counts(dataplane, "out", records + 1, size + len(read.records))

    run(tmp_path, test)


def test_topics_that_are_gone_are_forgotten() -> None:
    traffic = Traffic()
    traffic["kept"].sent(10, 1)
    traffic["deleted"].sent(10, 1)
    traffic.forget_others({"kept": None, "silent": None})
    families = Families()
    asyncio.run(add_traffic(families, traffic))
    assert {s.labels["topic"] for metric in families.metrics() for s in metric.samples} == {"kept"}


# the listener


def ask(requests: bytes, answer: Callable[[str], Awaitable[tuple[bytes, str]]] | None = None) -> bytes:
    """All that the endpoint answers to what one connection sends."""

    async def ready(accept: str) -> tuple[bytes, str]:
        return f"accept {accept}\n".encode(), "text/plain"

    async def talk() -> bytes:
        endpoint = MetricsEndpoint("127.0.0.1", 0)
        await endpoint.start(answer or ready)
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
            writer.write(requests)
            writer.write_eof()
            data = await reader.read()
            writer.close()
            return data
        finally:
            endpoint.stop()

    return asyncio.run(asyncio.wait_for(talk(), 30))


def test_metrics_are_answered_over_and_over_on_one_connection() -> None:
    got = ask(
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: one\r\n\r\nHEAD /metrics HTTP/1.1\r\n\r\n"
        b"GET /metrics?x=1 HTTP/1.1\r\nACCEPT: two\r\nConnection: close\r\n\r\nGET /metrics HTTP/1.1\r\n\r\n"
    )
    assert got.count(b"HTTP/1.1 200 OK") == 3
    assert got.count(b"accept one\n") == got.count(b"accept two\n") == 1
    assert got.count(b"Content-Length: 11") == 2 and got.count(b"Content-Length: 8") == 1


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /other HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"GET / HTTP/1.1\r\n\r\n", b"200 OK"),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 4\r\n\r\nGET ", b"405 Method Not Allowed"),
        (b"GET /metrics HTTP/1.0\r\n\r\n", b"200 OK"),
        (b"nonsense\r\n\r\n", b"405 Method Not Allowed"),
    ],
)
def test_anything_else_is_refused(request_: bytes, status: bytes) -> None:
    got = ask(request_)
    assert got.startswith(b"HTTP/1.1 " + status) and got.count(b"HTTP/1.1 ") == 1


def test_an_endless_head_ends_the_connection() -> None:
    assert ask(b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 100_000) == b""


def test_values_that_cannot_be_gathered_are_an_error_and_not_an_empty_page() -> None:
    async def fails(accept: str) -> tuple[bytes, str]:
        raise ValueError("broken")

    assert ask(b"GET /metrics HTTP/1.1\r\n\r\n", fails).startswith(b"HTTP/1.1 500 ")


# what other files say


def test_the_targets_file_names_every_broker_and_is_written_when_something_changed(tmp_path: Path) -> None:
    path = tmp_path / "targets.json"
    targets = targets_of("c", [(1, "::1", 9393), (0, "10.0.0.1", 9392), (2, "10.0.0.3", None)])
    write_targets(path, targets)
    assert json.loads(path.read_text()) == [
        {"targets": ["10.0.0.1:9392"], "labels": {"cluster": "c", "broker": "0"}},
        {"targets": ["[::1]:9393"], "labels": {"cluster": "c", "broker": "1"}},
    ]
    before = path.stat()
    write_targets(path, targets)
    assert path.stat().st_ino == before.st_ino
    write_targets(path, targets[:1])
    assert path.stat().st_ino != before.st_ino and len(json.loads(path.read_text())) == 1


def test_names_carry_their_units() -> None:
    for definition in CATALOGUE.values():
        assert definition.help.endswith("."), definition
        assert not definition.name.endswith("_total"), definition
        if definition.kind is Kind.HISTOGRAM:
            assert definition.name.endswith("_seconds")
        assert not any(word in definition.name for word in ("_ms", "millis", "_kb", "_mb")), definition


def _names_in(text: str) -> set[str]:
    return set(re.findall(r"\braykafka_[a-z0-9_]+", text))


def _exported() -> set[str]:
    return {name for definition in CATALOGUE.values() for name in definition.sample_names}


def _dashboards() -> list[Path]:
    found = sorted((REPOSITORY / "dashboards").glob("*.json"))
    assert found
    return found


def test_dashboards_and_alerts_ask_for_metrics_that_exist() -> None:
    alerts = (REPOSITORY / "configs/alerts.yaml").read_text()
    for text in (alerts, *(path.read_text() for path in _dashboards())):
        assert _names_in(text) and _names_in(text) <= _exported()


@pytest.mark.parametrize("path", _dashboards(), ids=lambda path: path.stem)
def test_a_dashboard_can_be_imported(path: Path) -> None:
    dashboard = json.loads(path.read_text())
    assert dashboard["schemaVersion"] >= 39 and dashboard["uid"] and dashboard["title"]
    assert {"datasource", "cluster"} <= {variable["name"] for variable in dashboard["templating"]["list"]}
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"
            assert all('cluster="$cluster"' in target["expr"] for target in panel["targets"])


def test_every_metric_is_explained() -> None:
    explained = _names_in((REPOSITORY / "docs/metrics.md").read_text())
    wanted = {
        definition.name if definition.kind is Kind.HISTOGRAM else definition.sample_names[0]
        for definition in CATALOGUE.values()
    }
    assert wanted <= explained
    assert explained <= wanted | _exported()


def test_prometheus_takes_the_example_and_finds_nothing_to_complain_of_in_names() -> None:
    promtool = shutil.which("promtool")
    assert promtool, "promtool is not installed: run scripts/setup --extra test (Debian: apt install prometheus)"
    subprocess.run([promtool, "check", "config", str(REPOSITORY / "configs/prometheus.yaml")], check=True)
    text, _ = asyncio.run(encode(many_families().metrics(), ""))
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True)
    assert checked.returncode == 0 and not checked.stderr, checked.stderr
