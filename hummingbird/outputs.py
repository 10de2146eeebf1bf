# SPDX-License-Identifier: BSD-3-Clause
"""Files that are written for an operator, and what must not be lost by it: no output takes the
place of a file that a run reads or writes, and one that cannot be written leaves what was there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hummingbird.errors import UserError

if TYPE_CHECKING:
    from hummingbird.engine import Wanted


def in_use(wanted: Wanted) -> dict[str, str]:
    """The files of a run, by their absolute paths, and what each of them is."""
    topology = wanted.topology
    found = {_absolute(topology.path): "the topology"}
    found[_absolute(wanted.policy.path)] = "the route policy"
    for name, files in wanted.files.items():
        found |= {_absolute(path): f"a file of the NF {name}" for path in files}
    for spec in topology.nfs:
        if spec.type.endswith(".py"):
            code = [topology.base / spec.type, *filter(None, [spec.nf.source])]
            found |= {_absolute(path): f"the code of the NF {spec.name}" for path in code}
    for port in topology.ports:
        reads, writes = port.params.reads(), port.params.writes()
        found |= {_absolute(path): f"what the port {port.name} reads" for path in reads}
        found |= {_absolute(path): f"what the port {port.name} writes" for path in writes}
    return found


def check_free(path: Path | str, what: str, used: Mapping[str, str]) -> None:
    """Refuse a file that is in use, by whatever name.

    Args:
        path: what shall be written.
        what: it is, for the error.
        used: see `in_use`.

    Raises:
        UserError: it is one of them.
    """
    if is_special(path):
        return
    wanted = _identity(path)
    for other, role in used.items():
        if _identity(other) == wanted:
            why = f"this file is {role}"
            raise UserError(f"cannot write the {what}: {why}", path=path, fix="name another file")


def is_special(path: Path | str) -> bool:
    """It is there and no file, such as /dev/null: nothing in it can be lost."""
    return os.path.exists(path) and not os.path.isfile(path)


def same(one: Path | str, other: Path | str) -> bool:
    """Both are one file, or would be."""
    return not is_special(one) and _identity(one) == _identity(other)


def write(path: Path, text: str) -> None:
    """Write all of a file, or leave what was there.

    Raises:
        OSError: it cannot be written.
    """
    place = Path(os.path.realpath(path))
    if is_special(place) or not os.access(place.parent, os.W_OK):
        place.write_text(text, encoding="utf-8")
        return
    new = place.with_name(f".hummingbird-{os.getpid()}")
    try:
        new.write_text(text, encoding="utf-8")
        if place.exists():
            shutil.copymode(place, new)
        os.replace(new, place)
    except OSError:
        new.unlink(missing_ok=True)
        raise


def _absolute(path: Path) -> str:
    return os.path.abspath(path)


def _identity(path: Path | str) -> str | tuple[int, int]:
    """The same for all names of a file, whether it is there or not."""
    try:
        status = os.stat(path)
    except OSError:
        return os.path.realpath(path)
    return status.st_dev, status.st_ino
