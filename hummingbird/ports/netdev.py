# SPDX-License-Identifier: BSD-3-Clause
"""The network interfaces there are, for those who choose one. Everything is read and nothing tried,
so no traffic is disturbed; no rights are needed."""

from __future__ import annotations

from collections.abc import Iterator

from hummingbird.linux import ethtool, netlink
from hummingbird.linux.netlink import Link


def queues(name: str) -> int | None:
    """Receive queues that an interface has now; None if there is none or it does not say."""
    try:
        return ethtool.interface(name).queues or None
    except OSError:
        return None


def best_mode(link: Link) -> str:
    """What ``mode: auto`` of af_xdp will come to, as far as the driver tells."""
    can = netlink.xdp_features(link.index)
    if can is None:
        return "tried at start, Linux before 6.3 does not tell"
    if not can.native:
        return "generic, copy mode"
    return "native, zero-copy" if can.zero_copy else "native, copy mode"


def describe(link: Link) -> str:
    """A line for people."""
    said = ethtool.interface(link.name)
    many = f"{said.queues} queue{'s' * (said.queues > 1)}" if said.queues else "queues unknown"
    state = "up" if link.carrier else "no link" if link.up else "down"
    driver = f"driver {said.driver or link.kind or 'unknown'}, {many}"
    return f"{link.name}: {driver}, MTU {link.mtu}, {state}; af_xdp: {best_mode(link)}"


def interfaces() -> Iterator[str]:
    """A line for each interface of this network namespace but the loopback."""
    for name, link in netlink.links().items():
        if name != "lo":
            yield describe(link)
