"""Processes of this machine: children, log output, priority, open files, durable files."""
