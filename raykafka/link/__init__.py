"""Frames between actors over sockets. Knows nothing of Ray, brokers or the Kafka protocol."""

from raykafka.link.frames import FrameProtocol
from raykafka.link.link import Link, adopt, connect_tcp, connect_unix, open_port, serve_socket, serve_tcp, serve_unix

__all__ = [
    "FrameProtocol",
    "Link",
    "adopt",
    "connect_tcp",
    "connect_unix",
    "open_port",
    "serve_socket",
    "serve_tcp",
    "serve_unix",
]
