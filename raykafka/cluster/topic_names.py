"""Which names a topic may have (Kafka's ``Topic.validate`` and ``Topic.hasCollision``)."""

from __future__ import annotations

import re
from collections.abc import Collection

from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError

_MAX_NAME_LENGTH = 249


def check_name(name: str, existing: Collection[str]) -> None:
    """Raise KafkaError(INVALID_TOPIC_EXCEPTION) for a name that Kafka refuses: bad in itself, or one that differs
    from an existing topic only in ``.`` and ``_`` (they are the same in metric names)."""
    reason = ""
    if not name:
        reason = "the empty string is not allowed"
    elif name in (".", ".."):
        reason = f"'{name}' is not allowed"
    elif len(name) > _MAX_NAME_LENGTH:
        reason = f"the length of '{name}' is longer than the max allowed length {_MAX_NAME_LENGTH}"
    elif not re.fullmatch(r"[a-zA-Z0-9._-]+", name):
        reason = f"'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
    if reason:
        raise KafkaError(ErrorCode.INVALID_TOPIC_EXCEPTION, f"Topic name is invalid: {reason}")
    same = [other for other in existing if other != name and other.replace(".", "_") == name.replace(".", "_")]
    if same:
        raise KafkaError(
            ErrorCode.INVALID_TOPIC_EXCEPTION,
            f"Topic '{name}' collides with existing topics: {', '.join(sorted(same))}",
        )
