# SPDX-License-Identifier: BSD-3-Clause
"""`hummingbird clean`: removes what a killed run has left behind, and nothing of one that runs.

Each kind of thing has a lock that dies with the process it belongs to: the name of an instance
(telemetry/rundir.py), a folder of the cache (cache.py), an XDP program (whoever has it open). What
is removed is removed while that lock is held, so that nobody begins to use it meanwhile.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from hummingbird import cache
from hummingbird.linux import netlink, xdp
from hummingbird.telemetry import rundir

DPDK_PREFIX = "hummingbird-"
"""Of DPDK's --file-prefix; behind it is an instance's name or the number of its process."""
PROGRAM = "hb_xdp"
"""Begins the names of our XDP programs."""


@dataclass(frozen=True)
class Done:
    """Something that was found."""

    what: str
    removed: bool
    """It is gone, or would be."""
    why: str = ""
    """It was left."""


def clean(*, really: bool = True) -> Iterator[Done]:
    """Remove all that nobody uses, or with ``really=False`` only tell."""
    yield from _run_directories(really)
    yield from _dpdk(really)
    yield from _programs(really)
    yield from _cache(really)
    yield from _mdpdk(really)


def command(console: Console, *, dry_run: bool) -> int:
    """Remove, and print a line for each thing.

    Returns:
        The exit status: 1 if something could not be removed.
    """
    found = list(clean(really=not dry_run))
    verb = "would remove" if dry_run else "removed"
    for done in found:
        text = f"{verb} {done.what}" if done.removed else f"left {done.what}: {done.why}"
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    if not found:
        console.print("nothing to remove")
    return 0 if all(done.removed for done in found) else 1


def _run_directories(really: bool) -> Iterator[Done]:
    """Run directories of instances that do not run."""
    for name in rundir.instances():
        folder = rundir.base_dir() / name
        what = f"the run directory {folder}"
        try:
            with rundir.held(name) as free:
                if not free:
                    continue
                if really:
                    rundir.remove(name)
                gone = not really or not folder.exists()
            yield Done(what, gone, "" if gone else "there are files in it that are not ours")
        except OSError as error:
            yield Done(what, False, str(error.strerror))


def _dpdk_dir() -> Path:
    """Where DPDK has the runtime directories of processes, as its eal_create_runtime_dir()."""
    given = os.environ.get("RUNTIME_DIRECTORY")
    if not given and os.geteuid() == 0:
        given = "/var/run"
    given = given or os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    return Path(given) / "dpdk"


def _dpdk(really: bool) -> Iterator[Done]:
    """DPDK's runtime directories of instances that do not run."""
    for folder in sorted(_dpdk_dir().glob(f"{DPDK_PREFIX}*")):
        what = f"DPDK's runtime directory {folder}"
        try:
            with rundir.held(folder.name.removeprefix(DPDK_PREFIX)) as free:
                if not free or _has_process(folder):
                    continue
                if really:
                    shutil.rmtree(folder)
            yield Done(what, True)
        except OSError as error:
            yield Done(what, False, str(error.strerror))


def _has_process(folder: Path) -> bool:
    """A process uses the directory: one that it is named by, or a primary process of DPDK, which
    locks a part of the file `config` as long as it lives."""
    number = folder.name.removeprefix(DPDK_PREFIX)
    if number.isdecimal() and Path("/proc", number).exists():
        return True
    try:
        with open(folder / "config", "rb+") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _programs(really: bool) -> Iterator[Done]:
    """XDP programs of ours on interfaces of this network namespace that no process has. One goes
    with its process, unless somebody else has bound it to the interface."""
    try:
        links = netlink.links()
    except OSError:  # a container without
        return
    for link in links.values():
        for mode, program in link.xdp:
            what = f"XDP program {program} on {link.name} ({mode})"
            try:
                name = xdp.name_of(program)
                if not name.startswith(PROGRAM):
                    continue
                what = f"XDP program {name} on {link.name} ({mode})"
                if xdp.holders(program):
                    continue
                if not xdp.sees_all_processes():
                    yield Done(what, False, "a process outside of this container may have it")
                    continue
                if really:
                    xdp.detach(link.index, mode, program)
                yield Done(what, True)
            except FileNotFoundError:  # gone by itself
                continue
            except PermissionError:
                yield Done(what, False, "only root can tell whether it is ours")
            except OSError as error:
                yield Done(what, False, str(error.strerror))


def _cache(really: bool) -> Iterator[Done]:
    """What was being compiled or probed when its process was killed."""
    for folder in cache.half_built_folders():
        what = f"half-built {folder}"
        try:
            if cache.remove_abandoned(folder, really=really):
                yield Done(what, True)
        except OSError as error:
            yield Done(what, False, str(error.strerror))


def _mdpdk(really: bool) -> Iterator[Done]:
    """What mdpdk_patches/build.sh was building when it was killed; it holds a lock meanwhile."""
    base = cache.cache_dir()
    folders = sorted(base.glob("mdpdk-building.*"))
    if not folders:
        return
    with open(base / "mdpdk.lock", "ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        for folder in folders:
            if really:
                shutil.rmtree(folder, ignore_errors=True)
            gone = not (really and folder.exists())
            yield Done(f"half-built {folder}", gone, "" if gone else "it cannot be removed")
