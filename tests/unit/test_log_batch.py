"""Record batches: what we build, we read; and other people's clients read it too."""

from __future__ import annotations

import random

import pytest
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from raykafka.log import batch_layout
from raykafka.log.batch import BatchHeader, Record, advance_sequence, build_batch, crc_of, iter_records, read_header
from raykafka.log.batch_layout import MAX_INT32
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


def test_fields_stand_where_kafkas_documentation_says():
    """Whoever reads one field of a batch in place finds what the whole header says."""
    assert BatchHeader._fields == batch_layout.FIELDS
    assert (batch_layout.HEADER_BYTES, batch_layout.PREFIX_BYTES, batch_layout.CRC_START) == (61, 12, 21)
    sent = build_batch(
        [Record(b"k", b"v", 1_700_000_000_000), Record(None, b"w", 1_700_000_000_001)],
        base_offset=7,
        leader_epoch=5,
        transactional=True,
        producer_id=9,
        producer_epoch=1,
        base_sequence=3,
    )
    header = read_header(sent)
    fields = {
        "base_offset": (batch_layout.BASE_OFFSET, 0),
        "length": (batch_layout.LENGTH, 8),
        "leader_epoch": (batch_layout.LEADER_EPOCH, 12),
        "magic": (batch_layout.MAGIC_BYTE, 16),
        "crc": (batch_layout.CRC, 17),
        "attributes": (batch_layout.ATTRIBUTES, 21),
        "max_timestamp": (batch_layout.MAX_TIMESTAMP, 35),
        "record_count": (batch_layout.RECORD_COUNT, 57),
    }
    for name, (layout, position) in fields.items():
        assert getattr(batch_layout, f"{name.upper()}_POSITION") == position
        assert layout.unpack_from(sent, position) == (getattr(header, name),)
    assert sent[batch_layout.FLAGS_POSITION] == header.attributes
