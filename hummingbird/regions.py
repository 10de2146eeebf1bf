# SPDX-License-Identifier: BSD-3-Clause
"""The memory of one run: frames and tables, shared with the device if there is one (design
section 3), and the circular queue that the device gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hummingbird import logs
from hummingbird.dataplane.plane import Sizes, flow_places
from hummingbird.device_choice import DeviceChoice
from hummingbird.nfs import NfTable
from hummingbird.nfs.tables import Layout, layout
from hummingbird.opencl import memory, watchdog
from hummingbird.opencl.device import Device
from hummingbird.opencl.memory import Region
from hummingbird.opencl.program import Code
from hummingbird.opencl.session import LAUNCH, QueueShape, Session, open_session
from hummingbird.placement import Placement
from hummingbird.topology import Topology

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Regions:
    """What the data plane uses as long as the run lasts."""

    frames: Region
    tables: Region
    session: Session | None
    """The device in use."""
    workgroups: int
    """Logical workgroups that each syncer gives each GNF; 0 without a device."""
    nf_tables: list[Bytes]
    """The table of each NF, inside ``tables``."""
    flow_states: Mapping[str, Bytes]
    """Of the NFs that have state of flows: a row of bytes by flow index, inside ``tables``."""


def open_regions(
    topology: Topology,
    placement: Placement,
    choice: DeviceChoice,
    tables: Mapping[str, NfTable],
    sizes: Sizes,
) -> Regions:
    """Allocate both, fill the tables, and open the device if one was chosen.

    Args:
        topology: what shall run.
        placement: its lcores.
        choice: its device.
        tables: of each NF, by name and in the topology's order.
        sizes: of the data plane.

    Raises:
        UserError: the device's program does not compile, or no memory can be shared with it.
    """
    plan = layout(
        [(spec.nf.kind, tables[spec.name]) for spec in topology.nfs],
        [[index] for index in range(len(topology.nfs))],
        [spec.nf.flow_bytes for spec in topology.nfs],
        _flow_indexes(topology, placement),
    )
    if choice.device is None:
        session, workgroups = None, 0
        frames = memory.host_region(sizes.frames_bytes)
        region = memory.host_region(plan.size)
        plan.fill(region.array)
    else:
        shape, workgroups = _shape(topology, placement, choice.device)
        session = open_session(
            choice.device,
            choice.executor or LAUNCH,
            [
                Code(spec.nf.name, spec.nf.kind, spec.nf.code)
                for spec in topology.nfs
                if placement.engines[spec.name] == "gpu"
            ],
            sizes.frames_bytes,
            sizes.frame_size,
            plan,
            shape,
            choice.binding,
        )
        frames, region = session.frames, session.tables
    return Regions(
        frames,
        region,
        session,
        workgroups,
        _nf_tables(plan, len(tables), region.array),
        _flow_states(plan, tables, region.array),
    )


def _flow_indexes(topology: Topology, placement: Placement) -> int:
    """Every lcore with an input port has its own."""
    inputs = [port.name for port in topology.ports if port.params.ingress]
    owners = {lcore for name in inputs for lcore in placement.ports[name]}
    return len(owners) * flow_places(topology.memory.flows)


def _nf_tables(plan: Layout, count: int, region: Bytes) -> list[Bytes]:
    parts = plan.parts[len(plan.parts) - count :]
    return [region[at : at + part.size] for at, part in parts]


def _flow_states(plan: Layout, names: Mapping[str, NfTable], region: Bytes) -> dict[str, Bytes]:
    return {
        name: region[at : at + count * stride].reshape(count, stride)
        for name, (at, count, stride) in zip(names, plan.states, strict=True)
        if stride
    }


# ---- the circular queue --------------------------------------------------------------------------


def _shape(topology: Topology, placement: Placement, device: Device) -> tuple[QueueShape, int]:
    """The queue, and logical workgroups that each syncer gives each GNF: equal shares."""
    wanted = topology.device
    seats = sum(
        len(placement.nfs[spec.name])
        for spec in topology.nfs
        if placement.engines[spec.name] == "gpu"
    )
    groups = _groups(topology, placement, device)
    workgroups = max(1, groups // seats)
    shape = QueueShape(
        workgroups=seats * workgroups,
        lanes=min(wanted.lanes, device.max_workgroup),
        depth=wanted.depth,
        groups=groups,
        lifetime_us=_lifetime_ms(wanted.lifetime_ms, device) * 1000,
        idle_us=wanted.idle_ms * 1000,
    )
    return shape, workgroups


def _groups(topology: Topology, placement: Placement, device: Device) -> int:
    """Groups to launch: on a CPU runtime one per core that it has to itself."""
    if topology.device.groups:
        return topology.device.groups
    if device.is_cpu:
        return max(1, min(device.compute_units, len(placement.spare)))
    return 2 * device.compute_units


def _lifetime_ms(wanted: int, device: Device) -> int:
    """At most half of what the GPU's kernel driver allows."""
    limit = None if device.is_cpu else watchdog.tightest_ms()
    if limit is None or wanted <= limit // 2:
        return wanted
    logs.warning(
        "device_lifetime",
        f"the GPU driver resets kernels after {limit} ms: "
        f"device.lifetime_ms is {limit // 2} instead of {wanted}",
        fix=f"lifetime_ms: {limit // 2}, or what `hummingbird doctor` says of the watchdog",
    )
    return max(1, limit // 2)
