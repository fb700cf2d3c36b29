"""How long hypothesis may look. `HYPOTHESIS_PROFILE=thorough` takes minutes instead of seconds."""

from __future__ import annotations

import os

from hypothesis import settings

# No deadline: a machine that is busy elsewhere must not turn a property red.
settings.register_profile("quick", max_examples=100, deadline=None)
settings.register_profile("thorough", max_examples=20_000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
