"""What a broker does with a request for its coordinator while there is no process for it.

One table: a request that changes nothing is sent again to the next process where one ended over it; one that needs no
led partition waits for a process in every broker; and what clients are told in the end has them ask again (librdkafka
takes any other code for the final answer to an OffsetFetch or a ListGroups).
"""

from __future__ import annotations

from typing import NamedTuple

from raykafka.coordinator.api import describe_groups, list_groups, offset_fetch
from raykafka.error_code import ErrorCode


class Forwarding(NamedTuple):
    changes_nothing: bool = False
    needs_no_partition: bool = False
    unavailable: ErrorCode = ErrorCode.NOT_COORDINATOR


_REST = Forwarding()
_TABLE = {
    offset_fetch.API_KEY: Forwarding(changes_nothing=True, unavailable=ErrorCode.COORDINATOR_LOAD_IN_PROGRESS),
    describe_groups.API_KEY: Forwarding(changes_nothing=True),
    list_groups.API_KEY: Forwarding(
        changes_nothing=True, needs_no_partition=True, unavailable=ErrorCode.COORDINATOR_NOT_AVAILABLE
    ),
}


def forwarding(api_key: int) -> Forwarding:
    """The table's row for an API."""
    return _TABLE.get(api_key, _REST)
