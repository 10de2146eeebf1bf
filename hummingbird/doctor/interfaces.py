# SPDX-License-Identifier: BSD-3-Clause
"""Checks of the network interfaces that a topology names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hummingbird.doctor.finding import Finding, ok, problem, warning
from hummingbird.doctor.needs import Needs, Port
from hummingbird.linux import ethtool, netlink, xdp
from hummingbird.linux.ethtool import Interface
from hummingbird.linux.netlink import Link
from hummingbird.ports.dpdk import XDP_HEADROOM
from hummingbird.ports.watch import LINK_HEADER
from hummingbird.textfile import suggest
from hummingbird.topology import Memory

_LARGE = Memory(frame_size=4096)


def interfaces(needs: Needs) -> Iterator[Finding]:
    """Is each interface there, and fit for the port that it belongs to?"""
    links = netlink.links()
    if needs.any:
        yield from _overview(links)
    for port in needs.ports:
        if port.interface is None:
            continue
        if port.makes_interface:
            yield _to_be_made(port, links)
        elif port.interface not in links:
            what = f"{port.name}: there is no interface {port.interface}"
            choice = [name for name in links if name != "lo"]
            yield problem(port.interface, what, suggest(port.interface, choice))
        else:
            link = links[port.interface]
            yield from _check(needs, port, link, links)


def _overview(links: dict[str, Link]) -> Iterator[Finding]:
    """What each interface of this machine can do."""
    for link in links.values():
        if link.name == "lo":
            continue
        said = ethtool.interface(link.name)
        state = "up" if link.up else "down"
        what = f"{said.driver or link.kind or 'no driver'}, {state}, MTU {link.mtu}"
        what += f", {said.queues} queues" if (said.queues or 1) > 1 else ""
        yield ok(link.name, f"{what}; {_xdp_support(link)}")


def _xdp_support(link: Link) -> str:
    can = netlink.xdp_features(link.index)
    if can is None:
        return "Linux before 6.3 does not tell what XDP the driver has"
    if not can.native:
        return "XDP in generic mode only"
    return "native XDP, zero-copy" if can.zero_copy else "native XDP, no zero-copy"


def _to_be_made(port: Port, links: dict[str, Link]) -> Finding:
    assert port.interface is not None
    if port.interface not in links:
        return ok(port.interface, f"{port.name}: the run makes it")
    there = links[port.interface]
    if there.kind != "tun":
        what = f"{port.name}: an interface of this name is there, and it is no tap"
        return problem(port.interface, what, "choose another name")
    if there.carrier:
        what = f"{port.name}: another program has this tap"
        return problem(port.interface, what, "choose another name, or stop that program")
    what = f"{port.name}: a tap of this name is there; the run takes it, and leaves it there"
    return warning(port.interface, what, f"sudo ip link delete {port.interface}")


def _check(needs: Needs, port: Port, link: Link, links: dict[str, Link]) -> Iterator[Finding]:
    said = ethtool.interface(link.name)
    found = [
        *_is_up(port, link, links),
        *_mtu(needs, port, link),
        *_mode(port, link),
        *_other_programs(port, link),
        *_queues(port, link, said),
        *_own_offloads(port, link, said),
        *_peer_offloads(port, link, links),
        *_default_route(port, link),
        *_own_address(port, link),
    ]
    state = "up" if link.up else "down"
    queues = f", {said.queues} queues" if (said.queues or 1) > 1 else ""
    yield ok(link.name, f"{port.name}: {said.driver or link.kind}, {state}, MTU {link.mtu}{queues}")
    yield from found


def _is_up(port: Port, link: Link, links: dict[str, Link]) -> Iterator[Finding]:
    """It has to be set up; whether there is a link is another matter."""
    if not link.up:
        fix = f"sudo ip link set {link.name} up"
        yield problem(link.name, f"{port.name}: it is down", fix)
    elif not link.carrier:
        peer = _peer(link, links)
        fix = f"sudo ip link set {peer.name} up" if peer else "look at the cable and its other end"
        yield warning(link.name, f"{port.name}: it has no carrier: nothing comes in", fix)


def _peer(link: Link, links: dict[str, Link]) -> Link | None:
    """The other end of a veth, if it is in this namespace."""
    if link.kind != "veth" or link.lower_elsewhere:
        return None
    return next((other for other in links.values() if other.index == link.lower), None)


def _mtu(needs: Needs, port: Port, link: Link) -> Iterator[Finding]:
    """A packet that does not fit a frame is dropped."""
    longest, room = link.mtu + LINK_HEADER, _room(port, needs.memory)
    if longest <= room:
        return
    what = (
        f"{port.name}: MTU {link.mtu}, but a frame has room for packets of {room} bytes: "
        f"longer ones are dropped ({_counter(port)})"
    )
    if longest <= _room(port, _LARGE):
        fix = "memory: {frame_size: 4096}   (in the topology)"
    else:
        fix = f"sudo ip link set {link.name} mtu {room - LINK_HEADER}"
    yield warning(link.name, what, fix)


def _room(port: Port, memory: Memory) -> int:
    """Bytes of the longest packet that comes in."""
    if port.driver == "dpdk" and port.uses_af_xdp:
        return memory.frame_size - XDP_HEADROOM
    return memory.frame_room


def _counter(port: Port) -> str:
    """Where packets are counted that fit no frame: AF_XDP's are dropped by the kernel."""
    return "missed" if port.uses_af_xdp else "too_long"


