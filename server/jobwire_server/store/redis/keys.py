"""The names of all keys; nothing else spells them.

Every key begins with one hash tag, so that one script can see all of them, on a cluster too. User text enters a name
by the grammar of ids and names, or hashed.
"""

from __future__ import annotations

from typing import Final

PARTITIONS: Final = 1

_NAMES: Final = {
    "META": ":meta",  # hash: schema, partitions, create_time; while a copy fills it filled_from, "<which> <whence>"
    "JOB": ":job:",  # <id>: string, JSON object of the job's small fields by their names in domain.job.Job; codec.py
    "SPEC": ":spec:",  # <id>: string, a byte for the length of the digest, the digest, the submission
    "RESULT": ":result:",  # <id>: string, the result; absent when there is none
    "DETAIL": ":detail:",  # <id>: string, JSON object of what may grow: error, history, progress, cancel_reason
    "INDEX": ":q:",  # <queue>:<state>: sorted set of job ids by score
    "EXPIRY": ":expiry",  # sorted set: waiting jobs that were never started, by expire_time
    "LEASES": ":w:",  # <worker>: sorted set of the jobs leased to it by claim time; its size is the credit used
    "USER": ":u:",  # <SHA-1 of the user id>: sorted set of the user's jobs by create time
    "REQUEST": ":request:",  # <hash>: string, "<forgotten at> <job id> <digest>", for a day
    "QUEUES": ":queues",  # set of queue names
    "QUEUE": ":queue:",  # <name>: hash, settings by their names in domain.queue.Queue, last_queue_time; tally by the
    # names in domain.activity.Tally, and tallied_at: when that last changed, or earlier in the same step of time
    "MARKS": ":marks:",  # <queue>: hash, "<seconds of a step>:<slot>" → "<step> <its number> <the tally before it>"
    "WORKERS": ":workers",  # set of worker ids
    "WORKER": ":worker:",  # <id>: hash, session, signs of life, returned deliveries, directive, what it says of itself
    "CALL": ":call:",  # <call id>: string, what a call has done, for as long as it may be sent again
    "AWAITED": ":awaited",  # string: what was written for replicas to confirm, and with it all that came before
    "CHANGE": ":change",  # counter: one up with each script that changed jobs or rang a bell
    "SWEPT": ":swept",  # hash: swept_at, recovered_at; promote, purge: "<server> <when it had done all there was>"
    "HINTS": ":hints",  # channel: "<change> <JSON object>"
    "WATCHED": ":watched",  # string that passes away unless somebody who watches sets it again: tell changes
    "CHANGES": ":changes",  # channel, while watched: "<change>", JSON and large parts, a line break between them
}


def partition_of(queue: str) -> int:
    """The partition that holds a queue with all its jobs. One for now: strict order, one script sees everything."""
    return 0


class Keys:
    """The keys of one partition under one prefix."""

    def __init__(self, prefix: str, partition: int = 0) -> None:
        self.tag: Final = f"{{{prefix}:{partition}}}"
        self.meta: Final = self.tag + _NAMES["META"]
        """What every script is given as KEYS[1]: it routes the call, and carries the tag."""
        self.never: Final = self.tag + ":never"
        """No key. In a Cluster it is KEYS[2]: while the slot moves to another node key by key, one that is not there
        makes the engine refuse the call as a whole, before a script finds in its middle that a key has gone ahead."""
        self.swept: Final = self.tag + _NAMES["SWEPT"]
        self.hints: Final = self.tag + _NAMES["HINTS"]
        self.changes: Final = self.tag + _NAMES["CHANGES"]


def lua() -> dict[str, str]:
    """The same names for scripts: each a local that holds what follows TAG. Name → how it is said."""
    tag = f"local TAG = string.sub(KEYS[1], 1, {-1 - len(_NAMES['META'])})\n"
    return {"TAG": tag, **{name: f"local {name} = '{suffix}'\n" for name, suffix in _NAMES.items()}}
