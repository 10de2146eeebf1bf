# SPDX-License-Identifier: BSD-3-Clause
"""What the source of a packet function may say, whoever compiles it."""

from __future__ import annotations

import re
from pathlib import Path

from hummingbird.errors import UserError
from hummingbird.textfile import decode, read_bytes

_FORBIDDEN = re.compile(
    r"\b(__global|global|HB_GLOBAL|__local|local|barrier|work_group_barrier|asm|__asm__)\b"
)
_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)


def bare(text: str) -> str:
    """Source without its comments; lines keep their numbers."""
    return _COMMENT.sub(lambda match: "\n" * match[0].count("\n"), text)


def check_nf_source(path: Path) -> str:
    """The source of an NF, if it keeps to the checked accessors (design section 7).

    Raises:
        UserError: it uses a raw pointer into device memory, local memory, a barrier or assembly.
    """
    text = decode(read_bytes(path), path)
    for number, line in enumerate(bare(text).split("\n"), 1):
        found = _FORBIDDEN.search(line)
        if found:
            raise UserError(
                f"an NF may not use `{found[0]}`",
                path=path,
                line=number,
                fix="reach packets and tables through the accessors of hummingbird.h",
            )
    return text
