"""The fixed words of labels are those that brokers use. Metrics know no broker: nothing else holds the two together."""

from __future__ import annotations

from raykafka.broker.children.child import CONTROLLER, COORDINATOR, REPLICA
from raykafka.broker.life import BrokerState
from raykafka.metrics import catalogue


def test_labels_name_every_state_of_a_broker() -> None:
    assert [str(state) for state in BrokerState] == list(catalogue.BROKER_STATES)


def test_labels_name_every_role_of_a_child() -> None:
    assert (REPLICA, COORDINATOR, CONTROLLER) == catalogue.ROLES
    assert catalogue.REPLICA == REPLICA
