"""What IncrementalAlterConfigs and AlterConfigs ask for, checked and turned into the whole new set of dynamic
configs. Pure.

Refusals are KafkaErrors with the codes and words of Kafka 3.9.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum

from raykafka.config.definitions import BROKER_CONFIGS, TOPIC_CONFIGS, ConfigDef, ConfigType, Scope, check_topic_config
from raykafka.error_code import ErrorCode
from raykafka.errors import ConfigError, KafkaError

Entries = Sequence[tuple[str, str | None]]


class ResourceType(IntEnum):
    """The resources whose configs can be altered."""

    TOPIC = 2
    BROKER = 4


class Change(IntEnum):
    """What IncrementalAlterConfigs does with one key (KIP-339)."""

    SET = 0
    DELETE = 1
    APPEND = 2
    SUBTRACT = 3


def _invalid(message: str) -> KafkaError:
    return KafkaError(ErrorCode.INVALID_REQUEST, message)


def altered(
    kind: ResourceType,
    current: Mapping[str, str],
    defaults: Mapping[str, str],
    changes: Sequence[tuple[str, int, str | None]],
) -> dict[str, str]:
    """``current`` after the (name, Change, value) triples. APPEND and SUBTRACT of a list that is not set start from
    ``defaults``: the texts in force without it. Raises KafkaError."""
    names = [name for name, _, _ in changes]
    if len(set(names)) != len(names):
        raise _invalid("Error due to duplicate config keys")
    nulls = [name for name, change, value in changes if value is None and change != Change.DELETE]
    if nulls:
        raise _invalid(f"Null value not supported for : {','.join(nulls)}")
    definitions = TOPIC_CONFIGS if kind is ResourceType.TOPIC else BROKER_CONFIGS
    result = dict(current)
    for name, change, value in changes:
        if name not in definitions and kind is ResourceType.TOPIC and change != Change.DELETE:
            raise KafkaError(ErrorCode.INVALID_CONFIG, f"Unknown topic config name: {name}")
        if change == Change.DELETE:
            result.pop(name, None)
        elif change == Change.SET:
            result[name] = value or ""
        elif change in (Change.APPEND, Change.SUBTRACT):
            before = result.get(name, defaults.get(name, ""))
            result[name] = _changed_list(definitions.get(name), name, Change(change), before, value or "")
        else:
            raise _invalid(f"Unknown operation {change} for config {name}")
    return result


def _changed_list(definition: ConfigDef | None, name: str, change: Change, before: str, value: str) -> str:
    if definition is None or definition.type is not ConfigType.LIST:
        raise KafkaError(
            ErrorCode.INVALID_CONFIG, f"Config value {change.name.lower()} is not allowed for config key: {name}"
        )
    have = [item.strip() for item in before.split(",") if item.strip()]
    named = [item.strip() for item in value.split(",") if item.strip()]
    if change is Change.APPEND:
        return ",".join([*have, *(item for item in named if item not in have)])
    return ",".join(item for item in have if item not in named)


def replaced(entries: Entries) -> dict[str, str]:
    """The configs that AlterConfigs leaves: exactly those it names. Raises KafkaError."""
    nulls = [name for name, value in entries if value is None]
    if nulls:
        raise _invalid(f"Null value not supported for : {','.join(nulls)}")
    if len({name for name, _ in entries}) != len(entries):
        raise _invalid("Error due to duplicate config keys")
    return {name: value for name, value in entries if value is not None}


def check_topic(topic: str, config: Mapping[str, str]) -> None:
    """Raise KafkaError(INVALID_CONFIG) for settings that a topic can't have."""
    unknown = next((name for name in config if name not in TOPIC_CONFIGS), None)
    if unknown is not None:
        raise KafkaError(ErrorCode.INVALID_CONFIG, f"Unknown topic config name: {unknown}")
    try:
        check_topic_config(config)
    except ConfigError as error:
        resource = f"ConfigResource(type=TOPIC, name='{topic}')"
        raise KafkaError(ErrorCode.INVALID_CONFIG, f"Invalid config value for resource {resource}: {error}") from None


def check_broker(broker: str, config: Mapping[str, str], registered: Mapping[int, object]) -> None:
    """Raise KafkaError(INVALID_REQUEST) for dynamic settings that broker ``broker`` ("" for the cluster default)
    can't have.

    Unlike Kafka, which keeps them, keys that nobody knows are refused: they would do nothing.
    """
    if broker:
        if not broker.isdigit():
            raise _invalid(f"Node id must be an integer, but it is: {broker}")
        if int(broker) not in registered:
            raise _invalid(f"Unknown broker id {broker}: no broker is registered under it")
    unknown = sorted(set(config) - BROKER_CONFIGS.keys())
    if unknown:
        raise _invalid(f"Unknown broker config name: {', '.join(unknown)}")
    fixed = sorted(name for name in config if BROKER_CONFIGS[name].scope is Scope.READ_ONLY)
    if fixed:
        raise _invalid(f"Cannot update these configs dynamically: Set({', '.join(fixed)})")
    own = sorted(name for name in config if BROKER_CONFIGS[name].scope is Scope.BROKER)
    if own and not broker:
        raise _invalid(
            f"Cannot update these configs at default cluster level, broker id must be specified: Set({', '.join(own)})"
        )
    for name, text in config.items():
        try:
            BROKER_CONFIGS[name].parse(text)
        except ConfigError as error:
            raise _invalid(str(error)) from None
