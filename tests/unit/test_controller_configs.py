"""What altering configs accepts, refuses and leaves. Codes and words are those of Apache Kafka 3.9.2, taken from a
running one, but for keys that nobody knows: Kafka keeps a broker's, and here they are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from raykafka.controller.rules.configs import ResourceType, altered, check_broker, check_topic, replaced
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError

TOPIC, BROKER = ResourceType.TOPIC, ResourceType.BROKER
SET, DELETE, APPEND, SUBTRACT = range(4)
DEFAULTS = {"cleanup.policy": "delete"}
BAD = "Invalid config value for resource ConfigResource(type=TOPIC, name='t'): "


def topic(*changes: tuple[str, int, str | None]) -> dict[str, str]:
    result = altered(TOPIC, {"retention.ms": "5"}, DEFAULTS, changes)
    check_topic("t", result)
    return result


def broker(name: str, **config: str) -> None:
    check_broker(name, {key.replace("_", "."): value for key, value in config.items()}, {0: None})


REFUSED: list[tuple[Callable[[], Any], str, str]] = [
    (
        lambda: topic(("retention.ms", APPEND, "5")),
        "INVALID_CONFIG",
        "Config value append is not allowed for config key: retention.ms",
    ),
    (lambda: topic(("nope", SET, "5")), "INVALID_CONFIG", "Unknown topic config name: nope"),
    (
        lambda: topic(("retention.ms", SET, "x")),
        "INVALID_CONFIG",
        BAD + "Invalid value x for configuration retention.ms: Not a number of type LONG",
    ),
    (
        lambda: topic(("cleanup.policy", SET, "foo")),
        "INVALID_CONFIG",
        BAD + "Invalid value foo for configuration cleanup.policy: String must be one of: compact, delete",
    ),
    (lambda: topic(("retention.ms", SET, None)), "INVALID_REQUEST", "Null value not supported for : retention.ms"),
    (
        lambda: topic(("cleanup.policy", APPEND, None)),
        "INVALID_REQUEST",
        "Null value not supported for : cleanup.policy",
    ),
    (
        lambda: topic(("retention.ms", SET, "5"), ("retention.ms", DELETE, None)),
        "INVALID_REQUEST",
        "Error due to duplicate config keys",
    ),
    (lambda: topic(("retention.ms", 7, "5")), "INVALID_REQUEST", "Unknown operation 7 for config retention.ms"),
    (lambda: replaced([("retention.ms", None)]), "INVALID_REQUEST", "Null value not supported for : retention.ms"),
    (lambda: broker("x"), "INVALID_REQUEST", "Node id must be an integer, but it is: x"),
    (lambda: broker("99"), "INVALID_REQUEST", "Unknown broker id 99: no broker is registered under it"),
    (
        lambda: broker("0", broker_id="5"),
        "INVALID_REQUEST",
        "Cannot update these configs dynamically: Set(broker.id)",
    ),
    (
        lambda: broker("", num_partitions="5"),
        "INVALID_REQUEST",
        "Cannot update these configs dynamically: Set(num.partitions)",
    ),
    (lambda: broker("0", nope="5"), "INVALID_REQUEST", "Unknown broker config name: nope"),
    (
        lambda: broker("0", log_retention_ms="x"),
        "INVALID_REQUEST",
        "Invalid value x for configuration log.retention.ms: Not a number of type LONG",
    ),
    (
        lambda: broker("", log_segment_bytes="1"),
        "INVALID_REQUEST",
        "Invalid value 1 for configuration log.segment.bytes: Value must be at least 14",
    ),
]


@pytest.mark.parametrize(("act", "code", "message"), REFUSED)
def test_a_bad_alteration_is_refused_as_kafka_refuses_it(act: Callable[[], Any], code: str, message: str) -> None:
    with pytest.raises(KafkaError) as refused:
        act()
    assert (refused.value.code, refused.value.message) == (ErrorCode[code], message)


def test_single_keys_are_set_deleted_and_left_alone() -> None:
    assert topic(("segment.ms", SET, "7")) == {"retention.ms": "5", "segment.ms": "7"}
    assert topic(("retention.ms", DELETE, None)) == {}
    assert topic(("nope", DELETE, None)) == {"retention.ms": "5"}


def test_lists_are_appended_to_and_subtracted_from_what_is_in_force() -> None:
    assert topic(("cleanup.policy", APPEND, "compact"))["cleanup.policy"] == "delete,compact"
    assert topic(("cleanup.policy", APPEND, "delete"))["cleanup.policy"] == "delete"
    both = {"cleanup.policy": "delete,compact"}
    assert altered(TOPIC, both, DEFAULTS, [("cleanup.policy", SUBTRACT, "delete")]) == {"cleanup.policy": "compact"}


def test_replacing_leaves_exactly_what_is_named() -> None:
    assert replaced([("segment.ms", "5")]) == {"segment.ms": "5"}


def test_dynamic_configs_of_one_broker_and_of_all_are_accepted() -> None:
    broker("0", log_retention_ms="5000", max_connections="100")
    broker("", log_retention_ms="5000")
