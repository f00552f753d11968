"""The names of the files in a partition's directory, and how they are written."""

from __future__ import annotations

import os
import uuid
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.process.durable import sync_directory, write_new, write_whole

LOG = ".log"
INDEX = ".index"
TIME_INDEX = ".timeindex"
TRANSACTION_INDEX = ".txnindex"
SNAPSHOT = ".snapshot"
DELETED = ".deleted"
SEGMENT_SUFFIXES = (LOG, INDEX, TIME_INDEX, TRANSACTION_INDEX)

EPOCH_FILE = "leader-epoch-checkpoint"
METADATA_FILE = "partition.metadata"

_READ_BYTES = 1 << 16


def storage_error(doing: str, error: OSError) -> KafkaError:
    """A KafkaError with KAFKA_STORAGE_ERROR for a call to the operating system that failed while ``doing``
    something."""
    return KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, f"{doing}: {error.strerror or error}")


def offset_name(offset: int, suffix: str) -> str:
    """Kafka's file name for what starts at ``offset``: 20 digits and a suffix."""
    return f"{offset:020d}{suffix}"


def offset_of_name(name: str) -> int | None:
    """The offset that a file name starts with, or None for another kind of file."""
    digits = name.partition(".")[0]
    return int(digits) if len(digits) == 20 and digits.isdigit() else None


def read_file(path: str) -> bytes | None:
    """The content of a small file, None where there is none. In three system calls. OSError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        content = chunk = os.read(fd, _READ_BYTES)
        while len(chunk) == _READ_BYTES:
            chunk = os.read(fd, _READ_BYTES)
            content += chunk
        return content
    finally:
        os.close(fd)


def write_all(fd: int, data: memoryview | bytes | bytearray, position: int) -> None:
    """pwrite until everything is written. Raises OSError; how much was written before it is unknown."""
    written = os.pwrite(fd, data, position)
    if written != len(data):
        view = memoryview(data)
        while written < len(view):
            written += os.pwrite(fd, view[written:], position + written)


def topic_id_text(topic_id: uuid.UUID) -> str:
    """A topic id as Kafka prints it: URL-safe base64 without padding."""
    return urlsafe_b64encode(topic_id.bytes).decode().rstrip("=")


def _metadata(topic_id: uuid.UUID) -> bytes:
    return f"version: 0\ntopic_id: {topic_id_text(topic_id)}\n".encode()


_METADATA_BYTES = len(_metadata(uuid.UUID(int=0)))


def read_topic_id(directory: Path) -> uuid.UUID | None:
    """The topic id in ``directory``'s partition.metadata, or None without that file, or where its writing was cut
    short. Raises KafkaError if it is unreadable.
    """
    content = _read_metadata(directory)
    return None if content is None else _topic_id_in(directory, content)


def _read_metadata(directory: Path) -> bytes | None:
    content = read_file(f"{directory}/{METADATA_FILE}")
    if content is None or len(content) < _METADATA_BYTES - 1 or b"\0" in content:  # Kafka writes no last newline
        return None
    return content


def _topic_id_in(directory: Path, content: bytes) -> uuid.UUID:
    try:
        fields = dict(line.split(": ", 1) for line in content.decode().split("\n") if ": " in line)
        if fields["version"] != "0":
            raise ValueError(f"version {fields['version']} is not known")
        return uuid.UUID(bytes=urlsafe_b64decode(fields["topic_id"] + "=="))
    except (KeyError, ValueError) as error:
        raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, f"{directory / METADATA_FILE} is malformed: {error}") from error


def claim(directory: Path, topic_id: uuid.UUID, begin_with: Mapping[str, bytes] = MappingProxyType({})) -> bool:
    """Write ``topic_id`` into a new partition directory; whether it was new. ``begin_with``: other files of a new log,
    which are durable before the id is; a directory without a whole id is a new one. Raises OSError, and KafkaError with
    INCONSISTENT_TOPIC_ID if the directory is another topic's."""
    ours = _metadata(topic_id)
    content = _read_metadata(directory)
    if content is None:
        for name, first in begin_with.items():
            write_whole(directory / name, first, sync_name=False)
        write_new(f"{directory}/{METADATA_FILE}", ours)
        # the names last: the disk has them with what was written, as a rule, and there is nothing left to wait for
        sync_directory(directory)
        sync_directory(directory.parent)
        return True
    if content != ours and (found := _topic_id_in(directory, content)) != topic_id:
        raise KafkaError(
            ErrorCode.INCONSISTENT_TOPIC_ID,
            f"{directory} holds topic id {topic_id_text(found)}, not {topic_id_text(topic_id)}",
        )
    return False
