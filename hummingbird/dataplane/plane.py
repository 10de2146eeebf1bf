# SPDX-License-Identifier: BSD-3-Clause
"""The Python handle on the C data plane (api.h): same calls, UserError instead of -1."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import numpy as np
import numpy.typing as npt

from hummingbird.dataplane._native import ffi, lib
from hummingbird.errors import UserError

MAX_POLICIES: int = lib.HB_MAX_POLICIES
MOST_TAPS: int = lib.HB_MOST_TAPS
TAP_ANY: int = lib.HB_TAP_ANY
"""Any node."""
TAP_OUTSIDE: int = lib.HB_TAP_OUTSIDE
"""What lies behind a port."""


@dataclass(frozen=True)
class Sizes:
    """What is fixed when a data plane is made."""

    nodes: int
    types: int
    cpus: tuple[int, ...]
    """CPU of each lcore; -1 for unpinned."""
    mbufs: int
    frame_size: int
    queue: int
    flows: int
    """That an lcore with an input port can tell apart."""
    flows_evict: bool = False
    flow_timeouts: Mapping[str, int] = field(default_factory=dict)
    """Seconds by state; 60 for those that are not named."""
    profile: bool = False
    """Count where the time goes."""
    samples: bool = True
    """Take latency samples and busy times."""
    behind_frames: int = 0
    """Bytes of the frame region behind the frames, for a port driver."""

    @property
    def stats_bytes(self) -> int:
        """Bytes of the counters' region."""
        return int(lib.hb_stats_size(len(self.cpus), self.nodes, self.types))

    @property
    def frames_bytes(self) -> int:
        """Bytes of the frame region."""
        return self.mbufs * self.frame_size + self.behind_frames


