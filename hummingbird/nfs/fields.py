# SPDX-License-Identifier: BSD-3-Clause
"""Kinds of fields that several NFs have."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import PlainValidator

from hummingbird.ports import mistake
from hummingbird.textfile import quoted

MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")


def _mac(value: Any) -> str:
    if not isinstance(value, str) or not MAC.fullmatch(value):
        raise mistake(f"{quoted(value)} is no MAC address", 'write "02:00:00:00:01:01"')
    if int(value[:2], 16) & 1:
        raise mistake(f"{value} is the MAC address of a group", "write that of one station")
    return value.lower()


Mac = Annotated[str, PlainValidator(_mac)]
"""The Ethernet address of one station, in lower case."""
