"""Every metric that a broker exports: its name, kind, labels and meaning. Nothing is exported that is not here, and
docs/metrics.md explains each.

Units are Prometheus' base units and stand in the name: seconds, bytes, records. Labels are bounded: topics, partitions,
brokers, groups and fixed words; ``MOST_SAMPLES`` bounds what one metric may have.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

MOST_SAMPLES = 20_000

# the fixed words of labels
REPLICA = "replica"
ROLES = (REPLICA, "coordinator", "controller")
BROKER_STATES = ("stopped", "starting", "registered", "running", "stopping")
SESSION_STATES = ("connected", "suspended", "lost")
OPEN, WAITING = "open", "waiting"


class Kind(enum.StrEnum):
    """Prometheus' kinds of metrics, by their names in the text format."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"
    INFO = "info"


class Definition(NamedTuple):
    """``name`` is without the suffix that ``kind`` gives to its samples."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str

    @property
    def sample_names(self) -> tuple[str, ...]:
        """The names that queries use."""
        match self.kind:
            case Kind.COUNTER:
                return (f"{self.name}_total",)
            case Kind.HISTOGRAM:
                return (f"{self.name}_bucket", f"{self.name}_sum", f"{self.name}_count")
            case Kind.INFO:
                return (f"{self.name}_info",)
        return (self.name,)


CATALOGUE: dict[str, Definition] = {}


def _define(kind: Kind, name: str, help_: str, *labels: str) -> Definition:
    made = Definition(f"raykafka_{name}", kind, labels, help_)
    assert made.name not in CATALOGUE
    CATALOGUE[made.name] = made
    return made


def _gauge(name: str, help_: str, *labels: str) -> Definition:
    return _define(Kind.GAUGE, name, help_, *labels)


def _counter(name: str, help_: str, *labels: str) -> Definition:
    return _define(Kind.COUNTER, name, help_, *labels)


# the broker and what it runs

BUILD = _define(Kind.INFO, "build", "Version of raykafka and of its Python.", "version", "python")
BROKER_STATE = _gauge("broker_state", "1 for the state that the broker is in, 0 for the others.", "state")
BROKER_EPOCH = _gauge("broker_epoch", "The broker epoch of this life: it rises with each registration.")
CONNECTIONS = _gauge("connections", "Open client connections.", "listener")
CHILDREN = _gauge("children", "Child processes that run.", "role")
CHILD_RESTARTS = _counter("child_restarts", "Child processes that ended and were replaced by another.", "role")

# its replica actors, by their numbers: another one has another number, as long as the broker lives

ACTOR_REPLICAS = _gauge("replica_actor_replicas", "Replicas that a replica actor has open.", "actor")
ACTOR_LEADERS = _gauge("replica_actor_leaders", "Partitions that are led in a replica actor.", "actor")
ACTOR_CONNECTIONS = _gauge("replica_actor_connections", "Client connections that a replica actor serves.", "actor")
ACTOR_BUSY = _gauge("replica_actor_busy_ratio", "Share of a core that a replica actor used of late: 0 to 1.", "actor")
ACTOR_UP = _gauge("replica_actor_up_seconds", "Time since a replica actor was started.", "actor")

# ZooKeeper

ZOOKEEPER_SESSION = _gauge(
    "zookeeper_session_state", "1 for the state of the broker's ZooKeeper session, 0 for the others.", "state"
)
LEASE_AGE = _gauge(
    "zookeeper_lease_age_seconds", "Time since ZooKeeper last confirmed the broker's registration, when it was asked."
)
LEASE_HELD = _gauge("zookeeper_lease_held", "1 while acks 0 and 1 are answered: the lease has not run out.")

# partitions of this broker

PARTITIONS = _gauge(
    "partitions",
    "Partitions that have a replica on this broker: open in a replica actor, or waiting to be opened in one.",
    "state",
)
REPLICA_FAILURES = _counter(
    "replica_failures", "Replicas that ended before they were let go: their log failed, or their replica actor ended."
)
LEADERS = _gauge("leaders", "Partitions that this broker leads.")
UNDER_REPLICATED = _gauge(
    "under_replicated_partitions", "Partitions led here that have fewer in-sync replicas than assigned ones."
)
UNDER_MIN_ISR = _gauge(
    "under_min_isr_partitions", "Partitions led here that refuse acks=all: fewer in-sync than min.insync.replicas."
)
AT_MIN_ISR = _gauge(
    "at_min_isr_partitions", "Partitions led here that have exactly min.insync.replicas in-sync replicas."
)
OFFLINE = _gauge("offline_partitions", "Partitions with a replica on this broker that nobody leads.")

# replication, as leaders see it

FOLLOWER_LAG_RECORDS = _gauge(
    "follower_lag_records",
    "Records that a follower has not acknowledged yet, as its leader on this broker knows.",
    *("topic", "partition", "follower"),
)
FOLLOWER_LAG_SECONDS = _gauge(
    "follower_lag_seconds",
    "Time since a follower last had all of its leader's log, as its leader on this broker knows; 0 while it has.",
    *("topic", "partition", "follower"),
)

# traffic

BYTES_IN = _counter("topic_bytes_in", "Bytes of record batches that were appended for producers.", "topic")
RECORDS_IN = _counter("topic_records_in", "Records that were appended for producers.", "topic")
BYTES_OUT = _counter("topic_bytes_out", "Bytes of record batches that were sent to consumers.", "topic")
RECORDS_OUT = _counter("topic_records_out", "Offsets that were covered by what was sent to consumers.", "topic")
REQUEST_DURATION = _define(
    Kind.HISTOGRAM,
    "request_duration_seconds",
    "Time that requests took: phase total is from the last byte received to the answer handed to the socket; queue, "
    "local and remote are its parts.",
    *("request", "phase"),
)

# consumer groups

CONSUMER_LAG = _gauge(
    "consumer_lag_records",
    "Records between a group's committed offset and the high watermark, from the broker that coordinates the group.",
    *("group", "topic", "partition"),
)

# the cluster, as the active controller sees it

ACTIVE_CONTROLLER = _gauge("active_controller", "1 on the broker whose controller is the active one, 0 on others.")
CONTROLLER_EPOCH = _gauge("controller_epoch", "How many controllers have been elected. Active controller only.")
ELECTIONS = _counter(
    "leader_elections", "Elections of a leader in the cluster, ever, unclean ones included. Active controller only."
)
UNCLEAN_ELECTIONS = _counter(
    "unclean_leader_elections", "Elections of a leader that may have lost records, ever. Active controller only."
)
ISR_SHRINKS = _counter("isr_shrinks", "ISR changes that removed a replica, ever. Active controller only.")
ISR_EXPANDS = _counter("isr_expands", "ISR changes that added a replica, ever. Active controller only.")
CLUSTER_BROKERS = _gauge("cluster_brokers", "Registered brokers. Active controller only.")
CLUSTER_TOPICS = _gauge("cluster_topics", "Topics. Active controller only.")
CLUSTER_PARTITIONS = _gauge("cluster_partitions", "Partitions of all topics. Active controller only.")
CLUSTER_UNDER_REPLICATED = _gauge(
    "cluster_under_replicated_partitions",
    "Partitions with fewer in-sync replicas than assigned ones, offline ones included. Active controller only.",
)
CLUSTER_UNDER_MIN_ISR = _gauge(
    "cluster_under_min_isr_partitions",
    "Led partitions with fewer in-sync replicas than min.insync.replicas. Active controller only.",
)
CLUSTER_OFFLINE = _gauge("cluster_offline_partitions", "Partitions that nobody leads. Active controller only.")
CLUSTER_NOT_PREFERRED = _gauge(
    "cluster_not_preferred_leaders", "Led partitions whose leader is not their first replica. Active controller only."
)

# the metrics themselves

LEFT_OUT = _gauge(
    "metrics_samples_left_out", f"Samples of a metric left out, since it has more than {MOST_SAMPLES}.", "metric"
)
SCRAPE_SECONDS = _gauge("metrics_collect_seconds", "Time that gathering the values of this answer took.")
