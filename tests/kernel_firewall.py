# SPDX-License-Identifier: BSD-3-Clause
"""Linux's own firewall as an oracle: packets through the FORWARD chain of a network namespace.

    near ── tap ── [ kernel: nf_conntrack, iptables ] ── tap ── far

Run as a script within a fresh namespace (``unshare -n``), it loads what iptables-save would print
and forwards packets one by one, from either side; `forwarded` runs it.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

TAPS = ("near", "far")
NETWORKS = ("10.0.0", "192.0.2")
"""/24 on either side."""
WAIT_S = 0.05
"""A packet that has not come out by then was dropped; most are out when the write returns."""
_TUNSETIFF, _TAP, _NO_INFO = 0x400454CA, 2, 0x1000


def missing() -> str | None:
    """Why there is no kernel to ask; None if there is."""
    for tool in ("iptables", "iptables-restore", "unshare", "ip", "sysctl"):
        if not shutil.which(tool):
            return f"there is no {tool}"
    if os.geteuid() or not os.access("/dev/net/tun", os.W_OK):
        return "only root can make a network namespace with taps"
    command = ["unshare", "-n", "iptables", "-A", "FORWARD", "-m", "conntrack"]
    command += ["--ctstate", "NEW", "-j", "ACCEPT"]
    done = subprocess.run(command, capture_output=True, text=True)
    return f"iptables: {done.stderr.strip()}" if done.returncode else None


def forwarded(rules: str, packets: Sequence[tuple[int, bytes]]) -> list[bool]:
    """Which IPv4 packets the kernel forwards: each a side (0: near) and an IP packet, whose
    identification is set here."""
    told = {"rules": rules, "packets": [[side, packet.hex()] for side, packet in packets]}
    done = subprocess.run(
        ["unshare", "-n", sys.executable, str(Path(__file__))],
        input=json.dumps(told),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [bool(one) for one in json.loads(done.stdout)]


def _tap(name: str) -> int:
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TAP | _NO_INFO))
    return fd


def _run(*command: str, text: str | None = None) -> None:
    subprocess.run(command, input=text, text=True, check=True, stdout=subprocess.DEVNULL)


def _set_up(rules: str) -> list[int]:
    settings = ("net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0")
    taps = []
    for name, network in zip(TAPS, NETWORKS, strict=True):
        taps.append(_tap(name))
        _run("sysctl", "-q", "-w", f"net.ipv6.conf.{name}.disable_ipv6=1")
        _run("ip", "link", "set", name, "address", "02:00:00:00:00:fe", "arp", "off", "up")
        _run("ip", "address", "add", f"{network}.254/24", "dev", name)
        _run("sysctl", "-q", "-w", f"net.ipv4.conf.{name}.rp_filter=0")
    for setting in settings:
        _run("sysctl", "-q", "-w", setting)
    _run("iptables-restore", text=rules)
    _run("sysctl", "-q", "-w", "net.netfilter.nf_conntrack_checksum=0")
    return taps


def _checksum(header: bytes) -> int:
    total = sum(struct.unpack(f">{len(header) // 2}H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _marked(packet: bytes, number: int) -> bytes:
    """With this identification and a right checksum."""
    size = (packet[0] & 15) * 4
    head = bytearray(packet[:size])
    head[4:6], head[10:12] = number.to_bytes(2, "big"), bytes(2)
    head[10:12] = _checksum(bytes(head)).to_bytes(2, "big")
    return bytes(head) + packet[size:]


def _comes_out(tap: int, number: int) -> bool:
    while select.select([tap], [], [], WAIT_S)[0]:
        frame = os.read(tap, 65536)
        if frame[12:14] == b"\x08\x00" and frame[18:20] == number.to_bytes(2, "big"):
            return True
    return False


def main() -> None:
    """As a script."""
    told = json.load(sys.stdin)
    taps = _set_up(told["rules"])
    found = []
    for number, (side, packet) in enumerate(told["packets"], 1):
        ethernet = bytes.fromhex("0200000000fe 020000000001 0800")
        os.write(taps[side], ethernet + _marked(bytes.fromhex(packet), number))
        found.append(_comes_out(taps[1 - side], number))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
