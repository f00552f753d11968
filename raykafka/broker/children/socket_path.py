"""Where the Unix socket of a broker's children is."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path

from raykafka.errors import DeployError

_LONGEST_PATH_BYTES = 100


def socket_path(data_dir: Path, broker_id: int) -> str:
    """The path to listen on: in the data directory while that is short (a Unix socket's path holds 107 bytes), else in
    a folder of the system's temporary one that is only this user's. Raises DeployError when somebody else has that."""
    path = data_dir / "children.sock"
    if len(os.fsencode(path)) <= _LONGEST_PATH_BYTES:
        return str(path)
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:8]
    directory = Path(tempfile.gettempdir()) / f"rk-{digest}"
    directory.mkdir(mode=0o700, exist_ok=True)
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise DeployError(
            f"{directory} belongs to somebody else: remove it, or give the broker a shorter data directory"
        )
    return str(directory / f"b{broker_id}.sock")
