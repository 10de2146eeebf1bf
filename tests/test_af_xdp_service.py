# SPDX-License-Identifier: BSD-3-Clause
"""af_xdp as an operator meets it: what a run says, what it says when it cannot start, which rights
it takes, and what is left of it when it is killed."""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from chain import started, udp
from namespaces import until
from process import Service, service, write_topology
from test_port_af_xdp import ROWS, topology
from wires import Bed, Wire, bed, pump, wires

from hummingbird.errors import UserError
from hummingbird.ports.netdev import interfaces

AF_XDP, SOL_XDP = 44, 283
XDP_RX_RING, XDP_UMEM_REG, XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING = 2, 4, 5, 6
RIGHTS = ("cap_net_raw", "cap_net_admin", "cap_bpf")
PACKET = udp("10.0.0.1", "10.0.0.2", 5, 6, b"here")


@pytest.fixture
def one() -> Iterator[Bed]:
    with bed() as made:
        yield made


def refused(source: dict[str, Any], rows: str = ROWS, **options: Any) -> UserError:
    """What is said about a topology that cannot start."""
    with pytest.raises(UserError) as caught, started(source, None, rows, **options):
        pass
    return caught.value


def check_nothing_left(place: Bed) -> None:
    """Neither interface has a program, or is promiscuous."""
    for end in ("lan0", "wan0"):
        says = place.link(end)
        assert "prog/xdp" not in says and "promiscuity 0" in says


# ---- what cannot start ---------------------------------------------------------------------------

SIMPLE: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "no such interface": (
        {"interface": "hbx9"}, {}, "interface hbx9: there is no such interface", "ip link"),
    "too many queues": (
        {"queues": 3}, {}, "interface wan0 has 1 queue, not 3",
        "write queues: 1, or `ethtool -L wan0 combined 3`"),
    "no zero-copy": (
        {"mode": "zero-copy"}, {}, "interface wan0: its driver has no zero-copy", "mode: auto"),
}  # fmt: skip


@pytest.mark.parametrize("case", SIMPLE)
def test_wrong(case: str, one: Bed) -> None:
    """The first port is open by then; nothing of it is left, and the topology says where."""
    port, options, what, fix = SIMPLE[case]
    source = topology()
    source["ports"]["wan"] |= port
    error = refused(source, **options)
    assert error.what == what and error.fix is not None and fix in error.fix
    assert error.field == "ports.wan" and error.line
    check_nothing_left(one)


def test_too_few_mbufs(one: Bed) -> None:
    """Each port wants a quarter of the smallest pool to fill, and a quarter has to stay."""
    one.make("x")
    one.make("y")
    source = topology()
    source["ports"] |= {n: {"driver": "af_xdp", "interface": f"{n}0"} for n in ("x", "y")}
    error = refused(source, ROWS + "*,x,y\n*,y,x\n", memory={"mbufs": 1024})
    assert error.what.startswith("interface y0: memory.mbufs: 1024 are too few")
    assert error.fix == "write memory.mbufs: 2048"
    check_nothing_left(one)


@pytest.mark.parametrize("mode", ["xdpgeneric", "xdpdrv"])
def test_another_program(mode: str, one: Bed, tmp_path: Path) -> None:
    """What is attached stays attached, whatever mode it is in."""
    if not shutil.which("clang"):
        pytest.skip("NOT TESTED: no clang to compile another XDP program with")
    code = '__attribute__((section("xdp"))) int other(void *c) { return 2; }\n'
    compiled = tmp_path / "other.o"
    command = ["clang", "-O2", "-target", "bpf", "-x", "c", "-c", "-", "-o", str(compiled)]
    subprocess.run(command, input=code, text=True, check=True)
    one.run("ip", "link", "set", "dev", "wan0", mode, "obj", str(compiled), "sec", "xdp")
    error = refused(topology())
    assert error.what == "interface wan0: another XDP program is attached to it"
    assert error.fix is not None and "ip link set dev wan0 xdp off" in error.fix
    assert "prog/xdp" in one.link("wan0") and "prog/xdp" not in one.link("lan0")


