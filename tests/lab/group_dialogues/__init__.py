"""Conversations of group members with a coordinator, recorded from a real Kafka and held against ours.

Each dialogue is a coroutine that asks and notes the answers. ``python -m tests.lab.group_dialogues HOST:PORT`` plays
them to a Kafka 3.9.2 and writes ``recorded.json``; ``test_group_dialogues`` plays them to our coordinator and
compares. The broker recorded from had: ``group.initial.rebalance.delay.ms=0``, ``group.min.session.timeout.ms=500``,
``group.max.size=3``, and a topic ``dialogue`` of 2 partitions.
"""
