"""How long requests took: histograms of plain integers, read when Prometheus asks."""

from __future__ import annotations

from bisect import bisect_left

PRODUCE = 0
FETCH = 1
REQUEST_NAMES = {PRODUCE: "Produce", FETCH: "Fetch"}

_MS = 1_000_000
# upper bounds of the buckets; one more holds what took longer
BOUNDS_NS = tuple(
    int(ms * _MS) for ms in (0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000)
)


class Histogram:
    """Durations of one kind of request: ``counts`` by bucket (``BOUNDS_NS``, then what took longer), and their sum."""

    __slots__ = ("counts", "sum_ns")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_NS) + 1)
        self.sum_ns = 0

    def observe(self, duration_ns: int) -> None:
        """Count one request that took ``duration_ns``."""
        self.counts[bisect_left(BOUNDS_NS, duration_ns)] += 1
        self.sum_ns += duration_ns


class RequestDurations:
    """By API key and phase, of the requests that are measured (``REQUEST_NAMES``)."""

    def __init__(self) -> None:
        self._totals = {key: Histogram() for key in REQUEST_NAMES}

    def answered(self, api_key: int, duration_ns: int) -> None:
        """A request was answered ``duration_ns`` after its last byte came."""
        histogram = self._totals.get(api_key)
        if histogram is not None:
            histogram.observe(duration_ns)

    def phases(self) -> list[tuple[str, str, Histogram]]:
        """(request, phase, durations) of everything that is measured."""
        return [(REQUEST_NAMES[key], "total", histogram) for key, histogram in self._totals.items()]
