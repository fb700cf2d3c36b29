"""Randomness that keeps things apart and is no secret: ids, operations.

The system's own costs a call of the system, which gives up the interpreter lock and may wait for it; tokens, which are
secrets, come from there all the same.
"""

from __future__ import annotations

import os
from random import Random
from typing import Final

_random: Final = Random()
# A process that was forked would go on with the numbers of its parent.
os.register_at_fork(after_in_child=_random.seed)

noise_bits: Final = _random.getrandbits


def noise_bytes(size: int) -> bytes:
    """A little quicker than `randbytes`, which every completion would pay for."""
    return noise_bits(size << 3).to_bytes(size, "big")
