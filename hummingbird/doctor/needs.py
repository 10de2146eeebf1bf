# SPDX-License-Identifier: BSD-3-Clause
"""What a topology needs of the machine, as far as the doctor looks at it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hummingbird.ports.dpdk import DpdkParams, DpdkSection
from hummingbird.ports.pcap import PcapParams
from hummingbird.topology import Device, Memory, PortSpec, Topology

LIVE = ("af_packet", "af_xdp", "tap", "dpdk")
"""Drivers of network interfaces."""


@dataclass(frozen=True)
class Port:
    """A port with a network interface."""

    name: str
    driver: str
    interface: str | None = None
    """The kernel's; None for a device of DPDK's own."""
    queues: int = 1
    mode: str = "auto"
    """Of af_xdp."""
    device: str = ""
    """Of dpdk: a virtual device or a PCI address."""
    pci: str | None = None
    """The address of the NIC that DPDK is to drive, as sysfs writes it."""

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
    dpdk: DpdkSection
    captures: tuple[tuple[str, Path], ...] = ()
    """Ports that write one, and where."""
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
    ports=tuple(Port(driver, driver) for driver in LIVE),
    memory=Memory(),
    device=Device(),
    dpdk=DpdkSection(),
    any=True,
)
"""What all drivers need, with the defaults of a topology."""


def of_topology(topology: Topology) -> Needs:
    """What this one needs."""
    return Needs(
        ports=tuple(_port(spec) for spec in topology.ports if spec.driver in LIVE),
        memory=topology.memory,
        device=topology.device if topology.uses_device else None,
        dpdk=topology.dpdk,
        captures=tuple(_captures(topology)),
    )


def _captures(topology: Topology) -> Iterator[tuple[str, Path]]:
    for spec in topology.ports:
        if isinstance(spec.params, PcapParams):
            for path in spec.params.writes():
                if not path.name.startswith("$"):  # which the command line of the run names
                    yield spec.name, path


def _port(spec: PortSpec) -> Port:
    params = spec.params
    dpdk = params if isinstance(params, DpdkParams) else None
    return Port(
        name=spec.name,
        driver=spec.driver,
        interface=params.watched,
        queues=params.queue_count,
        mode=getattr(params, "mode", "auto"),
        device=dpdk.device if dpdk else "",
        pci=dpdk.device.partition(",")[0] if dpdk and dpdk.is_pci else None,
    )
