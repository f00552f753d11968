"""The partition directories of a broker: what is there at start, and renaming what is to go (rule 19)."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import NamedTuple

from raykafka.errors import KafkaError, RaykafkaError
from raykafka.log.files import LOG, offset_of_name, read_topic_id
from raykafka.process.durable import sync_directory

DELETE = "-delete"
STRAY = "-stray"
_MAX_NAME_BYTES = 255


class FoundDirectory(NamedTuple):
    """A partition directory that was there at start. ``holds_log``: a log was begun in it. ``unreadable`` says why
    nothing is known of it, and that it must be taken for a log."""

    path: Path
    topic_id: uuid.UUID | None
    holds_log: bool
    unreadable: str | None = None


def scan(log_dir: Path) -> tuple[dict[str, FoundDirectory], list[Path]]:
    """The partition directories in ``log_dir`` by name, and those whose deletion was begun. Reads from the disk.
    OSError where it can't even be listed."""
    found: dict[str, FoundDirectory] = {}
    doomed: list[Path] = []
    for entry in os.scandir(log_dir):
        if not entry.is_dir(follow_symlinks=False):
            continue
        path = Path(entry.path)
        topic, dash, partition = entry.name.rpartition("-")
        if entry.name.endswith(DELETE):
            doomed.append(path)
        elif dash and topic and partition.isdecimal():
            found[entry.name] = _look_at(path)
    return found, doomed


def _look_at(path: Path) -> FoundDirectory:
    try:
        topic_id = read_topic_id(path)
        return FoundDirectory(path, topic_id, topic_id is not None or _holds_segments(path))
    except (KafkaError, OSError) as error:
        return FoundDirectory(path, None, True, str(error))


def _holds_segments(path: Path) -> bool:
    return any(name.endswith(LOG) and offset_of_name(name) is not None for name in os.listdir(path))


def rename_away(directory: Path, suffix: str) -> Path | None:
    """Rename ``<topic>-<p>`` to ``<topic>-<p>.<32 hex><suffix>`` as Kafka does, durably; None when it is not there.
    Raises RaykafkaError. Waits for the disk."""
    ending = f".{uuid.uuid4().hex}{suffix}"
    topic, _, partition = directory.name.rpartition("-")
    room = _MAX_NAME_BYTES - len(ending) - len(partition) - 1
    target = directory.with_name(f"{topic[:room]}-{partition}{ending}")
    try:
        os.rename(directory, target)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RaykafkaError(f"{directory} could not be renamed to {target}: {error}") from error
    sync_directory(directory.parent)
    return target
