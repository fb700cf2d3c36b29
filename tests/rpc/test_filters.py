"""Filters and page tokens as the services read them."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.rpc.reading import BIG, NOW, at, refused

from jobwire.v1 import job_pb2, job_service_pb2, queue_service_pb2
from jobwire_server.domain.errors import Reason
from jobwire_server.domain.filter import JobFilter, Position
from jobwire_server.domain.job import WAITING, JobState
from jobwire_server.domain.limits import Limits
from jobwire_server.rpc import filters, page_token
from jobwire_server.rpc.queues import queues_start, queues_token
from jobwire_server.service.by_filter import Changed

LIMITS = Limits()
Filter = job_pb2.JobFilter
List = job_service_pb2.ListJobsRequest
Delete = job_service_pb2.DeleteJobsRequest
Retry = job_service_pb2.RetryJobsRequest
Purge = queue_service_pb2.PurgeQueueRequest
PLACE = Position("mail", JobState.FAILED, -5, "job-1")


def read(**fields: Any) -> JobFilter:
    return filters.job_filter("filter", Filter(**fields), LIMITS)


# --- filters ------------------------------------------------------------------------------------------------


def test_an_empty_filter_narrows_nothing() -> None:
    assert read().is_empty


def test_a_filter_is_read_whole() -> None:
    got = read(
        queues=["b", "a", "b"],
        states=[job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELED],
        user_id="ann",
        types=["t", ""],
        labels={"k": "v"},
        create_time_after=at(NOW),
        create_time_before=at(NOW + 1),
    )
    assert got.queues == {"a", "b"}
    assert got.states == {JobState.FAILED, JobState.CANCELED}
    assert got.types == {"t", ""}
    assert (got.user_id, got.created_from, got.created_before) == ("ann", NOW, NOW + 1)
    assert got.submission_matches is not None


@pytest.mark.parametrize("field", list(Filter.DESCRIPTOR.fields), ids=lambda field: field.name)
def test_each_field_alone_makes_a_filter(field: Any) -> None:
    one = Filter()
    match field.name:
        case "states":
            one.states.append(job_pb2.JOB_STATE_QUEUED)
        case "labels":
            one.labels["k"] = "v"
        case "user_id":
            one.user_id = "u"
        case "create_time_after" | "create_time_before":
            getattr(one, field.name).SetInParent()
        case _:
            getattr(one, field.name).append("x")
    assert not filters.job_filter("filter", one, LIMITS).is_empty


@pytest.mark.parametrize(
    ("labels", "stored", "matches"),
    [
        ({"a": "1"}, {"a": "1", "b": "2"}, True),
        ({"a": "1", "b": "2"}, {"a": "1", "b": "2"}, True),
        ({"a": "1", "b": "2"}, {"a": "1"}, False),
        ({"a": "1"}, {"a": "2"}, False),
        ({"a": ""}, {"a": ""}, True),
        ({"a": ""}, {}, False),
    ],
)
def test_a_job_matches_when_it_has_each_label(labels: dict[str, str], stored: dict[str, str], matches: bool) -> None:
    submission = job_pb2.Job(labels=stored, payload=job_pb2.Payload(text="x")).SerializeToString()
    judge = read(labels=labels).submission_matches
    assert judge is not None
    assert judge(submission) is matches


def test_a_submission_that_cannot_be_read_has_no_labels() -> None:
    judge = read(labels={"a": "1"}).submission_matches
    assert judge is not None
    assert not judge(b"\xff\xff")


def test_a_bound_between_two_microseconds_leaves_out_the_earlier_one() -> None:
    between = Timestamp(seconds=5, nanos=1001)
    got = read(create_time_after=between, create_time_before=between)
    assert (got.created_from, got.created_before) == (5_000_002, 5_000_002)


UNKNOWN = Filter.FromString(Filter(queues=["q"]).SerializeToString() + b"\x82\x7d\x03abc")  # field 2000, three bytes


@pytest.mark.parametrize(
    ("given_", "path", "reason"),
    [
        (Filter(queues=["q", "/"]), "filter.queues[1]", Reason.INVALID_FIELD),
        (Filter(queues=[""]), "filter.queues[0]", Reason.INVALID_FIELD),
        (Filter(queues=["q"] * 101), "filter.queues", Reason.INVALID_FIELD),
        (Filter(states=[job_pb2.JOB_STATE_UNSPECIFIED]), "filter.states[0]", Reason.INVALID_FIELD),
        (Filter(states=[job_pb2.JOB_STATE_QUEUED, 99]), "filter.states[1]", Reason.INVALID_FIELD),  # type: ignore[list-item]  # of a later contract
        (Filter(states=[job_pb2.JOB_STATE_QUEUED] * 101), "filter.states", Reason.INVALID_FIELD),
        (Filter(user_id=BIG), "filter.user_id", Reason.TOO_LARGE),
        (Filter(user_id="\0"), "filter.user_id", Reason.INVALID_FIELD),
        (Filter(types=["t", BIG]), "filter.types[1]", Reason.TOO_LARGE),
        (Filter(types=["t"] * 101), "filter.types", Reason.INVALID_FIELD),
        (Filter(labels={"": "v"}), "filter.labels", Reason.INVALID_FIELD),
        (Filter(labels={str(i): "" for i in range(33)}), "filter.labels", Reason.TOO_LARGE),
        (Filter(create_time_after=Timestamp(seconds=-1)), "filter.create_time_after", Reason.INVALID_FIELD),
        (Filter(create_time_before=Timestamp(nanos=-1)), "filter.create_time_before", Reason.INVALID_FIELD),
        (UNKNOWN, "filter", Reason.NOT_BUILT),
    ],
)
def test_a_refused_filter_names_the_field(given_: job_pb2.JobFilter, path: str, reason: Reason) -> None:
    refused(lambda: filters.job_filter("filter", given_, LIMITS), path, reason)


def test_numbers_of_jobs_have_a_default_and_a_limit() -> None:
    assert [filters.page_size(given, LIMITS) for given in (0, 1, 1000)] == [100, 1, 1000]
    assert [filters.max_jobs(given, LIMITS) for given in (0, 1, 1000)] == [1000, 1, 1000]
    refused(lambda: filters.page_size(1001, LIMITS), "page_size")
    refused(lambda: filters.max_jobs(1001, LIMITS), "max_jobs")


def test_a_change_of_all_jobs_there_are_is_refused() -> None:
    refused(lambda: filters.selection(Delete(), LIMITS), "filter")
    refused(lambda: filters.selection(Delete(filter=Filter(), validate_only=True), LIMITS), "filter")


def test_a_purge_means_those_that_wait_unless_it_names_states() -> None:
    got = filters.purge_selection(Purge(name="q", max_jobs=7, validate_only=True), LIMITS)
    assert got.wanted == JobFilter(queues=frozenset({"q"}), states=WAITING)
    assert (got.max_jobs, got.validate_only) == (7, True)
    named = filters.purge_selection(Purge(name="q", states=[job_pb2.JOB_STATE_FAILED]), LIMITS)
    assert named.wanted.states == {JobState.FAILED}
    assert named.max_jobs == 1000
    running = Purge(name="q", states=[job_pb2.JOB_STATE_QUEUED, job_pb2.JOB_STATE_IN_PROGRESS])
    refused(lambda: filters.purge_selection(running, LIMITS), "states")
    refused(lambda: filters.purge_selection(Purge(), LIMITS), "name")


# --- page tokens ---------------------------------------------------------------------------------------------


def request(token: str = "", **fields: Any) -> job_service_pb2.ListJobsRequest:
    return List(filter=Filter(**fields), page_token=token)


def test_a_token_leads_back_to_its_place() -> None:
    assert filters.listing_token(request(user_id="u"), None) == ""
    assert filters.listing_start(request(user_id="u")) is None
    for place in (PLACE, Position("", JobState.SCHEDULED, 2**63 - 1, ""), Position("q" * 64, JobState.QUEUED, 0, "")):
        token = filters.listing_token(request(user_id="u"), place)
        assert filters.listing_start(request(token, user_id="u")) == place


def test_the_longest_place_has_a_token_that_is_accepted() -> None:
    place = Position("q" * 64, JobState.IN_PROGRESS, -(2**63), "j" * 128)
    asked = Retry(filter=Filter(user_id="u"))
    asked.page_token = filters.selection_token(asked, Changed(1, place, 2**62))
    assert filters.selection(asked, LIMITS).after == place


def test_a_row_of_changes_remembers_when_it_began() -> None:
    asked = Retry(filter=Filter(queues=["q"]))
    first = filters.selection(asked, LIMITS)
    assert (first.after, first.began) == (None, None)
    assert filters.selection_token(asked, Changed(3, None, NOW)) == ""
    asked.page_token = filters.selection_token(asked, Changed(3, PLACE, NOW))
    again = filters.selection(asked, LIMITS)
    assert (again.after, again.began) == (PLACE, NOW)


def test_the_same_jobs_asked_for_in_another_order_are_the_same_listing() -> None:
    token = filters.listing_token(request(queues=["a", "b"], types=["x", "y"], labels={"k": "1", "l": "2"}), PLACE)
    same = request(token, queues=["b", "a", "a"], types=["y", "x"], labels={"l": "2", "k": "1"})
    assert filters.listing_start(same) == PLACE


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"user_id": "v"},
        {"queues": ["u"]},
        {"types": ["u"]},
        {"user_id": "u", "states": [job_pb2.JOB_STATE_QUEUED]},
        {"user_id": "u", "labels": {"k": "v"}},
        {"user_id": "u", "create_time_after": at(1)},
        {"user_id": "u", "create_time_before": at(1)},
    ],
    ids=str,
)
def test_a_token_of_another_filter_is_refused(other: dict[str, Any]) -> None:
    token = filters.listing_token(request(user_id="u"), PLACE)
    refused(lambda: filters.listing_start(request(token, **other)), "page_token")


def test_a_token_of_another_call_is_refused() -> None:
    chosen = Filter(user_id="u")
    token = filters.listing_token(List(filter=chosen), PLACE)
    refused(lambda: filters.selection(Delete(filter=chosen, page_token=token), LIMITS), "page_token")
    changed = filters.selection_token(Delete(filter=chosen), Changed(1, PLACE, NOW))
    refused(lambda: filters.listing_start(List(filter=chosen, page_token=changed)), "page_token")
    refused(lambda: filters.selection(Retry(filter=chosen, page_token=changed), LIMITS), "page_token")
    refused(lambda: queues_start(queue_service_pb2.ListQueuesRequest(page_token=token)), "page_token")


@given(st.data())
def test_a_mangled_token_is_refused(data: st.DataObject) -> None:
    token = filters.listing_token(request(user_id="u"), PLACE)
    kind = data.draw(st.sampled_from(["cut", "changed", "anything"]))
    match kind:
        case "cut":
            mangled = token[: data.draw(st.integers(1, len(token) - 1))]
        case "changed":
            i = data.draw(st.integers(0, len(token) - 1))
            mangled = token[:i] + data.draw(st.characters(exclude_categories=["Cs"])) + token[i + 1 :]
        case _:
            mangled = data.draw(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
    assume(mangled != token)
    refused(lambda: filters.listing_start(request(mangled, user_id="u")), "page_token")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(st.lists(JSON, max_size=6) | JSON)
def test_a_token_that_was_made_up_is_refused_unless_it_names_a_place(place: Any) -> None:
    asked = request(user_id="u")
    body = json.dumps(place).encode()
    digest = page_token._digest(filters.listing_of(asked), body)
    asked.page_token = base64.urlsafe_b64encode(digest + body).rstrip(b"=").decode()
    refused(lambda: filters.listing_start(asked), "page_token")


@pytest.mark.parametrize(
    "place",
    [
        ["q", "queued", 2**63, "j"],
        ["q", "queued", 1.5, "j"],
        ["q", "QUEUED", 1, "j"],
        ["q/", "queued", 1, "j"],
        ["q", "queued", 1, "j\ud800"],
        ["q", "queued", 1],
        ["q", "queued", 1, "j", 1],
        [],
    ],
)
def test_a_place_that_cannot_be_is_refused(place: list[Any]) -> None:
    asked = request(user_id="u")
    asked.page_token = page_token.seal(filters.listing_of(asked), place)
    refused(lambda: filters.listing_start(asked), "page_token")
    change = Delete(filter=Filter(user_id="u"))
    change.page_token = page_token.seal(filters.listing_of(change), [*place, NOW])
    refused(lambda: filters.selection(change, LIMITS), "page_token")


def test_a_row_that_began_at_no_time_is_refused() -> None:
    change = Delete(filter=Filter(user_id="u"))
    change.page_token = page_token.seal(filters.listing_of(change), [*page_token.place_of(PLACE), "soon"])
    refused(lambda: filters.selection(change, LIMITS), "page_token")


def test_a_token_of_queues_leads_back_to_a_name() -> None:
    def start(token: str) -> str:
        return queues_start(queue_service_pb2.ListQueuesRequest(page_token=token))

    assert start("") == ""
    assert start(queues_token("mail")) == "mail"
    for name in ("", "/", "a\ud800"):
        refused(lambda name=name: start(queues_token(name)), "page_token")  # type: ignore[misc]  # a lambda's default has no type
