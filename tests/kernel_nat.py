# SPDX-License-Identifier: BSD-3-Clause
"""Linux's own NAT in a network namespace: `unshare -n python3 kernel_nat.py`. A line of standard
input is a side and an IPv4 packet that comes in there, in hex; the answer is a line with the packet
that leaves on the other side, or an empty one.

    inside 10.0.0.0/8 ── tun in0 ── kernel: SNAT to 203.0.113.4 ── tun out0 ── outside
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import sys

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
WAIT_S = 0.3
SETUP = """
ip link set lo up
ip addr add 10.255.255.1/8 dev in0
ip link set in0 up
ip addr add 192.0.2.1/32 dev out0
ip link set out0 up
ip route add default dev out0
sysctl -qw net.ipv4.ip_forward=1
sysctl -qw net.ipv4.conf.all.rp_filter=0
sysctl -qw net.ipv4.conf.in0.rp_filter=0
sysctl -qw net.ipv4.conf.out0.rp_filter=0
sysctl -qw net.ipv6.conf.all.disable_ipv6=1
nft add table ip nat
nft add chain ip nat post { type nat hook postrouting priority 100 ; }
nft add rule ip nat post oifname out0 ip saddr 10.0.0.0/8 snat to 203.0.113.4
"""


def tun(name: str) -> int:
    """A file that a network interface sends to and receives from."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return fd


def receive(fd: int) -> bytes:
    """The next IPv4 packet, or none."""
    while select.select([fd], [], [], WAIT_S)[0]:
        packet = os.read(fd, 65536)
        if packet[0] >> 4 == 4 and packet[9] != 2:  # neither IPv6 nor IGMP
            return packet
    return b""


def main() -> None:
    sides = {"in": tun("in0"), "out": tun("out0")}
    for command in SETUP.strip().splitlines():
        subprocess.run(command.split(), check=True)
    print("ready", flush=True)
    for line in sys.stdin:
        side, packet = line.split()
        os.write(sides[side], bytes.fromhex(packet))
        print(receive(sides["out" if side == "in" else "in"]).hex(), flush=True)


if __name__ == "__main__":
    main()
