"""Every topic config of Kafka 3.9: type, default, bounds, and the broker configs that stand behind it."""

from __future__ import annotations

from raykafka.config.config_def import (
    Check,
    ConfigDef,
    ConfigType,
    Synonym,
    at_least,
    between,
    each_of,
    gzip_level,
    message_format,
    one_of,
    table,
    throttled_replicas,
)

MAX_LONG = (1 << 63) - 1
COMPRESSION_TYPES = ("uncompressed", "zstd", "lz4", "snappy", "gzip", "producer")
HOUR_MS = 3_600_000
MINUTE_MS = 60_000


def _topic(
    name: str,
    type_: ConfigType,
    default: object,
    doc: str,
    check: Check | None = None,
    synonyms: tuple[str | Synonym, ...] = (),
    importance: str = "MEDIUM",
) -> ConfigDef:
    behind = tuple(s if isinstance(s, Synonym) else Synonym(s) for s in synonyms)
    return ConfigDef(name, type_, str(default), doc, check, importance, synonyms=behind)


BOOLEAN, STRING, INT, LONG, DOUBLE, LIST = (
    ConfigType.BOOLEAN,
    ConfigType.STRING,
    ConfigType.INT,
    ConfigType.LONG,
    ConfigType.DOUBLE,
    ConfigType.LIST,
)

