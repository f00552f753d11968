"""Partition replicas: the rules of replication, and the process that writes one partition's log."""
