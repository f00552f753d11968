"""The exclusive lock on a partition's directory: one writer at a time, and a way to learn who it is (rule 4)."""

from __future__ import annotations

import fcntl
import os
from functools import cache
from pathlib import Path
from typing import NamedTuple

from raykafka.errors import RaykafkaError
from raykafka.log.files import write_all

LOCK_FILE = ".lock"
_HOLDER_BYTES = 96  # of one length whoever it is, so that a successor writes over it


class LockHolder(NamedTuple):
    """A process, told apart from a later one of the same pid by its start time (clock ticks since boot) and the
    boot's id.
    """

    pid: int
    start_time: int
    boot_id: str


class DirectoryLocked(RaykafkaError):
    """Another process writes this directory. ``holder`` is None while it has not yet written who it is."""

    def __init__(self, directory: Path, holder: LockHolder | None) -> None:
        super().__init__(f"{directory} is locked by " + (f"process {holder.pid}" if holder else "another process"))
        self.holder = holder


@cache
def boot_id() -> str:
    """The id that the kernel gave this boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def process_start_time(pid: int) -> int | None:
    """When ``pid`` started, in clock ticks since boot; None when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat.rpartition(")")[2].split()[19])


class DirectoryLock:
    """Held from construction until ``release`` or the end of the process. Raises DirectoryLocked, and OSError where the
    disk is too full to write down who holds it: then it is not held."""

    def __init__(self, directory: Path) -> None:
        self._fd = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _parse(os.pread(self._fd, 256, 0))
            os.close(self._fd)
            raise DirectoryLocked(directory, holder) from None
        try:
            self._sign()
        except OSError:
            os.close(self._fd)
            raise

    def _sign(self) -> None:
        write_all(self._fd, _this_process(os.getpid()), 0)

    def release(self) -> None:
        """Release the lock."""
        os.close(self._fd)


@cache
def _this_process(pid: int) -> bytes:
    """What a lock of the process ``pid`` holds. A forked child has a pid of its own."""
    return f"{pid} {process_start_time(pid)} {boot_id()}".ljust(_HOLDER_BYTES - 1).encode() + b"\n"


def _parse(content: bytes) -> LockHolder | None:
    fields = content.decode(errors="replace").split()
    if len(fields) != 3 or not fields[0].isdigit() or not fields[1].isdigit():
        return None
    return LockHolder(int(fields[0]), int(fields[1]), fields[2])


def lock_holder(directory: Path) -> LockHolder | None:
    """Who holds the lock on ``directory`` now; None when it is free. Takes the lock for the moment of looking."""
    try:
        fd = os.open(directory / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        # a shared lock, so that two lookers do not see each other as the holder
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _parse(os.pread(fd, 256, 0))
    finally:
        os.close(fd)
    return None
