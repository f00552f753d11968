"""The partitions of one broker."""
