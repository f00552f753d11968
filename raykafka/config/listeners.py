"""Kafka's way to write listeners: ``NAME://host:port,NAME://host:port`` and a map of names to security protocols."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

SERVED_PROTOCOLS = ("PLAINTEXT",)
KAFKA_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_LISTENER = re.compile(r"(?P<name>\w+)://(?P<host>[A-Za-z0-9._-]*|\[[0-9a-fA-F:.]+\]):(?P<port>\d{1,5})")


class ListenerAddress(NamedTuple):
    """A named listener's address: where it is bound (``listeners``), or where clients are sent (``advertised``)."""

    name: str
    host: str
    port: int


def parse_listeners(key: str, text: str, empty_host: bool = False) -> tuple[ListenerAddress, ...]:
    """The addresses in ``text``, the value of ``key``. Raises ValueError saying what is wrong.

    With ``empty_host`` an address may have none, as in ``NAME://:9092``: whoever listens there knows its own.
    """
    addresses: list[ListenerAddress] = []
    for part in text.split(","):
        found = _LISTENER.fullmatch(part.strip())
        if found is None:
            raise ValueError(f"{key} must look like NAME://host:port,NAME://host:port, and {part.strip()!r} does not")
        port = int(found["port"])
        if not 1 <= port <= 65535:
            raise ValueError(f"{key} has port {port} for {found['name']}; ports are 1 to 65535")
        if any(address.name == found["name"] for address in addresses):
            raise ValueError(f"{key} has {found['name']} twice")
        host = found["host"].strip("[]")
        if not host and not empty_host:
            raise ValueError(f"{key} has no host for {found['name']}; write 127.0.0.1 or 0.0.0.0")
        if key == "advertised.listeners" and host in ("0.0.0.0", "::"):
            raise ValueError(f"{key} sends clients of {found['name']} to {host}, which is no address to connect to")
        addresses.append(ListenerAddress(found["name"], host, port))
    return tuple(addresses)


def check_protocols(names: Sequence[str], protocols: Mapping[str, str]) -> None:
    """Raise ValueError unless every listener's security protocol is one that raykafka serves.

    A listener that the map does not name has the protocol of its name where that is one of Kafka's, else PLAINTEXT.
    """
    for name in protocols:
        if name not in names:
            raise ValueError(f"listener.security.protocol.map names {name}, which listeners does not have")
    for name in names:
        protocol = protocols.get(name) or (name if name in KAFKA_PROTOCOLS else "PLAINTEXT")
        if protocol not in KAFKA_PROTOCOLS:
            raise ValueError(f"{protocol} of listener {name} is not a security protocol of Kafka's")
        if protocol not in SERVED_PROTOCOLS:
            raise ValueError(f"listener {name} asks for {protocol}, which raykafka does not serve yet: use PLAINTEXT")
