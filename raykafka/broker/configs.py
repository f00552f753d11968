"""The configs in force on one broker: its static ones, and over them the dynamic ones of the image."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from raykafka.cluster.image import ClusterImage
from raykafka.config.config_def import Value
from raykafka.config.definitions import BROKER_CONFIGS
from raykafka.config.effective import effective_broker_config, effective_topic_config

_CLUSTER_DEFAULT = ""


class Configs:
    """``texts`` maps every broker config that has a value to its text in force."""

    def __init__(self, broker_id: int, static: Mapping[str, str]) -> None:
        self._broker_id = str(broker_id)
        self.static = dict(static)
        self.dynamic: Mapping[str, str] = {}
        self.dynamic_default: Mapping[str, str] = {}
        self._settle()

    def apply(self, image: ClusterImage) -> None:
        """Go by the dynamic configs that ``image`` has for this broker and for all."""
        dynamic = image.broker_configs.get(self._broker_id, {})
        default = image.broker_configs.get(_CLUSTER_DEFAULT, {})
        if dynamic != self.dynamic or default != self.dynamic_default:
            self.dynamic, self.dynamic_default = dynamic, default
            self._settle()

    def _settle(self) -> None:
        self.texts = effective_broker_config(self.dynamic, self.dynamic_default, self.static)
        self.value = lru_cache(None)(self._value)

    def _value(self, name: str) -> Value:
        """The parsed value of a broker config. Raises ConfigError for a bad one, KeyError for one without a value."""
        return BROKER_CONFIGS[name].parse(self.texts[name])

    def flag(self, name: str) -> bool:
        """The value of a boolean config."""
        return bool(self.value(name))

    def number(self, name: str) -> int:
        """The value of an integer config. Raises KeyError for one without a value."""
        value = self.value(name)
        assert isinstance(value, int)
        return value

    def of_topic(self, topic_config: Mapping[str, str]) -> dict[str, str]:
        """All configs of a topic that has ``topic_config`` of its own, as texts."""
        return effective_topic_config(topic_config, self.dynamic, self.dynamic_default, self.static)
