"""Decisions carried out by the active controller."""
