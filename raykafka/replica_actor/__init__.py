"""The replica actor's process: the replicas that it writes, their streams, and the clients that it serves."""
