# SPDX-License-Identifier: BSD-3-Clause
"""What a check finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """The answer of one check, or of one part of it."""

    name: str
    """What was looked at: ``rights``, an interface, ..."""
    state: State
    """``problem``: a run that needs it fails. ``warning``: it works, but not as well as it could,
    or packets go where they are not expected."""
    what: str
    """One or two sentences."""
    fix: str | None = None
    """A command that can be copied, or what to do."""


def ok(name: str, what: str) -> Finding:
    """Nothing to do."""
    return Finding(name, "ok", what)


def warning(name: str, what: str, fix: str | None = None) -> Finding:
    """See Finding.state."""
    return Finding(name, "warning", what, fix)


def problem(name: str, what: str, fix: str | None = None) -> Finding:
    """See Finding.state."""
    return Finding(name, "problem", what, fix)
