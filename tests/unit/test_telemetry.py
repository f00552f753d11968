"""What several processes count adds up to what one would have counted."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from raykafka.telemetry.durations import BOUNDS_NS, FETCH, PRODUCE, RequestDurations
from raykafka.telemetry.traffic import Traffic

ACTORS = 2
METADATA = 3
_actor = st.integers(0, ACTORS - 1)
_size = st.integers(0, 1 << 40)
_duration_ns = st.integers(0, 2 * BOUNDS_NS[-1])


def told(delta: Any) -> Any:
    """As it comes out of a link."""
    return json.loads(json.dumps(delta))


def figures(traffic: Traffic) -> dict[str, tuple[int, int]]:
    return {topic: (counted.bytes_out, counted.records_out) for topic, counted in traffic.items()}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(_actor, st.sampled_from("ab"), _size, _size) | st.tuples(_actor)))
def test_traffic_of_actors_adds_up_in_their_broker(steps: list[tuple[Any, ...]]) -> None:
    """A step of one element is a report of that actor."""
    actors, broker, whole = [Traffic() for _ in range(ACTORS)], Traffic(), Traffic()
    for actor, *sent in steps:
        if sent:
            topic, size, records = sent
            actors[actor][topic].sent(size, records)
            whole[topic].sent(size, records)
        else:
            broker.take(told(actors[actor].delta()))
            assert actors[actor].delta() == {}
    for traffic in actors:
        broker.take(told(traffic.delta()))
    assert figures(broker) == figures(whole)


def test_a_report_of_traffic_has_every_count_in_its_place() -> None:
    traffic, broker = Traffic(), Traffic()
    counted = traffic["t"]
    counted.bytes_in, counted.records_in, counted.bytes_out, counted.records_out = 1, 2, 3, 4
    delta = traffic.delta()
    assert delta == {"t": [1, 2, 3, 4]}
    broker.take(told(delta))
    broker.take(told(delta))
    found = broker["t"]
    assert (found.bytes_in, found.records_in, found.bytes_out, found.records_out) == (2, 4, 6, 8)


def histograms(durations: RequestDurations) -> list[tuple[str, str, list[int], int]]:
    return [(request, phase, found.counts, found.sum_ns) for request, phase, found in durations.phases()]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(_actor, st.sampled_from((PRODUCE, FETCH, METADATA)), _duration_ns, _duration_ns, _duration_ns)
        | st.tuples(_actor)
    )
)
def test_durations_of_actors_add_up_in_their_broker(steps: list[tuple[int, ...]]) -> None:
    """A step of one element is a report of that actor."""
    actors, broker, whole = [RequestDurations() for _ in range(ACTORS)], RequestDurations(), RequestDurations()
    for actor, *request in steps:
        if request:
            api_key, local_ns, queue_ns, remote_ns = request
            for durations in (actors[actor], whole):
                durations.answered(api_key, local_ns + queue_ns + remote_ns, queue_ns, remote_ns)
        else:
            broker.take(told(actors[actor].delta()))
            assert actors[actor].delta() == []
    for durations in actors:
        broker.take(told(durations.delta()))
    assert histograms(broker) == histograms(whole)
