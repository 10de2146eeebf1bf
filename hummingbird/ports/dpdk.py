# SPDX-License-Identifier: BSD-3-Clause
"""dpdk: a device of any of DPDK's drivers; packets lie in the arena's frames from the driver on.

    d0: {driver: dpdk, device: "0000:01:00.0", queues: 2}               # a NIC, bound to vfio-pci
    d1: {driver: dpdk, device: "net_af_packet0,iface=eth1"}             # a virtual device
    dpdk: {build: stock, arguments: ["--log-level=pmd.net.*:info"]}     # optional, for all of them

``device`` is what DPDK's ``--vdev`` or ``--allow`` would take. ``build`` says which DPDK: ``stock``
is the distribution's, ``mdpdk`` the one of mdpdk_patches/, whose drivers have all their memory in
the region that the device shares. docs/dpdk.md has the rest.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from hummingbird import dataplane, logs
from hummingbird.dataplane.plane import Dataplane
from hummingbird.errors import UserError
from hummingbird.ports import Port, PortParams, mistake
from hummingbird.ports.interface import IFNAMSIZ, LiveParams
from hummingbird.textfile import quoted

MEMORY_MIB = 64
"""For what DPDK and its drivers allocate beside packets."""
MEMORY_ALIGN = 2 << 20
"""mDPDK takes this much for a page (start.c)."""
XDP_HEADROOM = 640
"""Bytes that lie before a packet which net_af_xdp has received: 256 are the kernel's, the rest is
what lies before any packet of DPDK."""
ETHERNET = 1514
PCI_DEVICES = Path("/sys/bus/pci/devices")
PCI_DRIVERS = ("vfio-pci", "uio_pci_generic", "igb_uio", "mlx5_core", "mlx4_core", "mana")
"""Kernel drivers that leave a NIC to DPDK, or share it."""

PCI = re.compile(r"(?:([0-9a-fA-F]{4}):)?([0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7])(?=,|$)")
VIRTUAL = re.compile(r"(?:net|eth)_[a-z0-9_]+(?:,[^,=\s]+=[^,]+)*")


class DpdkSection(BaseModel):
    """How DPDK is started: the section ``dpdk:``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    build: Literal["stock", "mdpdk"] = "stock"
    """``stock``: the distribution's DPDK; ``mdpdk``: with mdpdk_patches/, all its memory lies
    where packets are."""
    arguments: tuple[Annotated[str, Field(pattern=r"^\S[^\n]*$")], ...] = ()
    """More ones for DPDK's environment abstraction layer (EAL)."""


def _device(value: Any) -> str:
    text = value if isinstance(value, str) else ""
    if pci := PCI.match(text):
        return f"{pci[1] or '0000'}:{pci[2]}{text[pci.end() :]}".lower()
    if not VIRTUAL.fullmatch(text) or "\n" in text:
        raise mistake(
            f"{quoted(str(value)[:60])} is no device of DPDK",
            "write a PCI address such as 0000:01:00.0, or a virtual device such as "
            '"net_af_packet0,iface=eth0"',
        )
    return text


class DpdkParams(LiveParams):
    """Parameters of a port."""

    device: Annotated[str, BeforeValidator(_device)]
    """PCI address with domain, or virtual device; arguments behind it."""

    @property
    def watched(self) -> str | None:
        """The interface of those virtual devices that are at one."""
        found = re.match(r"net_af_(?:packet|xdp)\w*,(?:.*,)?iface=([^,]+)", self.device)
        return found[1] if found and len(found[1].encode()) < IFNAMSIZ else None

    @property
    def is_pci(self) -> bool:
        """A NIC."""
        return PCI.match(self.device) is not None

    def __str__(self) -> str:
        return f"DPDK's {self.device}{self.many}"


# --- How DPDK is started --------------------------------------------------------------------------


@dataclass(frozen=True)
class Dpdk:
    """What the ports of one data plane have in common."""

    plugin: Path
    arguments: tuple[str, ...]
    memory: int = 0
    """Address of what mDPDK takes its memory from; 0: DPDK maps its own."""
    memory_bytes: int = 0
    frame_size: int = 2048


def memory_bytes(section: DpdkSection, params: Iterable[PortParams]) -> int:
    """Bytes that DPDK needs in the region of the frames."""
    if section.build == "stock" or not any(isinstance(p, DpdkParams) for p in params):
        return 0
    return (MEMORY_MIB << 20) + 2 * MEMORY_ALIGN


