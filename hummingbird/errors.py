# SPDX-License-Identifier: BSD-3-Clause
"""The one exception a user's mistake becomes: what, where, and what to do about it."""

from __future__ import annotations

from pathlib import Path


class UserError(Exception):
    """Something the user can mend. The command line prints it and exits with status 2.

    Args:
        what: what is wrong, naming the thing.
        path: the file it stands in, if any.
        line: its line there, counted from 1.
        field: its place in the file, such as ``nfs.ipsec0.spi``.
        fix: what to write or do instead.
    """

    def __init__(
        self,
        what: str,
        *,
        path: Path | str | None = None,
        line: int | None = None,
        field: str | None = None,
        fix: str | None = None,
    ) -> None:
        self.what = what
        self.path = path
        self.line = line
        self.field = field
        self.fix = fix
        place = ":".join(str(part) for part in (path, line, field) if part is not None)
        self.text = f"{place}: {what}" if place else what
        """All but the fix, on one line."""
        super().__init__(f"{self.text}\n  fix: {fix}" if fix else self.text)
