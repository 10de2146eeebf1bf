# SPDX-License-Identifier: BSD-3-Clause
"""Numbers for people, in few columns: three digits and a unit; ``-`` where there is no number."""

from __future__ import annotations

_LARGE = ("", "k", "M", "G", "T")
_TIMES = ("us", "ms", "s")


def amount(value: float | None) -> str:
    """A count or a rate in at most five columns."""
    if value is None:
        return "-"
    if value < 1000 and value == int(value):
        return str(int(value))
    return "<0.01" if value < 0.01 else _scaled(value, _LARGE)


def latency(us: float | None) -> str:
    """A time in at most six columns."""
    if us is None:
        return "-"
    return _scaled(us, _TIMES)


def _scaled(value: float, units: tuple[str, ...]) -> str:
    for unit in units[:-1]:
        if value < 999.5:
            return _three(value) + unit
        value /= 1000
    return _three(value) + units[-1]


def _three(value: float) -> str:
    """Three digits."""
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"


def gbps(value: float | None) -> str:
    """Gbit/s in at most six columns."""
    if value is None:
        return "-"
    if 0 < value < 0.0005:
        return "<0.001"
    return f"{value:.{3 if value < 9.9995 else 2 if value < 99.995 else 1}f}" if value else "0"


def percent(share: float | None) -> str:
    """A share of 1 in at most four columns."""
    if share is None:
        return "-"
    return "<1%" if 0 < share < 0.005 else f"{share:.0%}"


def span(seconds: float) -> str:
    """How long something runs."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours}:{minutes:02}:{rest:02}" if hours or minutes else f"{seconds:.0f} s"
