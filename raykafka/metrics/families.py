"""The families of one scrape: samples gathered under their definitions, as prometheus-client writes them out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from prometheus_client import Metric
from prometheus_client.utils import floatToGoString

from raykafka.metrics.catalogue import LEFT_OUT, MOST_SAMPLES, Definition
from raykafka.telemetry.durations import BOUNDS_NS, Histogram

_BOUNDS = [floatToGoString(bound / 1e9) for bound in BOUNDS_NS] + ["+Inf"]


class Families:
    """``add`` and ``observe`` gather; ``metrics`` has the result. One definition gets ``most_samples`` at most."""

    def __init__(self, most_samples: int = MOST_SAMPLES) -> None:
        self._most_samples = most_samples
        self._metrics: dict[str, Metric] = {}
        self._left_out: Counter[str] = Counter()

    def add(self, definition: Definition, value: float, *labels: object) -> None:
        """A sample with ``labels`` in the order of the definition."""
        metric = self._metric(definition)
        if len(metric.samples) >= self._most_samples:
            self._left_out[definition.name] += 1
            return
        names = zip(definition.labels, map(str, labels), strict=True)
        metric.add_sample(definition.sample_names[0], dict(names), value)

    def add_states(self, definition: Definition, states: Iterable[str], current: str) -> None:
        """1 for ``current`` and 0 for the others, with the state as the label."""
        for state in states:
            self.add(definition, int(state == current), state)

    def observe(self, definition: Definition, histogram: Histogram, *labels: str) -> None:
        """The buckets, sum (seconds) and count of ``histogram``, with ``labels`` in the order of the definition."""
        metric = self._metric(definition)
        named = dict(zip(definition.labels, labels, strict=True))
        bucket, total, count = definition.sample_names
        seen = 0
        for bound, more in zip(_BOUNDS, histogram.counts, strict=True):
            seen += more
            metric.add_sample(bucket, {**named, "le": bound}, seen)
        metric.add_sample(count, named, seen)
        metric.add_sample(total, named, histogram.sum_ns / 1e9)

    def _metric(self, definition: Definition) -> Metric:
        metric = self._metrics.get(definition.name)
        if metric is None:
            metric = self._metrics[definition.name] = Metric(definition.name, definition.help, str(definition.kind))
        return metric

    def metrics(self) -> list[Metric]:
        """All families, those left out of counted at last."""
        left_out, self._left_out = self._left_out, Counter()
        for name, count in left_out.items():
            self.add(LEFT_OUT, count, name)
        return list(self._metrics.values())
