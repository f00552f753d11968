"""Frames, calls and connections between processes, over sockets: transport only. It knows nothing of Ray, of brokers,
replicas or coordinators, or of Kafka's protocol."""

from raykafka.link.endpoints import adopt, connect_tcp, connect_unix, open_port, serve_socket, serve_tcp, serve_unix
from raykafka.link.frames import FrameProtocol
from raykafka.link.link import Link

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
