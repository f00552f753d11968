"""Config keys: values are checked as Kafka 3.9.2 checks them, and come from where Kafka says they come from."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raykafka.config.definitions import BROKER_CONFIGS, TOPIC_CONFIGS, check_topic_config
from raykafka.config.effective import (
    ConfigSource,
    ConfigValue,
    describe_broker,
    describe_cluster_default,
    describe_topic,
    effective_broker_config,
    effective_topic_config,
)
from raykafka.errors import ConfigError

STRING_LIST = "compression.type: String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer"
REFUSED = [
    ("retention.ms", "abc", "retention.ms: Not a number of type LONG"),
    ("retention.ms", "-2", "retention.ms: Value must be at least -1"),
    ("retention.ms", "1_000", "retention.ms: Not a number of type LONG"),
    ("segment.bytes", "0", "segment.bytes: Value must be at least 14"),
    ("segment.bytes", "", "segment.bytes: Not a number of type INT"),
    ("segment.bytes", "99999999999", "segment.bytes: Not a number of type INT"),
    ("compression.type", "foo", STRING_LIST),
    ("cleanup.policy", "foo", "cleanup.policy: String must be one of: compact, delete"),
    ("preallocate", "maybe", "preallocate: Expected value to be either true or false"),
    ("min.insync.replicas", "0", "min.insync.replicas: Value must be at least 1"),
    ("min.cleanable.dirty.ratio", "x", "min.cleanable.dirty.ratio: Not a number of type DOUBLE"),
    ("compression.gzip.level", "0", "compression.gzip.level: Value must be between 1 and 9 or equal to -1"),
    ("compression.gzip.level", "10", "compression.gzip.level: Value must be between 1 and 9 or equal to -1"),
    ("compression.zstd.level", "30", "compression.zstd.level: Value must be no more than 22"),
    ("message.format.version", "foo", "message.format.version: Version foo is not a valid version"),
    ("message.timestamp.type", "x", "message.timestamp.type: String must be one of: CreateTime, LogAppendTime"),
]


@pytest.mark.parametrize(("name", "text", "reason"), REFUSED)
def test_a_bad_value_is_refused_with_kafkas_words(name: str, text: str, reason: str) -> None:
    with pytest.raises(ConfigError) as refused:
        TOPIC_CONFIGS[name].parse(text)
    assert str(refused.value) == f"Invalid value {text} for configuration {reason}"


def test_the_part_of_a_list_that_is_wrong_is_shown() -> None:
    with pytest.raises(ConfigError, match=r"^Invalid value foo for configuration cleanup\.policy"):
        TOPIC_CONFIGS["cleanup.policy"].parse("delete,foo")
    throttled = "leader.replication.throttled.replicas"
    with pytest.raises(
        ConfigError, match=rf"^Invalid value \[abc\] for configuration {throttled}: {throttled} must be"
    ):
        TOPIC_CONFIGS[throttled].parse("abc")
    with pytest.raises(ConfigError, match=r"^Invalid value 2\.0 for .*: Value must be no more than 1$"):
        TOPIC_CONFIGS["min.cleanable.dirty.ratio"].parse("2")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("cleanup.policy", "delete, compact", ("delete", "compact")),
        ("cleanup.policy", "", ()),
        ("segment.bytes", " 1000 ", 1000),
        ("preallocate", "TRUE", True),
        ("min.cleanable.dirty.ratio", "0.25", 0.25),
        ("leader.replication.throttled.replicas", "*", ("*",)),
        ("leader.replication.throttled.replicas", "0:1,1:2", ("0:1", "1:2")),
        ("retention.bytes", "-5", -5),
        ("message.format.version", "2.8-IV1", "2.8-IV1"),
    ],
)
def test_values_are_parsed_as_kafka_does(name: str, text: str, value: object) -> None:
    assert TOPIC_CONFIGS[name].parse(text) == value


def test_every_default_is_a_good_value_and_every_key_is_explained() -> None:
    for definition in (*TOPIC_CONFIGS.values(), *BROKER_CONFIGS.values()):
        assert definition.doc.endswith("."), definition.name
        if definition.default is not None:
            definition.parse(definition.default)


def test_every_topic_config_of_kafka_3_9_is_there_and_every_synonym_is_a_broker_config() -> None:
    assert len(TOPIC_CONFIGS) == 36
    for definition in TOPIC_CONFIGS.values():
        for synonym in definition.synonyms:
            assert synonym.name in BROKER_CONFIGS
        if definition.synonyms:
            assert effective_topic_config({}, {}, {}, {})[definition.name] == definition.default


def test_unknown_and_contradicting_settings_of_a_topic_are_refused() -> None:
    with pytest.raises(ConfigError, match="Unknown topic config name: nope"):
        check_topic_config({"nope": "1", "segment.bytes": "0"})
    with pytest.raises(ConfigError, match="Tiered Storage functionality is disabled"):
        check_topic_config({"remote.storage.enable": "true"})
    check_topic_config({"min.compaction.lag.ms": "5", "max.compaction.lag.ms": "5"})


def test_the_topics_own_value_wins_then_the_brokers_the_clusters_the_static_and_the_default() -> None:
    places = {"log.segment.bytes": "4"}, {"log.segment.bytes": "3"}, {"log.segment.bytes": "2"}
    assert effective_topic_config({"segment.bytes": "5"}, *places)["segment.bytes"] == "5"
    assert effective_topic_config({}, *places)["segment.bytes"] == "4"
    assert effective_topic_config({}, {}, *places[1:])["segment.bytes"] == "3"
    assert effective_topic_config({}, {}, {}, places[2])["segment.bytes"] == "2"
    assert effective_topic_config({}, {}, {}, {})["segment.bytes"] == "1073741824"


def test_a_finer_unit_wins_over_a_coarser_one_wherever_each_stands() -> None:
    static = {"log.retention.hours": "24", "log.roll.jitter.hours": "2"}
    assert effective_topic_config({}, {}, {}, static)["retention.ms"] == str(24 * 3_600_000)
    assert effective_topic_config({}, {}, {}, static)["segment.jitter.ms"] == str(2 * 3_600_000)
    assert effective_topic_config({}, {}, {"log.retention.ms": "7"}, static)["retention.ms"] == "7"
    assert effective_topic_config({}, {}, {}, {**static, "log.retention.minutes": "3"})["retention.ms"] == "180000"
    assert effective_topic_config({}, {}, {}, {"log.retention.hours": "-1"})["retention.ms"] == "-1"


def test_describing_a_topic_shows_every_place_as_kafka_does() -> None:
    # the answer of Kafka 3.9.2 to kafka-configs --describe --all with these settings
    static = {"log.retention.hours": "24", "log.roll.hours": "5", "log.roll.jitter.ms": "55"}
    shown = {
        value.name: value
        for value in describe_topic(
            {"segment.bytes": "1000000"},
            {"log.segment.bytes": "5000000"},
            {"log.retention.ms": "5000000", "log.roll.ms": "999999"},
            static,
        )
    }
    assert _places(shown["segment.bytes"]) == [
        "TOPIC segment.bytes=1000000",
        "DYNAMIC_BROKER log.segment.bytes=5000000",
        "DEFAULT log.segment.bytes=1073741824",
    ]
    assert _places(shown["retention.ms"]) == [
        "DYNAMIC_DEFAULT_BROKER log.retention.ms=5000000",
        "STATIC_BROKER log.retention.hours=24",
        "DEFAULT log.retention.hours=168",
    ]
    assert _places(shown["segment.jitter.ms"]) == [
        "STATIC_BROKER log.roll.jitter.ms=55",
        "DEFAULT log.roll.jitter.hours=0",
    ]
    assert shown["segment.ms"].value == "999999"
    assert shown["flush.ms"].synonyms == () and shown["flush.ms"].source is ConfigSource.DEFAULT
    assert shown["remote.storage.enable"].value == "false"


def test_describing_a_broker_says_what_can_be_changed_while_it_runs() -> None:
    shown = {v.name: v for v in describe_broker({"log.segment.bytes": "5000000"}, {}, {"broker.id": "3"})}
    assert _places(shown["log.segment.bytes"])[0] == "DYNAMIC_BROKER log.segment.bytes=5000000"
    assert not shown["log.segment.bytes"].read_only and shown["broker.id"].read_only
    assert shown["broker.id"].value == "3"
    assert shown["log.retention.ms"].value is None and shown["log.retention.ms"].synonyms == ()
    assert effective_broker_config({}, {}, {})["offsets.topic.num.partitions"] == "50"


def test_describing_the_clusters_default_shows_what_was_set() -> None:
    (only,) = describe_cluster_default({"log.retention.ms": "5"})
    assert _places(only) == ["DYNAMIC_DEFAULT_BROKER log.retention.ms=5"]


@settings(deadline=None)
@given(st.integers(-(1 << 70), 1 << 70))
def test_numbers_are_taken_exactly_within_their_type(number: int) -> None:
    definition = TOPIC_CONFIGS["retention.bytes"]
    if -(1 << 63) <= number < 1 << 63:
        assert definition.parse(str(number)) == number
    else:
        with pytest.raises(ConfigError, match="Not a number of type LONG"):
            definition.parse(str(number))


def _places(value: ConfigValue) -> list[str]:
    return [f"{s.source.name} {s.name}={s.value}" for s in value.synonyms]
