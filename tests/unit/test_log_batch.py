"""Record batches: what we build, we read; and other people's clients read it too."""

from __future__ import annotations

import random

import pytest
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from raykafka.log.batch import MAX_INT32, Record, advance_sequence, build_batch, crc_of, iter_records, read_header
from raykafka.log.compression import GZIP, LZ4, NONE, SNAPPY, ZSTD, UnreadableRecords, compress, decompress
from tests.lab.log_parts import unhurried

CODECS = (NONE, GZIP, SNAPPY, LZ4, ZSTD)

nullable = st.none() | st.binary(max_size=200)
records = st.builds(
    Record,
    key=nullable,
    value=nullable,
    timestamp=st.integers(0, 2**45),
    headers=st.lists(st.tuples(st.text(max_size=10), nullable), max_size=3).map(tuple),
)


@unhurried
@given(st.lists(records, min_size=1, max_size=20), st.sampled_from(CODECS), st.integers(0, 2**50))
def test_records_come_out_as_they_went_in(items, codec, base_offset):
    built = build_batch(items, base_offset=base_offset, codec=codec)
    header = read_header(built)
    assert header.size == len(built)
    assert header.crc == crc_of(memoryview(built), 0, len(built))
    assert header.max_timestamp == max(item.timestamp for item in items)
    found = list(iter_records(built))
    assert [(r.key, r.value, r.timestamp, [tuple(h) for h in r.headers]) for r in found] == [
        (r.key, r.value, r.timestamp, [tuple(h) for h in r.headers]) for r in items
    ]
    assert [r.offset for r in found] == list(range(base_offset, base_offset + len(items)))


@unhurried
@given(st.lists(records, min_size=1, max_size=10), st.sampled_from(CODECS))
def test_another_client_reads_what_we_build(items, codec):
    theirs = DefaultRecordBatch(bytes(build_batch(items, codec=codec)))
    assert theirs.validate_crc()
    assert [(r.key, r.value, r.timestamp) for r in theirs] == [(r.key, r.value, r.timestamp) for r in items]


@pytest.mark.parametrize("codec", CODECS)
def test_we_read_what_another_client_builds(codec):
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 1 << 20)
    for i in range(50):
        builder.append(i, 1000 + i, b"k%d" % i, b"v" * 1000, [("h", b"x")])
    found = list(iter_records(builder.build()))
    assert [(r.offset, r.timestamp, r.key) for r in found] == [(i, 1000 + i, b"k%d" % i) for i in range(50)]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", [0, 1, 32 * 1024, 64 * 1024 + 1, 300_000])
def test_a_codec_gives_back_every_size(codec, size):
    data = (b"abcdefg" * (size // 7 + 1))[:size]
    assert bytes(decompress(codec, compress(codec, data))) == data


def test_lz4_blocks_never_grow():
    """A block over the frame's 64 KB is one that Java's reader refuses."""
    noise = random.Random(1).randbytes(200_000)
    frame = compress(LZ4, noise)
    assert len(frame) == 7 + 4 * (4 + 1) + len(noise)
    assert bytes(decompress(LZ4, frame)) == noise


def test_snappy_without_framing_is_read():
    import cramjam

    raw = bytes(cramjam.snappy.compress_raw(b"librdkafka sends one raw block"))
    assert decompress(SNAPPY, raw) == b"librdkafka sends one raw block"


@pytest.mark.parametrize("codec", [GZIP, SNAPPY, LZ4, ZSTD, 5])
def test_unreadable_records_are_an_error_of_ours(codec):
    with pytest.raises(UnreadableRecords):
        decompress(codec, b"\x82SNAPPY\x00" + b"\xff" * 20)


def test_records_that_end_too_early_are_unreadable():
    built = build_batch([Record(b"k", b"v" * 50, 1)] * 3)
    short = built[:-60]
    short[8:12] = (len(short) - 12).to_bytes(4, "big")
    with pytest.raises(UnreadableRecords):
        list(iter_records(short))


def test_sequences_wrap_to_zero():
    assert advance_sequence(MAX_INT32, 0) == MAX_INT32
    assert advance_sequence(MAX_INT32, 1) == 0
    assert advance_sequence(MAX_INT32 - 1, 4) == 2