def prepare(
    section: DpdkSection, params: Iterable[PortParams], frame_size: int, memory: int, size: int
) -> Dpdk:
    """How DPDK shall be started for these ports.

    Args:
        section: of the topology.
        params: of all ports.
        frame_size: bytes of a frame.
        memory: address of memory_bytes() in the region of the frames.
        size: bytes there.
    """
    devices = [p.device for p in params if isinstance(p, DpdkParams) and p.is_pci]
    # It may only name devices that are asked for: others would be taken from their owners.
    pci = [arg for device in devices for arg in ("-a", device)] or ["--no-pci"]
    cpus = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    arguments = (
        *("--lcores", f"0@({cpus})"),
        *("--no-huge", "-m", str(MEMORY_MIB), "--iova-mode=va"),
        *("--no-telemetry", "--no-shconf", f"--file-prefix=hummingbird-{os.getpid()}"),
        "--log-level=*:error",
        *pci,
        *section.arguments,
    )
    return Dpdk(plugin_of(section), arguments, memory if size else 0, size, frame_size)


def plugin_of(section: DpdkSection) -> Path:
    """Where the plug-in for this build of DPDK lies, if it is built."""
    name = "libhb_dpdk.so" if section.build == "stock" else "libhb_mdpdk.so"
    return Path(dataplane.__path__[0]) / name


# --- Attaching ------------------------------------------------------------------------------------


def check_plugin(plugin: Path) -> None:
    """UserError if it is not built."""
    if plugin.exists():
        return
    if plugin.name == "libhb_mdpdk.so":
        raise UserError("mDPDK is not built", fix="run make mdpdk, or write dpdk: {build: stock}")
    raise UserError(
        "the plug-in for DPDK is not built: DPDK was not there when Hummingbird was compiled",
        fix="apt-get install libdpdk-dev, then run make",
    )


def _check_pci(address: str) -> None:
    """A NIC is there, and the kernel has let go of it."""
    device = PCI_DEVICES / address
    if not device.exists():
        raise UserError(
            f"there is no PCI device {address}", fix="take an address that `lspci -D` shows"
        )
    driver = os.path.basename(os.path.realpath(device / "driver"))
    if not (device / "driver").exists():
        driver = "no driver"
    if driver not in PCI_DRIVERS:
        raise UserError(
            f"PCI device {address} is bound to {driver}, which does not leave it to DPDK",
            fix=f"modprobe vfio-pci && dpdk-devbind.py --bind=vfio-pci {address} "
            "(its network interface is gone then)",
        )


def _for_frames(device: str, frame_size: int) -> str:
    """The device, so that its driver's frames fit ours where it would not look."""
    if device.startswith("net_af_packet") and frame_size == 2048 and ",framesz=" not in device:
        # Its own of 2048 hold more than there is room for. The driver takes it that they fill
        # blocks to the last byte, and blocks consist of pages: 32 of these do.
        return f"{device},framesz=1664,blocksz=53248"
    if device.startswith("net_af_xdp"):
        room = frame_size - XDP_HEADROOM
        if room < ETHERNET:
            name = device.partition(",")[0]
            logs.warning(
                "port_mtu_too_big",
                f"{name}: packets of more than {room} bytes do not come in and count as missed",
                fix="memory.frame_size: 4096",
                subject=name,
            )
    return device


def attach(plane: Dataplane, lcores: Sequence[int], params: DpdkParams) -> int:
    """Add it to a data plane: starts DPDK if it is the first one, and the device.

    Raises:
        UserError: there is no DPDK, no such device, or it cannot be used so.
    """
    assert isinstance(plane.dpdk, Dpdk)
    check_plugin(plane.dpdk.plugin)
    if params.is_pci:
        _check_pci(params.device.partition(",")[0])
    try:
        return plane.add_dpdk(
            lcores,
            _for_frames(params.device, plane.dpdk.frame_size),
            params.queues,
            plugin=str(plane.dpdk.plugin),
            arguments=plane.dpdk.arguments,
            memory=plane.dpdk.memory,
            memory_bytes=plane.dpdk.memory_bytes,
        )
    except UserError as error:
        again = "apt-get install --reinstall dpdk libdpdk-dev, then run make"
        raise UserError(error.what, fix=error.fix or again) from None


PORT = Port(name="dpdk", params=DpdkParams, attach=attach)
