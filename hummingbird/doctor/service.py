# SPDX-License-Identifier: BSD-3-Clause
"""Checks of what a run needs beside its packets, above all one that is a service: directories,
disks, what dead runs have left, the unit of systemd, and how fast CPUs go when there is work."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from hummingbird import cache, units
from hummingbird.doctor.finding import Finding, ok, problem, warning
from hummingbird.doctor.needs import Needs
from hummingbird.telemetry import rundir

LITTLE = 1 << 30
"""Bytes: a disk that has less left is soon full."""


# ---- directories ---------------------------------------------------------------------------------


def run_directory(needs: Needs) -> Iterator[Finding]:
    """Can run directories be made?"""
    base = rundir.base_dir()
    there = _nearest(base)
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        fix = "run as root, or set XDG_RUNTIME_DIR to a directory of yours"
        yield problem("run directory", f"{base} cannot be written", fix)
    else:
        yield ok("run directory", f"{base} can be written")


def dead_runs(needs: Needs) -> Iterator[Finding]:
    """What have runs left that were killed?"""
    dead = [name for name in rundir.instances() if not rundir.is_running(name)]
    half_built = cache.half_built_folders()
    abandoned = [folder for folder in half_built if cache.remove_abandoned(folder, really=False)]
    left = [
        f"the run director{'ies' if len(dead) > 1 else 'y'} {', '.join(dead)}" if dead else "",
        f"half-built files in {cache.cache_dir()}" if abandoned else "",
    ]
    if any(left):
        what = f"killed runs have left {' and '.join(text for text in left if text)}"
        yield warning("dead runs", what, "hummingbird clean")


def cache_directory(needs: Needs) -> Iterator[Finding]:
    """Is what was compiled and probed kept?"""
    if needs.device is None:
        return
    place = cache.cache_dir()
    if not os.access(_nearest(place), os.W_OK | os.X_OK):
        what = f"{place} cannot be written: every start compiles and probes anew"
        yield warning("cache", what, "export XDG_CACHE_HOME=DIR   (a directory of yours)")
    elif (free := _free(place)) < LITTLE // 16:
        what = f"{place} has room for {free >> 20} MiB: what is compiled may not be kept"
        yield warning("cache", what, "make room on that disk")


def captures(needs: Needs) -> Iterator[Finding]:
    """Is there room for the captures that ports write?"""
    for name, path in needs.captures:
        folder = path.parent
        if not os.access(folder, os.W_OK | os.X_OK):
            fix = f"sudo chown $(id -u) {folder}   (or name another place)"
            yield problem("captures", f"{name}: {folder} cannot be written", fix)
        elif (free := _free(folder)) < LITTLE:
            what = f"{name}: {folder} has room for {free >> 20} MiB; then all is dropped there"
            yield warning("captures", what, "make room, or write the capture elsewhere")
        else:
            yield ok("captures", f"{name}: {folder} has room for {free >> 30} GiB")


def _nearest(path: Path) -> Path:
    """It, or what is there of the way to it."""
    return next(one for one in (path, *path.parents) if os.path.exists(one))


def _free(path: Path) -> int:
    disk = os.statvfs(_nearest(path))
    return disk.f_bavail * disk.f_frsize


# ---- systemd -------------------------------------------------------------------------------------


def unit(needs: Needs, root: Path = Path("/")) -> Iterator[Finding]:
    """Is it installed as a service, as this version has it?"""
    name = "hummingbird@.service"
    file = root / units.PLACES[name] / name
    if not file.exists():
        if needs.any and (root / "run/systemd/system").is_dir():
            yield ok("service", "not installed as a service; `hummingbird unit` shows how")
        return
    text = file.read_text(encoding="utf-8", errors="replace")
    found = re.search(r"^ExecStart=(\S+) run", text, re.MULTILINE)
    command = Path(found[1]) if found else None
    install = "sudo hummingbird unit --install && sudo systemctl daemon-reload"
    if command is None or not os.access(root / command.relative_to("/"), os.X_OK):
        yield problem("service", f"{file} starts {command}, which is not there", install)
    elif text != units.text(name, command):
        what = f"{file} is not as this version has it; changes belong into drop-ins"
        yield warning("service", what, install)
    elif not _has_user(root):
        yield problem("service", "there is no user hummingbird", "sudo systemd-sysusers")
    else:
        yield ok("service", f"{file}, as this version has it")


def _has_user(root: Path) -> bool:
    lines = (root / "etc/passwd").read_text(errors="replace").splitlines()
    return any(line.startswith("hummingbird:") for line in lines)


# ---- CPUs ----------------------------------------------------------------------------------------


def cpu_frequency(needs: Needs, sys: Path = Path("/sys")) -> Iterator[Finding]:
    """Do CPUs run at full speed when packets come?"""
    files = sorted(sys.glob("devices/system/cpu/cpufreq/policy*/scaling_governor"))
    governors = {file.read_text(encoding="ascii").strip() for file in files}
    if not governors:  # a virtual machine: its host decides
        return
    if slow := governors & {"powersave", "ondemand", "conservative"}:
        what = f"the governor is {', '.join(sorted(slow))}: latencies rise after quiet times"
        glob = f"{sys}/devices/system/cpu/cpufreq/policy*/scaling_governor"
        yield warning("CPU frequency", what, f"echo performance | sudo tee {glob}")
    else:
        yield ok("CPU frequency", f"the governor is {', '.join(sorted(governors))}")
