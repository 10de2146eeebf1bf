# SPDX-License-Identifier: BSD-3-Clause
"""Checks of what the process may do, and of memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hummingbird.doctor.finding import Finding, ok, problem, warning
from hummingbird.doctor.needs import Needs, Port
from hummingbird.linux import rights

_CAPABILITIES = {
    "af_packet": ("CAP_NET_RAW",),
    "af_xdp": ("CAP_NET_RAW", "CAP_NET_ADMIN", "CAP_BPF"),
    "tap": ("CAP_NET_ADMIN",),
}


def capabilities(needs: Needs) -> Iterator[Finding]:
    """Has the process the rights that the drivers need?"""
    wanted = {name for port in needs.ports for name in _wanted(port)}
    if needs.any:
        wanted.update(("CAP_NET_RAW", "CAP_NET_ADMIN", "CAP_BPF", "CAP_IPC_LOCK"))
    if not wanted:
        return
    ours = rights.rights()
    order = [name for name in rights.CAPABILITIES if name in wanted]
    required = [name for name in order if name != "CAP_IPC_LOCK"]  # see memlock
    missing = ours.missing(required)
    there = [name for name in order if name not in ours.missing(order)]
    if there:
        yield ok("rights", f"{_list(there)}: granted")
    if missing:
        why = "; ".join(f"{port.name} ({port.driver})" for port in _needing(needs, missing))
        what = f"{_list(missing)}: missing, and needed by " + (
            f"the drivers {', '.join(sorted({p.driver for p in _needing(needs, missing)}))}"
            if needs.any
            else why
        )
        yield problem("rights", what, _grant(missing, ours))


def _wanted(port: Port) -> tuple[str, ...]:
    if port.uses_af_xdp:
        return _CAPABILITIES["af_xdp"]
    if port.uses_af_packet:
        return _CAPABILITIES["af_packet"]
    return _CAPABILITIES["tap"] if port.makes_interface else ()


def _needing(needs: Needs, missing: list[str]) -> list[Port]:
    return [port for port in needs.ports if set(_wanted(port)) & set(missing)]


def _grant(missing: list[str], ours: rights.Rights) -> str:
    names = [name.removeprefix("CAP_") for name in missing]
    if not set(missing) <= ours.bounding:
        add = " ".join(f"--cap-add {name}" for name in names)
        return f"docker run {add} ...   (or what your container runtime calls it)"
    plus = ",".join(f"+{name.lower()}" for name in names)
    return (
        f"sudo setpriv --reuid $(id -u) --regid $(id -g) --init-groups --inh-caps {plus} "
        f"--ambient-caps {plus} $(command -v hummingbird) run ..."
    )


def memlock(needs: Needs) -> Iterator[Finding]:
    """May the packet memory be locked, and as often as drivers pin it?"""
    limit = None if _may_lock_all() else rights.memlock()
    if limit is None:
        yield ok("memlock", "no limit to the memory that may be locked")
        return
    wanted = needs.arena * max(needs.pins, 1)
    raised = f"sudo prlimit --pid $$ --memlock={wanted}:{wanted}"
    if limit >= wanted:
        yield ok("memlock", f"{_size(limit)} may be locked; {_size(wanted)} will be")
    elif needs.pins:
        times = f"pinned {needs.pins} times by NIC queues" if needs.pins > 1 else "pinned by a NIC"
        what = f"{_size(limit)} may be locked; packet memory of {_size(needs.arena)} is {times}"
        yield problem("memlock", what, raised)
    else:
        what = f"{_size(limit)} may be locked; the packet memory has {_size(wanted)}"
        yield warning("memlock", f"{what}, so it may be swapped out", raised)


def _may_lock_all() -> bool:
    return not rights.rights().missing(["CAP_IPC_LOCK"])


def huge_pages(needs: Needs, root: Path = Path("/")) -> Iterator[Finding]:
    """Which huge pages are there, who has them, and may packet memory be made of them?"""
    setting = _word(root / "sys/kernel/mm/transparent_hugepage/enabled")
    if setting is None:
        yield warning("huge pages", "this kernel has no transparent huge pages: more TLB misses")
    elif setting == "never":
        yield warning(
            "huge pages",
            "transparent huge pages are off: packet memory has small pages, with more TLB misses",
            "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",
        )
    else:
        yield ok("huge pages", f"transparent huge pages: {setting}; packet memory has them")
    if "dpdk" in needs.drivers():
        yield _reserved(root)


def _reserved(root: Path) -> Finding:
    folder = root / "sys/kernel/mm/hugepages/hugepages-2048kB"
    total, free = (_number(folder / name) for name in ("nr_hugepages", "free_hugepages"))
    if not total:
        return ok("huge pages", "none of 2 MiB reserved; none are needed: DPDK runs without")
    users = ", ".join(_users(root)) or "nobody"
    what = f"{free} of {total} reserved ones are free; used by {users}"
    left = sorted((root / "dev/hugepages").glob("*map_*"))
    if left and free == 0:
        return warning("huge pages", what, f"sudo rm {left[0].parent}/*map_*   (of dead processes)")
    return ok("huge pages", what)


def _users(root: Path) -> Iterator[str]:
    """Processes with reserved huge pages."""
    for status in (root / "proc").glob("[0-9]*/status"):
        try:
            lines = status.read_text(errors="replace").splitlines()
        except OSError:  # it has ended
            continue
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        amount = fields.get("HugetlbPages", "").split()
        if amount and amount[0] not in ("0", ""):
            yield f"{fields['Name'].strip()} ({status.parent.name})"


def _word(file: Path) -> str | None:
    """The one in brackets."""
    try:
        text = file.read_text(encoding="ascii")
    except FileNotFoundError:
        return None
    return text.partition("[")[2].partition("]")[0] or text.strip()


def _number(file: Path) -> int:
    try:
        return int(file.read_text(encoding="ascii"))
    except FileNotFoundError:
        return 0


def _size(count: int) -> str:
    return f"{count >> 20} MiB" if count >= 1 << 20 else f"{count >> 10} KiB"


def _list(names: list[str]) -> str:
    return ", ".join(names)
