"""Committed offsets of a group: pure."""
