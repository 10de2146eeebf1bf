# SPDX-License-Identifier: BSD-3-Clause
"""What the kernel says of network interfaces beyond their state: driver, queues, XDP. Everything is
read; nothing is tried, so no traffic is disturbed, and no rights are needed."""

from __future__ import annotations

import array
import fcntl
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from hummingbird.ports.interface import Interface, look

SIOCETHTOOL = 0x8946
ETHTOOL_GDRVINFO, ETHTOOL_GCHANNELS = 0x03, 0x3C
NETLINK_GENERIC, NLM_F_REQUEST, NLMSG_ERROR = 16, 1, 2
GENL_ID_CTRL, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_ID, CTRL_ATTR_FAMILY_NAME = 16, 3, 1, 2
NETDEV_CMD_DEV_GET, NETDEV_A_DEV_IFINDEX, NETDEV_A_DEV_XDP_FEATURES = 1, 1, 3
XDP_BASIC, XDP_REDIRECT, XDP_ZEROCOPY = 1, 2, 8  # NETDEV_XDP_ACT_* of linux/netdev.h


def _ethtool(name: str, command: int, size: int) -> bytes | None:
    """The answer to an ethtool command without arguments: `size` bytes with the command."""
    buffer = array.array("B", struct.pack("I", command).ljust(size, b"\0"))
    address, _ = buffer.buffer_info()
    request = struct.pack("16sP16x", name.encode(), address)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as s:
        try:
            fcntl.ioctl(s, SIOCETHTOOL, request)
        except OSError:
            return None
    return buffer.tobytes()


def channels(name: str) -> int | None:
    """Receive queues that an interface has now; None if it does not say."""
    if (answer := _ethtool(name, ETHTOOL_GCHANNELS, 36)) is None:
        return None
    _, _, _, _, _, rx, _, _, combined = struct.unpack("9I", answer)
    return int(rx + combined) or None


def driver(name: str) -> str | None:
    """The driver of an interface."""
    if (answer := _ethtool(name, ETHTOOL_GDRVINFO, 196)) is None:
        return None
    return answer[4:36].split(b"\0")[0].decode(errors="replace")


# ---- generic netlink: the family "netdev" of Linux 6.3 and newer ---------------------------------


def _attribute(number: int, value: bytes) -> bytes:
    head = struct.pack("HH", 4 + len(value), number)
    return (head + value).ljust((len(head) + len(value) + 3) // 4 * 4, b"\0")


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 4:
        size, number = struct.unpack_from("HH", data)
        if size < 4:
            return
        yield number, data[4:size]
        data = data[(size + 3) // 4 * 4 :]


def _ask(family: int, command: int, attribute: bytes) -> dict[int, bytes]:
    """One request, one answer: its attributes. OSError if the kernel says no."""
    body = struct.pack("BBxx", command, 1) + attribute
    request = struct.pack("IHHII", 16 + len(body), family, NLM_F_REQUEST, 1, 0) + body
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_NETLINK, kind, NETLINK_GENERIC) as s:
        s.settimeout(1)
        s.send(request)
        answer = s.recv(1 << 16)
    size, what = struct.unpack_from("IH", answer)
    if what == NLMSG_ERROR:
        (number,) = struct.unpack_from("i", answer, 16)
        raise OSError(-number, "netlink")
    return dict(_attributes(answer[20:size]))


def xdp_features(index: int) -> int | None:
    """Bits XDP_* that an interface's driver offers; None where the kernel is too old to say."""
    try:
        found = _ask(
            GENL_ID_CTRL, CTRL_CMD_GETFAMILY, _attribute(CTRL_ATTR_FAMILY_NAME, b"netdev\0")
        )
        (family,) = struct.unpack("H", found[CTRL_ATTR_FAMILY_ID])
        of_device = _attribute(NETDEV_A_DEV_IFINDEX, struct.pack("I", index))
        found = _ask(family, NETDEV_CMD_DEV_GET, of_device)
        return int(struct.unpack("Q", found[NETDEV_A_DEV_XDP_FEATURES])[0])
    except (OSError, KeyError):
        return None


# ---- all of it -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Netdev:
    """An interface, for those who choose one."""

    interface: Interface
    driver: str | None
    queues: int | None
    xdp: int | None
    """Bits XDP_*."""

    @property
    def best_mode(self) -> str:
        """What ``mode: auto`` of af_xdp will come to, as far as the kernel tells."""
        if self.xdp is None:
            return "the kernel is too old to say (6.3): it is tried at start"
        if self.xdp & (XDP_BASIC | XDP_REDIRECT) != XDP_BASIC | XDP_REDIRECT:
            return "generic, copy mode"
        return "native, zero-copy" if self.xdp & XDP_ZEROCOPY else "native, copy mode"


def describe(device: Netdev) -> str:
    """A line for people."""
    interface = device.interface
    state = "up" if interface.up and interface.carrier else "no link" if interface.up else "down"
    many = (
        f"{device.queues} queue{'s' * (device.queues > 1)}" if device.queues else "queues unknown"
    )
    driver = f"driver {device.driver or 'unknown'}, {many}"
    return f"{interface.name}: {driver}, MTU {interface.mtu}, {state}; af_xdp: {device.best_mode}"


def netdevs() -> Iterator[Netdev]:
    """All interfaces of this network namespace but the loopback, as they are now."""
    for index, name in socket.if_nameindex():
        interface = look(name)
        if interface is not None and name != "lo":
            yield Netdev(interface, driver(name), channels(name), xdp_features(index))
