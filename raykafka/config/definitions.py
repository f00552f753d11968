"""The config keys that are served, by name: ``TOPIC_CONFIGS`` and ``BROKER_CONFIGS``; and what must hold between a
topic's.

Which of several settings of a key is in force is ``raykafka.config.effective``'s matter.
"""

from __future__ import annotations

from collections.abc import Mapping

from raykafka.config.broker_definitions import BROKER_CONFIGS
from raykafka.config.config_def import ConfigDef, ConfigType, Scope, Synonym
from raykafka.config.topic_definitions import TOPIC_CONFIGS
from raykafka.errors import ConfigError

__all__ = ["BROKER_CONFIGS", "TOPIC_CONFIGS", "ConfigDef", "ConfigType", "Scope", "Synonym", "check_topic_config"]


def check_topic_config(config: Mapping[str, str]) -> None:
    """Check a topic's own settings, each alone and together. Raises ConfigError as Kafka 3.9 words it."""
    for name, text in config.items():
        if name not in TOPIC_CONFIGS:
            raise ConfigError(f"Unknown topic config name: {name}")
        TOPIC_CONFIGS[name].parse(text)
    _check_lags(config)
    for name in ("remote.storage.enable", "remote.log.copy.disable", "remote.log.delete.on.disable"):
        if TOPIC_CONFIGS[name].parse(config.get(name, "false")):
            raise ConfigError(
                "Tiered Storage functionality is disabled in the broker. "
                "Topic cannot be configured with remote log storage."
            )


def _check_lags(config: Mapping[str, str]) -> None:
    least, most = "min.compaction.lag.ms", "max.compaction.lag.ms"
    low, high = (int(config.get(n, TOPIC_CONFIGS[n].default or "0")) for n in (least, most))
    if low > high:
        raise ConfigError(f"conflict topic config setting {least} ({low}) > {most} ({high})")
