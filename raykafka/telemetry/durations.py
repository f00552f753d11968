"""How long requests took: histograms of plain integers.

A replica actor times what it serves, and tells its broker now and then what has come since (``delta``); the broker adds
that up (``take``), and has it ready when Prometheus asks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Any

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

    def delta(self) -> list[Any]:
        """What was observed since the last call, JSON-able: [sum in ns, [bucket, count], ...], of the buckets that have
        any; empty where none has. It is forgotten here."""
        if not any(self.counts):
            return []
        found: list[Any] = [self.sum_ns, *([bucket, n] for bucket, n in enumerate(self.counts) if n)]
        self.counts = [0] * len(self.counts)
        self.sum_ns = 0
        return found

    def take(self, delta: Sequence[Any]) -> None:
        """Add what another process observed: its ``delta``."""
        sum_ns, *buckets = delta
        self.sum_ns += sum_ns
        for bucket, count in buckets:
            self.counts[bucket] += count


class _Phases:
    """Durations of one kind of request. What took no time at all in ``queue`` or ``remote`` is not observed there: the
    requests that ``total`` has more are those."""

    __slots__ = ("local", "queue", "remote", "total")

    def __init__(self) -> None:
        self.total, self.queue, self.local, self.remote = Histogram(), Histogram(), Histogram(), Histogram()

    def all(self) -> tuple[Histogram, ...]:
        return self.total, self.queue, self.local, self.remote


class RequestDurations:
    """By API key and phase, of the requests that are measured.

    ``queue`` is the time until a request's turn came, ``remote`` what it then waited for others (a Produce for its
    replicas and for the answers before its own, a Fetch for more records), ``local`` the work between; together they
    are ``total``: from its last byte until its answer is handed to the socket.
    """

    def __init__(self) -> None:
        self._phases = {key: _Phases() for key in REQUEST_NAMES}

    def answered(self, api_key: int, total_ns: int, queue_ns: int = 0, remote_ns: int = 0) -> None:
        """A request was answered ``total_ns`` after its last byte came."""
        phases = self._phases.get(api_key)
        if phases is None:
            return
        phases.total.observe(total_ns)
        phases.local.observe(total_ns - queue_ns - remote_ns)
        if queue_ns:
            phases.queue.observe(queue_ns)
        if remote_ns:
            phases.remote.observe(remote_ns)

    def delta(self) -> list[list[Any]]:
        """What was timed since the last call, JSON-able: [API key, number of the phase, what its histogram gives] for
        each that has any. It is forgotten here."""
        return [
            [key, number, delta]
            for key, phases in self._phases.items()
            for number, histogram in enumerate(phases.all())
            if (delta := histogram.delta())
        ]

    def take(self, deltas: Iterable[Sequence[Any]]) -> None:
        """Add what another process timed: its ``delta``."""
        for key, number, delta in deltas:
            self._phases[key].all()[number].take(delta)

    def phases(self) -> list[tuple[str, str, Histogram]]:
        """(request, phase, durations) of everything that is measured."""
        found = []
        for key, phases in self._phases.items():
            answered = sum(phases.total.counts)
            found.append((REQUEST_NAMES[key], "total", phases.total))
            found.append((REQUEST_NAMES[key], "queue", _with_nothings(phases.queue, answered)))
            found.append((REQUEST_NAMES[key], "local", phases.local))
            found.append((REQUEST_NAMES[key], "remote", _with_nothings(phases.remote, answered)))
        return found


def _with_nothings(observed: Histogram, count: int) -> Histogram:
    """``observed`` with as many durations of 0 as it lacks to have ``count`` of them."""
    made = Histogram()
    made.counts = observed.counts.copy()
    made.counts[0] += count - sum(observed.counts)
    made.sum_ns = observed.sum_ns
    return made
