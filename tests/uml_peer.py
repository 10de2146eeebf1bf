#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""The first process of a User-Mode Linux kernel that is the far end of IPsec tunnels.

Does what the plan says (a JSON file named by the environment's PLAN): loads modules, runs commands.
Then takes commands, one a line, and answers each with a line that begins with @:

    ping SOURCE DESTINATION COUNT     echo requests; how many were answered
    run WORD ...                      a command; its output
    halt
"""

from __future__ import annotations

import base64
import ctypes
import errno
import json
import os
import socket
import struct
import subprocess
import sys
import time
from typing import Any

FINIT_MODULE = 313  # system call of x86-64
POWER_OFF = 0x4321FEDC
UDP_ENCAP, ESP_IN_UDP = 100, 2

libc = ctypes.CDLL(None, use_errno=True)


def mount(kind: str, where: str) -> None:
    libc.mount(kind.encode(), where.encode(), kind.encode(), 0, None)


def load_module(path: str) -> str:
    """What went wrong; nothing if it is there now."""
    file = os.open(path, os.O_RDONLY)
    failed = libc.syscall(FINIT_MODULE, file, b"", 0)
    number = ctypes.get_errno()
    os.close(file)
    return f"FAILED: {path}: {os.strerror(number)}" if failed and number != errno.EEXIST else ""


def run(words: list[str]) -> str:
    done = subprocess.run(words, capture_output=True, text=True)
    return f"{done.stdout}{done.stderr}" if done.returncode == 0 else f"FAILED: {done.stderr}"


def answer(value: Any) -> None:
    text = base64.b64encode(json.dumps(value).encode()).decode()
    print(f"@{text}@", flush=True)


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def ping(source: str, destination: str, count: int) -> int:
    """How many of `count` echo requests are answered with the same bytes within 10 s each."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as s:
        s.bind((source, 0))
        s.settimeout(10)
        answered = 0
        for number in range(1, count + 1):
            payload = bytes((number + i) & 255 for i in range(0, 40 * number, 1))
            body = struct.pack(">HH", 4303, number) + payload
            head = struct.pack(">BBH", 8, 0, checksum(struct.pack(">BBH", 8, 0, 0) + body))
            s.sendto(head + body, (destination, 0))
            answered += is_answered(s, destination, body)
        return answered


def is_answered(s: socket.socket, destination: str, body: bytes) -> bool:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            packet, (sender, _) = s.recvfrom(65535)
        except OSError:
            return False
        at = (packet[0] & 15) * 4
        if sender == destination and packet[at] == 0 and packet[at + 4 :] == body:
            return True
    return False


def encapsulation_socket(port: int) -> socket.socket:
    """ESP in UDP that comes to this port goes to xfrm (RFC 3948)."""
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("0.0.0.0", port))
    s.setsockopt(socket.IPPROTO_UDP, UDP_ENCAP, ESP_IN_UDP)
    return s


def main() -> None:
    mount("proc", "/proc")
    mount("sysfs", "/sys")
    with open(os.environ["PLAN"]) as file:
        plan = json.load(file)
    loaded = [load_module(path) for path in plan["modules"]]
    sockets = [encapsulation_socket(port) for port in plan["udp"]]
    answer(loaded + [run(words) for words in plan["commands"]])
    for line in sys.stdin:
        what, *words = line.split()
        if what == "halt":
            break
        if what == "ping":
            answer(ping(words[0], words[1], int(words[2])))
        else:
            answer(run(words))
    for s in sockets:
        s.close()
    os.sync()
    libc.reboot(POWER_OFF)


main()
