# SPDX-License-Identifier: BSD-3-Clause
"""What holds for all tests: how many CPUs an OpenCL runtime for CPUs gets, Ctrl-C, hypothesis."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings

from hummingbird.opencl.device import reserve_cores

# The first OpenCL call of a process settles it, so do it here, whichever test comes first.
reserve_cores(max(1, len(os.sched_getaffinity(0)) - 1))

# A shell ignores it for what it starts in the background, and so would all that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# As key files have to be; git does not keep it.
(Path(__file__).parent.parent / "policies" / "demo" / "ipsec.key").chmod(0o600)

# What NFs keep over restarts: of this session alone, or two sessions with the demonstration's keys
# would exclude each other.
_state = tempfile.TemporaryDirectory(prefix="hummingbird-state-")
os.environ["STATE_DIRECTORY"] = _state.name

# No deadline: the time of an example depends on what else the machine does.
settings.register_profile(
    "hummingbird",
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("hummingbird")