class Dataplane:
    """One data plane. The caller keeps the three regions alive until close()."""

    def __init__(
        self, sizes: Sizes, frames: int, tables: int, stats: npt.NDArray[np.uint8]
    ) -> None:
        """Make one.

        Args:
            sizes: what it shall hold.
            frames: address of the frame region.
            tables: address of the tables region.
            stats: the counters' region, zeroed.
        """
        self._stats = stats
        config = ffi.new("hb_config *")
        config.frames = ffi.cast("void *", frames)
        config.tables = ffi.cast("void *", tables)
        config.stats = ffi.cast("void *", stats.ctypes.data)
        config.mbufs, config.frame_size = sizes.mbufs, sizes.frame_size
        config.queue, config.flows, config.types = sizes.queue, sizes.flows, sizes.types
        config.lcores = len(sizes.cpus)
        config.profile = sizes.profile
        config.samples = sizes.samples
        config.flows_evict = sizes.flows_evict
        for number, state in enumerate(flow_states()):
            config.flow_timeout[number] = sizes.flow_timeouts.get(state, 60)
        config.cpus[0 : len(sizes.cpus)] = list(sizes.cpus)
        error = ffi.new("char[256]")
        self._dp = lib.hb_new(config, sizes.nodes, error, 256)
        if self._dp == ffi.NULL:
            raise UserError(ffi.string(error).decode(), fix="lower memory.mbufs or memory.flows")
        self.types = sizes.types
        self.nodes = sizes.nodes
        self.stopped = False
        """All threads have ended, for good, or ..."""
        self.stuck = False
        """... one does not, and may still use everything."""
        self.dpdk: object = None
        """Set before ports of DPDK are added: how to start it (ports/dpdk.py)."""

    def _checked(self, code: int) -> int:
        if code < 0:
            text = ffi.string(lib.hb_error(self._dp)).decode(errors="replace")
            what, _, fix = text.partition("\n")
            raise UserError(what, fix=fix or None)
        return code

    # ---- set-up: each add_* returns the node's number ----

    def add_pcap_input(
        self, lcore: int, path: str, loops: int, pace: str, rate: float | None
    ) -> int:
        """A capture to replay; pace ``fast`` or ``original``, or a rate in packets per second."""
        name = ffi.new("char[]", path.encode())
        paces = {"fast": lib.HB_PACE_FAST, "original": lib.HB_PACE_ORIGINAL}
        values = ffi.new("hb_pcap_input *")
        values.path, values.loops = name, loops
        values.pace = lib.HB_PACE_RATE if rate else paces[pace]
        values.rate = rate or 0.0
        return self._checked(lib.hb_add_pcap_input(self._dp, lcore, values))

    def add_pcap_output(self, lcore: int, path: str) -> int:
        """A capture to write."""
        return self._checked(lib.hb_add_pcap_output(self._dp, lcore, path.encode()))

    def add_generator(
        self, lcore: int, sizes: Mapping[int, int], protocols: Sequence[int], **fields: Any
    ) -> int:
        """A packet generator; ``fields`` are those of ``hb_generator``."""
        values = ffi.new("hb_generator *", fields)
        values.pace = lib.HB_PACE_RATE if values.rate else lib.HB_PACE_FAST
        values.sizes = len(sizes)
        values.size[0 : len(sizes)] = list(sizes)
        values.weight[0 : len(sizes)] = list(sizes.values())
        values.protocols = len(protocols)
        values.protocol[0 : len(protocols)] = list(protocols)
        return self._checked(lib.hb_add_generator(self._dp, lcore, values))

    def add_sink(self, lcore: int) -> int:
        """A port that counts and drops."""
        return self._checked(lib.hb_add_sink(self._dp, lcore))

    def add_af_xdp(self, lcores: Sequence[int], interface: str, mode: str) -> int:
        """A network interface by AF_XDP, each queue on its lcore.

        Args:
            lcores: one for each queue.
            interface: its name.
            mode: ``auto``, ``zero-copy``, ``native`` or ``generic``.

        Raises:
            UserError: what is wrong, and the fix.
        """
        name = ffi.new("char[]", interface.encode())
        values = ffi.new("hb_af_xdp *")
        values.interface, values.queues = name, len(lcores)
        values.mode = {
            "auto": lib.HB_AF_XDP_AUTO,
            "zero-copy": lib.HB_AF_XDP_ZERO_COPY,
            "native": lib.HB_AF_XDP_NATIVE,
            "generic": lib.HB_AF_XDP_GENERIC,
        }[mode]
        return self._checked(lib.hb_add_af_xdp(self._dp, list(lcores), values))

    def add_af_packet(self, lcores: Sequence[int], interface: str, queues: int) -> int:
        """An interface that exists, by packet sockets."""
        return self._add_interface(lib.hb_add_af_packet, lcores, interface, queues)

    def add_tap(self, lcores: Sequence[int], interface: str, queues: int) -> int:
        """A tap, which is made."""
        return self._add_interface(lib.hb_add_tap, lcores, interface, queues)

    def _add_interface(self, add: Any, lcores: Sequence[int], name: str, queues: int) -> int:
        kept = ffi.new("char[]", name.encode())
        params = ffi.new("hb_interface *", {"interface": kept, "queues": queues})
        return self._checked(add(self._dp, list(lcores), params))

    def add_dpdk(
        self,
        lcores: Sequence[int],
        device: str,
        queues: int,
        *,
        plugin: str,
        arguments: Sequence[str],
        memory: int,
        memory_bytes: int,
    ) -> int:
        """A device of DPDK; ``arguments`` are the EAL's."""
        names = [ffi.new("char[]", t.encode()) for t in (plugin, device, "\n".join(arguments))]
        values = ffi.new("hb_dpdk *")
        values.plugin, values.device, values.arguments = names
        values.memory, values.memory_bytes = ffi.cast("void *", memory), memory_bytes
        values.queues = queues
        return self._checked(lib.hb_add_dpdk(self._dp, list(lcores), values))

    def add_nf(self, lcores: Sequence[int], workgroups: int, **fields: Any) -> int:
        """An NF; ``fields`` are those of ``hb_nf``. A GNF if it has workgroups, else a CNF."""
        nf = ffi.new("hb_nf *", fields)
        nf.lcores = len(lcores)
        nf.lcore[0 : len(lcores)] = list(lcores)
        if workgroups:
            return self._checked(lib.hb_add_gnf(self._dp, nf, workgroups))
        return self._checked(lib.hb_add_cnf(self._dp, nf))

    def add_peer(self, lcores: Sequence[int], workgroups: int, **fields: Any) -> int:
        """An NF that a thread of its own runs; as add_nf()."""
        assert not workgroups
        nf = ffi.new("hb_nf *", fields)
        nf.lcores = len(lcores)
        nf.lcore[0 : len(lcores)] = list(lcores)
        return self._checked(lib.hb_add_peer(self._dp, nf))

    def set_zone(self, node: int, zone: int) -> None:
        """Packets of this input port are of this zone."""
        lib.hb_set_zone(self._dp, node, zone)

    def set_addresses(
        self, node: int, addresses: Sequence[IPv4Address | IPv6Address], mac: bytes | None
    ) -> None:
        """What a port answers ARP and neighbour solicitations for; also while it runs.

        Args:
            node: the port.
            addresses: all of them, instead of those before.
            mac: the Ethernet address to answer with; None: the one that the port's driver knows.

        Raises:
            UserError: nothing goes out there, or there is no Ethernet address.
        """
        listed = ffi.new("hb_ip_address[]", len(addresses) or 1)
        for one, address in zip(listed, addresses, strict=False):
            one.family = address.version
            one.bytes[0 : len(address.packed)] = address.packed
        own = ffi.NULL if mac is None else ffi.from_buffer("uint8_t[6]", mac)
        self._checked(lib.hb_set_addresses(self._dp, node, listed, len(addresses), own))

    def set_device(self, config: Any) -> None:
        """The device of the GNFs, as ``hb_device *``."""
        self._checked(lib.hb_set_device(self._dp, config))

    def set_rules(self, rules: Sequence[Mapping[str, Any]]) -> None:
        """The packet type rules, first match wins."""
        array = ffi.new("hb_rule[]", list(rules) or 1)
        self._checked(lib.hb_set_rules(self._dp, array, len(rules)))

    # ---- running ----

    def publish_policy(self, table: npt.NDArray[np.uint16]) -> int | None:
        """Make ``table`` ([nodes][types]) the policy that admits packets from now on.

        Returns:
            The version's number, or None while too many versions still have packets in flight.

        Raises:
            UserError: an lcore is stuck; nothing has changed.
        """
        assert table.shape == (self.nodes, self.types) and table.flags.c_contiguous
        version = lib.hb_publish_policy(self._dp, ffi.cast("uint16_t *", table.ctypes.data))
        if version == lib.HB_POLICY_STUCK:
            raise UserError(
                "an lcore makes no passes any more: an NF on it does not return",
                fix="see which in the log or by 'hummingbird top', then start the instance anew",
            )
        return version if version > 0 else None

    def undrained_reloads(self) -> int:
        """Reloads that changed the way of flows with state before all their packets were gone."""
        return int(lib.hb_undrained_reloads(self._dp))

    def live_policies(self) -> int:
        """How many policy versions are current or have packets in flight."""
        return int(lib.hb_live_policies(self._dp)).bit_count()

    def start(self) -> None:
        """Start all threads."""
        self._checked(lib.hb_start(self._dp))

    def finished(self) -> bool:
        """All inputs have come to their end and nothing is in flight."""
        return bool(lib.hb_finished(self._dp))

    def drain(self, timeout_ms: int) -> int:
        """Take nothing in and wait; the packets that had to be dropped as ``shutdown``."""
        return int(lib.hb_drain(self._dp, timeout_ms))

    def hold(self, on: bool) -> None:
        """Input ports take nothing in, or do again; returns at once."""
        lib.hb_hold(self._dp, on)

    def held_in_flight(self) -> int | None:
        """Packets in flight while inputs are held; None while one may not have seen that yet."""
        left = int(lib.hb_held_in_flight(self._dp))
        return None if left < 0 else left

    def stop(self) -> None:
        """End all threads."""
        self.stuck = bool(lib.hb_stop(self._dp) != 0)
        self.stopped = True

    def close(self) -> None:
        """Stop and free everything but the regions."""
        if self._dp != ffi.NULL:
            lib.hb_free(self._dp)
            self._dp = ffi.NULL

    # ---- readers ----

    def in_flight(self) -> int:
        """Packets in flight, counted for themselves."""
        return int(lib.hb_in_flight(self._dp))

    def count_free(self) -> int:
        """Free mbufs, found by walking pool and caches; only after stop()."""
        return int(lib.hb_count_free(self._dp))

    @contextmanager
    def changing_tables(self) -> Iterator[None]:
        """Around a change of NF tables: a device that has a copy of them gets it as a whole."""
        lib.hb_tables_begin(self._dp)
        try:
            yield
        finally:
            lib.hb_tables_end(self._dp)

    def tables_changed(self, address: int, size: int) -> None:
        """These bytes of the tables region were written; a device that has a copy gets them."""
        lib.hb_tables_changed(self._dp, ffi.cast("void *", address), size)

    def wait_readers(self) -> bool:
        """Wait until nobody reads what was in the tables before this call; False: an lcore is
        stuck, and may read it for good."""
        return bool(lib.hb_wait_readers(self._dp) == 0)

    def rule_hits(self, node: int, rules: int) -> list[int]:
        """The counters that an NF's finish() keeps."""
        return [int(lib.hb_rule_hits(self._dp, node, rule)) for rule in range(rules)]

    def list_flows(self, cursor: Any, most: int) -> npt.NDArray[np.void]:
        """The next live flows, as FLOW_VIEW; none: there are no more.

        Args:
            cursor: ``ffi.new("uint64_t *")``, 0 at first.
            most: how many at once.
        """
        views = ffi.new("hb_flow_view[]", most)
        n = lib.hb_list_flows(self._dp, cursor, views, most)
        return np.frombuffer(ffi.buffer(views), dtype=FLOW_VIEW, count=n)

    def is_set_up(self, node: int, index: int, generation: int) -> bool:
        """Does this NF have state of the flow?"""
        return bool(lib.hb_flow_is_set_up(self._dp, node, index, generation))

    # ---- taps: captures and traces; numbers from 0, which are used again ----

    def capture_bytes(self, ring_bytes: int) -> int:
        """Bytes of the region of a capture whose rings, one for each lcore, have so many bytes."""
        return int(lib.hb_capture_bytes(self._dp, ring_bytes))

    def add_capture(self, edge: tuple[int, int], snap: int, ring_bytes: int, region: int) -> int:
        """Copy the packets of an edge, from now on.

        Args:
            edge: two nodes, or TAP_ANY or TAP_OUTSIDE.
            snap: bytes of each packet at most; 0: all.
            ring_bytes: a power of two.
            region: address of capture_bytes(), all zero, there until remove_tap().

        Returns:
            Its number.

        Raises:
            UserError: there are too many taps.
        """
        values = ffi.new(
            "hb_capture *",
            {
                "from": edge[0],
                "to": edge[1],
                "snap": snap,
                "ring_bytes": ring_bytes,
                "region": ffi.cast("void *", region),
            },
        )
        return self._add_tap(lib.hb_add_capture(self._dp, values))

    def add_trace(
        self, rules: Sequence[Mapping[str, Any]], packet_type: int | None, count: int
    ) -> int:
        """Follow packets, from now on.

        Args:
            rules: those that one of these matches (``hb_rule``); none: any.
            packet_type: those of this type; None: of any.
            count: so many.

        Returns:
            Its number.

        Raises:
            UserError: there are too many taps.
        """
        array = ffi.new("hb_rule[]", list(rules) or 1)
        values = ffi.new("hb_trace *")
        values.rules, values.nb_rules, values.count = array, len(rules), count
        values.type = lib.HB_MAX_TYPES if packet_type is None else packet_type
        return self._add_tap(lib.hb_add_trace(self._dp, values))

    def _add_tap(self, number: int) -> int:
        if number < 0:
            text = ffi.string(lib.hb_error(self._dp)).decode()
            raise UserError(text, fix="end one of them, and try again")
        return number

    def take_events(self, tap: int) -> Iterator[Any]:
        """The next events of a trace (``hb_trace_event``), a thousand at most; those of one lcore
        are in order. Each is there until the next one is asked for."""
        events = ffi.new("hb_trace_event[]", 1000)
        n = lib.hb_trace_take(self._dp, tap, events, 1000)
        for i in range(n):
            yield events[i]

    def trace_state(self, tap: int) -> Any:
        """What a trace has done so far (``hb_trace_state``)."""
        state = ffi.new("hb_trace_state *")
        lib.hb_trace_look(self._dp, tap, state)
        return state

    def remove_tap(self, tap: int) -> bool:
        """It sees nothing any more; False: a stuck lcore may still write to its memory."""
        return bool(lib.hb_remove_tap(self._dp, tap) == 0)

    def port_away(self, node: int) -> None:
        """The interface of a port is gone: what is to be sent there is dropped as port_down."""
        lib.hb_port_away(self._dp, node)

    def port_reopen(self, node: int) -> None:
        """The interface of a port is there again.

        Raises:
            UserError: it cannot be opened; the port stays away.
        """
        self._checked(lib.hb_port_reopen(self._dp, node))

    def port_message(self, node: int) -> str:
        """A port's first failure, else what was odd about its source, else nothing."""
        return str(ffi.string(lib.hb_port_message(self._dp, node)).decode(errors="replace"))

    def port_note(self, node: int) -> str:
        """How a port is used, such as the mode of its interface; or nothing."""
        return str(ffi.string(lib.hb_port_note(self._dp, node)).decode(errors="replace"))

    def device_state(self) -> str:
        """``healthy``, ``recovered`` from at least one failure, or ``hangs``."""
        return ("healthy", "recovered", "hangs")[lib.hb_device_state(self._dp)]


