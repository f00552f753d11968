"""What the broker's config says about groups, under Kafka's names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class GroupConfig:
    """Kafka's broker configs of classic groups, with Kafka 3.9's defaults."""

    group_initial_rebalance_delay_ms: int = 3000
    group_min_session_timeout_ms: int = 6000
    group_max_session_timeout_ms: int = 1_800_000
    group_max_size: int = 2_147_483_647
    offset_metadata_max_bytes: int = 4096
    offsets_commit_timeout_ms: int = 5000
    offsets_load_buffer_size: int = 5_242_880
    offsets_retention_minutes: int = 10_080
    offsets_retention_check_interval_ms: int = 600_000

    @staticmethod
    def from_broker_config(config: Mapping[str, str]) -> GroupConfig:
        """Read ``config`` (Kafka's keys, values as text); keys that are not about groups are ignored."""
        given = {f.name: f.name.replace("_", ".") for f in fields(GroupConfig)}
        return GroupConfig(**{name: int(config[key]) for name, key in given.items() if key in config})
