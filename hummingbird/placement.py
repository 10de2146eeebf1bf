# SPDX-License-Identifier: BSD-3-Clause
"""Which CPU runs what: the section ``cores:`` of a topology, and the lcores it becomes.

    cores: auto
    cores: {io: [1, 2], syncer: [3], nf: {router0: [4]}}

``io`` serves the queues of the ports, taken in turn, and the CPU NFs; ``syncer`` serves the GPU
NFs; ``nf`` names the CPUs of single NFs. What is left out is automatic. With n CPUs to choose from,
a[0] to a[n-1]:

    NFs on the device, n >= 4    io a[1], syncer a[2]; the rest is left to the device's runtime
    NFs on the device, n = 2, 3  everything on a[1]; a[0] is left to the device's runtime
    otherwise                    everything on a[n-1]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from hummingbird.nfs import Affinity, Nf
from hummingbird.ports import Whole, mistake
from hummingbird.textfile import suggest

MAX_LCORES = 32  # HB_MAX_LCORES of api.h


def _as_list(value: Any) -> Any:
    if value == "auto":
        return None
    return value if isinstance(value, list) else [value]


def _distinct(cpus: tuple[int, ...] | None) -> tuple[int, ...] | None:
    for cpu in cpus or ():
        if (cpus or ()).count(cpu) > 1:
            raise mistake(f"CPU {cpu} stands here twice", "name every CPU once")
    return cpus


Cpu = Annotated[Whole, Field(ge=0, lt=1 << 16)]
Cpus = Annotated[
    Annotated[tuple[Cpu, ...], Field(min_length=1, max_length=MAX_LCORES)] | None,
    BeforeValidator(_as_list),
    AfterValidator(_distinct),
]


class Cores(BaseModel):
    """CPU numbers; what is left out (None) is automatic."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    io: Cpus = None
    """CPUs of the ports, which take them in turn, and of the NFs with ``engine: cpu``."""
    syncer: Cpus = None
    """CPUs that serve the NFs with ``engine: gpu``."""
    nf: dict[str, Cpus] = {}
    """CPUs of single NFs; for one with ``engine: gpu`` they are among ``syncer``. ``ipsec`` and
    ``nat`` take exactly one."""

    def named(self) -> Iterator[tuple[tuple[str, ...], tuple[int, ...]]]:
        """The lists that are not automatic, each with its place in the section."""
        lists: dict[tuple[str, ...], Cpus] = {("io",): self.io, ("syncer",): self.syncer}
        lists.update({("nf", name): cpus for name, cpus in self.nf.items()})
        for place, cpus in lists.items():
            if cpus is not None:
                yield place, cpus

    def cpus(self) -> set[int]:
        """Every CPU that is named."""
        return {cpu for _, cpus in self.named() for cpu in cpus}


def from_yaml(value: Any) -> Any:
    """The section as the file has it; ``auto`` is an empty one."""
    return {} if value == "auto" else value


@dataclass(frozen=True)
class Placement:
    """Where everything runs. An lcore is an index into ``cpus``."""

    cpus: tuple[int, ...]
    """The CPU that each lcore is pinned to."""
    ports: Mapping[str, tuple[int, ...]]
    """The lcore of each queue of each port."""
    nfs: Mapping[str, tuple[int, ...]]
    """The lcores that serve each NF: CNF threads, or syncers of a GNF."""
    engines: Mapping[str, Literal["cpu", "gpu"]]
    """What each NF runs on."""
    syncers: tuple[int, ...]
    """The lcores that are syncers of the device."""
    spare: tuple[int, ...]
    """CPUs that may be used and have no lcore: they are left to the device's runtime."""


class PlacementError(Exception):
    """A mistake at `place` in the section ``cores:``."""

    def __init__(self, what: str, place: tuple[str, ...], fix: str) -> None:
        super().__init__(what)
        self.what, self.place, self.fix = what, place, fix


class Placed(Protocol):
    """What there is to know of an NF."""

    @property
    def name(self) -> str: ...
    @property
    def engine(self) -> str: ...
    @property
    def nf(self) -> Nf: ...


