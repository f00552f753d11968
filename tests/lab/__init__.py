"""What tests and measurements share, and the programs that measure: ``scripts/`` has a command for each.

``chaos``, ``failover``, ``catchup``, ``many_partitions`` and ``bench`` measure; ``peer`` is the Apache Kafka beside
ours; ``hosts`` simulates machines, ``clusters`` starts brokers on this one.
"""

from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
