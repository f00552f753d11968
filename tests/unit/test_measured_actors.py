"""How programs that start clusters are told of replica actors, and how they find them."""

from __future__ import annotations

import argparse

import pytest

from tests.lab.chaos.system import ReplicaActor, replica_actor
from tests.lab.clusters.actors import actors, add_option


def test_the_option_takes_what_a_cluster_file_takes() -> None:
    parser = argparse.ArgumentParser()
    add_option(parser)
    assert parser.parse_args([]).actors == "auto"
    assert [actors(text) for text in ("auto", "each", "2")] == ["auto", "each", 2]
    for text in ("0", "-1", "many", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="neither auto, each, nor a number"):
            actors(text)


def test_a_replica_actor_is_known_by_its_title() -> None:
    assert replica_actor("  4711 raykafka::replicas 12 of broker 3   ") == ReplicaActor(12, 3)
    assert str(ReplicaActor(12, 3)) == "replica actor 12 of broker 3"
    for title in ("ray::ReplicaActor", "raykafka::controller of broker 1", "ray::BrokerActor.run"):
        assert replica_actor(title) is None
