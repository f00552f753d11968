"""What raykafka takes of kio; everybody else imports it from here.

Where hypothesis is installed, kio imports it, to describe its types to tests: half of what the process of a coordinator
or a controller needs to start. Nobody here asks for that, so kio finds none.
"""

from __future__ import annotations

import sys
from typing import Any

_modules: dict[str, Any] = sys.modules
_hidden = "hypothesis" not in _modules
if _hidden:
    _modules["hypothesis"] = None
try:
    from kio.index import load_payload_module, load_request_schema, load_response_schema
    from kio.serial import entity_reader, entity_writer
    from kio.static.constants import EntityType
finally:
    if _hidden:
        del _modules["hypothesis"]

__all__ = [
    "EntityType",
    "entity_reader",
    "entity_writer",
    "load_payload_module",
    "load_request_schema",
    "load_response_schema",
]
