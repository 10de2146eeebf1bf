# SPDX-License-Identifier: BSD-3-Clause
"""One page, two ways to feed it: with the data of a run in it, it is the run's report; without, it
asks the server that it came from for the status of a running instance, once a second.

The page is one file that asks nobody else for anything. Its content security policy names its one
script and its one style sheet by their hashes, so that no name in the data can ever become code.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hummingbird import __version__
from hummingbird.dataplane.plane import reasons

_FOLDER = Path(__file__).parent / "page"
_SCRIPTS = (
    "format.js",
    "bind.js",
    "layout.js",
    "graph.js",
    "charts.js",
    "latency.js",
    "sections.js",
    "live.js",
    "main.js",
)
"""In the order in which they build on each other."""


def render(data: Mapping[str, Any] | None) -> str:
    """The page.

    Args:
        data: of a run, as docs/report.md describes it; None: the page fetches ``status.json`` from
            where it came from.
    """
    live = data is None
    script = "(() => {\n'use strict';\n" + "\n".join(map(_read, _SCRIPTS)) + "})();"
    style = _read("page.css")
    title = "live" if data is None else str(data["status"]["title"])
    constants = {"reasons": dict(reasons()), "version": __version__}
    parts = {
        "policy": _policy(script, style, live),
        "title": html.escape(_printable(f"{title} - Hummingbird")),
        "style": style,
        "constants": embed(constants),
        "data": embed(data),
        "script": script,
    }
    return re.sub(r"@@([a-z]+)@@", lambda found: parts[found[1]], _read("page.html"))


def embed(value: Any) -> str:
    """JSON that can stand in a script element whatever the names in it are. What JSON has no word
    for (NaN, infinity) is null."""
    text = json.dumps(_finite(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value)


def _printable(text: str) -> str:
    """Without what no encoding has: bytes of file names that are no text."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _policy(script: str, style: str, live: bool) -> str:
    return (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        f"img-src data:; connect-src {chr(39)}{'self' if live else 'none'}{chr(39)}; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return "sha256-" + base64.b64encode(digest).decode("ascii")


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
