"""What a client gets while coordinator or controller can't be reached: an error in its place, in all versions."""

from types import SimpleNamespace
from typing import Any

import pytest

from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.protocol import codec, dispatch
from raykafka.protocol.registry import Api, Place
from tests.lab.served import APIS, request_context

TOPIC = SimpleNamespace(
    name="flights",
    topic_id=None,
    partition_indexes=(0, 3),
    partitions=(SimpleNamespace(partition_index=0), SimpleNamespace(partition_index=3)),
)
NUMBERED = SimpleNamespace(topic="flights", partitions=(0, 3))
GROUP = SimpleNamespace(group_id="readers")
RESOURCE = SimpleNamespace(resource_type=2, resource_name="flights")
REQUEST = SimpleNamespace(
    topics=(TOPIC,),
    topic_names=("flights",),
    topic_partitions=(NUMBERED,),
    groups=("readers",),
    groups_names=("readers",),
    resources=(RESOURCE,),
)

FORWARDED = [
    (api, version)
    for api in APIS
    if api.place in (Place.COORDINATOR, Place.CONTROLLER)
    for version in range(api.versions[0], api.versions[1] + 1)
]


@pytest.mark.parametrize(("api", "version"), FORWARDED, ids=lambda x: x.name if isinstance(x, Api) else str(x))
def test_a_request_that_nobody_can_answer_now_gets_a_retriable_error(api: Api, version: int) -> None:
    code = ErrorCode.NOT_CONTROLLER if api.place is Place.CONTROLLER else ErrorCode.COORDINATOR_NOT_AVAILABLE
    context = request_context(api.key, version)
    request = SimpleNamespace(**{**vars(REQUEST), "groups": (GROUP,)}) if api.name == "OffsetFetch" else REQUEST
    response = dispatch.error_response(api, context, request, KafkaError(code, "not now"))
    encoded = codec.encode_response(api.key, version, response)
    assert encoded
    assert _codes(response) == {code}


def _codes(value: Any) -> set[ErrorCode]:
    """All error codes anywhere in a response."""
    found: set[ErrorCode] = set()
    if isinstance(value, tuple):
        for item in value:
            found |= _codes(item)
    elif hasattr(value, "__dataclass_fields__"):
        for name in value.__dataclass_fields__:
            inner = getattr(value, name)
            found |= {ErrorCode(inner)} if name == "error_code" else _codes(inner)
    return found
