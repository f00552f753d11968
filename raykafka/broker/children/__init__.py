"""The child processes of a broker."""
