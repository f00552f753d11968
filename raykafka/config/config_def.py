"""What a Kafka config key is: its type, default, bounds and scope.

Values travel and are stored as text, as in Kafka;
``ConfigDef.parse`` turns a text into a checked value. Names, types, bounds and defaults are Kafka 3.9's unless a
definition says why not. ``raykafka.config.effective`` finds which of several texts is in force.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any, NamedTuple

from raykafka.errors import ConfigError

Value = bool | int | float | str | tuple[str, ...]


class Fault(NamedTuple):
    """What is wrong with a value, and which part of it to show (None: the whole)."""

    reason: str
    part: str | None = None


Check = Callable[[Any], Fault | None]


class ConfigType(IntEnum):
    """Types, with the numbers that DescribeConfigs gives them."""

    BOOLEAN = 1
    STRING = 2
    INT = 3
    SHORT = 4
    LONG = 5
    DOUBLE = 6
    LIST = 7
    CLASS = 8
    PASSWORD = 9


class Scope(Enum):
    """Where a broker config may be set while brokers run: nowhere, for the whole cluster, or also for one broker."""

    READ_ONLY = "read-only"
    CLUSTER = "cluster-wide"
    BROKER = "per-broker"


@dataclass(frozen=True, slots=True)
class Synonym:
    """A broker config that gives a topic config its default; the topic's value is the broker's times ``factor``."""

    name: str
    factor: int = 1


@dataclass(frozen=True, slots=True)
class ConfigDef:
    """One key. ``default`` is text, or None where there is none. ``check`` says what is wrong with a parsed value, or
    None.

    ``synonyms`` (topic configs) are the broker configs that give the default, the strongest first.
    """

    name: str
    type: ConfigType
    default: str | None
    doc: str
    check: Check | None = None
    importance: str = "MEDIUM"
    scope: Scope = Scope.READ_ONLY
    synonyms: tuple[Synonym, ...] = ()

    @property
    def sensitive(self) -> bool:
        return self.type is ConfigType.PASSWORD

    def parse(self, text: str) -> Value:
        """The value that ``text`` stands for. Raises ConfigError with one sentence that names the key and the
        reason."""
        value = self._convert(text.strip())
        fault = self.check(value) if self.check else None
        if fault is not None:
            shown = fault.part or (f"[{', '.join(value)}]" if isinstance(value, tuple) else str(value))
            raise self._invalid(shown, fault.reason.replace("{name}", self.name))
        return value

    def _convert(self, text: str) -> Value:
        if self.type is ConfigType.BOOLEAN:
            if text.lower() not in ("true", "false"):
                raise self._invalid(text, "Expected value to be either true or false")
            return text.lower() == "true"
        if self.type in _INTEGER_BITS:
            bound = 1 << (_INTEGER_BITS[self.type] - 1)
            if not re.fullmatch(r"[+-]?[0-9]+", text) or not -bound <= int(text) < bound:
                raise self._invalid(text, f"Not a number of type {self.type.name}")
            return int(text)
        if self.type is ConfigType.DOUBLE:
            try:
                return float(text)
            except ValueError:
                raise self._invalid(text, "Not a number of type DOUBLE") from None
        if self.type is ConfigType.LIST:
            return tuple(re.split(r"\s*,\s*", text)) if text else ()
        return text

    def _invalid(self, text: str, reason: str) -> ConfigError:
        return ConfigError(f"Invalid value {text} for configuration {self.name}: {reason}")


_INTEGER_BITS = {ConfigType.SHORT: 16, ConfigType.INT: 32, ConfigType.LONG: 64}


# checks; their sentences are Kafka's, since tools show them


def at_least(least: float) -> Check:
    return lambda value: None if value >= least else Fault(f"Value must be at least {least}")


def between(least: float, most: float) -> Check:
    def check(value: float) -> Fault | None:
        if value < least:
            return Fault(f"Value must be at least {least}")
        return None if value <= most else Fault(f"Value must be no more than {most}")

    return check


def one_of(*allowed: str) -> Check:
    fault = Fault(f"String must be one of: {', '.join(allowed)}")
    return lambda value: None if value in allowed else fault


def each_of(*allowed: str) -> Check:
    reason = f"String must be one of: {', '.join(allowed)}"
    return lambda values: next((Fault(reason, value) for value in values if value not in allowed), None)


def gzip_level(value: int) -> Fault | None:
    return None if value == -1 or 1 <= value <= 9 else Fault("Value must be between 1 and 9 or equal to -1")


def message_format(value: str) -> Fault | None:
    """A Kafka version such as 2.8 or 3.0-IV1."""
    return (
        None if re.fullmatch(r"[0-4]\.\d+(\.\d+)?(-IV\d)?", value) else Fault(f"Version {value} is not a valid version")
    )


def throttled_replicas(values: tuple[str, ...]) -> Fault | None:
    """``*``, ``none``, or partition:broker pairs (KIP-73)."""
    if values in (("*",), ("none",)) or all(re.fullmatch(r"\d+:\d+", v) for v in values):
        return None
    return Fault(
        "{name} must be the literal '*' or a list of replicas in the following format: "
        "[partitionId]:[brokerId],[partitionId]:[brokerId],..."
    )


def table(definitions: Iterable[ConfigDef]) -> dict[str, ConfigDef]:
    """By name, in alphabetical order, as tools list them."""
    return {d.name: d for d in sorted(definitions, key=lambda d: d.name)}
