# SPDX-License-Identifier: BSD-3-Clause
"""Key files: only what their owner alone can read is taken, and what stands in them gets into no
message, log, repr or core file.

    encryption: <hex digits>        # AES-GCM: the key, and the 4 bytes of salt behind it
    authentication: <hex digits>    # only with `auth`
"""

from __future__ import annotations

import os
import re
import resource
import shlex
import stat
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hummingbird.errors import UserError

MAX_BYTES = 1 << 16


class NoKeyFile(UserError):
    """There is no such file."""


@dataclass(frozen=True)
class Keys:
    """The keys of a security association; never shown."""

    encryption: bytes = field(repr=False)
    authentication: bytes = field(default=b"", repr=False)


def read_keys(path: Path, encryption: int = 16, authentication: int = 20) -> Keys:
    """Read a key file.

    Args:
        path: the file.
        encryption: bytes of that key; 0: there is none.
        authentication: likewise.

    Raises:
        UserError: it cannot be read, others can read it, or it holds something else.
    """
    sizes = {"encryption": encryption, "authentication": authentication}
    sizes = {name: size for name, size in sizes.items() if size}
    _leave_no_core()
    text = _read(path, sizes)
    found: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), 1):
        content = line.partition("#")[0].strip()
        if content:
            name, key = _parse(path, number, content, sizes, found.keys())
            found[name] = key
    for name in sizes:
        if name not in found:
            raise UserError(f"no {name} key", path=path, fix=_form(sizes))
    return Keys(found.get("encryption", b""), found.get("authentication", b""))


def _leave_no_core() -> None:
    """This process is about to hold keys: should it crash, the kernel writes no core file, nor does
    systemd-coredump, which asks for the same limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def _parse(
    path: Path, number: int, content: str, sizes: Mapping[str, int], found: Container[str]
) -> tuple[str, bytes]:
    name, _, digits = (part.strip() for part in content.partition(":"))
    if name not in sizes:
        known = name in ("encryption", "authentication")
        what = f"there is no {name} here" if known else "no key's name in front of a colon"
        raise UserError(what, path=path, line=number, fix=_form(sizes))
    if name in found:
        raise UserError(f"a second {name} key", path=path, line=number, fix=_form(sizes))
    size = sizes[name]
    if not re.fullmatch(f"[0-9a-fA-F]{{{2 * size}}}", digits):
        what = f"the {name} key is not {2 * size} hex digits"
        raise UserError(what, path=path, line=number, fix=_form(sizes))
    return name, bytes.fromhex(digits)


def _read(path: Path, sizes: Mapping[str, int]) -> str:
    """The text of a file that its owner alone can read: asked of the very file that is read."""
    try:
        # not to wait for whoever might open the other end of a pipe
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NoKeyFile(f"no such file: {path}", fix=_draw(path, sizes)) from None
    except OSError as error:
        what = f"the key file cannot be read: {error.strerror}"
        raise UserError(what, path=path, fix="name a file that can be read") from None
    try:
        mode = os.fstat(number).st_mode
        if not stat.S_ISREG(mode):
            raise UserError("this is no file with keys", path=path, fix="name a file")
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            what = "others than its owner may use this key file"
            raise UserError(what, path=path, fix=f"chmod 600 {shlex.quote(str(path))}")
        data = os.read(number, MAX_BYTES + 1)
    finally:
        os.close(number)
    try:
        if len(data) <= MAX_BYTES:
            return data.decode("utf-8")
    except UnicodeDecodeError:
        pass
    raise UserError("this is no text with keys", path=path, fix=_form(sizes)) from None


def _form(sizes: Mapping[str, int]) -> str:
    """What a key file looks like."""
    return ", then ".join(f"{name}: <{2 * size} hex digits>" for name, size in sizes.items())


def _draw(path: Path, sizes: Mapping[str, int]) -> str:
    """The shell command that draws new keys."""
    form = "".join(f"{name}: %s\\n" for name in sizes)
    draw = "\"$(head -c {} /dev/urandom | od -An -v -tx1 | tr -d ' \\n')\""
    keys = " ".join(draw.format(size) for size in sizes.values())
    return f"(umask 077; printf '{form}' {keys} >{shlex.quote(str(path))})"
