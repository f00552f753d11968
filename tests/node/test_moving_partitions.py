"""Leaderships and replicas move between whole brokers while clients write: nothing is lost, and no client sees an
error."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from raykafka.cli import raykafka
from tests.lab.clusters.plain_broker import PlainBroker
from tests.lab.clusters.replicated import (
    BROKERS,
    WITHIN_S,
    Load,
    admin,
    bootstrap,
    check,
    command,
    create,
    holders,
    place,
    read,
    running_brokers,
    stored,
    wait_in_sync,
)
from tests.lab.peer.kafka import run_tool
from tests.lab.waiting import until


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory, zookeeper: str) -> Iterator[list[PlainBroker]]:
    """For all tests of this file, in their order: the first needs them without topics on every broker."""
    with running_brokers(tmp_path_factory.mktemp("moving"), zookeeper) as made:
        yield made


def test_a_drained_broker_holds_nothing_and_one_that_is_needed_is_not_drained(brokers: list[PlainBroker]) -> None:
    place(brokers, "drained", [0, 1], [1, 0], [2, 1])
    load = Load(brokers, "drained")
    load.wait_more()
    out = command(brokers, "brokers", "drain", "0")
    assert "holds 2 replicas to move" in out and "Broker 0 holds nothing." in out
    load.wait_more()
    assert [sorted(holders(brokers, "drained", p)[0]) for p in range(3)] == [[1, 2]] * 3
    load.stop()
    create(brokers, "everywhere")
    result = CliRunner().invoke(raykafka, ["brokers", "drain", "1", "-b", bootstrap(brokers)])
    assert "no other broker is left" in str(result.exception)
    assert "No broker 7 is running" in str(
        CliRunner().invoke(raykafka, ["brokers", "drain", "7", "-b", bootstrap(brokers)]).exception
    )


def test_a_partition_moves_to_other_brokers_and_back_under_load(brokers: list[PlainBroker]) -> None:
    place(brokers, "moved", [0, 1])
    load = Load(brokers, "moved")
    load.wait_more()
    for target, factor in (("1,2", 2), ("0,2", 2), ("2", 1)):
        if factor == 2:
            command(brokers, "partitions", "reassign", "moved", "--to", target, "--wait")
        else:
            command(brokers, "partitions", "reassign", "moved", "-r", "1", "--wait")
        load.wait_more()
        replicas, in_sync, leader = holders(brokers, "moved")
        assert set(replicas) == in_sync and leader in replicas and len(replicas) == factor
        assert factor == 1 or sorted(replicas) == [int(b) for b in target.split(",")]
        gone = [b for b in range(BROKERS) if b not in replicas]
        until(lambda gone=gone: not any((brokers[b].data_dir / "moved-0").exists() for b in gone), "old logs are gone")
    command(brokers, "partitions", "reassign", "moved", "-r", "3", "--wait")
    load.wait_more()
    assert json.loads(command(brokers, "partitions", "verify", "--json")) == {"moving": []}
    check(brokers, "moved", load.stop())


def test_leaders_go_back_to_preferred_replicas_without_an_error(brokers: list[PlainBroker]) -> None:
    place(brokers, "led", [0, 1, 2], [1, 2, 0])
    loads = [Load(brokers, "led", partition) for partition in range(2)]
    for load in loads:
        load.wait_more()
    brokers[0].stop()
    for load in loads:
        load.wait_more()
    assert holders(brokers[1:], "led")[2] == 1
    brokers[0].start()
    brokers[0].wait_serving(WITHIN_S)
    for partition in range(2):
        wait_in_sync(brokers, "led", BROKERS, partition)
    assert "1 leader;" in command(brokers, "partitions", "elect", "led") or holders(brokers, "led")[2] == 0
    until(lambda: [holders(brokers, "led", p)[2] for p in range(2)] == [0, 1], "the preferred replicas lead")
    for partition, load in enumerate(loads):
        load.wait_more()
        check(brokers, "led", load.stop(), partition)


def test_a_topic_that_was_deleted_while_a_broker_was_away_goes_from_its_disk(brokers: list[PlainBroker]) -> None:
    create(brokers, "doomed")
    create(brokers, "kept")
    for topic in ("doomed", "kept"):
        load = Load(brokers, topic)
        load.wait_more()
        load.stop()
        until(lambda topic=topic: len({stored(b, topic) for b in brokers}) == 1, "every replica has all")
    away, others = brokers[2], brokers[:2]
    away.kill()
    until(lambda: admin(others).list_topics(timeout=10).controller_id in (0, 1), "a broker that lives is controller")
    client = admin(others)
    client.delete_topics(["doomed"])["doomed"].result(WITHIN_S)
    place(others, "doomed", [0, 1])
    away.start()
    away.wait_serving(WITHIN_S)
    wait_in_sync(brokers, "kept", BROKERS)
    assert not (away.data_dir / "doomed-0").exists()
    command(brokers, "partitions", "reassign", "doomed", "-r", "3", "--wait")
    load = Load(brokers, "doomed")
    load.wait_more(10)
    check(brokers, "doomed", load.stop())


def test_commands_say_what_is_wrong_in_a_sentence(brokers: list[PlainBroker]) -> None:
    place(brokers, "t", [0, 1])

    def refused(*words: str) -> str:
        result = CliRunner().invoke(raykafka, [*words, "-b", bootstrap(brokers)])
        assert result.exit_code != 0
        return str(result.exception)

    assert "There is no topic nope." in refused("partitions", "reassign", "nope", "--to", "0,1")
    assert "No broker 9 is running" in refused("partitions", "reassign", "t", "--to", "0,9")
    assert "there are 3" in refused("partitions", "reassign", "t", "-r", "4")
    assert "Say one of" in refused("partitions", "reassign", "t")
    assert "name the topics" in refused("partitions", "elect", "--unclean")
    assert "has no partition 7" in refused("partitions", "elect", "t", "--partition", "7")


def test_kafkas_own_tools_move_partitions_and_elect_leaders(brokers: list[PlainBroker], tmp_path: Path) -> None:
    place(brokers, "tooled", [0, 1], [1, 2])
    load = Load(brokers, "tooled")
    load.wait_more()
    at = ("--bootstrap-server", bootstrap(brokers))

    def tool(name: str, *words: str) -> str:
        return run_tool(name, *at, *words).stdout

    plan, topics = tmp_path / "plan.json", tmp_path / "topics.json"
    topics.write_text(json.dumps({"version": 1, "topics": [{"topic": "tooled"}]}))
    generated = tool(
        "kafka-reassign-partitions", "--generate", "--topics-to-move-json-file", str(topics), "--broker-list", "1,2"
    )
    assert '"topic":"tooled"' in generated.split("Proposed partition reassignment configuration")[1]

    rows = [{"topic": "tooled", "partition": p, "replicas": r} for p, r in ((0, [2, 1]), (1, [1, 2]))]
    plan.write_text(json.dumps({"version": 1, "partitions": rows}))
    execute = ("--execute", "--reassignment-json-file", str(plan), "--throttle", "50000000")
    assert "Successfully started partition reassignments for tooled-0,tooled-1" in tool(
        "kafka-reassign-partitions", *execute
    )
    until(lambda: holders(brokers, "tooled") == ([2, 1], {1, 2}, 2), "the partition has moved")
    verified = tool("kafka-reassign-partitions", "--verify", "--reassignment-json-file", str(plan))
    assert verified.count("is completed") == 2 and "Clearing broker-level throttles" in verified
    assert "No partition reassignments found." in tool("kafka-reassign-partitions", "--list")

    cancelled = tool("kafka-reassign-partitions", "--cancel", "--reassignment-json-file", str(plan))
    assert "None of the specified partition moves are active." in cancelled

    elected = tool("kafka-leader-election", "--election-type", "preferred", "--topic", "tooled", "--partition", "0")
    assert "Valid replica already elected for partitions tooled-0" in elected
    sizes = json.loads(tool("kafka-log-dirs", "--describe", "--topic-list", "tooled").splitlines()[-1])
    by_broker = {
        row["broker"]: {p["partition"]: p["size"] for p in row["logDirs"][0]["partitions"]} for row in sizes["brokers"]
    }
    assert by_broker[2]["tooled-0"] > 0 and by_broker[0] == {}
    check_moved(brokers, load)


def check_moved(brokers: list[PlainBroker], load: Load) -> None:
    load.wait_more()
    acked = load.stop()
    found = read(brokers, "tooled")
    assert {offset: number for number, offset in acked}.items() <= found.items()
    until(lambda: len({stored(b, "tooled") for b in brokers[1:]}) == 1, "the segment files are equal")
