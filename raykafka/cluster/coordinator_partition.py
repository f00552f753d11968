"""Which partition of ``__consumer_offsets`` (or ``__transaction_state``) a group (or transactional id) belongs to."""

from __future__ import annotations


def java_hash(text: str) -> int:
    """Java's ``String.hashCode``: over UTF-16 code units, a signed 32-bit number."""
    value = 0
    units = text.encode("utf-16-be", "surrogatepass")
    for i in range(0, len(units), 2):
        value = (31 * value + (units[i] << 8 | units[i + 1])) & 0xFFFFFFFF
    return value - (1 << 32) if value & 0x80000000 else value


def partition_for(key: str, partitions: int) -> int:
    """Kafka's ``Utils.abs(hashCode) % partitions``, where the absolute value of -2**31 is 0."""
    value = java_hash(key)
    return 0 if value == -(1 << 31) else abs(value) % partitions