def _flow_view() -> np.dtype[np.void]:
    """hb_flow_view as NumPy has it."""
    struct = ffi.typeof("hb_flow_view")
    shapes = {"addr": (2, 16), "port": (2,), "type": (2,)}
    sizes = {1: "u1", 2: "u2", 4: "u4", 8: "u8"}
    names, formats, offsets = [], [], []
    for name, entry in struct.fields:
        shape = shapes.get(name, ())
        names.append(name)
        formats.append((sizes[ffi.sizeof(entry.type) // int(np.prod(shape, dtype=int))], shape))
        offsets.append(entry.offset)
    return np.dtype(
        {"names": names, "formats": formats, "offsets": offsets, "itemsize": ffi.sizeof(struct)}
    )


FLOW_VIEW = _flow_view()


def flow_states() -> list[str]:
    """Names of the states of flows, by number."""
    found: list[str] = []
    while (name := lib.hb_flow_state_name(len(found))) != ffi.NULL:
        found.append(ffi.string(name).decode())
    return found


def flow_places(flows: int) -> int:
    """Flow indexes of an lcore with an input port, for so many flows."""
    return int(lib.hb_flow_places(flows))


@dataclass(frozen=True)
class CpuEngine:
    """One way to run an NF on the CPU."""

    name: str
    usable: bool
    """On this machine."""


def cpu_engines(kind: int) -> list[CpuEngine]:
    """The engines of an NF kind by number: ``cpu`` first, the best last. Kinds that are not
    compiled in have that one alone."""
    found: list[CpuEngine] = []
    while (name := lib.hb_nf_engine_name(kind, len(found))) != ffi.NULL:
        usable = bool(lib.hb_nf_engine_usable(kind, len(found)))
        found.append(CpuEngine(ffi.string(name).decode(), usable))
    return found or [CpuEngine("cpu", True)]


def reasons() -> list[tuple[str, str]]:
    """Every drop reason: name and what it means, by number."""
    found: list[tuple[str, str]] = []
    while (name := lib.hb_reason_name(len(found))) != ffi.NULL:
        text = lib.hb_reason_text(len(found))
        found.append((ffi.string(name).decode(), ffi.string(text).decode()))
    return found


# ---- measuring -----------------------------------------------------------------------------------


def ping_pong(cpu_a: int, cpu_b: int) -> float:
    """Round trip of one cache line between two CPUs in ns: the median of short series (5-20 ms).

    Raises:
        UserError: this process may not run on these two CPUs, or they are one.
    """
    return statistics.median(
        _two_cpus(lib.hb_ping_pong(cpu_a, cpu_b, 1000), cpu_a, cpu_b) for _ in range(9)
    )


def ring_hop(cpu_a: int, cpu_b: int, packets: int, *, headers: bool) -> float:
    """ns per packet through the ring between two lcores, in bursts of 32.

    Args:
        cpu_a: CPU of the sender.
        cpu_b: CPU of the receiver.
        packets: how many.
        headers: the sender writes each packet's header and the receiver reads it; else only handles
            move.

    Raises:
        UserError: as ping_pong().
    """
    return _two_cpus(lib.hb_ring_hop(cpu_a, cpu_b, packets, headers), cpu_a, cpu_b)


def _two_cpus(ns: float, cpu_a: int, cpu_b: int) -> float:
    if ns < 0:
        raise UserError(
            f"no two threads can run on CPUs {cpu_a} and {cpu_b}",
            fix="name two different CPUs that this process may use",
        )
    return ns
