# SPDX-License-Identifier: BSD-3-Clause
"""The network interfaces of this machine, for those who choose one for a port. Everything is read,
nothing is tried: no traffic is disturbed, and no rights are needed."""

from __future__ import annotations

from collections.abc import Iterator

from hummingbird.linux import ethtool, netlink
from hummingbird.linux.netlink import Link, XdpFeatures


def best_mode(can: XdpFeatures | None) -> str:
    """What ``mode: auto`` of af_xdp will come to, as far as the kernel tells."""
    if can is None:
        return "the kernel is too old to say (6.3): it is tried at start"
    if not can.native:
        return "generic, copy mode"
    return "native, zero-copy" if can.zero_copy else "native, copy mode"


def _describe(link: Link) -> str:
    said = ethtool.interface(link.name)
    state = "up" if link.up and link.carrier else "no link" if link.up else "down"
    many = f"{said.queues} queue{'s' * (said.queues > 1)}" if said.queues else "queues unknown"
    driver = f"driver {said.driver or 'unknown'}, {many}"
    mode = best_mode(netlink.xdp_features(link.index))
    return f"{link.name}: {driver}, MTU {link.mtu}, {state}; af_xdp: {mode}"


def netdevs() -> Iterator[str]:
    """A line for each interface of this network namespace but the loopback."""
    for link in netlink.links().values():
        if link.name != "lo":
            yield _describe(link)
