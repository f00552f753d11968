"""Files that are replaced whole, and names that outlive a crash."""

from __future__ import annotations

import os
from pathlib import Path


def sync_directory(directory: Path) -> None:
    """Make the names in ``directory`` durable. OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_whole(path: Path, content: bytes, mode: int = 0o644, *, sync_name: bool = True) -> None:
    """Replace ``path`` by ``content``, durably: after a crash it holds the old content or the new, never a part.
    Without ``sync_name`` it may be the old one until the directory is synced. OSError.
    """
    temporary = path.with_name(path.name + ".tmp")
    write_new(temporary, content, mode)
    os.replace(temporary, path)
    if sync_name:
        sync_directory(path.parent)


def write_new(path: str | Path, content: bytes, mode: int = 0o644) -> None:
    """Write ``content`` in place, and wait until the disk has it: a crash may leave any part of it. Its name is durable
    once the directory is synced. OSError.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    finally:
        os.close(fd)
