"""The table of served APIs, and how any of them is answered."""

from __future__ import annotations

import asyncio
import dataclasses
import types
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError, UnanswerableRequestError
from raykafka.protocol import codec, dispatch
from raykafka.protocol.context import RequestContext
from raykafka.protocol.gate import Gate
from raykafka.protocol.registry import Api, Place, Registry
from tests.lab.dataplane import decode_response
from tests.lab.served import APIS, GATE, request_context

HEARTBEAT = 12
DELETE_RECORDS = 21


def context(api_key: int, version: int) -> RequestContext:
    return request_context(api_key, version)


def served(key: int, handle: Callable[..., Awaitable[Any]], **more: Any) -> Api:
    module = types.ModuleType("made_for_a_test")
    for name, value in more.items():
        setattr(module, name, value)
    return Api(key, "Made", (0, 20), (0, 20), Place.BROKER, (), module, handle, None)


def answer(api: Api, version: int, body: bytes) -> bytes:
    apis = Registry()
    apis.add(api)
    return b"".join(asyncio.run(dispatch.serve(Gate(apis), None, context(api.key, version), memoryview(body))))


# group id "g", generation 1, member id "m", in versions without tags
HEARTBEAT_V0 = b"\0\x01g\0\0\0\x01\0\x01m"


def test_every_served_version_has_its_schemas() -> None:
    for api in APIS:
        for version in range(api.versions[0], api.versions[1] + 1):
            codec.response_class(api.key, version)
            codec.request_is_flexible(api.key, version)
        assert api.advertised[0] <= api.versions[0]
        assert api.advertised[1] == api.versions[1]
        assert (api.handle is None) != (api.handle_raw is None)


def test_every_module_says_what_its_versions_are() -> None:
    for api in APIS:
        low, high = api.versions
        versions = f"Versions: {low}-{high}." if low != high else f"Versions: {low}."
        assert api.module.__doc__ is not None
        assert api.module.__doc__.startswith(f"{api.name}: "), api.name
        assert versions in api.module.__doc__, api.name


def test_a_kafka_error_is_answered_by_the_responses_error_code() -> None:
    async def handle(*_: object) -> None:
        raise KafkaError(ErrorCode.REBALANCE_IN_PROGRESS)

    response = decode_response(HEARTBEAT, 0, answer(served(HEARTBEAT, handle), 0, HEARTBEAT_V0))
    assert response.error_code.value == ErrorCode.REBALANCE_IN_PROGRESS


def test_a_failure_of_ours_is_answered_and_told_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def handle(*_: object) -> None:
        raise ZeroDivisionError("planted")

    response = decode_response(HEARTBEAT, 0, answer(served(HEARTBEAT, handle), 0, HEARTBEAT_V0))
    assert response.error_code.value == ErrorCode.UNKNOWN_SERVER_ERROR
    assert "planted" in caplog.text


def test_a_module_may_say_itself_how_errors_are_answered() -> None:
    async def handle(*_: object) -> None:
        raise KafkaError(ErrorCode.POLICY_VIOLATION)

    def error_response(ctx: RequestContext, request: Any, error: KafkaError) -> Any:
        assert request.topics[0].name == "t"
        m = codec.response_module(DELETE_RECORDS, ctx.api_version)
        part = m.DeleteRecordsPartitionResult(partition_index=0, low_watermark=-1, error_code=error.code)
        topic = m.DeleteRecordsTopicResult(name="t", partitions=(part,))
        return m.DeleteRecordsResponse(throttle_time=codec.NO_THROTTLE, topics=(topic,))

    # one topic "t" with partition 0 at offset 5, timeout 0
    body = b"\0\0\0\x01\0\x01t\0\0\0\x01\0\0\0\0" + (5).to_bytes(8, "big") + b"\0\0\0\0"
    api = served(DELETE_RECORDS, handle, error_response=error_response)
    response = decode_response(DELETE_RECORDS, 0, answer(api, 0, body))
    assert response.topics[0].partitions[0].error_code.value == ErrorCode.POLICY_VIOLATION


def test_an_error_without_a_place_in_the_response_is_unanswerable() -> None:
    async def handle(*_: object) -> None:
        raise KafkaError(ErrorCode.POLICY_VIOLATION)

    with pytest.raises(UnanswerableRequestError):
        answer(served(DELETE_RECORDS, handle), 0, b"\0\0\0\0\0\0\0\0")


@pytest.mark.parametrize("body", [b"", HEARTBEAT_V0[:-1], b"\x7f" * 9])
def test_a_malformed_request_is_unanswerable(body: bytes) -> None:
    async def handle(*_: object) -> None:
        raise AssertionError("a malformed request was handled")

    with pytest.raises(UnanswerableRequestError):
        answer(served(HEARTBEAT, handle), 0, body)


def test_a_forwarded_request_without_an_answer_comes_back_empty() -> None:
    assert asyncio.run(dispatch.serve_forwarded(GATE, None, context(9999, 0), memoryview(b""))) == []


@pytest.mark.parametrize("key", [3, 10, 11, 12, 13, 14, 16, 18, 22, 60])
def test_an_error_response_can_be_written_in_every_version_with_an_error_code(key: int) -> None:
    written = 0
    for version in range(20):
        try:
            schema = codec.response_class(key, version)
        except Exception:
            continue
        if "error_code" not in {field.name for field in dataclasses.fields(schema)}:
            continue
        api = Api(key, "Made", (0, 20), (0, 20), Place.BROKER, (), types.ModuleType("made"), None, None)
        response = dispatch.error_response(
            api, context(key, version), None, KafkaError(ErrorCode.NOT_COORDINATOR, "elsewhere")
        )
        again = decode_response(key, version, codec.encode_response(key, version, response))
        assert again.error_code.value == ErrorCode.NOT_COORDINATOR
        written += 1
    assert written


def test_an_api_with_a_codec_of_its_own_tells_without_schemas_which_headers_are_flexible() -> None:
    raw = [api for api in APIS if api.handle_raw is not None]
    assert {api.name for api in raw} == {"Fetch", "Produce"}
    for api in raw:
        version = api.flexible_from
        assert version is not None, api.name
        for flexible in (codec.request_is_flexible, codec.response_header_is_flexible):
            assert [flexible(api.key, asked) for asked in (version - 1, version)] == [False, True]
