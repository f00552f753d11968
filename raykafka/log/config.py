"""What a topic's config says about its logs, parsed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from raykafka.log.compression import CODEC_OF_NAME, GZIP, LZ4, ZSTD

UNLIMITED = -1
_MAX_INT64 = 2**63 - 1


@dataclass(frozen=True, slots=True)
class LogConfig:
    """The settings that a log obeys; Kafka 3.9's topic defaults. ``compression_codec`` is None for ``producer``."""

    segment_bytes: int = 1 << 30
    segment_ms: int = 7 * 24 * 3600 * 1000
    segment_jitter_ms: int = 0
    segment_index_bytes: int = 10 << 20
    index_interval_bytes: int = 4096
    max_message_bytes: int = 1048588
    retention_ms: int = 7 * 24 * 3600 * 1000
    retention_bytes: int = UNLIMITED
    compact: bool = False
    delete: bool = True
    log_append_time: bool = False
    message_timestamp_before_max_ms: int = _MAX_INT64
    message_timestamp_after_max_ms: int = 3600 * 1000
    compression_codec: int | None = None
    compression_level: int | None = None
    flush_messages: int = _MAX_INT64
    flush_ms: int = _MAX_INT64
    file_delete_delay_ms: int = 60_000
    producer_id_expiration_ms: int = 24 * 3600 * 1000

    @staticmethod
    def from_topic_config(config: Mapping[str, str]) -> LogConfig:
        """From effective topic configs by Kafka's names; those that are missing or foreign to a log are passed over."""
        values: dict[str, int | bool | None] = {}
        for key, field in _INTEGERS.items():
            if key in config:
                values[field] = int(config[key])
        if "cleanup.policy" in config:
            policies = {policy.strip() for policy in config["cleanup.policy"].split(",")}
            values["compact"] = "compact" in policies
            values["delete"] = "delete" in policies
        if "message.timestamp.type" in config:
            values["log_append_time"] = config["message.timestamp.type"] == "LogAppendTime"
        compression = config.get("compression.type", "producer")
        if compression != "producer":
            codec = CODEC_OF_NAME[compression]
            values["compression_codec"] = codec
            level = config.get(_LEVELS[codec]) if codec in _LEVELS else None
            if level is not None and not (codec == GZIP and int(level) < 0):  # gzip's -1 is "its own default"
                values["compression_level"] = int(level)
        return LogConfig(**values)  # type: ignore[arg-type]


_LEVELS = {GZIP: "compression.gzip.level", LZ4: "compression.lz4.level", ZSTD: "compression.zstd.level"}

_INTEGERS = {
    "segment.bytes": "segment_bytes",
    "segment.ms": "segment_ms",
    "segment.jitter.ms": "segment_jitter_ms",
    "segment.index.bytes": "segment_index_bytes",
    "index.interval.bytes": "index_interval_bytes",
    "max.message.bytes": "max_message_bytes",
    "retention.ms": "retention_ms",
    "retention.bytes": "retention_bytes",
    "message.timestamp.before.max.ms": "message_timestamp_before_max_ms",
    "message.timestamp.after.max.ms": "message_timestamp_after_max_ms",
    "flush.messages": "flush_messages",
    "flush.ms": "flush_ms",
    "file.delete.delay.ms": "file_delete_delay_ms",
    "producer.id.expiration.ms": "producer_id_expiration_ms",
}
