"""Families as text: Prometheus' format or OpenMetrics, as the reader asks, written piece by piece.

prometheus-client writes a whole answer in one go; thousands of samples take it tens of milliseconds, for which a
broker's event loop must not stand still (rule 22). So it gets the samples some hundred at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

from prometheus_client import Metric
from prometheus_client.exposition import choose_encoder

SAMPLES_AT_ONCE = 50
_EOF = b"# EOF\n"


class _Piece:
    """What prometheus-client takes for a registry: some samples of one family."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterable[Metric]:
        return (self._metric,)


async def encode(metrics: Iterable[Metric], accept: str) -> tuple[bytes, str]:
    """The text and its content type. Other work of the event loop runs in between."""
    encoder, content_type = choose_encoder(accept)
    parts: list[bytes] = []
    openmetrics = content_type.startswith("application/openmetrics-text")
    for metric in metrics:
        for number, piece in enumerate(_pieces(metric)):
            text = encoder(_Piece(piece)).removesuffix(_EOF)
            parts.append(text if number == 0 else _without_head(text))
            await asyncio.sleep(0)
    if openmetrics:
        parts.append(_EOF)
    return b"".join(parts), content_type


def _pieces(metric: Metric) -> Iterator[Metric]:
    samples = metric.samples
    if len(samples) <= SAMPLES_AT_ONCE:
        yield metric
        return
    for start in range(0, len(samples), SAMPLES_AT_ONCE):
        piece = Metric(metric.name, metric.documentation, metric.type)
        piece.samples = samples[start : start + SAMPLES_AT_ONCE]
        yield piece


def _without_head(text: bytes) -> bytes:
    """Samples alone: HELP and TYPE of a family are told once."""
    while text.startswith(b"#"):
        text = text[text.index(b"\n") + 1 :]
    return text