def test_two_runs_on_one_interface(one: Bed) -> None:
    """Two runs on one interface: the second one says what is in its way, the first goes on."""
    with wires("lan1", "wan1") as (lan, wan), started(topology(), None, ROWS) as run:
        error = refused(topology())
        assert "another XDP program" in error.what
        lan.send([PACKET])
        pump(run, "a packet", (wan, 1))
        run.stop()


def bound_socket(interface: str) -> socket.socket:
    """An AF_XDP socket on queue 0 of an interface, by the kernel's own interface."""
    libc = ctypes.CDLL(None, use_errno=True)
    made = socket.socket(AF_XDP, socket.SOCK_RAW, fileno=libc.socket(AF_XDP, socket.SOCK_RAW, 0))
    memory = mmap.mmap(-1, 1 << 20)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    made.setsockopt(SOL_XDP, XDP_UMEM_REG, struct.pack("QQIIIxxxx", address, 1 << 20, 2048, 0, 0))
    for ring in (XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING, XDP_RX_RING):
        made.setsockopt(SOL_XDP, ring, 64)
    where = struct.pack("HHIII", AF_XDP, 0, socket.if_nametoindex(interface), 0, 0)
    if libc.bind(made.fileno(), where, len(where)):
        raise OSError(ctypes.get_errno(), "bind")
    return made


def test_a_queue_that_somebody_else_has(one: Bed) -> None:
    with bound_socket("wan0"):
        error = refused(topology())
    assert error.what == "interface wan0: its queue 0 is taken by another AF_XDP socket"
    assert error.fix is not None and "another interface" in error.fix
    check_nothing_left(one)


def test_down_is_no_error(one: Bed, caplog: pytest.LogCaptureFixture) -> None:
    """The port is opened, a warning says what to do, and it works once the interface is up."""
    one.run("ip", "link", "set", "wan0", "down")
    with wires("lan1", "wan1") as (lan, wan), started(topology(), None, ROWS) as run:
        assert "wan: interface wan0 is down (fix: ip link set wan0 up)" in caplog.text
        one.run("ip", "link", "set", "wan0", "up")

        def came() -> bool:
            lan.send([PACKET])
            return len(wan.got()) > 0

        run.until(came, what="packets")
        run.stop()


# ---- a service -----------------------------------------------------------------------------------


def test_killed_it_leaves_nothing(one: Bed, tmp_path: Path) -> None:
    """After kill -9 the kernel takes the program off the interfaces, and the next run starts."""
    path = write_topology(tmp_path, topology(), ROWS)
    with wires("lan1", "wan1") as (lan, wan):
        for runs, end in enumerate((signal.SIGKILL, signal.SIGTERM)):
            with service(tmp_path, path, "--no-live") as run:
                run.until(partial(is_running, run), "the start")
                assert "hb_xdp" in one.link("lan0") and "promiscuity 1" in one.link("lan0")
                lan.send([PACKET] * 10)
                run.until(partial(has, wan, 10 * (runs + 1)), "packets")
                ended = run.stop(end)
            until_clean(one)
    assert ended.balanced["ports"]["wan"]["sent"] == 10
    assert "lan: af_xdp on lan0, native, copy mode, 1 queue" in ended.text


def is_running(run: Service) -> bool:
    return "wan: af_xdp on wan0" in run.text


def has(wire: Wire, many: int) -> bool:
    return len(wire.got()) == many


def until_clean(place: Bed) -> None:
    """The kernel takes a moment."""

    def clean() -> bool:
        says = place.link("lan0")
        return "prog/xdp" not in says and "promiscuity 1" not in says

    until(clean, "the kernel to tidy up")


