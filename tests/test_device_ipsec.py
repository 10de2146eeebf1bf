# SPDX-License-Identifier: BSD-3-Clause
"""ipsec on a device: every suite, mode and form, both ways, lanes mixed; to the byte as on the CPU.

packets, some damaged ─┬─ hb_run_program on the CPU ─┐
                       └─ hb_batch on a device ──────┴─ the same frames, the same answers
"""

from __future__ import annotations

import warnings
from typing import Any

import nf_helpers as nf
import numpy as np
import pytest
from ipsec_helpers import DECAPSULATE, ENCAPSULATE, SUITES, TUNNEL, arg, region, reverse, sa
from test_nf_device import COUNT, DIALECTS, GROUPS, LANES, ROWS, run_on_device

from hummingbird.nfs.ipsec_table import LOCAL_BYTES, Sa
from hummingbird.opencl.program import builtin, source

cl = pytest.importorskip("pyopencl")

SAS = [
    sa(cipher, auth, tunnel=tunnel, udp=udp, spi=256 + i)
    for i, (cipher, auth, tunnel, udp) in enumerate(
        (cipher, auth, tunnel, udp)
        for cipher, auth in SUITES
        for tunnel in (TUNNEL, None)
        for udp in (None, (4500, 4501))
    )
]
BOTH: list[Sa] = [*SAS, *map(reverse, SAS)]


@pytest.fixture(scope="module", params=DIALECTS)
def device(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """A context with a CPU device or any other, and the kernel with nothing but ipsec."""
    devices = [device for platform in cl.get_platforms() for device in platform.get_devices()]
    if not devices:
        pytest.skip("NOT COMPARED with a device: there is no OpenCL platform")
    chosen = next((d for d in devices if d.type & cl.device_type.CPU), devices[0])
    if request.param == "c11" and chosen.version < "OpenCL 3":
        pytest.skip(f"{chosen.name} is no OpenCL 3 device")
    context = cl.Context([chosen])
    text = source([builtin("ipsec")], local_bytes=LOCAL_BYTES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cl.CompilerWarning)
        program = cl.Program(context, text).build(DIALECTS[request.param])
    return context, cl.Kernel(program, "hb_batch")


def compared(device: tuple[Any, Any], packets: list[bytes], arg: nf.Array) -> list[nf.Answer]:
    """The answers, which are the same on both."""
    tables = region(BOTH)
    frames, work = nf.frames_of(packets)
    by_cpu, by_device = frames.copy(), frames.copy()
    answers = nf.run_raw(tables, by_cpu, work, arg)
    counts = np.full(GROUPS * ROWS, LANES)
    device_answers = run_on_device(*device, tables, by_device, work, arg, counts)
    for field in nf.DONE.names or ():
        assert (answers[field] == device_answers[field]).all(), field
    assert (by_cpu == by_device).all()
    return nf.answers(by_cpu, answers)


@pytest.mark.timeout(600)
def test_a_device_does_what_the_cpu_does(device: tuple[Any, Any]) -> None:
    rng = np.random.default_rng(4303)
    packets = [nf.some_packet(rng) for _ in range(COUNT)]
    index = np.arange(COUNT) % len(SAS)
    args = [arg(ENCAPSULATE, i + 1, int(index[i])) for i in range(COUNT)]
    sealed = compared(device, packets, np.array(args, np.uint64))
    assert sum(answer.verdict == nf.PASS for answer in sealed) > COUNT // 2

    back, args = [], []
    for i, answer in enumerate(sealed):
        changed = bytearray(answer.data)
        if rng.random() < 0.3:
            changed[int(rng.integers(len(changed)))] ^= 1 << int(rng.integers(8))
        operation = ENCAPSULATE if rng.random() < 0.1 and len(changed) < 1400 else DECAPSULATE
        of = int(index[i]) + (len(SAS) if operation == DECAPSULATE else 0)
        back.append(bytes(changed))
        args.append(arg(operation, i + 1, of))
    opened = compared(device, back, np.array(args, np.uint64))
    assert {None, "bad_icv", "esp_malformed"} <= {answer.reason for answer in opened}
