# SPDX-License-Identifier: BSD-3-Clause
"""Checks of what the kernel has: AF_XDP, BPF, taps, VFIO."""

from __future__ import annotations

import errno
import os
import platform
import socket
from collections.abc import Iterator
from pathlib import Path

from hummingbird.doctor.finding import Finding, ok, problem, warning
from hummingbird.doctor.needs import Needs
from hummingbird.ports.dpdk import PCI_DRIVERS

_AF_XDP = 44
_TUN = "dev/net/tun"


def af_xdp(needs: Needs) -> Iterator[Finding]:
    """Does the kernel have AF_XDP sockets?"""
    if not any(port.uses_af_xdp for port in needs.ports):
        return
    try:
        socket.socket(_AF_XDP, socket.SOCK_RAW).close()
    except OSError as error:
        if error.errno != errno.EPERM:  # which says that there are some, for others
            what = f"Linux {platform.release()} has no AF_XDP sockets: {error.strerror}"
            fix = "write driver: af_packet, or boot a kernel with CONFIG_XDP_SOCKETS"
            yield problem("AF_XDP", what, fix)
            return
    yield ok("AF_XDP", f"Linux {platform.release()} has AF_XDP sockets")


def bpf_jit(needs: Needs, root: Path = Path("/")) -> Iterator[Finding]:
    """Are BPF programs compiled? An interpreted one costs most of what AF_XDP gains."""
    if not any(port.uses_af_xdp for port in needs.ports):
        return
    try:
        enabled = int((root / "proc/sys/net/core/bpf_jit_enable").read_text(encoding="ascii"))
    except PermissionError:
        yield warning("BPF", "only root may see whether BPF programs are compiled")
    except FileNotFoundError:  # only the machine's own network namespace has it
        return
    else:
        if enabled:
            yield ok("BPF", "BPF programs are compiled")
        else:
            what = "BPF programs are interpreted: AF_XDP is slow"
            yield warning("BPF", what, "sudo sysctl net.core.bpf_jit_enable=1")


def tap(needs: Needs, root: Path = Path("/")) -> Iterator[Finding]:
    """Can taps be made?"""
    if not any(port.makes_interface for port in needs.ports):
        return
    if not (root / _TUN).exists():
        fix = "sudo modprobe tun   (in a container: docker run --device /dev/net/tun ...)"
        yield problem("tap", f"there is no /{_TUN}", fix)
    elif not os.access(root / _TUN, os.R_OK | os.W_OK):
        yield problem("tap", f"/{_TUN} may not be opened", f"sudo chmod 666 /{_TUN}")
    else:
        yield ok("tap", f"/{_TUN} can be opened")


def iommu(needs: Needs, root: Path = Path("/")) -> Iterator[Finding]:
    """Can DPDK drive PCI devices safely: IOMMU groups, vfio-pci?"""
    devices = [port for port in needs.ports if port.pci]
    if not devices and not (needs.any and "dpdk" in needs.drivers()):
        return
    report = problem if devices else warning
    only = "" if devices else "; matters only to dpdk ports with a PCI address"
    groups = root / "sys/kernel/iommu_groups"
    if not (groups.is_dir() and any(groups.iterdir())):
        fix = "add intel_iommu=on or amd_iommu=on to the kernel's command line, and reboot"
        yield report("IOMMU", f"there are no IOMMU groups{only}", fix)
    else:
        yield ok("IOMMU", f"{len(list(groups.iterdir()))} groups")
    if (root / "sys/bus/pci/drivers/vfio-pci").is_dir():
        yield ok("VFIO", "vfio-pci is loaded")
    else:
        yield report("VFIO", f"vfio-pci is not loaded{only}", "sudo modprobe vfio-pci")


def pci_devices(needs: Needs, root: Path = Path("/")) -> Iterator[Finding]:
    """Is each PCI device of a dpdk port there, and bound to vfio-pci?"""
    for port in needs.ports:
        if not port.pci:
            continue
        device = root / "sys/bus/pci/devices" / port.pci
        if not device.exists():
            what = f"{port.name}: there is no PCI device {port.pci}"
            yield problem("PCI", what, "dpdk-devbind.py --status-dev net   (lists them)")
            continue
        driver = os.path.basename(os.path.realpath(device / "driver"))
        bound = (device / "driver").exists()
        if driver in PCI_DRIVERS:
            yield ok("PCI", f"{port.name}: {port.pci} has the driver {driver}")
        else:
            by = f"the kernel's driver {driver} has" if bound else "no driver has"
            what = f"{port.name}: {by} {port.pci}; DPDK needs it bound to vfio-pci"
            yield problem("PCI", what, f"sudo dpdk-devbind.py -b vfio-pci {port.pci}")
