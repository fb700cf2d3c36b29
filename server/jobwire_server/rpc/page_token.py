"""Page tokens: where a listing goes on, as opaque text that fits this one listing.

A token holds no secret and grants nothing: whoever makes one up only chooses where a listing begins that they may ask
for anyway. The digest in it finds what was cut, mixed up or sent with another filter.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from jobwire_server.domain.errors import JobwireError, invalid
from jobwire_server.domain.filter import Position
from jobwire_server.domain.job import JobState
from jobwire_server.domain.limits import JOB_ID, NAME

_DIGEST: Final = 8
_LENGTH: Final = 512
"""Characters; a token with the longest names and ids stays far below."""
_STATES: Final = {state.value: state for state in JobState}
_INT64: Final = range(-(2**63), 2**63)

Place = Sequence[str | int]


def seal(listing: bytes, place: Place) -> str:
    """The token of a place in `listing`: the RPC and the filter that were asked, as bytes."""
    body = json.dumps(list(place), separators=(",", ":")).encode()
    return _text(_digest(listing, body) + body)


def unseal(path: str, token: str, listing: bytes) -> Place:
    """The place it was made for. Whether that makes sense is still to be seen: anyone can make a token up."""
    try:
        if len(token) > _LENGTH:
            raise ValueError
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        body = raw[_DIGEST:]
        # Decoding passes over what it does not know: only the text that we would write ourselves is ours.
        if _text(raw) != token or raw[:_DIGEST] != _digest(listing, body):
            raise ValueError
        place = json.loads(body)
    except ValueError as error:
        raise refused(path) from error
    if not isinstance(place, list) or not all(isinstance(part, str | int) for part in place):
        raise refused(path)
    return place


def refused(path: str) -> JobwireError:
    return invalid(path, "is no token of this call with this filter: start again with an empty one")


def place_of(position: Position) -> Place:
    return position.queue, position.state.value, position.score, position.id


def position_of(path: str, place: Place) -> Position:
    match place:
        case [str(queue), str(state), int(score), str(job_id)] if (
            (not queue or NAME.fullmatch(queue))
            and state in _STATES
            and score in _INT64
            and (not job_id or JOB_ID.fullmatch(job_id))
        ):
            return Position(queue, _STATES[state], score, job_id)
    raise refused(path)


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _digest(listing: bytes, body: bytes) -> bytes:
    return sha256(sha256(listing).digest() + body).digest()[:_DIGEST]
