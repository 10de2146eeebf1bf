# SPDX-License-Identifier: BSD-3-Clause
"""What a process that is measured gets before it starts: its CPUs, its pages, and its end."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable, Sequence

_PR_SET_PDEATHSIG = 1
_PR_SET_THP_DISABLE = 41


def prepare(cpus: Sequence[int] | None = None, huge_pages: bool = True) -> Callable[[], None]:
    """A `preexec_fn` for subprocess.

    Args:
        cpus: CPUs that the process may use; None: all of this one.
        huge_pages: False denies it transparent huge pages, whatever it or the system asks for.

    Returns:
        What the new process calls first. It also ties the process to this one: no measurement
        outlives whoever asked for it. All of it lasts through exec.
    """
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def before_exec() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if cpus is not None:
            os.sched_setaffinity(0, cpus)
        if not huge_pages and prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_THP_DISABLE)")

    return before_exec
