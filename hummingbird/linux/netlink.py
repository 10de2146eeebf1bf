# SPDX-License-Identifier: BSD-3-Clause
"""Network interfaces of this network namespace, asked by netlink: sysfs may show those of another.

Messages and attributes are those of linux/netlink.h, rtnetlink.h, if_link.h and netdev.h; all
numbers have the byte order of the machine.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

_HEAD = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # nlattr: length with this, type
_LINK = struct.Struct("=BxHiII")  # ifinfomsg: family, device type, index, flags, changed

_REQUEST, _ACK, _DUMP = 1, 4, 0x300
_ERROR, _DONE = 2, 3
_SETLINK, _GETLINK = 19, 18
_TYPE = 0x3FFF  # without the flags NLA_F_NESTED and NLA_F_NET_BYTEORDER
_NESTED = 0x8000

# IFLA_*, and what is in IFLA_LINKINFO and IFLA_XDP.
_NAME, _MTU, _LOWER, _INFO, _RX_QUEUES, _ELSEWHERE, _XDP = 3, 4, 5, 18, 32, 37, 43
_KIND = 1
_XDP_FD, _XDP_FLAGS, _XDP_EXPECTED = 1, 3, 8
_XDP_PROGRAMS = {5: "native", 6: "generic", 7: "offload"}
_XDP_MODE_FLAGS = {"generic": 2, "native": 4, "offload": 8}
_XDP_REPLACE = 16

_IFF_UP, _IFF_RUNNING = 1, 0x40
_SIOCGIFADDR = 0x8915

_GENERIC, _CONTROL = 16, 0x10  # NETLINK_GENERIC, GENL_ID_CTRL
_GET_FAMILY, _FAMILY_ID, _FAMILY_NAME = 3, 1, 2
_DEV_GET, _DEV_IFINDEX, _DEV_XDP_FEATURES = 1, 1, 3
_REDIRECT, _ZERO_COPY = 2, 8  # NETDEV_XDP_ACT_*


@dataclass(frozen=True)
class Link:
    """A network interface."""

    index: int
    name: str
    up: bool
    """It was set up (IFF_UP)."""
    carrier: bool
    """It is up and has a link (IFF_RUNNING)."""
    mtu: int
    """Bytes of the largest IP packet."""
    kind: str
    """Such as ``veth`` or ``tun``; empty for hardware."""
    lower: int
    """Index of the interface that it is one end or a child of; 0: none."""
    lower_elsewhere: bool
    """That one is in another network namespace."""
    rx_queues: int
    xdp: tuple[tuple[str, int], ...]
    """Mode (``native``, ``generic``, ``offload``) and number of the programs on it."""


@dataclass(frozen=True)
class XdpFeatures:
    """What the driver of an interface says that it can do."""

    native: bool
    """XDP in the driver, redirects to AF_XDP sockets included."""
    zero_copy: bool


def links() -> dict[str, Link]:
    """All interfaces by name."""
    with _open(socket.NETLINK_ROUTE) as channel:
        request = _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        found = [_link(data) for data in _ask(channel, _GETLINK, _DUMP, request)]
    return {link.name: link for link in found}


def xdp_features(index: int) -> XdpFeatures | None:
    """Of an interface by its index; None before Linux 6.3, which does not tell."""
    with _open(_GENERIC) as channel:
        wanted = bytes((_GET_FAMILY, 1, 0, 0)) + _attribute(_FAMILY_NAME, b"netdev\0")
        try:
            (family,) = _ask(channel, _CONTROL, 0, wanted)
        except FileNotFoundError:
            return None
        (number,) = struct.unpack_from("=H", _attributes(family[4:])[_FAMILY_ID])
        wanted = bytes((_DEV_GET, 1, 0, 0)) + _attribute(_DEV_IFINDEX, struct.pack("=I", index))
        (device,) = _ask(channel, number, 0, wanted)
    (bits,) = struct.unpack_from("=Q", _attributes(device[4:])[_DEV_XDP_FEATURES])
    return XdpFeatures(bool(bits & _REDIRECT), bool(bits & _ZERO_COPY))


def ipv4_address(name: str) -> str | None:
    """The first that an interface has in Linux."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            answer = fcntl.ioctl(channel, _SIOCGIFADDR, name.encode().ljust(40, b"\0"))
        except OSError:  # it has none
            return None
    return socket.inet_ntoa(answer[20:24])


def detach_xdp(index: int, mode: str, program: int) -> None:
    """Take an XDP program off an interface, if it is still this one.

    Args:
        index: of the interface.
        mode: as in Link.xdp.
        program: a file descriptor of it.

    Raises:
        OSError: EBUSY if a bpf_link holds it there, EEXIST if it is another one by now.
    """
    xdp = (
        _attribute(_XDP_FD, struct.pack("=i", -1))
        + _attribute(_XDP_FLAGS, struct.pack("=I", _XDP_MODE_FLAGS[mode] | _XDP_REPLACE))
        + _attribute(_XDP_EXPECTED, struct.pack("=i", program))
    )
    request = _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0) + _attribute(_XDP | _NESTED, xdp)
    with _open(socket.NETLINK_ROUTE) as channel:
        for _ in _ask(channel, _SETLINK, _ACK, request):
            pass


# ---- messages ------------------------------------------------------------------------------------


def _open(protocol: int) -> socket.socket:
    channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    channel.settimeout(5)
    return channel


def _ask(channel: socket.socket, kind: int, flags: int, request: bytes) -> Iterator[bytes]:
    """Send a request; the bodies of what comes back. OSError if it is refused."""
    head = _HEAD.pack(_HEAD.size + len(request), kind, _REQUEST | flags, 1, 0)
    channel.send(head + request)
    while True:
        data = channel.recv(1 << 18)
        for got, body in _messages(data):
            if got == _DONE:
                return
            if got == _ERROR:
                (error,) = struct.unpack_from("=i", body)
                if error:
                    raise OSError(-error, os.strerror(-error))
                return
            yield body
        if not flags:  # one answer and no more
            return


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _HEAD.size:
        length, kind, _, _, _ = _HEAD.unpack_from(data)
        yield kind, data[_HEAD.size : length]
        data = data[_aligned(length) :]


def _aligned(length: int) -> int:
    return -(-length // 4) * 4


def _attribute(kind: int, value: bytes) -> bytes:
    padding = bytes(_aligned(len(value)) - len(value))
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + padding


def _attributes(data: bytes) -> dict[int, bytes]:
    """Values by type."""
    found = {}
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            break
        found[kind & _TYPE] = data[_ATTRIBUTE.size : length]
        data = data[_aligned(length) :]
    return found


def _link(body: bytes) -> Link:
    _, _, index, flags, _ = _LINK.unpack_from(body)
    said = _attributes(body[_LINK.size :])
    kind = _attributes(said.get(_INFO, b"")).get(_KIND, b"")
    xdp = _attributes(said.get(_XDP, b""))
    return Link(
        index=index,
        name=_text(said[_NAME]),
        up=bool(flags & _IFF_UP),
        carrier=bool(flags & _IFF_RUNNING),
        mtu=_number(said.get(_MTU)),
        kind=_text(kind),
        lower=_number(said.get(_LOWER)),
        lower_elsewhere=_ELSEWHERE in said,
        rx_queues=_number(said.get(_RX_QUEUES)),
        xdp=tuple((mode, _number(xdp[key])) for key, mode in _XDP_PROGRAMS.items() if key in xdp),
    )


def _number(value: bytes | None) -> int:
    return int(struct.unpack_from("=I", value)[0]) if value else 0


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")
