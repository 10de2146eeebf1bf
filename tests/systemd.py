# SPDX-License-Identifier: BSD-3-Clause
"""A real systemd that runs services of Hummingbird: Debian's, as the first process of namespaces of
its own, with copies of /etc and /var that are gone with it.

    test ── systemctl ── [ systemd ── hummingbird@NAME ]   mounts, processes, control groups
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from process import ROOT

SYSTEMD = Path("/usr/lib/systemd/systemd")
GROUPS = ("/sys/fs/cgroup/unified", "/sys/fs/cgroup")
INSIDE = "/run/hummingbird-test"
TIMEOUT_S = 60.0
POLL_S = 0.02

BOOT = f"""
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
cd /
mkdir -p /run/systemd/system {INSIDE}/repo {INSIDE}/python {INSIDE}/dev/net {INSIDE}/dev/shm
for name in etc var; do
    mkdir {INSIDE}/$name {INSIDE}/$name.work
    mount -t overlay overlay \\
        -o lowerdir=/$name,upperdir={INSIDE}/$name,workdir={INSIDE}/$name.work /$name
done
mount --bind "$1" {INSIDE}/repo && mount -o remount,bind,ro {INSIDE}/repo
mount --bind "$2" {INSIDE}/python && mount -o remount,bind,ro {INSIDE}/python
for node in null zero full random urandom tty net/tun; do
    [ -e /dev/$node ] || continue
    touch {INSIDE}/dev/$node
    mount --bind /dev/$node {INSIDE}/dev/$node
done
ln -s pts/ptmx {INSIDE}/dev/ptmx
mount --rbind {INSIDE}/dev /dev
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /etc/systemd/system
mount -o remount,bind,ro /
mount -o remount,bind,ro /sys
mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
for name in sysinit basic multi-user shutdown network-pre; do
    printf '[Unit]\\nDefaultDependencies=no\\n' >/run/systemd/system/$name.target
done
exec env -i PATH="$PATH" container=test SYSTEMD_UNIT_PATH=/etc/systemd/system:/run/systemd/system \\
    SYSTEMD_GENERATOR_PATH=/nonexistent SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/nonexistent \\
    {SYSTEMD} --system --unit=basic.target --log-target=null --show-status=no
"""
"""What it boots with: its own /run, /etc, /var, /tmp and /dev, and none of the machine's units,
which would clean /tmp, set up devices, and set what /proc/sys has. All else is read-only."""


def needs_systemd() -> None:
    """Skip, and say so, where it cannot run."""
    if not SYSTEMD.exists() or shutil.which("systemctl") is None:
        pytest.skip("NOT TESTED with systemd: apt-get install systemd")
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED with systemd: needs root, for namespaces")
    if _groups() is None:
        pytest.skip("NOT TESTED with systemd: there are no control groups of version 2")


def _groups() -> Path | None:
    """Where control groups of version 2 are mounted."""
    found = (Path(top) for top in GROUPS if Path(top, "cgroup.procs").exists())
    return next((top for top in found if os.access(top, os.W_OK)), None)


@dataclass
class Systemd:
    """One that runs."""

    pid: int

    def inside(self, *argv: str) -> list[str]:
        """A command that runs this one among its services."""
        return ["nsenter", "-t", str(self.pid), "-m", "-p", "-C", "-i", "-u", "-n", *argv]

    def run(self, *argv: str, may_fail: bool = False) -> str:
        """Run it; what it says."""
        done = subprocess.run(self.inside(*argv), capture_output=True, text=True, timeout=TIMEOUT_S)
        assert may_fail or done.returncode == 0, f"{' '.join(argv)}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def ctl(self, *argv: str, may_fail: bool = False) -> str:
        """systemctl."""
        return self.run("systemctl", "--no-pager", *argv, may_fail=may_fail)

    def show(self, unit: str, prop: str) -> str:
        """A property of a unit."""
        return self.ctl("show", "-P", prop, unit).strip()

    def path(self, path: str) -> Path:
        """A file of its namespace, from outside."""
        return Path(f"/proc/{self.pid}/root", path.lstrip("/"))

    def write(self, path: str, text: str) -> None:
        """Write one."""
        self.path(path).parent.mkdir(parents=True, exist_ok=True)
        self.path(path).write_text(text)

    def until(self, condition: Callable[[], object], what: str, timeout: float = TIMEOUT_S) -> None:
        """Until a condition holds."""
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, f"waited {timeout:g} s for {what}"
            time.sleep(POLL_S)


def _install(system: Systemd) -> None:
    """The units as `hummingbird unit --install` writes them, but for where the command is: the
    checkout and its Python may lie in a home directory, which services do not see."""
    packages = next((ROOT / ".venv/lib").glob("python3*/site-packages")).relative_to(ROOT)
    python = Path(sys.executable).resolve().relative_to(Path(sys.base_prefix).resolve())
    command = f"{INSIDE}/hummingbird"
    system.write(
        command,
        "#!/bin/sh\n"
        f"export PYTHONPATH={INSIDE}/repo:{INSIDE}/repo/{packages}\n"
        f"export LD_LIBRARY_PATH={INSIDE}/python/lib\n"
        f'exec {INSIDE}/python/{python} -m hummingbird.cli "$@"\n',
    )
    system.path(command).chmod(0o755)
    code = "import sys; from pathlib import Path; from rich.console import Console\n"
    code += "from hummingbird import units; units.check_place = lambda path: None\n"
    code += "units.program = lambda: Path(sys.argv[1]); units.install(Console(), Path(sys.argv[2]))"
    root = f"/proc/{system.pid}/root"
    subprocess.run(
        [sys.executable, "-c", code, command, root], cwd=ROOT, check=True, stdout=subprocess.DEVNULL
    )


@contextlib.contextmanager
def systemd() -> Iterator[Systemd]:
    """A systemd with the units of Hummingbird; it and its services are gone behind the block."""
    top = _groups()
    assert top is not None
    group = top / f"hummingbird-test-{os.getpid()}"
    group.mkdir()
    boot = ["sh", "-c", BOOT, "boot", str(ROOT), str(Path(sys.base_prefix).resolve())]
    unshare = ["unshare", "--mount", "--pid", "--cgroup", "--ipc", "--uts", "--net", "--fork"]
    process = subprocess.Popen(
        [*unshare, "--mount-proc", "--kill-child", *boot],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: (group / "cgroup.procs").write_text(str(os.getpid())),  # type: ignore[arg-type,return-value]
    )
    try:
        system = Systemd(_child(process))
        ready = ["systemctl", "is-active", "basic.target"]
        system.until(
            lambda: system.run(*ready, may_fail=True).strip() == "active", "systemd to boot"
        )
        _install(system)
        system.run("systemd-sysusers")
        system.ctl("daemon-reload")
        yield system
    finally:
        process.kill()  # its child, the first process of the namespace, goes with it, and all else
        process.wait()
        _remove(group)


def _child(process: subprocess.Popen[bytes]) -> int:
    end = time.monotonic() + TIMEOUT_S
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not (found := children.read_text().split()):
        assert process.poll() is None and time.monotonic() < end, "unshare does not work"
        time.sleep(POLL_S)
    return int(found[0])


def _remove(group: Path) -> None:
    """A control group and those in it, when their last processes are gone."""
    end = time.monotonic() + TIMEOUT_S
    while group.exists():
        for folder, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        assert time.monotonic() < end, f"{group} stays"
        time.sleep(POLL_S)
