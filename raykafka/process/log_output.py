"""The log lines of raykafka's processes: to standard error, which Ray keeps in its session's folder."""

from __future__ import annotations

import logging

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def log_to_stderr() -> None:
    """Log from INFO on, with milliseconds, so that the lines of several processes can be read in order."""
    logging.basicConfig(level=logging.INFO, format=_FORMAT)