def _mode(port: Port, link: Link) -> Iterator[Finding]:
    """Can the driver do what `mode:` asks for, and what will `auto` be?"""
    if not port.uses_af_xdp:
        return
    can = netlink.xdp_features(link.index)
    if can is None:
        yield ok(link.name, _xdp_support(link))
        return
    wanted = {"zero-copy": can.zero_copy, "native": can.native}.get(port.mode, True)
    if not wanted:
        what = f"{port.name}: mode {port.mode} is not in its driver ({_xdp_support(link)})"
        yield problem(link.name, what, "mode: auto   (in the topology)")
    elif port.mode == "auto" and not can.native:
        yield warning(link.name, f"{port.name}: {_xdp_support(link)}: one more copy per packet")
    else:
        yield ok(link.name, f"{port.name}: {_xdp_support(link)}")


def _other_programs(port: Port, link: Link) -> Iterator[Finding]:
    """An interface bears one XDP program."""
    for mode, program in link.xdp if port.uses_af_xdp else ():
        try:
            name = xdp.name_of(program)
        except OSError:
            name = f"number {program}"
        what = f"{port.name}: it bears an XDP program already: {name} ({mode})"
        off = {"native": "xdpdrv", "generic": "xdpgeneric"}.get(mode, "xdpoffload")
        ours = name.startswith("hb_xdp")
        fix = "hummingbird clean" if ours else f"sudo ip link set dev {link.name} {off} off"
        yield problem(link.name, what, fix)


def _queues(port: Port, link: Link, said: Interface) -> Iterator[Finding]:
    """An AF_XDP socket is bound to one queue of the interface: all have to be there and served."""
    if not port.uses_af_xdp:
        return
    there = said.queues or link.rx_queues
    if port.queues > there:
        what = f"{port.name}: queues: {port.queues}, but it has {there}"
        can = (said.most_queues or 0) >= port.queues
        fix = (
            _set_queues(link, said, port.queues) if can else f"queues: {there}   (in the topology)"
        )
        yield problem(link.name, what, fix)
    elif port.queues < there:
        what = (
            f"{port.name}: {port.queues} of its {there} queues served: packets that it puts "
            "on the others go to the kernel"
        )
        yield warning(link.name, what, _set_queues(link, said, port.queues))


def _set_queues(link: Link, said: Interface, count: int) -> str:
    return f"sudo ethtool -L {link.name} {'combined' if said.combined else 'rx'} {count}"


def _own_offloads(port: Port, link: Link, said: Interface) -> Iterator[Finding]:
    """What joins packets before we see them, and what takes something out of them."""
    joins = sorted(said.offloads & {"gro", "lro"})
    if joins:
        what = (
            f"{port.name}: {' and '.join(joins).upper()} on: the kernel joins packets of a flow; "
            f"those that fit no frame are dropped ({_counter(port)})"
        )
        yield warning(link.name, what, _off(link.name, joins))
    if port.uses_af_xdp and "rxvlan" in said.offloads and said.bus:
        what = f"{port.name}: the NIC takes VLAN tags off before XDP sees a packet"
        yield warning(link.name, what, _off(link.name, ["rxvlan"]))


def _peer_offloads(port: Port, link: Link, links: dict[str, Link]) -> Iterator[Finding]:
    """The other end of a veth hands over what it has put off: checksums, cutting to size."""
    if link.kind != "veth":
        return
    what, heed = f"{port.name}: packets come longer than the MTU", ["tso", "gso"]
    if port.driver != "af_packet":  # which fills them in
        what, heed = f"{what}, with checksums to be filled in", ["tx", *heed]
    if link.lower_elsewhere:
        fix = _off("PEER", heed) + "   (in the namespace of its peer)"
        yield warning(link.name, f"{what}, unless its peer was told otherwise", fix)
        return
    peer = _peer(link, links)
    if peer is None:
        return
    on = sorted(ethtool.interface(peer.name).offloads & set(heed))
    if on:
        where = f"its peer {peer.name} has {', '.join(on)} on"
        yield warning(link.name, f"{what}: {where}", _off(peer.name, on))


def _off(name: str, offloads: list[str]) -> str:
    return f"sudo ethtool -K {name} {' '.join(f'{offload} off' for offload in offloads)}"


def _default_route(
    port: Port, link: Link, routes: Path = Path("/proc/net/route")
) -> Iterator[Finding]:
    """Who serves the interface that this machine is reached by takes it off the net."""
    if not port.uses_af_xdp:
        return
    try:
        lines = routes.read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return
    if any(line.split()[:2] == [link.name, "00000000"] for line in lines[1:]):
        what = f"{port.name}: this machine's own packets use it; with AF_XDP they get no answers"
        yield warning(link.name, what, "take an interface that the machine does not need itself")


def _own_address(port: Port, link: Link) -> Iterator[Finding]:
    """Linux sees what a packet socket gets, too, and answers for its own addresses."""
    if not port.uses_af_packet:
        return
    if address := netlink.ipv4_address(link.name):
        what = f"{port.name}: Linux has the address {address} on it, and answers packets, too"
        yield warning(link.name, what, f"sudo ip address flush dev {link.name}")
