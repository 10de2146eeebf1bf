# SPDX-License-Identifier: BSD-3-Clause
"""`hummingbird nf new`: a small NF that works, with a topology and a test, to begin one's own."""

from __future__ import annotations

import os
from pathlib import Path

from hummingbird.errors import UserError
from hummingbird.nfs.user import NAME, NAME_RULE, TAKEN
from hummingbird.textfile import quoted


def new(name: str, folder: Path, *, python: bool = False) -> list[Path]:
    """Write the files of a new NF.

    Args:
        name: of the NF.
        folder: where they go; made if need be.
        python: a Python NF, instead of one in C and OpenCL C.

    Returns:
        What was written.

    Raises:
        UserError: no name for an NF, a file exists already, or the folder cannot be written to.
    """
    if not NAME.fullmatch(name):
        raise UserError(f"{quoted(name)} is no name for an NF", fix=f"write {NAME_RULE}")
    if name in TAKEN:
        raise UserError(f"there is an NF {name} already", fix="choose another name")
    files = PYTHON if python else NATIVE
    texts = {folder / of.replace("NAME", name): text for of, text in files.items()}
    for path in texts:
        if os.path.lexists(path):
            raise UserError("there is such a file already", path=path, fix="choose another name")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            with open(path, "x", encoding="utf-8") as file:
                file.write(text.lstrip("\n").replace("NAME", name))
    except OSError as error:
        what = f"cannot be written: {error.strerror}"
        fix = "name another folder with --folder"
        raise UserError(what, path=error.filename, fix=fix) from None
    return list(texts)


_YAML = """
# Made-up packets through the NF NAME.
#
# hummingbird run NAME.yaml

policy: NAME.csv

ports:
  in0: {driver: generator, packets: 100k, flows: 16}
  out0: {driver: sink}

nfs:
"""

_CSV = """
packet_type,current_nf,next_nf
*,in0,NAME0
*,NAME0,out0
"""

NATIVE = {
    "NAME.py": '''
"""NAME: what a topology may say about it, and the table that NAME.cl reads."""

import numpy as np
from pydantic import Field

from hummingbird.nfs import Nf, NfParams, NfTable, Reads, Writes


class Params(NfParams):
    """The fields that a topology may set."""

    min_ttl: int = Field(2, ge=0, le=255)
    """Packets with a lower TTL or hop limit are dropped."""


def build(params, context):
    """Parameters become the table; each of `rules` is a counter."""
    table = np.array([params.min_ttl], dtype=np.uint32)
    return NfTable(table.view(np.uint8), rules=["ipv4", "ipv6", "not-ip"])


NF = Nf(
    "NAME",
    params=Params,
    build=build,
    reads=Reads.HEADER,  # the first 128 bytes; Reads.PACKET: all
    writes=Writes.NOTHING,  # or HEADER, or PACKET
)
''',
    "NAME.cl": """
/* NAME: counts packets by IP version and drops those that have come too far.
 * Table: u32 [0] least TTL. Result: 1 IPv4, 2 IPv6, 3 neither. */
static hb_u32 hb_nf_NAME(hb_packet *p, const hb_table *t, hb_u64 arg, hb_u64 *result)
{
    hb_u32 version = hb_ip_version(p);
    *result = version == 4 ? 1 : version == 6 ? 2 : 3;
    if (version == 0)
        return HB_PASS;
    hb_u32 ttl = hb_get8(p, p->l3 + (version == 4 ? 8 : 7));
    return ttl < hb_table32(t, 0) ? HB_DROP(HB_REASON_ttl_expired) : HB_PASS;
}
""",
    "NAME.yaml": _YAML + "  NAME0: {type: ./NAME.py, engine: cpu, min_ttl: 2}  # engine: gpu\n",
    "NAME.csv": _CSV,
    "test_NAME.py": '''
"""The NF NAME, on a CPU and on the OpenCL device. Run it with pytest."""

from pathlib import Path

import pytest

from hummingbird.testing import run_packets, udp

HERE = Path(__file__).parent


@pytest.mark.parametrize("engine", ["cpu", "gpu"])
def test_NAME(engine):
    nf = {"type": "./NAME.py", "engine": engine, "min_ttl": 3}
    outcome = run_packets(HERE, nf, [udp(ttl=64), udp(ttl=3), udp(ttl=2)])
    assert outcome.packets == [udp(ttl=64), udp(ttl=3)]
    assert outcome.dropped == {"ttl_expired": 1}
    assert outcome.counters == {"ipv4": 3}
''',
}

PYTHON = {
    "NAME.py": '''
"""NAME: drops packets that have come too far, and gives large ones the type `large`."""

import numpy as np

from hummingbird.nfs.burst import PASS, Burst, drop

MIN_TTL = 3
LARGE = 1000


def process(burst: Burst):
    """A verdict for each packet of the burst."""
    l3, ipv4 = burst.column("l3"), burst.bytes_at(12, 2) @ (256, 1) == 0x0800
    ttl = burst.bytes_at(l3 + 8, 1)[:, 0]
    verdicts = np.where(burst.lengths >= LARGE, burst.retype("large"), PASS)
    return np.where(ipv4 & (ttl < MIN_TTL), drop("ttl_expired"), verdicts)
''',
    "NAME.yaml": _YAML + "  NAME0: {type: python, file: NAME.py, types: [large]}\n",
    "NAME.csv": _CSV,
    "test_NAME.py": '''
"""The Python NF NAME. Run it with pytest."""

from pathlib import Path

from hummingbird.testing import run_packets, udp

HERE = Path(__file__).parent


def test_NAME():
    nf = {"type": "python", "file": "NAME.py", "types": ["large"]}
    packets = [udp(ttl=64), udp(ttl=2), udp(bytes(1200))]
    outcome = run_packets(HERE, nf, packets, types=["large"])
    assert outcome.packets == [packets[0]]
    assert outcome.retyped == {"large": [packets[2]]}
    assert outcome.dropped == {"ttl_expired": 1}
''',
}
"""What `hummingbird nf new` writes, by name."""
