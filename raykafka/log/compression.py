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


# What the records of one batch may have at most, decompressed. Every consumer needs as much memory to read them.
MOST_BYTES = 128 * 1024 * 1024
_FIRST_GUESS = 4
_LEAST_ROOM = 4096
_NO_ROOM = "failed to write whole buffer"  # what cramjam says of an output that is too small


class UnreadableRecords(ValueError):
    """Records that are not what their batch says, that their codec cannot read, or are too many bytes; or a codec that
    does not exist."""


class TooManyBytes(UnreadableRecords):
    """They are more than they may be, decompressed."""


def _too_many(most: int) -> TooManyBytes:
    return TooManyBytes(f"a batch has more than {most} bytes of records, decompressed")


def _snappy_decompress(data: Buffer, most: int) -> bytes:
    view = memoryview(data)
    if bytes(view[:8]) != _XERIAL_MAGIC:
        # a block says itself how long it is, and may lie
        if cramjam.snappy.decompress_raw_len(view) > most:
            raise _too_many(most)
        return bytes(cramjam.snappy.decompress_raw(view))
    parts, position, total = [], len(_XERIAL_HEADER), 0
    while position < len(view):
        size = int.from_bytes(view[position : position + 4], "big")
        position += 4
        if position + size > len(view):
            raise ValueError("a snappy block reaches past the end of its batch")
        block = view[position : position + size]
        total += cramjam.snappy.decompress_raw_len(block)
        if total > most:
            raise _too_many(most)
        parts.append(bytes(cramjam.snappy.decompress_raw(block)))
        position += size
    return b"".join(parts)


def _bounded(into: Callable[[Buffer, bytearray], int]) -> Callable[[Buffer, int], Buffer]:
    """``into`` decompresses into a buffer that must be large enough: how large is found out by trying."""

    def decompress(data: Buffer, most: int) -> Buffer:
        room = min(most, max(_LEAST_ROOM, _FIRST_GUESS * len(data)))
        while True:
            out = bytearray(room)
            try:
                size = into(data, out)
            except cramjam.DecompressionError as error:
                if str(error) != _NO_ROOM:
                    raise
                if room == most:
                    raise _too_many(most) from None
                room = min(most, 4 * room)
            else:
                del out[size:]
                return out

    return decompress


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


_DECOMPRESS: dict[int, Callable[[Buffer, int], Buffer]] = {
    GZIP: _bounded(cramjam.gzip.decompress_into),
    SNAPPY: _snappy_decompress,
    LZ4: _bounded(cramjam.lz4.decompress_into),
    ZSTD: _bounded(cramjam.zstd.decompress_into),
}
_COMPRESS: dict[int, Callable[[Buffer, int | None], bytes]] = {
    GZIP: lambda data, level: bytes(cramjam.gzip.compress(data, level)),
    SNAPPY: lambda data, level: _snappy_compress(data),
    LZ4: _lz4_compress,
    ZSTD: lambda data, level: bytes(cramjam.zstd.compress(data, level)),
}


def decompress(codec: int, data: Buffer, most: int = MOST_BYTES) -> Buffer:
    """The records section of a batch, uncompressed: ``most`` bytes of it. Raises UnreadableRecords."""
    if codec == NONE:
        return data
    if codec not in _DECOMPRESS:
        raise UnreadableRecords(f"there is no compression codec {codec}")
    try:
        return _DECOMPRESS[codec](data, most)
    except UnreadableRecords:
        raise
    except (ValueError, cramjam.DecompressionError) as error:
        raise UnreadableRecords(f"{CODEC_NAMES[codec]}: {error}") from error


def compress(codec: int, data: Buffer, level: int | None = None) -> Buffer:
    """``data`` as the records section of a batch of ``codec``; ``level`` None is the codec's own default."""
    return data if codec == NONE else _COMPRESS[codec](data, level)
