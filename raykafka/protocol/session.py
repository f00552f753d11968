"""Who is at the other end of a client's connection."""

from __future__ import annotations

from dataclasses import dataclass

ANONYMOUS = "User:ANONYMOUS"


@dataclass(slots=True)
class ClientSession:
    """Belongs to one connection and lives as long; every request of that connection carries it.

    ``listener`` is the name of the listener that the client came through. ``principal`` is ANONYMOUS until the client
    has authenticated; no listener asks for that yet. ``software_name`` and ``software_version`` are what the client
    told with ApiVersions, empty until then.
    """

    host: str
    listener: str
    principal: str = ANONYMOUS
    software_name: str = ""
    software_version: str = ""