@pytest.fixture
def readable() -> Iterator[Path]:
    """A folder that every user may read, which those of pytest are not."""
    with tempfile.TemporaryDirectory(prefix="hummingbird-test-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def as_user(folder: Path, rights: Sequence[str], memlock: int) -> Service:
    """A run as the user nobody with these rights and bytes of locked memory."""
    path = write_topology(folder, topology() | {"memory": {"mbufs": 2048}}, ROWS)
    home = folder / "home"
    home.mkdir()
    shutil.chown(home, "nobody")
    dropped = ["setpriv", "--reuid", "nobody", "--clear-groups"]
    if rights:
        given = ",".join(f"+{right.removeprefix('cap_')}" for right in rights)
        dropped += ["--inh-caps", given, "--ambient-caps", given]
    environment = {"XDG_RUNTIME_DIR": str(home), "HOME": str(home), "STATE_DIRECTORY": str(home)}
    return Service(
        home,
        str(path),
        "--no-live",
        name=f"user-{os.getpid()}",
        environment=environment,
        before=lambda: resource.setrlimit(resource.RLIMIT_MEMLOCK, (memlock, memlock)),
        through=dropped,
    )


needs_setpriv = pytest.mark.skipif(
    not shutil.which("setpriv"), reason="NOT TESTED AS USER: there is no setpriv"
)
POOL = 2048 * 2048


@needs_setpriv
def test_without_root(one: Bed, readable: Path) -> None:
    """With three capabilities and enough locked memory, any user may."""
    with wires("lan1", "wan1") as (lan, wan):
        run = as_user(readable, RIGHTS, 2 * POOL)
        try:
            run.until(partial(is_running, run), "the start")
            lan.send([PACKET] * 10)
            run.until(partial(has, wan, 10), "packets")
            ended = run.stop()
        finally:
            run.process.kill()
    assert ended.balanced["ports"]["wan"]["sent"] == 10


@needs_setpriv
@pytest.mark.parametrize("lacks", [*RIGHTS, "all"])
def test_a_right_is_missing(lacks: str, one: Bed, readable: Path) -> None:
    """One line names it, and the fix; no more than that is asked for."""
    run = as_user(readable, [r for r in RIGHTS if lacks not in (r, "all")], 2 * POOL)
    ended = run.wait()
    names = " ".join(RIGHTS if lacks == "all" else [lacks]).upper()
    assert ended.status == 2
    assert f"AF_XDP needs a right that this process has not: {names} fix:" in ended.text
    assert f"AmbientCapabilities={names} in the systemd unit" in ended.text
    assert "Traceback" not in ended.text


@needs_setpriv
def test_too_little_locked_memory(one: Bed, readable: Path) -> None:
    ended = as_user(readable, RIGHTS, POOL - 4096).wait()
    assert ended.status == 2
    assert (
        f"its 1 queue needs {POOL} bytes of locked memory, the limit is {POOL - 4096}" in ended.text
    )
    assert "LimitMEMLOCK" in ended.text and "ulimit -l" in ended.text


# ---- what interfaces can do ----------------------------------------------------------------------


def test_devices_lists_interfaces(one: Bed) -> None:
    one.run("ip", "link", "set", "lan1", "down")
    one.run("ip", "link", "set", "wan0", "mtu", "9000")
    until(lambda: "LOWERLAYERDOWN" in one.link("lan0"), "the loss of the link")
    said = {line.partition(":")[0]: line for line in interfaces()}
    if "before 6.3" in said["lan0"]:
        pytest.skip("NOT TESTED: this kernel does not tell what XDP can do (before 6.3)")
    veth, mode = "driver veth, 1 queue", "af_xdp: native, copy mode"
    assert said == {
        "lan0": f"lan0: {veth}, MTU 1500, no link; {mode}",
        "lan1": f"lan1: {veth}, MTU 1500, down; {mode}",
        "wan0": f"wan0: {veth}, MTU 9000, up; {mode}",
        "wan1": f"wan1: {veth}, MTU 1500, up; {mode}",
    }
