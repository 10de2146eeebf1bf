# SPDX-License-Identifier: BSD-3-Clause
"""What this process may do: capabilities, and how much memory it may lock."""

from __future__ import annotations

import resource
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# Numbers of linux/capability.h.
CAPABILITIES = {
    "CAP_NET_ADMIN": 12,
    "CAP_NET_RAW": 13,
    "CAP_IPC_LOCK": 14,
    "CAP_SYS_ADMIN": 21,
    "CAP_BPF": 39,
}
OF_THE_MACHINE = frozenset({"CAP_IPC_LOCK", "CAP_BPF", "CAP_SYS_ADMIN"})
"""The kernel asks for these in its first user namespace; the others in that of the network."""
ALL_IDS = ["0", "0", "4294967295"]
"""/proc/self/uid_map of that namespace."""
KERNEL_OF_CAP_BPF = (5, 8)


@dataclass(frozen=True)
class Rights:
    """Of this process."""

    effective: frozenset[str]
    """Capabilities, of CAPABILITIES, that the kernel grants it."""
    bounding: frozenset[str]
    """Those that it could have if it were root."""
    first_namespace: bool
    """False in a user namespace of a container, where root is nobody to the machine."""

    def missing(self, wanted: Iterable[str]) -> list[str]:
        """Those of `wanted` that it lacks. CAP_SYS_ADMIN has CAP_BPF in it, as capable() has."""
        return [
            name
            for name in wanted
            if name not in self.effective
            and not (name == "CAP_BPF" and "CAP_SYS_ADMIN" in self.effective)
        ]


def rights(proc: Path = Path("/proc")) -> Rights:
    """Read them; OSError or ValueError where /proc does not say."""
    lines = (proc / "self/status").read_text(encoding="ascii", errors="replace").splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    if "CapEff" not in fields or "CapBnd" not in fields:
        raise ValueError(f"{proc}/self/status has no line of capabilities")
    first = _in_first_namespace(proc)
    granted = frozenset() if first else OF_THE_MACHINE
    return Rights(_names(fields["CapEff"]) - granted, _names(fields["CapBnd"]) - granted, first)


def _in_first_namespace(proc: Path) -> bool:
    try:
        return (proc / "self/uid_map").read_text(encoding="ascii").split() == ALL_IDS
    except FileNotFoundError:  # a kernel without user namespaces
        return True


def _names(mask: str) -> frozenset[str]:
    bits = int(mask, 16)
    return frozenset(name for name, bit in CAPABILITIES.items() if bits >> bit & 1)


def memlock() -> int | None:
    """Bytes that this process may lock (RLIMIT_MEMLOCK, the soft limit); None: any number."""
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return None if soft == resource.RLIM_INFINITY else soft
