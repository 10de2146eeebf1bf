# SPDX-License-Identifier: BSD-3-Clause
"""NFs of the user's own: ``type: ./ttl_counter.py`` in a topology names a Python file with an
``NF = Nf("ttl_counter", ...)``, and beside it lies its packet function, ttl_counter.cl. The same
checks as for built-in ones, at load and with the user's line. docs/write-an-nf.md is the guide."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from hummingbird.errors import UserError
from hummingbird.nfs import TYPES, Nf, NfParams, NfTable, Writes, native, userfile
from hummingbird.nfs.source import bare, check_nf_source
from hummingbird.textfile import decode, quoted, read_bytes

NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
NAME_RULE = "a lower-case letter, then lower-case letters, digits or '_', 40 at most"
TAKEN = ("probe", "touch", *TYPES)
"""Names whose packet functions are built in."""

_known: dict[Path, tuple[bytes, Nf]] = {}


def load(path: Path) -> Nf:
    """The NF in a user's file, ready for CPUs; its kind is 0. The same file gives the same NF.

    Raises:
        UserError: the first mistake in one of its two files.
    """
    if any(character in str(path) for character in '"\\\n'):
        what = 'the path of an NF may have no ", backslash or line break'
        raise UserError(what, path=path, fix="rename the folder")
    python = read_bytes(path)
    nf = _declared(path, python)
    code = nf.code
    if not code.is_file():
        what = f"the packet function of {path.name} is missing"
        raise UserError(what, path=code, fix=f"write hb_nf_{nf.name}() there")
    content = python + b"\0" + read_bytes(code)
    known = _known.get(path)
    if known is None or known[0] != content:
        text = check_nf_source(code)
        _check_function(nf, code, text)
        _check_writes(nf, path, text)
        known = _known[path] = (content, replace(nf, native=native.kind_of(nf.name, code, text)))
    return known[1]


def _declared(path: Path, data: bytes) -> Nf:
    """What the Python file says."""
    decode(data, path)
    if not NAME.fullmatch(path.stem) or path.stem in TAKEN:
        taken = " that is not taken" if path.stem in TAKEN else ""
        what = f"{quoted(path.stem)} cannot be the name of an NF"
        raise UserError(what, path=path, fix=f"rename the file{taken}: {NAME_RULE}, then .py")
    nf = getattr(userfile.load(path), "NF", None)
    if not isinstance(nf, Nf):
        what = "there is no NF here" if nf is None else f"NF is {type(nf).__name__}, and no Nf(...)"
        raise UserError(what, path=path, fix=f'write NF = Nf("{path.stem}")')
    _check_declared(nf, path)
    source = Path(nf.source) if nf.source else path.with_suffix(".cl")
    return replace(
        nf,
        source=path.parent / source,
        build=userfile.guarded(_checked_build(nf, path), path),
        content_types=userfile.guarded(nf.content_types, path),
        host=userfile.guarded(nf.host, path),
    )


def _check_declared(nf: Nf, path: Path) -> None:
    def refuse(what: str, fix: str) -> None:
        raise UserError(what, path=path, fix=fix)

    if nf.name != path.stem:
        refuse(f"the NF is called {quoted(nf.name)}", f'write NF = Nf("{path.stem}", ...)')
    if not (isinstance(nf.params, type) and issubclass(nf.params, NfParams)):
        refuse(f"params is {quoted(nf.params)}", "write a class that derives from NfParams")
    for name in ("build", "content_types", "host"):
        if not callable(getattr(nf, name)):
            refuse(f"{name} is no function", f"write {name}=FUNCTION")
    if nf.kind or nf.native or nf.peer or nf.engines:
        refuse("kind, native, peer and engines are for built-in NFs", "leave them out")


def _checked_build(nf: Nf, path: Path):  # type: ignore[no-untyped-def]
    def build(params, context):  # type: ignore[no-untyped-def]
        table = nf.build(params, context)
        if not isinstance(table, NfTable):
            what = f"build() returned {type(table).__name__}"
            raise UserError(what, path=path, fix="return NfTable(...)")
        return table

    return build


def _check_function(nf: Nf, code: Path, text: str) -> None:
    if re.search(rf"\bhb_nf_{nf.name}\s*\(", bare(text)):
        return
    others = re.search(r"\bhb_nf_\w+(?=\s*\()", bare(text))
    line = bare(text).count("\n", 0, others.start()) + 1 if others else None
    what = f"there is no function hb_nf_{nf.name}"
    fix = f"rename {others[0]}" if others else "docs/write-an-nf.md shows one"
    raise UserError(what, path=code, line=line, fix=fix)


_WRITES = re.compile(r"\b(hb_put\w+|hb_move)\s*\(")


def _check_writes(nf: Nf, path: Path, text: str) -> None:
    """A device whose memory is its own gets back only what an NF declares to write."""
    found = _WRITES.search(bare(text))
    if found and nf.writes is Writes.NOTHING:
        what = f"{nf.code.name} calls {found[1]}(), but the NF declares to write nothing"
        raise UserError(what, path=path, fix="add writes=Writes.HEADER or writes=Writes.PACKET")
    for end in ("head", "tail"):
        if f"hb_grow_{end}" in bare(text) and not getattr(nf, end):
            what = f"{nf.code.name} calls hb_grow_{end}(), but the NF declares no {end}="
            raise UserError(what, path=path, fix=f"add {end}=BYTES: the most that it adds")
