"""A cluster file is checked whole before anything is done with it, and says in one sentence what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raykafka.config.cluster import ClusterConfig, load_cluster_config, parse_cluster_config
from raykafka.errors import ConfigError
from tests.lab import REPOSITORY


def _refused(data: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_cluster_config(data, "file.yaml")
    message = str(caught.value)
    assert message.startswith("file.yaml: ")
    assert "\n" not in message
    return message.removeprefix("file.yaml: ")


def test_the_shipped_file_is_the_defaults() -> None:
    shipped = load_cluster_config(REPOSITORY / "configs/local.yaml").to_json()
    defaults = ClusterConfig.model_validate({}).to_json()
    written_out = {
        "advertised.listeners": defaults["brokers"]["listeners"],
        "listener.security.protocol.map": "INSIDE:PLAINTEXT,OUTSIDE:PLAINTEXT",
        "inter.broker.listener.name": "INSIDE",
    }
    defaults["brokers"] |= written_out
    assert shipped == defaults


def test_the_shipped_file_listens_on_loopback_only() -> None:
    assert {host for host, _, _ in load_cluster_config(REPOSITORY / "configs/local.yaml").ports()} == {"127.0.0.1"}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"brokrs": {}}, "brokrs is not a known key; did you mean brokers?"),
        ({"brokers": {"listner": "x"}}, "brokers.listner is not a known key; did you mean listeners?"),
        (
            {"brokers": {"inter.broker.listner.name": "x"}},
            "brokers.inter.broker.listner.name is not a known key; did you mean inter.broker.listener.name?",
        ),
        ({"zookeeper": {"managed": {"ports": 1}}}, "zookeeper.managed.ports is not a known key; did you mean"),
        ({"ray": {"zzz": 1}}, "ray.zzz is not a known key; known are address, start_local"),
        (
            {"brokers": {"config": {"log.retention.hour": 1}}},
            "brokers config.log.retention.hour is not a broker config that raykafka knows; "
            "did you mean log.retention.hours?",
        ),
    ],
)
def test_an_unknown_key_names_the_nearest_right_one(data: Any, said: str) -> None:
    assert _refused(data).startswith(said)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"brokers": {"count": "three"}}, "brokers.count must be a whole number, not 'three'."),
        ({"brokers": {"count": 0}}, "brokers.count must be at least 1, not 0."),
        ({"brokers": {"link_port": 70000}}, "brokers.link_port must be at most 65535, not 70000."),
        ({"brokers": None}, "brokers must be keys and values, not None."),
        ({"ray": {"start_local": "perhaps"}}, "ray.start_local must be true or false, not 'perhaps'."),
        (
            {"ray": {"temp_dir": "/" + 40 * "x"}},
            "ray.temp_dir must have at most 40 characters, since Ray makes Unix sockets below it.",
        ),
        ({"ray": {"address": "here"}}, "ray.address must be auto or host:port, not 'here'."),
        ({"cluster": "a b"}, "cluster must be letters, digits, dots, dashes and underscores, at most 64, not 'a b'."),
        ({"zookeeper": {"managed": {"servers": 2}}}, "zookeeper.managed.servers must be 1, 3 or 5, not 2."),
        (
            {"zookeeper": {"connect": "host"}},
            "zookeeper.connect must look like host:port,host:port/chroot, not 'host'.",
        ),
        ({"zookeeper": {"connect": "h:1", "managed": {}}}, "zookeeper must have either managed or connect, not both."),
        (
            {"zookeeper": {"session_timeout_ms": 60_000}},
            "zookeeper session_timeout_ms must lie between 2 and 20 times managed.tick_time_ms (1000 to 10000),"
            " not 60000.",
        ),
        (
            {"brokers": {"config": {"num.partitions": "many"}}},
            "brokers config.num.partitions: Invalid value many for configuration num.partitions: "
            "Not a number of type INT.",
        ),
        (
            {"brokers": {"replica.actors": "some"}},
            "brokers.replica.actors must be auto, each, or a number from 1 to 64, not 'some'.",
        ),
        (
            {"brokers": {"replica.actors": 0}},
            "brokers.replica.actors must be auto, each, or a number from 1 to 64, not 0.",
        ),
        (
            {"brokers": {"replica.actors": True}},
            "brokers.replica.actors must be auto, each, or a number from 1 to 64, not True.",
        ),
        (
            {"brokers": {"config": {"replica.actors": 2}}},
            "brokers config.replica.actors is set by brokers.replica.actors.",
        ),
        ({"brokers": {"config": {"broker.id": 1}}}, "brokers config.broker.id is set by raykafka itself."),
        (["cluster"], "a cluster file holds keys and values, not ['cluster']."),
    ],
)
def test_a_bad_value_is_refused_with_its_place(data: Any, said: str) -> None:
    assert _refused(data) == said


@pytest.mark.parametrize(
    ("brokers", "said"),
    [
        ({"listeners": "127.0.0.1:9092"}, "listeners must look like NAME://host:port,NAME://host:port, and"),
        ({"listeners": "A://h:1,A://h:2"}, "listeners has A twice."),
        ({"listeners": "A://h:0"}, "listeners has port 0 for A; ports are 1 to 65535."),
        ({"listeners": "A://:9092"}, "listeners has no host for A; write 127.0.0.1 or 0.0.0.0."),
        ({"listeners": "A://0.0.0.0:1", "advertised.listeners": "A://0.0.0.0:1"}, "advertised.listeners sends clients"),
        ({"listeners": "A://h:1", "advertised.listeners": "B://h:1"}, "advertised.listeners names B, which"),
        ({"listeners": "A://h:1,B://h:9", "advertised.listeners": "B://h:9"}, "advertised.listeners lacks A."),
        ({"listeners": "A://h:1", "inter.broker.listener.name": "B"}, "inter.broker.listener.name is B, which"),
        ({"listeners": "SSL://h:1"}, "listener SSL asks for SSL, which raykafka does not serve yet: use PLAINTEXT."),
        (
            {"listeners": "A://h:1", "listener.security.protocol.map": "A:SASL_SSL"},
            "listener A asks for SASL_SSL, which raykafka does not serve yet: use PLAINTEXT.",
        ),
        (
            {"listeners": "A://h:1", "listener.security.protocol.map": "A:TELNET"},
            "TELNET of listener A is not a security protocol of Kafka's.",
        ),
    ],
)
def test_listeners_follow_kafkas_rules(brokers: dict[str, Any], said: str) -> None:
    assert _refused({"brokers": brokers}).startswith(f"brokers {said}")


def test_two_servers_on_one_port_are_refused() -> None:
    clash = _refused({"brokers": {"link_port": 9093}})
    assert clash == "listener INSIDE of broker 1 and the link port of broker 0 would both listen on 127.0.0.1:9093."


def test_a_broker_listens_on_each_port_plus_its_id() -> None:
    config = parse_cluster_config({"brokers": {"count": 2}}, "file.yaml")
    assert config.bootstrap() == "127.0.0.1:9092,127.0.0.1:9093"
    assert config.bootstrap("OUTSIDE") == "127.0.0.1:9192,127.0.0.1:9193"
    with pytest.raises(ConfigError, match="has no listener MIDDLE; it has INSIDE, OUTSIDE"):
        config.bootstrap("MIDDLE")


def test_yaml_scalars_become_the_text_that_kafka_writes() -> None:
    config = parse_cluster_config(
        {"brokers": {"config": {"auto.create.topics.enable": False, "num.partitions": 4}}}, "file.yaml"
    )
    assert config.brokers.config == {"auto.create.topics.enable": "false", "num.partitions": "4"}


def test_a_deployed_config_reads_back_the_same() -> None:
    config = parse_cluster_config({"zookeeper": {"connect": "a:1,b:2/c"}, "brokers": {"rack": "r"}}, "file.yaml")
    assert parse_cluster_config(config.to_json(), "again") == config


def test_a_missing_or_broken_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml cannot be read: No such file or directory\."):
        load_cluster_config(tmp_path / "nowhere.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("cluster: [\n")
    with pytest.raises(ConfigError, match=r"broken\.yaml, line 2 is not YAML"):
        load_cluster_config(broken)
