# SPDX-License-Identifier: BSD-3-Clause
"""Reading files that people write: one clear error for whatever is not text; names and guesses."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path

from hummingbird.errors import UserError

MAX_BYTES = 1 << 20
NAME = re.compile(r"[a-z][a-z0-9_-]*")
NAME_RULE = "a lower-case letter, then lower-case letters, digits, '-' or '_'"


def read_bytes(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of a file of at most `max_bytes`.

    Raises:
        UserError: it cannot be read or is larger.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(max_bytes + 1)
    except FileNotFoundError:
        raise UserError("no such file", path=path, fix="name a file that exists") from None
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise UserError(what, path=path, fix="name a file that can be read") from None
    if len(data) > max_bytes:
        raise UserError(
            f"larger than {max_bytes} bytes",
            path=path,
            line=data.count(b"\n") + 1,
            fix="name the right file; nothing of this kind is that large",
        )
    return data


def decode(data: bytes, path: Path) -> str:
    """UTF-8 text, without the byte order mark it may begin with.

    Raises:
        UserError: it is something else; names the line of the first wrong byte.
    """
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        what, at = f"byte 0x{data[error.start]:02x} is not UTF-8 text", error.start
    else:
        if "\0" not in text:
            return text
        what, at = "a NUL byte: this is not a text file", data.index(b"\0")
    raise UserError(
        what,
        path=path,
        line=data.count(b"\n", 0, at) + 1,
        fix="name the right file, or save this one as UTF-8 text",
    )


def quoted(value: object) -> str:
    """A value as it may stand in a message: on one line, printable, not too long."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:56]}...{text[-1]}"


def suggest(name: object, options: Iterable[str]) -> str:
    """What to write instead of an unknown name: the nearest option, or all of them."""
    options = list(options)
    near = difflib.get_close_matches(str(name)[:64], options, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    if not options:
        return "there is none to name here"
    some = ", ".join(options[:12])
    return f"write one of: {some}{', ...' if len(options) > 12 else ''}"
