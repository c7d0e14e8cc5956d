"""What every test has: how hard hypothesis looks, chosen by HYPOTHESIS_PROFILE."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

QUICK = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
# In CI the same examples every time: a change fails for what it changed. `make full` looks for new ones.
settings.register_profile("default", QUICK, derandomize="CI" in os.environ)
settings.register_profile("full", QUICK, derandomize=False, max_examples=5_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
