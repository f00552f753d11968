"""Which value of a config is in force, and where it comes from.

Precedence is Kafka's: a topic's own setting, then one broker's dynamic setting, then the cluster's dynamic default,
then the broker's static file, then the built-in default. A topic config without a setting of its own takes the broker
configs behind it (its synonyms), each looked up in that order, the strongest synonym first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from raykafka.config.definitions import BROKER_CONFIGS, TOPIC_CONFIGS, ConfigDef, Scope, Synonym

Texts = Mapping[str, str]


class ConfigSource(IntEnum):
    """Sources, with the numbers that DescribeConfigs gives them."""

    TOPIC = 1
    DYNAMIC_BROKER = 2
    DYNAMIC_DEFAULT_BROKER = 3
    STATIC_BROKER = 4
    DEFAULT = 5


@dataclass(frozen=True, slots=True)
class SynonymValue:
    """A place where the value could come from, as DescribeConfigs lists them, the one in force first."""

    name: str
    value: str
    source: ConfigSource


@dataclass(frozen=True, slots=True)
class ConfigValue:
    """A config as DescribeConfigs shows it. ``value`` is None where there is none, and for passwords."""

    definition: ConfigDef
    value: str | None
    source: ConfigSource
    synonyms: tuple[SynonymValue, ...]
    read_only: bool

    @property
    def name(self) -> str:
        return self.definition.name


# Broker configs that say the same in different units, the strongest first.
_UNITS = (
    ("log.roll.ms", "log.roll.hours"),
    ("log.roll.jitter.ms", "log.roll.jitter.hours"),
    ("log.flush.interval.ms", "log.flush.scheduler.interval.ms"),
    ("log.retention.ms", "log.retention.minutes", "log.retention.hours"),
)
_BROKER_SYNONYMS = {name: group[at:] for group in _UNITS for at, name in enumerate(group)}


def broker_synonyms(name: str) -> tuple[str, ...]:
    """The broker config and those it falls back to, the strongest first."""
    return _BROKER_SYNONYMS.get(name, (name,))


def effective_topic_config(
    topic_config: Texts, broker_dynamic: Texts, default_dynamic: Texts, static: Texts
) -> dict[str, str]:
    """Every topic config's text in force. Arguments are the four places where a setting may stand, by config name."""
    return {
        name: _topic_text(definition, topic_config, broker_dynamic, default_dynamic, static)
        for name, definition in TOPIC_CONFIGS.items()
    }


def effective_broker_config(broker_dynamic: Texts, default_dynamic: Texts, static: Texts) -> dict[str, str]:
    """Every broker config's text in force; a config without any value is left out."""
    found = {name: _broker_text(name, broker_dynamic, default_dynamic, static) for name in BROKER_CONFIGS}
    return {name: text for name, text in found.items() if text is not None}


def describe_topic(
    topic_config: Texts, broker_dynamic: Texts, default_dynamic: Texts, static: Texts
) -> list[ConfigValue]:
    """All of a topic's configs as DescribeConfigs shows them."""
    described = []
    for name, definition in TOPIC_CONFIGS.items():
        synonyms: list[SynonymValue] = []
        if name in topic_config:
            synonyms.append(SynonymValue(name, topic_config[name], ConfigSource.TOPIC))
        if definition.synonyms:
            names = broker_synonyms(definition.synonyms[0].name)
            synonyms += _places(names, broker_dynamic, default_dynamic, static)
        text = _topic_text(definition, topic_config, broker_dynamic, default_dynamic, static)
        source = synonyms[0].source if synonyms else ConfigSource.DEFAULT
        described.append(ConfigValue(definition, text, source, tuple(synonyms), read_only=False))
    return described


def describe_broker(broker_dynamic: Texts, default_dynamic: Texts, static: Texts) -> list[ConfigValue]:
    """All of one broker's configs as DescribeConfigs shows them."""
    described = []
    for name, definition in BROKER_CONFIGS.items():
        synonyms = _places(broker_synonyms(name), broker_dynamic, default_dynamic, static)
        text = _broker_text(name, broker_dynamic, default_dynamic, static)
        if definition.sensitive:
            text, synonyms = None, []
        source = synonyms[0].source if synonyms else ConfigSource.DEFAULT
        read_only = definition.scope is Scope.READ_ONLY
        described.append(ConfigValue(definition, text, source, tuple(synonyms), read_only))
    return described


def describe_cluster_default(default_dynamic: Texts) -> list[ConfigValue]:
    """The dynamic defaults that stand for every broker: what DescribeConfigs shows for the broker named ""."""
    described = []
    for name, text in sorted(default_dynamic.items()):
        place = SynonymValue(name, text, ConfigSource.DYNAMIC_DEFAULT_BROKER)
        described.append(ConfigValue(BROKER_CONFIGS[name], text, place.source, (place,), read_only=False))
    return described


def _topic_text(
    definition: ConfigDef, topic_config: Texts, broker_dynamic: Texts, default_dynamic: Texts, static: Texts
) -> str:
    if definition.name in topic_config:
        return topic_config[definition.name].strip()
    for synonym in definition.synonyms:
        text = _broker_text(synonym.name, broker_dynamic, default_dynamic, static)
        if text is not None:
            return _times(text, synonym)
    assert definition.default is not None
    return definition.default


def _times(text: str, synonym: Synonym) -> str:
    return text if synonym.factor == 1 else str(max(int(text) * synonym.factor, -1))


def _broker_text(name: str, broker_dynamic: Texts, default_dynamic: Texts, static: Texts) -> str | None:
    for place in (broker_dynamic, default_dynamic, static):
        if name in place:
            return place[name].strip()
    definition = BROKER_CONFIGS.get(name)
    return definition.default if definition else None


def _places(names: tuple[str, ...], broker_dynamic: Texts, default_dynamic: Texts, static: Texts) -> list[SynonymValue]:
    """Where a value for ``names`` stands. A mere default under a fallback's name is not worth a line, as in Kafka."""
    defaults = {n: d for n in names if (d := BROKER_CONFIGS[n].default) is not None}
    found = [
        SynonymValue(name, place[name], source)
        for place, source in (
            (broker_dynamic, ConfigSource.DYNAMIC_BROKER),
            (default_dynamic, ConfigSource.DYNAMIC_DEFAULT_BROKER),
            (static, ConfigSource.STATIC_BROKER),
            (defaults, ConfigSource.DEFAULT),
        )
        for name in names
        if name in place
    ]
    if all(place.source is ConfigSource.DEFAULT and place.name != names[0] for place in found):
        return []
    return found
