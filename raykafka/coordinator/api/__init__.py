"""Group APIs, served in the coordinator's process: one module each."""
