# SPDX-License-Identifier: BSD-3-Clause
"""The tables region, and what Python repeats of hummingbird.h."""

from __future__ import annotations

import re
from pathlib import Path

import nf_helpers as nf
import numpy as np

from hummingbird.nfs import NAMES, NfTable, load, tables

HEADER = (Path(__file__).parent.parent / "cl_kernels" / "hummingbird.h").read_text()


def constant(name: str) -> int:
    found = re.search(rf"#define {name} (\w+?)u?\b", HEADER)
    assert found
    return int(found[1], 0)


def test_constants_are_those_of_the_header() -> None:
    assert constant("HB_TABLES_MAGIC") == tables.MAGIC
    assert constant("HB_LAYOUT_VERSION") == tables.VERSION
    assert constant("HB_LINE") == tables.LINE
    assert constant("HB_PROGRAM_NFS") == tables.PROGRAM_NFS


def test_structures_are_those_of_the_header() -> None:
    """Names, order and offsets, for fields of 32 and 64 bits that align themselves."""
    pairs = {
        "hb_tables": tables.HEAD,
        "hb_program": tables.PROGRAM,
        "hb_nf_instance": tables.INSTANCE,
    }
    for name, dtype in pairs.items():
        body = re.search(rf"struct {name} \{{(.*?)\}};", HEADER, re.DOTALL)
        assert body
        fields = re.findall(r"hb_u(\d+) (\w+)(?:\[\w+\])?;", body[1])
        assert [field for _, field in fields] == list(dtype.names or ())
        for bits, field in fields:
            assert dtype[field].base.itemsize == int(bits) // 8
            assert dtype.fields is not None
            assert dtype.fields[field][1] % (int(bits) // 8) == 0


def test_every_nf_has_the_number_and_name_of_its_kind() -> None:
    for name in NAMES:
        assert nf.KINDS[load(name).kind - 1] == name == load(name).name


def test_a_layout() -> None:
    """Two instances, one without a table, and two programs."""
    data = np.arange(300, dtype=np.uint16).view(np.uint8)
    plan = tables.layout(
        [(1, NfTable(np.zeros(0, np.uint8))), (3, NfTable(data))], [[0], [1, 0, 1]]
    )
    memory = np.full(plan.size, 0xEE, dtype=np.uint8)
    plan.fill(memoryview(memory))
    head = memory[: tables.HEAD.itemsize].view(tables.HEAD)[0]
    assert head.tolist() == (0x48625442, 3, 2, 2, 128, 256)
    programs = memory[128:][: 2 * tables.PROGRAM.itemsize].view(tables.PROGRAM)
    assert programs["count"].tolist() == [1, 3]
    assert programs["nf"].tolist() == [[0] * 8, [1, 0, 1, 0, 0, 0, 0, 0]]
    instances = memory[256:][: 2 * tables.INSTANCE.itemsize].view(tables.INSTANCE)
    assert instances["kind"].tolist() == [1, 3]
    assert instances["length"].tolist() == [0, 600]
    assert (instances["base"] % 128 == 0).all()
    assert instances["state_bytes"].tolist() == instances["state_flows"].tolist() == [0, 0]
    base = int(instances["base"][1])
    assert memory[base : base + 600].tobytes() == data.tobytes()
    assert base + 600 <= plan.size


def test_states_of_flows_lie_apart() -> None:
    """Each in lines of its own, and no table in the chunks that a device with a copy is given."""
    table = NfTable(np.zeros(100, np.uint8))
    plan = tables.layout([(1, table), (1, table), (1, table)], [[0]], [8, 0, 200], flows=3000)
    memory = np.zeros(plan.size, dtype=np.uint8)
    plan.fill(memory)
    entries = memory[256:][: 3 * tables.INSTANCE.itemsize].view(tables.INSTANCE)
    assert entries["state_bytes"].tolist() == [8, 0, 200]
    assert entries["state_stride"].tolist() == [64, 0, 256]
    assert entries["state_flows"].tolist() == [3000, 0, 3000]
    first, _, last = (int(base) for base in entries["state_base"])
    assert first % tables.STATES == last % tables.STATES == 0
    assert first >= int(entries["base"].max()) + 100
    assert last >= first + 3000 * 64
    assert plan.size >= last + 3000 * 256
    assert plan.states == [(first, 3000, 64), (0, 0, 0), (last, 3000, 256)]
