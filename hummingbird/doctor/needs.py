# SPDX-License-Identifier: BSD-3-Clause
"""What a topology needs of the machine, as far as the doctor looks at it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hummingbird.topology import Device, Memory, PortSpec, Topology

LIVE = ("af_packet", "af_xdp", "tap", "dpdk")
"""Drivers of network interfaces."""
_PCI = re.compile(r"(?:[0-9a-f]{4}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", re.IGNORECASE)
_VDEV_INTERFACE = re.compile(r"(?:^|,)iface=([^,]+)")


@dataclass(frozen=True)
class Port:
    """A port with a network interface."""

    name: str
    driver: str
    interface: str | None
    """The kernel's; None for a device of DPDK's own."""
    queues: int
    mode: str = "auto"
    """Of af_xdp."""
    device: str = ""
    """Of dpdk: a vdev or a PCI address."""

    @property
    def pci(self) -> str | None:
        """The PCI address that DPDK is to drive, as sysfs writes it."""
        address = self.device.partition(",")[0]
        if self.driver != "dpdk" or not _PCI.fullmatch(address):
            return None
        return address.lower() if address.count(":") == 2 else f"0000:{address.lower()}"

    @property
    def uses_af_xdp(self) -> bool:
        """Its queues are AF_XDP sockets."""
        return self.driver == "af_xdp" or self.device.startswith("net_af_xdp")

    @property
    def uses_af_packet(self) -> bool:
        """Its queues are packet sockets."""
        return self.driver == "af_packet" or self.device.startswith("net_af_packet")

    @property
    def makes_interface(self) -> bool:
        """The run makes the interface, which is there no sooner."""
        return self.driver == "tap" or self.device.startswith("net_tap")


@dataclass(frozen=True)
class Needs:
    """Of one topology, or of any."""

    ports: tuple[Port, ...]
    memory: Memory
    device: Device | None
    """How the OpenCL device is used; None: not at all."""
    build: str
    """Of DPDK: ``stock`` or ``mdpdk``."""
    any: bool = False
    """No topology was named: ``ports`` has one of each driver, without an interface."""

    @property
    def arena(self) -> int:
        """Bytes of packet memory."""
        return self.memory.mbufs * self.memory.frame_size

    @property
    def pins(self) -> int:
        """How often the arena is pinned: by each AF_XDP socket, and by VFIO for PCI devices."""
        sockets = sum(port.queues for port in self.ports if port.uses_af_xdp)
        return sockets + any(port.pci for port in self.ports)

    def drivers(self) -> set[str]:
        """Of the live ports."""
        return {port.driver for port in self.ports}


ANYTHING = Needs(
    ports=tuple(Port(driver, driver, None, 1) for driver in LIVE),
    memory=Memory(),
    device=Device(),
    build="stock",
    any=True,
)
"""What all drivers need, with the defaults of a topology."""


def of_topology(topology: Topology) -> Needs:
    """What this one needs."""
    dpdk = getattr(topology, "dpdk", None)
    return Needs(
        ports=tuple(_port(spec) for spec in topology.ports if spec.driver in LIVE),
        memory=topology.memory,
        device=topology.device if topology.uses_device else None,
        build=getattr(dpdk, "build", "stock"),
    )


def _port(spec: PortSpec) -> Port:
    params = spec.params
    device = str(getattr(params, "device", "") or "")
    interface = getattr(params, "interface", None)
    if interface is None and (found := _VDEV_INTERFACE.search(device)):
        interface = found[1]
    return Port(
        name=spec.name,
        driver=spec.driver,
        interface=interface,
        queues=int(getattr(params, "queues", 1)),
        mode=str(getattr(params, "mode", "auto")),
        device=device,
    )
