# SPDX-License-Identifier: BSD-3-Clause
"""What ethtool(8) shows of an interface, by the same ioctls (linux/ethtool.h); needs no rights."""

from __future__ import annotations

import array
import errno
import fcntl
import socket
import struct
from dataclasses import dataclass

_SIOCETHTOOL = 0x8946
_GET_DRIVER, _GET_CHANNELS, _GET_FLAGS = 0x03, 0x3C, 0x25
_FLAGS = {"rxvlan": 1 << 8, "lro": 1 << 15}
_OFFLOADS = {"rx": 0x14, "tx": 0x16, "tso": 0x1E, "gso": 0x23, "gro": 0x2B}
"""Commands that answer 0 or 1, by ethtool's short names."""


@dataclass(frozen=True)
class Interface:
    """An interface as its driver describes it."""

    driver: str
    """Empty: it does not say."""
    bus: str
    """Such as the PCI address; empty for what is no hardware."""
    queues: int | None
    """That receive: ``rx`` and ``combined`` channels; None: it does not say."""
    most_queues: int | None
    combined: bool
    """Queues are for both directions: ``ethtool -L X combined N``, else ``rx N``."""
    offloads: frozenset[str]
    """Those that are on: ``rx`` and ``tx`` (checksums), ``tso``, ``gso``, ``gro``, ``lro``,
    ``rxvlan``."""


def interface(name: str) -> Interface:
    """Ask; OSError if there is no such interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        info = _call(channel, name, _GET_DRIVER, 192) or bytes(192)
        channels = _call(channel, name, _GET_CHANNELS, 32)
        # most and now, each of rx, tx, other, combined
        counts = struct.unpack_from("=8I", channels) if channels else None
        flags = _word(channel, name, _GET_FLAGS)
        on = {offload for offload, get in _OFFLOADS.items() if _word(channel, name, get)}
    return Interface(
        driver=_text(info[0:32]),
        bus=_text(info[96:128]),
        queues=counts[4] + counts[7] if counts else None,
        most_queues=counts[0] + counts[3] if counts else None,
        combined=bool(counts and counts[3]),
        offloads=frozenset(on | {flag for flag, bit in _FLAGS.items() if flags & bit}),
    )


def _call(channel: socket.socket, name: str, command: int, size: int) -> bytes | None:
    """The answer behind the command's number; None if the driver does not know the command."""
    buffer = array.array("B", struct.pack("=I", command) + bytes(size))
    address, _ = buffer.buffer_info()
    request = struct.pack("=16sQ16x", name.encode()[:15], address)
    try:
        fcntl.ioctl(channel, _SIOCETHTOOL, request)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM):
            return None
        raise
    return buffer.tobytes()[4:]


def _word(channel: socket.socket, name: str, command: int) -> int:
    answer = _call(channel, name, command, 4)
    return int(struct.unpack("=I", answer)[0]) if answer else 0


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode(errors="replace").strip()
