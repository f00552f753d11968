"""The codecs that a record batch's attributes name, as Kafka's clients frame them.

Snappy comes in two forms on the wire: the Java client's own framing (the "xerial" stream: a magic, two version numbers,
then length-prefixed raw blocks), and one raw block, which librdkafka sends. Both are read; the framed form is written,
because every client reads it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import cramjam

NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
CODEC_NAMES = ("none", "gzip", "snappy", "lz4", "zstd")
CODEC_OF_NAME = {name: codec for codec, name in enumerate(CODEC_NAMES)} | {"uncompressed": NONE}

Buffer = bytes | bytearray | memoryview

_XERIAL_MAGIC = b"\x82SNAPPY\x00"
_XERIAL_HEADER = _XERIAL_MAGIC + struct.pack(">ii", 1, 1)
_XERIAL_BLOCK_BYTES = 32 * 1024

_LZ4_HEADER = bytes.fromhex("04224d18 60 40 82")  # magic; version 1, independent blocks; 64 KB each; check byte
_LZ4_BLOCK_BYTES = 64 * 1024
_LZ4_NOT_COMPRESSED = 0x80000000
_LZ4_END = bytes(4)


class UnreadableRecords(ValueError):
    """Compressed records that their codec cannot read, or a codec that does not exist."""


def _snappy_decompress(data: Buffer) -> bytes:
    view = memoryview(data)
    if bytes(view[:8]) != _XERIAL_MAGIC:
        return bytes(cramjam.snappy.decompress_raw(view))
    parts, position = [], len(_XERIAL_HEADER)
    while position < len(view):
        size = int.from_bytes(view[position : position + 4], "big")
        position += 4
        if position + size > len(view):
            raise ValueError("a snappy block reaches past the end of its batch")
        parts.append(bytes(cramjam.snappy.decompress_raw(view[position : position + size])))
        position += size
    return b"".join(parts)


def _snappy_compress(data: Buffer) -> bytes:
    view, parts = memoryview(data), [_XERIAL_HEADER]
    for start in range(0, len(view), _XERIAL_BLOCK_BYTES):
        block = bytes(cramjam.snappy.compress_raw(view[start : start + _XERIAL_BLOCK_BYTES]))
        parts += [len(block).to_bytes(4, "big"), block]
    return b"".join(parts)


def _lz4_compress(data: Buffer, level: int | None) -> bytes:
    # The frame is laid out here because Kafka's Java client reads only frames of independent blocks.
    view, parts = memoryview(data), [_LZ4_HEADER]
    for start in range(0, len(view), _LZ4_BLOCK_BYTES):
        plain = view[start : start + _LZ4_BLOCK_BYTES]
        if level is None:
            block = bytes(cramjam.lz4.compress_block(plain, store_size=False))
        else:
            block = bytes(
                cramjam.lz4.compress_block(plain, mode="high_compression", compression=level, store_size=False)
            )
        if len(block) < len(plain):
            parts += [struct.pack("<I", len(block)), block]
        else:
            parts += [struct.pack("<I", len(plain) | _LZ4_NOT_COMPRESSED), bytes(plain)]
    return b"".join([*parts, _LZ4_END])


_DECOMPRESS: dict[int, Callable[[Buffer], bytes]] = {
    GZIP: lambda data: bytes(cramjam.gzip.decompress(data)),
    SNAPPY: _snappy_decompress,
    LZ4: lambda data: bytes(cramjam.lz4.decompress(data)),
    ZSTD: lambda data: bytes(cramjam.zstd.decompress(data)),
}
_COMPRESS: dict[int, Callable[[Buffer, int | None], bytes]] = {
    GZIP: lambda data, level: bytes(cramjam.gzip.compress(data, level)),
    SNAPPY: lambda data, level: _snappy_compress(data),
    LZ4: _lz4_compress,
    ZSTD: lambda data, level: bytes(cramjam.zstd.compress(data, level)),
}


def decompress(codec: int, data: Buffer) -> Buffer:
    """The records section of a batch, uncompressed. Raises UnreadableRecords."""
    if codec == NONE:
        return data
    if codec not in _DECOMPRESS:
        raise UnreadableRecords(f"there is no compression codec {codec}")
    try:
        return _DECOMPRESS[codec](data)
    except (ValueError, cramjam.DecompressionError) as error:
        raise UnreadableRecords(f"{CODEC_NAMES[codec]}: {error}") from error


def compress(codec: int, data: Buffer, level: int | None = None) -> Buffer:
    """``data`` as the records section of a batch of ``codec``; ``level`` None is the codec's own default."""
    return data if codec == NONE else _COMPRESS[codec](data, level)
