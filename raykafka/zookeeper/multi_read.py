"""ZooKeeper's multiRead (since 3.6): many nodes in one request, which kazoo does not know.

One request for each node costs a client some 0.1 ms, most of it for handing it to kazoo's thread: a new controller that
reads thousands of partitions would spend a third of a second on that, while everybody waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from kazoo.client import KazooClient
from kazoo.exceptions import EXCEPTIONS
from kazoo.protocol.paths import _prefix_root
from kazoo.protocol.serialization import GetData, int_struct, multiheader_struct, read_buffer, stat_struct
from kazoo.protocol.states import ZnodeStat

_ERROR = -1
_END = multiheader_struct.pack(-1, True, -1)


@dataclass(frozen=True, slots=True)
class MultiRead:
    """As kazoo's connection takes its own requests: ``deserialize`` gives for each path in order data and stat, or the
    error that a read of it alone would have raised."""

    paths: Sequence[str]
    type: ClassVar[int] = 22

    def serialize(self) -> bytes:
        head = multiheader_struct.pack(GetData.type, False, -1)
        return b"".join(head + bytes(GetData(path, None).serialize()) for path in self.paths) + _END

    @staticmethod
    def deserialize(answer: bytes, offset: int) -> list[Any]:
        found: list[Any] = []
        while True:
            kind, done, _ = multiheader_struct.unpack_from(answer, offset)
            offset += multiheader_struct.size
            if done:
                return found
            if kind == _ERROR:
                (code,) = int_struct.unpack_from(answer, offset)
                offset += int_struct.size
                found.append(EXCEPTIONS[code]())
            else:
                data, offset = read_buffer(answer, offset)
                found.append((data, ZnodeStat._make(stat_struct.unpack_from(answer, offset))))
                offset += stat_struct.size


def read_async(client: KazooClient, paths: Sequence[str]) -> Any:
    """kazoo's AsyncResult of a MultiRead."""
    result = client.handler.async_result()
    client._call(MultiRead([_prefix_root(client.chroot, path) for path in paths]), result)
    return result
