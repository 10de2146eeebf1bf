# SPDX-License-Identifier: BSD-3-Clause
"""GPU = CPU: the device's answers and frames are, to the byte, those of the CPU.

some packets ─┬─ hb_run_program on the CPU ─┐
              └─ hb_batch on a device ──────┴─ the same frames, the same answers
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import nf_helpers as nf
import numpy as np
import pytest
from chain import tunnel

from hummingbird.nfs import BuildContext, load
from hummingbird.opencl.program import builtin, source

cl = pytest.importorskip("pyopencl")

DEMO = Path(__file__).parent.parent / "policies" / "demo"
GROUPS, ROWS, LANES = 4, 8, 64
COUNT = GROUPS * ROWS * LANES
LOCAL_BYTES = 3072  # the most that an NF here declares local: ipsec
DIALECTS = {
    "cl12": "-cl-std=CL1.2",
    "c11": "-cl-std=CL3.0 -DHB_C11_ATOMICS -D__opencl_c_atomic_scope_all_devices=1",
}
ROWDESC = np.dtype(
    [
        ("program", "u4"),
        ("count", "u2"),
        ("head", "u2"),
        ("tail", "u2"),
        ("pad", "u2"),
        ("generation", "u4"),
        ("route", "u4"),
        ("pad2", "u4"),
        ("tick", "u8"),
    ]
)
MAC = {"mac": "02:00:00:00:01:01", "src_mac": "02:00:00:00:02:01"}
PARAMS: dict[str, dict[str, Any]] = {
    "forward": {},
    "load_balancer": {
        "services": {
            "web": {
                "address": "203.0.113.10",
                "protocol": "tcp",
                "port": 80,
                "backends": [{"address": "10.0.0.1"}],
            }
        }
    },
    "router": {
        "routes": "routes.csv",
        "next_hops": {name: MAC for name in ("isp", "core", "branch", "servers", "gateway")},
    },
    "nids": {"rules": "web.rules", "on_alert": "suspicious"},
    "ipsec": tunnel(4096, "192.0.2.9", "192.0.2.1", "ipsec.key"),
    "firewall": {"rules": "firewall.csv", "default": "deny"},
    "nat": {"inside": ["10.0.0.0/8"], "external": ["203.0.113.1"]},
    "flow_monitor": {"csv": "flows.csv"},
}


@pytest.fixture(scope="module", params=DIALECTS)
def device(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """A context with a CPU device (PoCL comes with the package) or any other, and all NFs built."""
    devices = [device for platform in cl.get_platforms() for device in platform.get_devices()]
    if not devices:
        pytest.skip("NOT COMPARED with a device: there is no OpenCL platform")
    device = next((d for d in devices if d.type & cl.device_type.CPU), devices[0])
    if request.param == "c11" and device.version < "OpenCL 3":
        pytest.skip(f"{device.name} is no OpenCL 3 device")
    context = cl.Context([device])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cl.CompilerWarning)
        code = source(map(builtin, nf.KINDS), local_bytes=LOCAL_BYTES)
        program = cl.Program(context, code).build(DIALECTS[request.param])
    return context, cl.Kernel(program, "hb_batch")


def region_of(name: str) -> nf.Array:
    """The tables region of one NF with the demonstration's parameters."""
    if name == "probe":
        words = np.arange(COUNT * 32, dtype=np.uint32) // 32 % 3
        return nf.region(5, words.view(np.uint8))
    if name == "touch":
        return nf.region(6, np.zeros(0, dtype=np.uint8))
    declared = load(name)
    context = BuildContext(f"{name}0", DEMO, {"other": 0, "suspicious": 5})
    params = declared.params.model_validate(PARAMS[name])
    return nf.region(declared.kind, declared.build(params, context))


