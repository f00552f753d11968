"""How many files and connections a process may have open."""

from __future__ import annotations

import logging
import resource

_MANY = 65_536

logger = logging.getLogger(__name__)


def allow_many() -> None:
    """Raise this process's limit to the highest it may have. A replica actor holds a file for each log at least, and a
    socket for each client."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if 0 <= hard < _MANY:
        logger.warning("only %d files and connections may be open at a time: raise the hard limit (ulimit -Hn)", hard)
