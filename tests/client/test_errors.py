"""Every refusal becomes the exception of its reason, whichever way the reason came."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]  # the package ships no types
from tests.client.conftest import Bench

from jobwire.v1.errors_pb2 import ItemError
from jobwire_client import errors

REASONS = sorted(errors._BY_REASON)


def failed_call(code: grpc.StatusCode, message: str, trailers: list[tuple[str, str | bytes]]) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailers), message)


def rich(code: grpc.StatusCode, message: str, *details: Message) -> tuple[str, bytes]:
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        packed = Any()
        packed.Pack(detail)
        status.details.append(packed)
    return "grpc-status-details-bin", status.SerializeToString()


def test_rich_details_give_reason_metadata_fields_and_delay() -> None:
    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    details = rich(
        code,
        "too much",
        error_details_pb2.ErrorInfo(reason="TOO_LARGE", domain="jobwire", metadata={"limit": "9"}),
        error_details_pb2.BadRequest(
            field_violations=[error_details_pb2.BadRequest.FieldViolation(field="job.payload", description="is big")]
        ),
        error_details_pb2.RetryInfo(retry_delay=Duration(nanos=500_000_000)),
    )
    error = errors.from_rpc_error(failed_call(code, "too much", [details]))
    assert type(error) is errors.TooLarge
    assert (error.code, error.reason, error.message) == (code, "TOO_LARGE", "too much")
    assert error.metadata == {"limit": "9"}
    assert error.fields == {"job.payload": "is big"}
    assert error.retry_after == 0.5
    assert not error.is_outcome_unknown


@pytest.mark.parametrize("reason", REASONS)
def test_the_trailer_alone_is_enough(reason: str) -> None:
    error = errors.from_rpc_error(failed_call(grpc.StatusCode.ABORTED, "no", [("jobwire-reason", reason)]))
    assert type(error) is errors._BY_REASON[reason]
    assert error.reason == reason


@pytest.mark.parametrize("reason", REASONS)
def test_an_item_of_a_batch_is_refused_in_the_same_words(reason: str) -> None:
    error = errors.from_item_error(ItemError(code=10, reason=reason, message="no", metadata={"a": "b"}))
    assert type(error) is errors._BY_REASON[reason]
    assert (error.code, error.metadata) == (grpc.StatusCode.ABORTED, {"a": "b"})


def test_details_that_contradict_the_status_are_not_believed() -> None:
    info = error_details_pb2.ErrorInfo(reason="TOO_LARGE", domain="jobwire")
    details = rich(grpc.StatusCode.RESOURCE_EXHAUSTED, "other words", info)
    error = errors.from_rpc_error(failed_call(grpc.StatusCode.NOT_FOUND, "no", [details]))
    assert type(error) is errors.NotFound


def test_details_of_another_domain_are_not_ours() -> None:
    code = grpc.StatusCode.NOT_FOUND
    details = rich(code, "no", error_details_pb2.ErrorInfo(reason="TOO_LARGE", domain="example.org"))
    assert type(errors.from_rpc_error(failed_call(code, "no", [details]))) is errors.NotFound


def test_a_reason_from_the_future_is_an_error_of_its_code() -> None:
    trailers: list[tuple[str, str | bytes]] = [("jobwire-reason", "MOON_TOO_FULL")]
    error = errors.from_rpc_error(failed_call(grpc.StatusCode.UNAVAILABLE, "no", trailers))
    assert type(error) is errors.Unavailable
    assert error.reason == "MOON_TOO_FULL"
    assert error.is_outcome_unknown


async def test_a_real_refusal_names_the_job(bench: Bench) -> None:
    with pytest.raises(errors.JobNotFound) as caught:
        await bench.client.get("no-such-job")
    assert caught.value.metadata["job_id"] == "no-such-job"


async def test_a_real_refusal_names_the_field(bench: Bench) -> None:
    with pytest.raises(errors.InvalidField) as caught:
        await bench.client.create("x", priority=11)
    assert "job.priority" in caught.value.fields


@pytest.mark.parametrize("trailers", [[("jobwire-reason", "NOT_BUILT")], []], ids=["told by us", "told by gRPC"])
def test_what_is_not_built_says_so(trailers: list[tuple[str, str | bytes]]) -> None:
    error = errors.from_rpc_error(failed_call(grpc.StatusCode.UNIMPLEMENTED, "not yet", trailers))
    assert type(error) is errors.NotBuilt