def packets() -> list[bytes]:
    """A mixed bag, some with contents the NIDS looks for, some for the probe."""
    rng = np.random.default_rng(64)
    drawn = [nf.some_packet(rng) for _ in range(COUNT)]
    for i in range(0, COUNT - 3, 7):
        drawn[i] += b"() { :; };"
        drawn[i + 1] = (i % 2).to_bytes(4, "big") * 17
        drawn[i + 2] = nf.ETHERNET + b"\x08\x00" + nf.ipv4(b" CMD.exe", 200, rng)
        drawn[i + 3] = nf.ETHERNET + b"\x08\x00" + nf.ipv4(b"/etc/passwd", 200, rng)
    return drawn


def queue(work: nf.Array, arg: nf.Array, counts: nf.Array) -> tuple[nf.Array, list[int]]:
    """The arrays of hb_batch in one buffer, and where each of them starts."""
    runs = np.array([[g * ROWS, 0, ROWS, ROWS - 1] for g in range(GROUPS)], dtype=np.uint32)
    rows = np.zeros(GROUPS * ROWS, dtype=ROWDESC)
    rows["count"], rows["head"], rows["tail"] = counts, 128, 64
    done = np.full(COUNT * nf.DONE.itemsize, 0xEE, dtype=np.uint8)
    parts = [part.view(np.uint8).reshape(-1) for part in (runs, rows, work, arg, done)]
    starts = np.cumsum([0, *(-(-part.size // 128) * 128 for part in parts)])
    buffer = np.zeros(starts[-1], dtype=np.uint8)
    for start, part in zip(starts, parts, strict=False):
        buffer[start : start + part.size] = part
    return buffer, starts[:-1].tolist()


def run_on_device(
    context: Any,
    kernel: Any,
    tables: nf.Array,
    frames: nf.Array,
    work: nf.Array,
    arg: nf.Array,
    counts: nf.Array,
) -> nf.Array:
    """One launch of hb_batch: the frames change, the answers come back."""
    content, starts = queue(work, arg, counts)
    flags = cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR
    buffers = [cl.Buffer(context, flags, hostbuf=array) for array in (content, frames, tables)]
    with cl.CommandQueue(context) as commands:
        memory = (buffers[0], buffers[1], np.uint64(nf.FRAME), buffers[2])
        offsets = map(np.uint64, starts)
        kernel(commands, (GROUPS * LANES,), (LANES,), *memory, np.uint32(LANES), *offsets)
        cl.enqueue_copy(commands, content, buffers[0])
        cl.enqueue_copy(commands, frames, buffers[1])
    return content[starts[-1] :][: COUNT * nf.DONE.itemsize].view(nf.DONE)


@pytest.mark.parametrize("name", nf.KINDS)
def test_the_device_answers_as_the_cpu_does(device: tuple[Any, Any], name: str) -> None:
    tables = region_of(name)
    frames, work = nf.frames_of(packets())
    arg = (np.arange(COUNT) % (3 if name == "probe" else COUNT)).astype(np.uint64)
    if name == "ipsec":
        arg |= np.uint64(1 << 48)  # encapsulate
    if name == "nat":
        arg[:] = 0  # as the state says; there is none here
    counts = np.full(GROUPS * ROWS, LANES)
    counts[ROWS - 1 :: ROWS] = 50  # the other lanes of these rows hold dummy packets
    alive = np.arange(COUNT) % LANES < np.repeat(counts, LANES)

    by_cpu = frames.copy()
    answers = nf.run_raw(tables, by_cpu, work, arg)
    by_cpu[~alive] = frames[~alive]
    by_device = frames.copy()
    device_answers = run_on_device(*device, tables, by_device, work, arg, counts)
    for field in nf.DONE.names or ():
        assert (answers[field] == device_answers[field])[alive].all(), field
    assert (by_cpu == by_device).all()
    assert (device_answers["verdict"][~alive] == 0xEE).all()
    verdicts = 2 if name in ("router", "ipsec", "firewall") else 1
    assert len(np.unique(answers["verdict"])) == verdicts, "the packets did not try much"
