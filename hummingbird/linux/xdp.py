# SPDX-License-Identifier: BSD-3-Clause
"""XDP programs: how one is called, who has it, and how it comes off an interface; bpf(2).

Needs CAP_SYS_ADMIN: the kernel opens programs by number for nobody else.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hummingbird.linux import netlink

_SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280}
# enum bpf_cmd of linux/bpf.h
_OPEN_PROGRAM, _INFO, _OPEN_LINK, _NEXT_LINK, _DETACH_LINK = 13, 15, 30, 31, 34
_XDP_LINK = 6
"""BPF_LINK_TYPE_XDP"""
_PROGRAM_INFO = struct.Struct("=IIQIIQQQIIQ16s")
"""bpf_prog_info: type, id, tag, lengths and places of code (4), load time, uid, number and place of
map ids, name."""
_LINK_INFO = struct.Struct("=IIIxxxxI4x")
"""bpf_link_info: type, id, program, interface."""
_FIRST_PID_NAMESPACE = 0xEFFFFFFC
"""PROC_PID_INIT_INO of linux/proc_ns.h"""
_libc = ctypes.CDLL(None, use_errno=True)


def name_of(program: int) -> str:
    """The name of a program by its number.

    Raises:
        OSError: EPERM without the right to ask, ENOENT if it has gone.
    """
    with _opened(_OPEN_PROGRAM, program) as file:
        name: bytes = _PROGRAM_INFO.unpack(_info(file, _PROGRAM_INFO.size))[-1]
    return name.rstrip(b"\0").decode()


def holders(program: int, proc: Path = Path("/proc")) -> list[int]:
    """Processes that have the program, or what binds it to an interface, open."""
    wanted = f"prog_id:\t{program}\n"
    found = set()
    for info in proc.glob("[0-9]*/fdinfo/*"):
        try:
            text = info.read_text(encoding="ascii", errors="replace")
        except OSError:  # it has ended, or has closed it
            continue
        if wanted in text:
            found.add(int(info.parts[-3]))
    return sorted(found)


def sees_all_processes() -> bool:
    """False in a container that has its own process numbers: `holders` misses those outside."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino == _FIRST_PID_NAMESPACE
    except OSError:
        return False


def detach(index: int, mode: str, program: int) -> None:
    """Take this program off an interface; not another that has taken its place.

    Args:
        index: of the interface.
        mode: ``native``, ``generic`` or ``offload``.
        program: its number.

    Raises:
        OSError: it has gone, or may not be taken off.
    """
    with _opened(_OPEN_PROGRAM, program) as file:
        try:
            netlink.detach_xdp(index, mode, file)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            _detach_link(index, program)


def _detach_link(index: int, program: int) -> None:
    """Of a program that a bpf_link holds, such as one that was pinned to a file."""
    for number in _link_numbers():
        try:
            with _opened(_OPEN_LINK, number) as link:
                kind, _, of, interface = _LINK_INFO.unpack(_info(link, _LINK_INFO.size))
                if (kind, of, interface) == (_XDP_LINK, program, index):
                    _bpf(_DETACH_LINK, struct.pack("=I12x", link))
        except FileNotFoundError:
            continue


def _link_numbers() -> Iterator[int]:
    number = 0
    while True:
        request = ctypes.create_string_buffer(struct.pack("=III4x", number, 0, 0))
        try:
            _bpf_in(_NEXT_LINK, request)
        except FileNotFoundError:
            return
        (number,) = struct.unpack_from("=I", request.raw, 4)
        yield number


@contextmanager
def _opened(command: int, number: int) -> Iterator[int]:
    file = _bpf(command, struct.pack("=III4x", number, 0, 0))
    try:
        yield file
    finally:
        os.close(file)


def _info(file: int, size: int) -> bytes:
    info = ctypes.create_string_buffer(size)
    _bpf(_INFO, struct.pack("=IIQ", file, size, ctypes.addressof(info)))
    return info.raw


def _bpf(command: int, attributes: bytes) -> int:
    return _bpf_in(command, ctypes.create_string_buffer(attributes))


def _bpf_in(command: int, attributes: ctypes.Array[ctypes.c_char]) -> int:
    number = _SYSCALL.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    size = len(attributes) - 1  # without the NUL that ctypes puts behind it
    answer = _libc.syscall(number, command, attributes, size)
    if answer < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(answer)
