"""Partition replicas: the rules of replication, an open replica, and the streams between replica actors."""
