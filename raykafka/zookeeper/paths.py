"""Where each node is in ZooKeeper, below the chroot of a cluster. Pure.

The layout is Kafka's (3.9, ZooKeeper mode). Ours alone are ``/brokers/epochs/N`` (rule 13) and
``/cluster/deleted_topics``. ``znodes`` says what the nodes hold.
"""

from __future__ import annotations

from collections.abc import Iterable

CLUSTER = "/cluster"
CLUSTER_ID = f"{CLUSTER}/id"
DELETED_TOPICS = f"{CLUSTER}/deleted_topics"
CONTROLLER = "/controller"
CONTROLLER_EPOCH = "/controller_epoch"
BROKER_IDS = "/brokers/ids"
BROKER_EPOCHS = "/brokers/epochs"
TOPICS = "/brokers/topics"
TOPIC_CONFIGS = "/config/topics"
BROKER_CONFIGS = "/config/brokers"
DELETE_TOPICS = "/admin/delete_topics"
PRODUCER_ID_BLOCK = "/latest_producer_id_block"
PERSISTENT_PATHS = (CLUSTER, BROKER_IDS, BROKER_EPOCHS, TOPICS, TOPIC_CONFIGS, BROKER_CONFIGS, DELETE_TOPICS)
# the child of BROKER_CONFIGS that holds for all brokers
CLUSTER_DEFAULT = "<default>"


def broker_path(broker_id: int) -> str:
    return f"{BROKER_IDS}/{broker_id}"


def broker_epoch_path(broker_id: int) -> str:
    return f"{BROKER_EPOCHS}/{broker_id}"


def topic_path(topic: str) -> str:
    return f"{TOPICS}/{topic}"


def partitions_path(topic: str) -> str:
    return f"{TOPICS}/{topic}/partitions"


def partition_path(topic: str, partition: int) -> str:
    return f"{TOPICS}/{topic}/partitions/{partition}"


def state_path(topic: str, partition: int) -> str:
    return f"{TOPICS}/{topic}/partitions/{partition}/state"


def topic_config_path(topic: str) -> str:
    return f"{TOPIC_CONFIGS}/{topic}"


def broker_config_path(broker: str) -> str:
    """``broker`` is a broker id, or "" for the cluster default."""
    return f"{BROKER_CONFIGS}/{broker or CLUSTER_DEFAULT}"


def delete_topic_path(topic: str) -> str:
    return f"{DELETE_TOPICS}/{topic}"


def sorted_ids(children: Iterable[str]) -> list[int]:
    """Names of children that are numbers (of brokers, of partitions), as numbers in order."""
    return sorted(int(child) for child in children)
