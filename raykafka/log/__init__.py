"""Kafka's on-disk format: one writer appends, recovers, cuts and expires; readers in other processes follow.

Knows nothing of Ray, sockets or event loops. ``Log`` is the writer, ``LogReader`` a reader.
"""

from raykafka.epoch_history import EpochEntry
from raykafka.log.config import LogConfig
from raykafka.log.epochs import LeaderEpochs
from raykafka.log.lock import DirectoryLocked, LockHolder, lock_holder
from raykafka.log.log import AppendInfo, Log
from raykafka.log.producers import DuplicateSequence, ProducerStates
from raykafka.log.reader import FileRange, FoundOffset, LogReader, StaleRange, WouldBlock
from raykafka.log.seal import LogSeal, read_seal

__all__ = [
    "AppendInfo",
    "DirectoryLocked",
    "DuplicateSequence",
    "EpochEntry",
    "FileRange",
    "FoundOffset",
    "LeaderEpochs",
    "LockHolder",
    "Log",
    "LogConfig",
    "LogReader",
    "LogSeal",
    "ProducerStates",
    "StaleRange",
    "WouldBlock",
    "lock_holder",
    "read_seal",
]
