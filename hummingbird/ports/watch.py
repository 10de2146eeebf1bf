# SPDX-License-Identifier: BSD-3-Clause
"""Watches the interfaces of ports while they run: says what happens to them, keeps the data plane
off one that is deleted, and opens it again when it is back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from hummingbird import logs, ports
from hummingbird.dataplane.plane import Dataplane
from hummingbird.errors import UserError
from hummingbird.ports import PortParams
from hummingbird.ports.addresses import set_addresses
from hummingbird.ports.interface import Interface, look

LOOK_S = 0.2
"""Between two looks at an interface."""
AGAIN_S = 1.0
"""Between two tries to open one that is back."""
LINK_HEADER = 18
"""Bytes of Ethernet header and a VLAN tag, which the MTU leaves out."""


class Watched(Protocol):
    """What there is to know of a port."""

    @property
    def name(self) -> str: ...
    @property
    def driver(self) -> str: ...
    @property
    def params(self) -> PortParams: ...


class _Port:
    """One port that has an interface."""

    def __init__(self, plane: Dataplane, node: int, port: Watched, room: int) -> None:
        assert port.params.watched is not None
        self._plane, self._node, self._room, self._port = plane, node, room, port
        self._says = f"{port.name}: interface {port.params.watched}"
        self._about = {"subject": port.name, "interface": port.params.watched}
        self._name = port.params.watched
        self._makes = ports.load(port.driver).makes_interface
        self._seen = look(self._name)
        self._away = False
        self._try_at = 0.0
        self._complaint = ""
        if self._seen:
            self._say_start(self._seen)

    def _say_start(self, is_: Interface) -> None:
        if not is_.up or not is_.carrier:
            self._say_changes(is_, replace(is_, up=True, carrier=True))
        self._say_mtu(is_)

    def poll(self, now: float) -> None:
        """Look, and do what is to be done."""
        is_, was = look(self._name), self._seen
        self._seen = is_
        if not self._away and (is_ is None or was is None or is_.index != was.index):
            self._leave()
        if self._away:
            if (is_ or self._makes) and now >= self._try_at:
                self._return(now)
        elif is_ and was:
            self._say_changes(is_, was)

    def _leave(self) -> None:
        self._plane.port_away(self._node)
        self._away, self._complaint = True, ""
        logs.warning(
            "port_gone",
            f"{self._says} is gone: what is to be sent there is dropped as port_down",
            fix="make it again, or plug it in; it is taken into use when it is back",
            **self._about,
        )

    def _return(self, now: float) -> None:
        try:
            self._plane.port_reopen(self._node)
        except UserError as error:
            self._try_at = now + AGAIN_S
            if error.what != self._complaint:
                logs.warning(
                    "port_not_back",
                    f"{self._says} cannot be used again yet: {error.what}",
                    fix=error.fix or f"see `ip link show {self._name}`; it is tried again",
                    **self._about,
                )
            self._complaint = error.what
            return
        self._away = False
        self._seen = look(self._name)
        self._set_addresses()
        logs.info("port_back", f"{self._says} is back", **self._about)

    def _set_addresses(self) -> None:
        try:
            set_addresses(self._plane, self._node, self._port)
        except UserError as error:
            logs.warning(
                "port_no_address",
                f"{self._says}: its address is not answered for: {error.what}",
                fix=error.fix or "give the interface an Ethernet address: ip link set address",
                **self._about,
            )

    def _say_changes(self, is_: Interface, was: Interface) -> None:
        if is_.up != was.up:
            self._say_state(is_.up, "up", "down", f"ip link set {self._name} up")
        elif is_.carrier != was.carrier:
            fix = "switch on what is at the other end, and look at the cable"
            self._say_state(is_.carrier, "linked again", "without a link", fix)
        if is_.mac != was.mac:
            self._set_addresses()
            mac = is_.mac.hex(":")
            what = f"{self._says} has Ethernet address {mac} now"
            logs.info("port_mac", what, mac=mac, **self._about)
        if is_.mtu != was.mtu:
            what = f"{self._says} has MTU {is_.mtu}, it was {was.mtu}"
            logs.info("port_mtu", what, mtu=is_.mtu, **self._about)
            self._say_mtu(is_)

    def _say_mtu(self, is_: Interface) -> None:
        if is_.mtu + LINK_HEADER > self._room:
            logs.warning(
                "port_mtu_too_big",
                f"{self._says}: packets of more than {self._room} bytes are dropped as too_long",
                fix=f"memory.frame_size: 4096, or MTU {self._room - LINK_HEADER}",
                **self._about,
            )

    def _say_state(self, good: bool, yes: str, no: str, fix: str) -> None:
        if good:
            logs.info("port_up", f"{self._says} is {yes}", **self._about)
        else:
            logs.warning("port_down", f"{self._says} is {no}", fix=fix, **self._about)


class InterfaceWatch:
    """All interfaces of a run."""

    def __init__(self, plane: Dataplane, all_ports: Sequence[Watched], room: int) -> None:
        """Begin.

        Args:
            plane: what runs.
            all_ports: every port; its number is its node's.
            room: bytes of the longest packet that fits a frame.
        """
        self._ports = [
            _Port(plane, node, port, room)
            for node, port in enumerate(all_ports)
            if port.params.watched is not None
        ]
        self._next = 0.0

    def poll(self) -> None:
        """Call it often; it looks as often as it is worth."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + LOOK_S
        for port in self._ports:
            port.poll(now)
