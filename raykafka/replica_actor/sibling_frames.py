"""What replica actors of one broker say to each other of their partitions. All integers are big-endian.

A partition is named by a *handle*: the number that the sibling which watches it has given it on their link.
"""

from __future__ import annotations

import struct

from raykafka.partition.appends import APPEND, APPENDED
from raykafka.partition.view import VIEW, View

__all__ = ["APPEND", "APPENDED", "VIEW", "pack_append", "pack_view", "unpack_append", "unpack_view"]

_APPEND = struct.Struct(">IQbiI")
_HANDLE = struct.Struct(">I")


def pack_append(handle: int, correlation: int, acks: int, leader_epoch: int, timeout_ms: int) -> bytes:
    """The head of an APPEND; the records follow it."""
    return _APPEND.pack(handle, correlation, acks, leader_epoch, timeout_ms)


def unpack_append(payload: memoryview) -> tuple[int, int, int, int, int, memoryview]:
    """Handle, correlation, acks, leader epoch, timeout in ms and the records."""
    handle, correlation, acks, leader_epoch, timeout_ms = _APPEND.unpack_from(payload)
    return handle, correlation, acks, leader_epoch, timeout_ms, payload[_APPEND.size :]


def pack_view(handle: int, view: View) -> bytes:
    return _HANDLE.pack(handle) + view.pack()


def unpack_view(payload: memoryview) -> tuple[int, View]:
    return _HANDLE.unpack_from(payload)[0], View.unpack(payload[_HANDLE.size :])
