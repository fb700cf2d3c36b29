"""What jobs of one claim share is read once: whatever the others hold, each is read as it would be by itself."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobwire_server.domain.job import Job
from jobwire_server.store.redis import codec

TOKEN = "0123456789abcdef" * 2
RECORD = (
    f'{{"version":"2","revision":"2","attempt":"1","state":"in_progress","score":"1730000000000007","token":"{TOKEN}",'
    '"fence":"1730000000000001","update_time":"1730000000000001","claim_time":"1730000000000001","worker_id":"w",'
    '"lease_duration":"30000000","queue_time":"1720000000000000","create_time":"1710000000000000","queue":"q"}'
)
OTHER = RECORD.replace(TOKEN, TOKEN[::-1]).replace("1720000000000000", "1720000000000003")


def read(reader: codec.Leased, record: bytes) -> Job | None:
    try:
        return reader.decode("j", record, b"\0payload")
    except codec.UNREADABLE:
        return None


def read_alone(record: bytes) -> Job | None:
    return read(codec.Leased(), record)


def test_the_own_parts_of_a_job_like_the_one_before_are_read() -> None:
    reader = codec.Leased()
    first, second = reader.decode("a", RECORD.encode(), b"\0x"), reader.decode("b", OTHER.encode(), b"\1dy")
    assert (second.id, second.submission, second.queue_time) == ("b", b"y", 1720000000000003)
    assert (second.token or b"").hex() == TOKEN[::-1]
    assert second._replace(id="a", submission=b"x", token=first.token, queue_time=first.queue_time) == first


CUTS = [RECORD.index(part) for part in (TOKEN, '"queue_time', "1720", '"create_time', "1710", '"queue":')]


@given(
    at=st.sampled_from(CUTS).flatmap(lambda cut: st.integers(cut - 3, cut + 40)),
    length=st.integers(0, 36),
    text=st.text(alphabet='"0123456789abcdef,:{}_ \\', max_size=36),
)
@example(at=RECORD.index("1710"), length=16, text="0")
@example(at=RECORD.index(TOKEN), length=32, text='"' * 32)
@example(at=RECORD.index('"queue_time'), length=0, text='"queue_time":"1","token":"",')
def test_a_damaged_record_is_read_as_it_would_be_alone(at: int, length: int, text: str) -> None:
    damaged = (OTHER[:at] + text + OTHER[at + length :]).encode()
    reader = codec.Leased()
    assert read(reader, RECORD.encode()) is not None
    assert read(reader, damaged) == read_alone(damaged)
    assert read(reader, OTHER.encode()) == read_alone(OTHER.encode())


@pytest.mark.parametrize("first", [RECORD.replace('"update_time":"1730000000000001",', ""), "{}", RECORD[:-1]])
def test_what_is_no_plain_lease_teaches_nothing(first: str) -> None:
    reader = codec.Leased()
    read(reader, first.encode())
    other = first.replace("1710000000000000", "1710000000000009").encode()
    assert read(reader, other) == read_alone(other)