def place(
    cores: Cores,
    allowed: Sequence[int],
    ports: Mapping[str, int],
    nfs: Sequence[Placed],
    device: bool,
) -> Placement:
    """Give every port and NF its lcores.

    Args:
        cores: what the topology asks for.
        allowed: the CPUs that may be used, sorted.
        ports: how many queues each port has, by its name.
        nfs: the NFs.
        device: whether NFs with ``engine: gpu`` run on the device; if not, they run on the CPUs of
            their syncers.

    Raises:
        PlacementError: what `cores` asks for cannot be.
    """
    _check_names(cores, nfs)
    _check_allowed(cores, allowed)
    auto_io, auto_syncer = automatic(allowed, device)
    io = cores.io or (auto_io,)
    syncer = cores.syncer or ((auto_syncer,) if device else io)
    port_cpus = {
        name: tuple(io[(index + queue) % len(io)] for queue in range(queues))
        for index, (name, queues) in enumerate(ports.items())
    }
    nf_cpus = {
        nf.name: cores.nf.get(nf.name) or (syncer if nf.engine == "gpu" else io) for nf in nfs
    }
    for nf in nfs:
        _check_nf(cores, nf, nf_cpus[nf.name])
    return _number(allowed, port_cpus, nf_cpus, nfs, device)


def automatic(allowed: Sequence[int], device: bool) -> tuple[int, int]:
    """The CPUs for io and CPU NFs, and for the syncer, where the topology names none."""
    if not device:
        return allowed[-1], allowed[-1]
    if len(allowed) >= 4:
        return allowed[1], allowed[2]
    return allowed[min(1, len(allowed) - 1)], allowed[min(1, len(allowed) - 1)]


def _check_names(cores: Cores, nfs: Sequence[Placed]) -> None:
    names = [nf.name for nf in nfs]
    for name in cores.nf:
        if name not in names:
            what = f"there is no NF {ascii(name)[:60]}"
            raise PlacementError(what, ("nf", name), suggest(name, names))


def _check_allowed(cores: Cores, allowed: Sequence[int]) -> None:
    for place, cpus in cores.named():
        for cpu in cpus:
            if cpu not in allowed:
                fix = f"use some of: {', '.join(map(str, allowed))}"
                raise PlacementError(f"CPU {cpu} may not be used here", place, fix)


def _check_nf(cores: Cores, nf: Placed, cpus: tuple[int, ...]) -> None:
    place = ("nf", nf.name)
    if nf.nf.affinity is Affinity.KEY and len(cpus) > 1:
        what = f"{nf.name} has state that all its packets share, and {len(cpus)} CPUs"
        raise PlacementError(what, place, f"give it one: 'nf: {{{nf.name}: [{cpus[0]}]}}'")
    if nf.engine == "gpu" and cores.syncer is not None:
        for cpu in cpus:
            if cpu not in cores.syncer:
                what = f"CPU {cpu} is no syncer, but {nf.name} has 'engine: gpu'"
                raise PlacementError(what, place, f"add {cpu} to 'syncer:', or name another CPU")


def _number(
    allowed: Sequence[int],
    port_cpus: Mapping[str, tuple[int, ...]],
    nf_cpus: Mapping[str, tuple[int, ...]],
    nfs: Sequence[Placed],
    device: bool,
) -> Placement:
    """CPUs become lcores, in the order in which ports and NFs need them."""
    used = [cpu for cpus in (*port_cpus.values(), *nf_cpus.values()) for cpu in cpus]
    lcore = {cpu: index for index, cpu in enumerate(dict.fromkeys(used))}
    if len(lcore) > MAX_LCORES:
        raise PlacementError(f"{len(lcore)} CPUs", (), f"use {MAX_LCORES} at most")
    on_device = [nf.name for nf in nfs if device and nf.engine == "gpu"]
    return Placement(
        cpus=tuple(lcore),
        ports={name: tuple(lcore[cpu] for cpu in cpus) for name, cpus in port_cpus.items()},
        nfs={name: tuple(lcore[cpu] for cpu in cpus) for name, cpus in nf_cpus.items()},
        engines={nf.name: "gpu" if nf.name in on_device else "cpu" for nf in nfs},
        syncers=tuple(sorted({lcore[cpu] for name in on_device for cpu in nf_cpus[name]})),
        spare=tuple(cpu for cpu in allowed if cpu not in lcore),
    )