TOPIC_CONFIGS = table(
    [
        _topic(
            "cleanup.policy",
            LIST,
            "delete",
            "What becomes of old segments: 'delete' drops them when retention time or size is passed, "
            "'compact' keeps the newest record of each key. Both may be named, separated by a comma.",
            each_of("compact", "delete"),
            ("log.cleanup.policy",),
        ),
        _topic(
            "compression.type",
            STRING,
            "producer",
            "The codec of stored batches. 'producer' keeps each batch as its producer sent it; any other value has the "
            "broker compress again where the producer chose differently.",
            one_of(*COMPRESSION_TYPES),
            ("compression.type",),
        ),
        _topic(
            "compression.gzip.level",
            INT,
            -1,
            "The level used when compression.type is gzip; -1 is the codec's own default.",
            gzip_level,
            ("compression.gzip.level",),
        ),
        _topic(
            "compression.lz4.level",
            INT,
            9,
            "The level used when compression.type is lz4.",
            between(1, 17),
            ("compression.lz4.level",),
        ),
        _topic(
            "compression.zstd.level",
            INT,
            3,
            "The level used when compression.type is zstd.",
            between(-131072, 22),
            ("compression.zstd.level",),
        ),
        _topic(
            "delete.retention.ms",
            LONG,
            86_400_000,
            "How long a compacted topic keeps the marker of a deleted key, in milliseconds. A consumer that "
            "reads from the start must finish within it to be sure to see every deletion.",
            at_least(0),
            ("log.cleaner.delete.retention.ms",),
        ),
        _topic(
            "file.delete.delay.ms",
            LONG,
            60_000,
            "How long a removed segment's files stay on disk, in milliseconds, for readers that still hold them.",
            at_least(0),
            ("log.segment.delete.delay.ms",),
        ),
        _topic(
            "flush.messages",
            LONG,
            MAX_LONG,
            "Force the log to disk each time this many records were written. By default replication, not fsync, keeps "
            "records safe.",
            at_least(1),
            ("log.flush.interval.messages",),
        ),
        _topic(
            "flush.ms",
            LONG,
            MAX_LONG,
            "Force the log to disk once a record has waited this many milliseconds.",
            at_least(0),
            ("log.flush.interval.ms", "log.flush.scheduler.interval.ms"),
        ),
        _topic(
            "follower.replication.throttled.replicas",
            LIST,
            "",
            "Replicas whose catching up counts against the follower's replication quota: partition:broker pairs, or * "
            "for all of this topic's.",
            throttled_replicas,
        ),
        _topic(
            "index.interval.bytes",
            INT,
            4096,
            "About how many bytes of log lie between two entries of the offset index. Fewer make the index larger and "
            "lookups nearer.",
            at_least(0),
            ("log.index.interval.bytes",),
        ),
        _topic(
            "leader.replication.throttled.replicas",
            LIST,
            "",
            "Replicas whose feeding counts against the leader's replication quota: partition:broker pairs, "
            "or * for all of this topic's.",
            throttled_replicas,
        ),
        _topic(
            "local.retention.bytes",
            LONG,
            -2,
            "Kept for tools that know Kafka's tiered storage, which is not served: -2 means retention.bytes.",
            at_least(-2),
            ("log.local.retention.bytes",),
        ),
        _topic(
            "local.retention.ms",
            LONG,
            -2,
            "Kept for tools that know Kafka's tiered storage, which is not served: -2 means retention.ms.",
            at_least(-2),
            ("log.local.retention.ms",),
        ),
        _topic(
            "max.compaction.lag.ms",
            LONG,
            MAX_LONG,
            "The longest a record may stay out of compaction, in milliseconds. Only for compacted topics.",
            at_least(1),
            ("log.cleaner.max.compaction.lag.ms",),
        ),
        _topic(
            "max.message.bytes",
            INT,
            1_048_588,
            "The largest record batch that is taken, in bytes as sent (after compression).",
            at_least(0),
            ("message.max.bytes",),
        ),
        _topic(
            "message.downconversion.enable",
            BOOLEAN,
            "true",
            "Kept for tools: batches are never rewritten to the message formats before version 2, so this "
            "has no effect.",
            synonyms=("log.message.downconversion.enable",),
            importance="LOW",
        ),
        _topic(
            "message.format.version",
            STRING,
            "3.0-IV1",
            "Kept for tools: the message format is always version 2, whatever this says.",
            message_format,
            ("log.message.format.version",),
        ),
        _topic(
            "message.timestamp.after.max.ms",
            LONG,
            MAX_LONG,
            "How far ahead of the broker's clock a record's timestamp may be, in milliseconds. Ignored with "
            "LogAppendTime.",
            at_least(0),
            ("log.message.timestamp.after.max.ms",),
        ),
        _topic(
            "message.timestamp.before.max.ms",
            LONG,
            MAX_LONG,
            "How far behind the broker's clock a record's timestamp may be, in milliseconds. Ignored with "
            "LogAppendTime.",
            at_least(0),
            ("log.message.timestamp.before.max.ms",),
        ),
        _topic(
            "message.timestamp.difference.max.ms",
            LONG,
            MAX_LONG,
            "Deprecated: how far a record's timestamp may be from the broker's clock either way, in milliseconds. The "
            "before and after configs win over it.",
            at_least(0),
            ("log.message.timestamp.difference.max.ms",),
        ),
        _topic(
            "message.timestamp.type",
            STRING,
            "CreateTime",
            "Whether a record keeps the time its producer gave it (CreateTime) or gets the broker's (LogAppendTime).",
            one_of("CreateTime", "LogAppendTime"),
            ("log.message.timestamp.type",),
        ),
        _topic(
            "min.cleanable.dirty.ratio",
            DOUBLE,
            0.5,
            "The share of a compacted log that must be uncompacted before the cleaner takes it up, from 0 to 1. Higher "
            "means fewer cleanings and more wasted space.",
            between(0, 1),
            ("log.cleaner.min.cleanable.ratio",),
        ),
        _topic(
            "min.compaction.lag.ms",
            LONG,
            0,
            "How long a record is safe from compaction, in milliseconds. Only for compacted topics.",
            at_least(0),
            ("log.cleaner.min.compaction.lag.ms",),
        ),
        _topic(
            "min.insync.replicas",
            INT,
            1,
            "How many replicas must be in sync for a write with acks=all to be taken; with fewer, producers get "
            "NotEnoughReplicas.",
            at_least(1),
            ("min.insync.replicas",),
        ),
        _topic(
            "preallocate",
            BOOLEAN,
            "false",
            "Reserve a new segment's whole size on disk when it is created.",
            synonyms=("log.preallocate",),
        ),
        _topic(
            "remote.log.copy.disable",
            BOOLEAN,
            "false",
            "Kept for tools that know Kafka's tiered storage, which is not served.",
        ),
        _topic(
            "remote.log.delete.on.disable",
            BOOLEAN,
            "false",
            "Kept for tools that know Kafka's tiered storage, which is not served.",
        ),
        _topic(
            "remote.storage.enable",
            BOOLEAN,
            "false",
            "Kept for tools that know Kafka's tiered storage, which is not served: it can't be turned on.",
        ),
        _topic(
            "retention.bytes",
            LONG,
            -1,
            "How large a partition may grow before its oldest segments are deleted, in bytes; -1 is without limit. "
            "Counted per partition, not per topic.",
            synonyms=("log.retention.bytes",),
        ),
        _topic(
            "retention.ms",
            LONG,
            604_800_000,
            "How long records are kept before their segment is deleted, in milliseconds; -1 is for ever.",
            at_least(-1),
            (
                "log.retention.ms",
                Synonym("log.retention.minutes", MINUTE_MS),
                Synonym("log.retention.hours", HOUR_MS),
            ),
        ),
        _topic(
            "segment.bytes",
            INT,
            1_073_741_824,
            "The size at which a log begins a new segment file, in bytes. Retention and compaction work on "
            "whole segments.",
            at_least(14),
            ("log.segment.bytes",),
        ),
        _topic(
            "segment.index.bytes",
            INT,
            10_485_760,
            "The largest size of a segment's offset index, in bytes; a full index also begins a new segment.",
            at_least(4),
            ("log.index.size.max.bytes",),
        ),
        _topic(
            "segment.jitter.ms",
            LONG,
            0,
            "The most by which a segment's end by age is brought forward at random, in milliseconds, so that many logs "
            "do not roll at once.",
            at_least(0),
            ("log.roll.jitter.ms", Synonym("log.roll.jitter.hours", HOUR_MS)),
        ),
        _topic(
            "segment.ms",
            LONG,
            604_800_000,
            "The age at which a log begins a new segment even if the old one is not full, in milliseconds.",
            at_least(1),
            ("log.roll.ms", Synonym("log.roll.hours", HOUR_MS)),
        ),
        _topic(
            "unclean.leader.election.enable",
            BOOLEAN,
            "false",
            "Whether a replica that is not in sync may lead when no other is left, at the price of losing "
            "what it lacks.",
            synonyms=("unclean.leader.election.enable",),
        ),
    ]
)
