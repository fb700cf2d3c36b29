"""Webhooks on the wire: what a job asks for, and what its delivery holds."""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

from google.protobuf.json_format import MessageToJson
from google.protobuf.message import DecodeError

from jobwire.v1 import job_pb2
from jobwire_server.domain.errors import invalid
from jobwire_server.domain.job import Job
from jobwire_server.domain.limits import KIB
from jobwire_server.domain.webhook import EVENTS, NOT_YET
from jobwire_server.rpc import validate
from jobwire_server.rpc.answers import job_message, set_time
from jobwire_server.service.receivers import Receivers
from jobwire_server.service.signing import Secrets
from jobwire_server.service.webhooks import Unreadable, Word

_URL_SIZE: Final = 2 * KIB
_VISIBLE: Final = re.compile(r"[!-~]+")
_CONTENT_TYPE: Final = "application/x-protobuf; messageType=jobwire.v1.Job"
_EVENTS: Final = {job_pb2.WebhookEvent.Value(f"WEBHOOK_EVENT_{state.name}"): state for state in EVENTS}
_ALL: Final = sum(EVENTS.values())


class WebhookReader:
    """Reads what jobs ask for. What can be known to fail at the end is refused at the start."""

    def __init__(self, secrets: Secrets, receivers: Receivers) -> None:
        self._secrets = secrets
        self._receivers = receivers

    def events(self, path: str, given: job_pb2.Webhook) -> int:
        """The ends that are asked for, as bits."""
        self._check_url(f"{path}.url", given.url)
        if given.secret_ref:
            name = validate.name(f"{path}.secret_ref", given.secret_ref)
            if not self._secrets.keys(name):
                raise invalid(f"{path}.secret_ref", "is no signing secret of this server")
        bits = 0
        for i, event in enumerate(given.events):
            if event not in _EVENTS:
                raise invalid(f"{path}.events[{i}]", "is no way of ending")
            bits |= EVENTS[_EVENTS[event]]
        return bits or _ALL

    def _check_url(self, path: str, url: str) -> None:
        validate.text(path, url, _URL_SIZE)
        parts = _split(url)
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
            raise invalid(path, "must be an http or https URL in ASCII, with a host")
        if "@" in parts.netloc:
            raise invalid(path, "must not hold credentials: sign it instead")
        if parts.fragment:
            raise invalid(path, "must not have a fragment")
        try:
            address = ipaddress.ip_address(parts.hostname)
        except ValueError:
            return  # a name, which is judged when it is called
        if not self._receivers.allows(address):
            raise invalid(path, "is at an address that this server does not speak to")


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port  # looked at, it is checked
    except ValueError:
        return None
    return parts if _VISIBLE.fullmatch(url) else None


def word_submission(ended: Job) -> bytes:
    """A job that has ended, as the submission of its delivery."""
    told = job_message(ended)
    told.ClearField("purge_time")  # the retention may be its queue's, which only the store knows
    word = job_pb2.Job(payload=job_pb2.Payload(content_type=_CONTENT_TYPE, data=told.SerializeToString()))
    word.labels["job_id"] = ended.id
    word.labels["event"] = ended.state.name
    return word.SerializeToString(deterministic=True)


def read_word(delivery: Job) -> Word:
    """What a delivery says. Raises Unreadable."""
    try:
        told = job_pb2.Job.FromString(job_pb2.Job.FromString(delivery.submission).payload.data)
    except DecodeError as error:
        raise Unreadable("its submission cannot be parsed") from error
    parts = _split(told.webhook.url)
    if parts is None or not parts.hostname:
        raise Unreadable("there is no URL in it: the webhook of its job could not be read")
    set_time(told.finish_time, delivery.create_time)
    set_time(told.update_time, delivery.create_time)
    for attempt in told.attempts:
        if attempt.HasField("end_time") and attempt.end_time.ToMicroseconds() == NOT_YET:
            set_time(attempt.end_time, delivery.create_time)
    body = MessageToJson(told, indent=None).encode()
    return Word(told.id, told.webhook.url, told.webhook.secret_ref, body)
