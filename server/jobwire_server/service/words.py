"""The word of an end: what every service that ends jobs brings along where somebody asked to be told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from jobwire_server.domain.job import Job
from jobwire_server.domain.move import Move
from jobwire_server.domain.webhook import delivery, ended, wants_word

Bring = Callable[[Job, Move], Move]
"""A Move that was decided from that job → the same with the word of the end that it makes, if one is wanted."""


def no_words(_: Job, move: Move) -> Move:
    """For a server that tells nobody; ends of which somebody is to be told are STALE then."""
    return move


def words(submission_of: Callable[[Job], bytes]) -> Bring:
    """`submission_of` writes the job as it has ended into the submission of its delivery."""

    def bring(job: Job, move: Move) -> Move:
        if not job.webhook_events or not wants_word(job, move.to):
            return move
        return replace(move, word=delivery(submission_of(ended(job, move))))

    return bring
