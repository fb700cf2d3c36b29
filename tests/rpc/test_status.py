from __future__ import annotations

import re
from pathlib import Path

import pytest
from google.rpc import error_details_pb2  # type: ignore[import-untyped]  # the package ships no types
from grpc import StatusCode

from jobwire_server.domain.errors import JobwireError, Reason, invalid, too_large
from jobwire_server.rpc.status import CODES, DETAILS_TRAILER, REASON_TRAILER, Refusal, number, refusal
from jobwire_server.store.base import StoreFull, StoreUnavailable


def details(told: Refusal) -> dict[str, object]:
    """The details of a status, by the name of their message."""
    found: dict[str, object] = {}
    for packed in told.status().details:
        kind = getattr(error_details_pb2, packed.TypeName().rpartition(".")[2])
        message = kind()
        assert packed.Unpack(message)
        found[kind.DESCRIPTOR.name] = message
    return found


def test_every_reason_has_a_code() -> None:
    assert set(CODES) == set(Reason)
    assert StatusCode.UNKNOWN not in CODES.values()
    assert [reason for reason, code in CODES.items() if code is StatusCode.INTERNAL] == [Reason.INTERNAL]


def test_every_code_is_the_one_the_contract_names(repository: Path) -> None:
    """The table at the top of errors.proto: a code stands in the first of its rows."""
    rows = re.compile(r"^//   (?P<code>[A-Z_]+ )? *(?P<reason>[A-Z_]+)  +\S", re.MULTILINE)
    written: dict[str, str] = {}
    code = ""
    for row in rows.finditer((repository / "protos/jobwire/v1/errors.proto").read_text()):
        code = (row["code"] or code).strip()
        written[row["reason"]] = code
    assert {reason.value: code.name for reason, code in CODES.items()}.items() <= written.items()


def test_a_refusal_travels_as_status_and_as_trailer() -> None:
    told = refusal(JobwireError(Reason.JOB_EXISTS, "taken", metadata={"job_id": "j"}))
    trailers = dict(told.trailers())
    assert trailers[REASON_TRAILER] == "JOB_EXISTS"
    assert trailers[DETAILS_TRAILER] == told.status().SerializeToString()
    assert (told.status().code, told.status().message) == (number(StatusCode.ALREADY_EXISTS), "taken")
    expected = error_details_pb2.ErrorInfo(reason="JOB_EXISTS", domain="jobwire", metadata={"job_id": "j"})
    assert details(told) == {"ErrorInfo": expected}


def test_a_faulty_field_is_named_in_a_bad_request() -> None:
    told = refusal(invalid("job.retry_policy.jitter", "must be from 0 to 1"))
    violation = error_details_pb2.BadRequest.FieldViolation(
        field="job.retry_policy.jitter", description="job.retry_policy.jitter: must be from 0 to 1"
    )
    assert details(told)["BadRequest"] == error_details_pb2.BadRequest(field_violations=[violation])
    assert told.metadata["field"] == "job.retry_policy.jitter"


def test_what_may_be_repeated_says_when() -> None:
    told = refusal(JobwireError(Reason.CONTENDED, "busy", retry_after=1_500_000))
    [delay] = [info.retry_delay for name, info in details(told).items() if name == "RetryInfo"]  # type: ignore[attr-defined]  # untyped message
    assert (delay.seconds, delay.nanos) == (1, 500_000_000)


def test_a_limit_is_told_with_the_refusal() -> None:
    assert refusal(too_large("job.payload.data", 9, 8)).metadata == {
        "field": "job.payload.data",
        "size": "9",
        "limit": "8",
    }


@pytest.mark.parametrize(
    ("error", "code", "reason", "retries"),
    [
        (StoreUnavailable("redis://user:secret@host"), StatusCode.UNAVAILABLE, Reason.STORE_UNAVAILABLE, True),
        (StoreFull("/var/lib/secret"), StatusCode.RESOURCE_EXHAUSTED, Reason.STORE_FULL, False),
    ],
)
def test_a_store_in_trouble_is_told_without_its_words(
    error: Exception, code: StatusCode, reason: Reason, retries: bool
) -> None:
    told = refusal(error)
    assert (told.code, told.reason, told.retry_after is not None) == (code, reason, retries)
    assert "secret" not in str(told.status())


@pytest.mark.parametrize("error", [ValueError("secret"), JobwireError(Reason.INTERNAL, "secret"), KeyError("secret")])
def test_the_unexpected_is_internal_and_told_by_an_id_alone(error: Exception) -> None:
    told = refusal(error)
    assert (told.code, told.reason) == (StatusCode.INTERNAL, Reason.INTERNAL)
    assert told.metadata["correlation_id"] in told.message
    assert told.metadata["correlation_id"] != refusal(error).metadata["correlation_id"]
    assert "secret" not in str(told.status()) + str(told.item())


def test_an_item_of_a_batch_tells_the_same() -> None:
    told = refusal(JobwireError(Reason.LEASE_LOST, "gone", metadata={"job_id": "j"}))
    item = told.item()
    assert (item.code, item.reason, item.message, dict(item.metadata)) == (9, "LEASE_LOST", "gone", {"job_id": "j"})


def test_trailers_stay_far_below_what_peers_accept() -> None:
    told = refusal(JobwireError(Reason.INVALID_FIELD, "ü" * 5000, field="job.id", metadata={"x": "y" * 5000}))
    assert sum(len(value) for _, value in told.trailers()) < 4096
