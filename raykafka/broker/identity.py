"""Who a broker is on disk: its directory's lock, ``meta.properties``, the clean-shutdown mark (rules 4, 18, 19)."""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from raykafka.errors import RaykafkaError
from raykafka.log.lock import DirectoryLock, DirectoryLocked, boot_id, lock_holder, process_start_time
from raykafka.process.durable import write_whole
from raykafka.zookeeper.znodes import kafka_uuid_text, new_kafka_uuid

META_PROPERTIES = "meta.properties"
CLEAN_SHUTDOWN = ".kafka_cleanshutdown"
_META_VERSION = "0"
_LOCK_POLL_S = 0.05

logger = logging.getLogger(__name__)


class IdentityError(RaykafkaError):
    """The data directory belongs to another broker, another cluster, or to a process that still runs."""


@dataclass(frozen=True, slots=True)
class MetaProperties:
    """The content of ``meta.properties``. ``directory_id`` names this directory for as long as it exists."""

    cluster_id: str
    broker_id: int
    directory_id: str


class DataDirectory:
    """A broker's data directory, held by an exclusive lock until ``release`` or the end of the process.

    Everything here blocks on the disk; call it from a thread.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: DirectoryLock | None = None

    def lock(self, wait_s: float) -> None:
        """Create the directory when it is missing and take its lock, waiting up to ``wait_s`` seconds for a holder that
        is on its way out. Raises IdentityError naming the process that still holds it."""
        self.path.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + wait_s
        while self._lock is None:
            try:
                self._lock = DirectoryLock(self.path)
            except DirectoryLocked as error:
                if time.monotonic() >= deadline:
                    raise IdentityError(
                        f"another broker runs on this data directory: {error}; stop it or choose another directory"
                    ) from None
                time.sleep(_LOCK_POLL_S)

    def release(self) -> None:
        """Give up the lock."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def end_orphans(self, wait_s: float) -> list[int]:
        """Kill the processes of an earlier life that still hold the locks of partitions (rule 4), wait until they are
        gone, return their pids. For who holds the directory's own lock. Raises IdentityError when one won't go."""
        ended = set()
        deadline = time.monotonic() + wait_s
        for directory in sorted(p for p in self.path.iterdir() if p.is_dir()):
            while (holder := lock_holder(directory)) is not None:
                if holder.boot_id == boot_id() and process_start_time(holder.pid) == holder.start_time:
                    with suppress(ProcessLookupError):
                        os.kill(holder.pid, signal.SIGKILL)
                    ended.add(holder.pid)
                if time.monotonic() >= deadline:
                    raise IdentityError(f"process {holder.pid} still writes {directory} and can't be ended")
                time.sleep(_LOCK_POLL_S)
        return sorted(ended)

    def identify(self, cluster_id: str, broker_id: int) -> MetaProperties:
        """Read ``meta.properties``, or write it into a directory that has none. Raises IdentityError when the directory
        is another broker's or another cluster's."""
        path = self.path / META_PROPERTIES
        try:
            found = _parse_properties(path.read_text())
        except FileNotFoundError:
            meta = MetaProperties(cluster_id, broker_id, kafka_uuid_text(new_kafka_uuid()))
            self._write(meta)
            return meta
        if found.get("version") != _META_VERSION:
            raise IdentityError(
                f"{path} has format version {found.get('version')}; this raykafka reads {_META_VERSION}"
            )
        if found.get("broker.id") != str(broker_id):
            raise IdentityError(
                f"{path} says that this directory is broker {found.get('broker.id')}'s, and this is broker "
                f"{broker_id}; give each broker its own data directory"
            )
        if found.get("cluster.id") != cluster_id:
            raise IdentityError(
                f"{path} says cluster id {found.get('cluster.id')}, and ZooKeeper says {cluster_id}; "
                "it holds another cluster's data: check ZooKeeper's address and chroot, or the data directory"
            )
        directory_id = found.get("directory.id")
        meta = MetaProperties(cluster_id, broker_id, directory_id or kafka_uuid_text(new_kafka_uuid()))
        if directory_id is None:
            self._write(meta)
        return meta

    def _write(self, meta: MetaProperties) -> None:
        text = (
            f"#\nversion={_META_VERSION}\ncluster.id={meta.cluster_id}\nbroker.id={meta.broker_id}\n"
            f"directory.id={meta.directory_id}\n"
        )
        write_whole(self.path / META_PROPERTIES, text.encode())

    def clean_shutdown_epoch(self) -> int | None:
        """The broker epoch of the life that closed all its logs at its end, as its mark says; None without a mark. It
        is of use only to the life that follows that one (rule 18)."""
        try:
            mark = json.loads((self.path / CLEAN_SHUTDOWN).read_bytes())
            return int(mark["brokerEpoch"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            logger.warning("%s is no mark of a clean shutdown: %s", self.path / CLEAN_SHUTDOWN, error)
            return None

    def remove_clean_shutdown_mark(self) -> None:
        """The life that follows has begun."""
        (self.path / CLEAN_SHUTDOWN).unlink(missing_ok=True)

    def leave_clean_shutdown_mark(self, broker_epoch: int) -> None:
        """Note that this life of the broker has closed all its logs. Raises OSError."""
        text = json.dumps({"version": 0, "brokerEpoch": broker_epoch})
        write_whole(self.path / CLEAN_SHUTDOWN, text.encode())


def _parse_properties(text: str) -> dict[str, str]:
    found = {}
    for line in text.splitlines():
        if line.strip() and not line.startswith(("#", "!")):
            key, _, value = line.partition("=")
            found[key.strip()] = value.strip()
    return found
