# SPDX-License-Identifier: BSD-3-Clause
"""The engine: takes what runs and what is wanted, applies the difference. A start is a difference
from nothing; a reload of the route policy is a small one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hummingbird import flows, logs, ports
from hummingbird.dataplane._native import ffi, lib
from hummingbird.dataplane.plane import Dataplane, Sizes, cpu_engines
from hummingbird.device_choice import DeviceChoice, choose_device
from hummingbird.errors import UserError
from hummingbird.flows import Flow, StatefulNf
from hummingbird.nfs import HostContext, NfHost, NfTable
from hummingbird.opencl.device import on_cpus
from hummingbird.placement import Placement
from hummingbird.policy import Policy
from hummingbird.ports import PortParams, dpdk
from hummingbird.ports.addresses import set_addresses
from hummingbird.ports.watch import InterfaceWatch
from hummingbird.regions import Regions, open_regions
from hummingbird.telemetry.rundir import VIEW, StatsFile, state_dir
from hummingbird.telemetry.stats import Reader
from hummingbird.telemetry.taps import Taps
from hummingbird.telemetry.view import PYTHON, Node, View, ViewFile
from hummingbird.topology import NfSpec, Topology

DRAIN_MS = 10_000
"""Packets that are still in flight after this long are dropped as ``shutdown``."""

Part = Literal["nodes", "types", "device", "cores", "memory", "flows", "telemetry", "policy"]


@dataclass(frozen=True)
class Wanted:
    """What shall run."""

    topology: Topology
    policy: Policy
    files: Mapping[str, Mapping[Path, str]] = field(default_factory=dict, compare=False)
    """Of each NF: its files and digests of what is in them (changes.digests())."""


def difference(running: Wanted | None, wanted: Wanted) -> tuple[Part, ...]:
    """Which parts of what runs have to change to become what is wanted."""
    new, old = wanted.topology, running.topology if running else None
    parts: tuple[tuple[Part, bool], ...] = (
        ("nodes", not old or (old.ports, old.dpdk, old.nfs) != (new.ports, new.dpdk, new.nfs)),
        ("types", not old or (old.types, old.rules) != (new.types, new.rules)),
        ("device", not old or old.device != new.device),
        ("cores", not old or old.cores != new.cores),
        ("memory", not old or old.memory != new.memory),
        ("flows", not old or old.flows != new.flows),
        ("telemetry", not old or old.telemetry != new.telemetry),
        ("policy", not running or _differs(running.policy, wanted.policy)),
    )
    return tuple(part for part, changed in parts if changed)


def _differs(old: Policy, new: Policy) -> bool:
    return old.next.shape != new.next.shape or bool((old.next != new.next).any())


@dataclass
class Engine:
    """One running instance."""

    name: str = "default"
    profile: bool = False
    """Count where the time of the lcores goes."""
    watch: bool = False
    """NFs read files again that have changed."""
    held: bool = False
    """Input ports take nothing in: see hold()."""
    running: Wanted | None = None
    choice: DeviceChoice = field(default_factory=DeviceChoice)
    regions: Regions | None = None
    """Frames and tables, and the device in use."""
    tables: Mapping[str, NfTable] = field(default_factory=dict)
    engines: Mapping[str, str] = field(default_factory=dict)
    """What runs each NF: ``gpu``, ``cpu``, a library, or ``python`` for a peer."""
    hosts: dict[str, NfHost] = field(default_factory=dict)
    """What the NFs have on the host."""
    placement: Placement | None = None
    taps: Taps = field(default_factory=Taps)
    """Captures and traces."""
    version: int = 0
    """Of the route policy."""
    _undrained: int = 0
    """Reloads before which not all packets could leave."""
    started: float = 0.0
    """When packets began to flow, time.monotonic()."""
    _plane: Dataplane | None = None
    _interfaces: InterfaceWatch | None = None
    _said: dict[str, str] = field(default_factory=dict)
    """What ports have said, by their names."""
    _stats: StatsFile | None = None
    _view_file: ViewFile | None = None
    _cpu_engines: Mapping[str, int] = field(default_factory=dict)
    """Number of the engine of each NF that a CPU runs."""

    @property
    def plane(self) -> Dataplane:
        """The data plane; only after the first apply()."""
        assert self._plane is not None, "nothing runs"
        return self._plane

    def reader(self) -> Reader:
        """A view on the counters."""
        assert self._stats is not None, "nothing runs"
        return Reader(self._stats.region)

    def apply(self, wanted: Wanted) -> tuple[Part, ...]:
        """Make ``wanted`` what runs.

        Returns:
            The parts that changed.

        Raises:
            UserError: what is wanted is impossible, or needs a restart; what runs goes on.
        """
        parts = difference(self.running, wanted)
        if self.running is None:
            try:
                self._start(wanted)
            except BaseException:
                self.close()
                raise
        elif set(parts) - {"policy"}:
            raise UserError(
                f"{', '.join(set(parts) - {'policy'})} changed",
                path=wanted.topology.path,
                fix="stop and start again; only the route policy changes while it runs",
            )
        elif parts:
            self._publish(wanted)
        self.running = wanted
        self._changed()
        return parts

    def restart(self, wanted: Wanted) -> None:
        """Start ``wanted`` in the place of what ran, which has been stop()ped; name and run
        directory stay, counters begin anew.

        Raises:
            UserError: it cannot start. Then nothing runs, and restart() may be tried again.
        """
        self._give_back()
        self.version = self._undrained = 0
        self._said.clear()
        try:
            self._start(wanted)
        except BaseException:
            self._give_back()
            raise
        self.running = wanted
        self._changed()

    # ---- start ----

    def _start(self, wanted: Wanted) -> None:
        topology = wanted.topology
        self.tables = topology.build_tables()
        allowed = os.sched_getaffinity(0)
        spare = topology.place(allowed).spare
        self.choice = choose_device(topology, spare)  # may probe, which takes all CPUs
        self.placement = topology.place(allowed, device=self.choice.device is not None)
        self._choose_engines(topology)
        with on_cpus(spare):
            self._set_up(wanted)
            self.started = time.monotonic()
            self.plane.start()
        self._interfaces = InterfaceWatch(self.plane, topology.ports, topology.memory.frame_room)

    def _set_up(self, wanted: Wanted) -> None:
        assert self.placement is not None
        topology = wanted.topology
        sizes = _sizes(topology, self.placement, self.profile)
        if self._stats:
            self._stats.renew(sizes.stats_bytes)
        else:
            self._stats = StatsFile(self.name, sizes.stats_bytes)
        self._view_file = ViewFile(
            self._stats.path.with_name(VIEW), lambda: self.view(reports=False)
        )
        self.regions = open_regions(topology, self.placement, self.choice, self.tables, sizes)
        self._make_hosts(topology)
        frames, tables = self.regions.frames.address, self.regions.tables.address
        self._plane = Dataplane(sizes, frames, tables, self._stats.region)
        self._plane.hold(self.held)
        behind = sizes.behind_frames
        self._plane.dpdk = dpdk.prepare(
            topology.dpdk,
            _port_params(topology),
            sizes.frame_size,
            frames + sizes.frames_bytes - behind,
            behind,
        )
        for port in topology.ports:
            self._attach_port(topology, port.name)
        for index, _ in enumerate(topology.nfs):
            self._add_nf(topology, index)
        if self.regions.session:
            self._plane.set_device(self.regions.session.config)
        self._plane.set_rules([rule.native() for rule in topology.rules])
        self._publish(wanted)

    def _choose_engines(self, topology: Topology) -> None:
        assert self.placement is not None
        self._cpu_engines = topology.choose_engines(self.placement.engines)
        self.engines = {spec.name: self._engine_of(spec) for spec in topology.nfs}

    def _engine_of(self, spec: NfSpec) -> str:
        if spec.nf.peer:
            return PYTHON
        if spec.name not in self._cpu_engines:
            return "gpu"
        return cpu_engines(spec.nf.kind)[self._cpu_engines[spec.name]].name

    def _make_hosts(self, topology: Topology) -> None:
        assert self.regions is not None
        for spec, table in zip(topology.nfs, self.regions.nf_tables, strict=True):
            context = HostContext(
                name=spec.name,
                base=topology.base,
                types=topology.type_numbers,
                table=table,
                state=state_dir(self.name),
                watch=self.watch,
                nodes=topology.nodes,
            )
            with topology.errors_of(spec):
                host = spec.nf.host(spec.params, self.tables[spec.name], context)
            self.hosts[spec.name] = host

    def _attach_port(self, topology: Topology, name: str) -> None:
        assert self.placement is not None
        spec = next(port for port in topology.ports if port.name == name)
        try:
            lcores = self.placement.ports[name]
            node = ports.load(spec.driver).attach(self.plane, lcores, spec.params)
            self.plane.set_zone(node, spec.zone)
            set_addresses(self.plane, node, spec)
        except UserError as error:
            raise UserError(
                error.what, path=topology.path, line=spec.line, field=f"ports.{name}", fix=error.fix
            ) from None

    def _add_nf(self, topology: Topology, index: int) -> None:
        assert self.placement is not None and self.regions is not None
        spec = topology.nfs[index]
        on_device = self.placement.engines[spec.name] == "gpu"
        host = self.hosts[spec.name]
        add = self.plane.add_peer if spec.nf.peer else self.plane.add_nf
        node = add(
            self.placement.nfs[spec.name],
            self.regions.workgroups if on_device else 0,
            kind=spec.nf.kind,
            instance=index,
            reads=spec.nf.reads,
            writes=spec.nf.writes,
            head=spec.nf.head,
            tail=spec.nf.tail,
            flow_bytes=spec.nf.flow_bytes,
            rules=len(self.tables[spec.name].rules),
            sticky=spec.sticky,
            engine=self._cpu_engines.get(spec.name, 0),
            host=host.pointer,
            code=lib.hb_peer_kind() if spec.nf.peer else ffi.cast("void *", spec.nf.native),
        )
        host.attach(self.plane, node)

    # ---- while it runs ----

    def _publish(self, wanted: Wanted) -> None:
        version = self.plane.publish_policy(wanted.policy.next)
        if version is None:
            raise UserError(
                "the versions of the route policy before this one still have packets in flight",
                path=wanted.policy.path,
                fix="try again in a moment",
            )
        self.version = version
        if (undrained := self.plane.undrained_reloads()) > self._undrained:
            self._undrained = undrained
            logs.warning(
                "reload_undrained",
                "packets were still in flight a second after the route policy changed: those of "
                "one flow may have overtaken each other",
                fix="find the NF that is slow: hummingbird top",
            )

    def _changed(self) -> None:
        """Readers in other processes are to know."""
        if self._view_file:
            self._view_file.changed()

    def reload_policy(self, policy: Policy) -> tuple[Part, ...]:
        """Packets admitted from now on follow ``policy``; those in flight finish on theirs."""
        assert self.running is not None
        return self.apply(replace(self.running, policy=policy))

    def poll(self) -> None:
        """What NFs and ports do on the host beside the packets: some 20 times a second."""
        if self._interfaces and not self.plane.stopped:
            self._interfaces.poll()
        for name, host in self.hosts.items():
            try:
                host.poll()
            except UserError as error:
                fix = "see what the NF is given in the topology"
                logs.failed("nf_failed", name, error, fix=fix, subject=name)
        if self._view_file:
            self._view_file.poll()

    def hold(self) -> None:
        """Take no packets in until resume(), also after a restart. Returns at once:
        plane.held_in_flight() says how many are left."""
        self.held = True
        self.plane.hold(True)
        self._changed()

    def resume(self) -> None:
        """Take packets in again."""
        self.held = False
        self.plane.hold(False)
        self._changed()

    def stop(self, drain_ms: int = DRAIN_MS) -> int:
        """Drain and end all threads; counters stay readable until close().

        Returns:
            Packets that did not make it out in time: dropped as ``shutdown`` or, where the device
            has not given them back, in flight for ever.
        """
        left = self.plane.drain(drain_ms)
        self.plane.stop()
        self.poll()
        return left

    def counters(self) -> Iterator[tuple[str, str, int]]:
        """NF, name and packets of every rule or counter of an NF that is not 0."""
        assert self.running is not None
        nodes = self.running.topology.nodes
        for nf, table in self.tables.items():
            hits = self.plane.rule_hits(nodes.index(nf), len(table.rules))
            for rule, count in zip(table.rules, hits, strict=True):
                if count:
                    yield nf, rule, count

    def flows(self) -> Iterator[Flow]:
        """Live flows, while packets flow: each was there, no instant saw them all."""
        for some in self.flow_views():
            yield from self.describe_flows(some)

    def flow_views(self) -> Iterator[npt.NDArray[np.void]]:
        """The same some at a time, as FLOW_VIEW of dataplane/plane.py: quick to look through."""
        return flows.views(self.plane)

    @property
    def tracks_flows(self) -> bool:
        """Flows have states and times and an end, because an NF has state of them."""
        assert self.running is not None
        return any(spec.nf.flow_state is not None for spec in self.running.topology.nfs)

    def describe_flows(self, some: npt.NDArray[np.void]) -> Iterator[Flow]:
        """Some of them, and what NFs know of them."""
        assert self.running is not None and self.regions is not None
        topology = self.running.topology
        stateful = []
        for spec in topology.nfs:
            if spec.nf.flow_state is not None:
                states = self.regions.flow_states[spec.name][:, : spec.nf.flow_bytes]
                stateful.append(
                    StatefulNf(
                        spec.name,
                        topology.nodes.index(spec.name),
                        states.view(spec.nf.flow_state)[:, 0],
                        self.hosts[spec.name],
                    )
                )
        return flows.describe(some, self.plane, topology.types, stateful)

    def view(self, *, reports: bool = True) -> View:
        """What telemetry has to know to put names on the counters; also what NFs have to say of
        themselves, if ``reports``."""
        assert self.running is not None and self.placement is not None and self.regions is not None
        topology, policy = self.running.topology, self.running.policy
        place, session = self.placement, self.regions.session
        ports_ = (
            Node(
                p.name,
                "port",
                p.driver,
                ingress=p.params.ingress,
                egress=p.params.egress,
                lcores=tuple(sorted(set(place.ports[p.name]))),
            )
            for p in topology.ports
        )
        nfs_ = (
            Node(
                n.name, place.engines[n.name], engine=self.engines[n.name], lcores=place.nfs[n.name]
            )
            for n in topology.nfs
        )
        paths = policy.path_of_each_type()
        return View(
            name=self.name,
            title=topology.path.name,
            pid=os.getpid(),
            reader=self.reader(),
            nodes=(*ports_, *nfs_),
            cpus=place.cpus,
            samples=topology.telemetry.latency,
            queue=topology.memory.queue,
            paths={name: paths.get(name, ()) for name in topology.types},
            device=self._describe_device(),
            lanes=int(session.config.lanes) if session else 0,
            policy_version=self.version,
            state=self._state(),
            details=self._modes() | (self._reports() if reports else {}),
        )

    def _reports(self) -> dict[str, dict[str, Any]]:
        return {name: host.report() for name, host in self.hosts.items()}

    def _state(self) -> str:
        if not self.held:
            return "running"
        return "draining" if self.plane.held_in_flight() else "drained"

    def _modes(self) -> dict[str, dict[str, Any]]:
        return {name: {"mode": note} for name, note in self.port_notes()}

    def _describe_device(self) -> dict[str, Any]:
        device, session = self.choice.device, self.regions.session if self.regions else None
        if device is None or session is None:
            return {"name": None, "runtime": None, "tier": None, "executor": None}
        return {
            "name": device.name,
            "runtime": f"{device.platform}, {device.runtime}",
            "tier": self.choice.tier,
            "executor": self.choice.executor,
            "is_cpu": device.is_cpu,
            "binding": session.binding,
            "dialect": session.dialect,
            "state": self.plane.device_state(),
        }

    def port_messages(self) -> Iterator[tuple[str, str]]:
        """Port, and what it has to say and has not said yet: a failure, what was odd about a
        source."""
        assert self.running is not None
        for index, port in enumerate(self.running.topology.ports):
            message = self.plane.port_message(index)
            if message and self._said.get(port.name) != message:
                self._said[port.name] = message
                yield port.name, message

    def port_notes(self) -> Iterator[tuple[str, str]]:
        """Port, and how it is used, such as the mode of its interface."""
        assert self.running is not None
        for index, port in enumerate(self.running.topology.ports):
            if note := self.plane.port_note(index):
                yield port.name, note

    def close(self) -> None:
        """Give everything back: threads, device, memory, the instance's name."""
        self._give_back()
        if self._stats:
            self._stats.close()
            self._stats = self._view_file = None

    def _give_back(self) -> None:
        """Everything but the name."""
        self._interfaces = None
        if self._plane:
            self._plane.stop()
            self.taps.close()
            let_go = [host.stop() for host in self.hosts.values()]
            hangs = self._plane.device_state() == "hangs" or self._plane.stuck
            if hangs or not all(let_go):
                _in_use_for_good.append((self.regions, self._plane))
            else:
                self._plane.close()
            self._plane = None
        for host in self.hosts.values():
            host.close()
        self.hosts.clear()
        self.regions = None


_in_use_for_good: list[Any] = []
"""What a hanging kernel, lcore or Python function may still write to; freeing it would crash the
process."""


def _port_params(topology: Topology) -> list[PortParams]:
    return [port.params for port in topology.ports]


def _sizes(topology: Topology, placement: Placement, profile: bool) -> Sizes:
    return Sizes(
        nodes=len(topology.nodes),
        types=len(topology.types),
        cpus=placement.cpus,
        mbufs=topology.memory.mbufs,
        frame_size=topology.memory.frame_size,
        queue=topology.memory.queue,
        flows=topology.memory.flows,
        flows_evict=topology.flows.when_full == "evict",
        flow_timeouts=topology.flows.timeouts.model_dump(),
        profile=profile,
        samples=topology.telemetry.latency,
        behind_frames=dpdk.memory_bytes(topology.dpdk, _port_params(topology)),
    )
