# SPDX-License-Identifier: BSD-3-Clause
"""Flow records as the data plane leaves them, and as CSV."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hummingbird.dataplane._native import ffi, lib

RECORD = np.dtype(
    [
        ("packets", "<u8", 2),
        ("octets", "<u8", 2),
        ("first", "<u8", 2),
        ("last", "<u8", 2),
        ("address", "u1", (2, 16)),
        ("fragment_id", "<u4"),
        ("port", "<u2", 2),
        ("flags", "<u2", 2),
        ("zone", "<u2"),
        ("protocol", "u1"),
        ("reason", "u1"),
        ("version", "u1"),
        ("fragment", "u1"),
        ("pad", "u1", 6),
    ]
)
"""hb_flow_record. Of each pair the first is of the end that began the flow, or of its packets."""

Records = npt.NDArray[np.void]

CSV_HEADER = (
    "start,end,reason,protocol,src,sport,dst,dport,zone,packets,octets,tcp_flags,"
    "reverse_packets,reverse_octets,reverse_tcp_flags,fragment_id\n"
)

assert RECORD.itemsize == ffi.sizeof("hb_flow_record"), "hb_flow_record has changed"


class Taker:
    """Takes records from the data plane."""

    def __init__(self, pointer: Any, most: int) -> None:
        """
        Args:
            pointer: the hb_flow_monitor.
            most: records taken at once.
        """
        self._pointer, self._most = pointer, most
        self._buffer = ffi.new("hb_flow_record[]", most)

    def take(self) -> Records:
        """Records that have come; valid until the next call."""
        n = lib.hb_flow_monitor_take(self._pointer, self._buffer, self._most)
        return np.frombuffer(ffi.buffer(self._buffer), dtype=RECORD)[:n]


def csv_lines(records: Records) -> bytes:
    """A line for each record."""
    size = len(records) * lib.HB_FLOW_MONITOR_CSV_BYTES
    text = ffi.new("char[]", max(size, 1))
    data = np.ascontiguousarray(records)
    pointer = ffi.cast("hb_flow_record *", data.ctypes.data)
    return bytes(ffi.buffer(text, lib.hb_flow_monitor_csv(pointer, len(data), text)))
