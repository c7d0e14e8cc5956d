"""What every test has: how hard hypothesis looks, by HYPOTHESIS_PROFILE, and a Ctrl-C that arrives."""

from __future__ import annotations

import os
import signal

from hypothesis import HealthCheck, settings

QUICK = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
# In CI the same examples every time: a change fails for what it changed. `make full` looks for new ones.
settings.register_profile("default", QUICK, derandomize="CI" in os.environ)
settings.register_profile("full", QUICK, derandomize=False, max_examples=5_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

# What a shell starts in the background ignores Ctrl-C, and hands that on: here to the programs under test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
