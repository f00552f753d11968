"""The rules of a classic consumer group: pure."""
