# SPDX-License-Identifier: BSD-3-Clause
"""The units of systemd that are shipped: prints them, or puts them into place."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from hummingbird.errors import UserError

DEPLOY = Path(__file__).parent / "deploy"
PLACES = {
    "hummingbird@.service": "etc/systemd/system",
    "hummingbird-web@.service": "etc/systemd/system",
    "hummingbird.conf": "etc/sysusers.d",
}
HOMES = ("/home/", "/root/", "/run/user/")
"""What ProtectHome= hides from a service."""

NEXT = """
systemd-sysusers && systemctl daemon-reload    makes the user hummingbird, reads the units
/etc/hummingbird/NAME.yaml                     is the topology of the service hummingbird@NAME
systemctl enable --now hummingbird@NAME        starts it, now and with the machine
systemctl enable --now hummingbird-web@NAME    page and metrics on http://127.0.0.1:9464/"""


def program() -> Path:
    """The command `hummingbird` of this installation."""
    return Path(sys.executable).parent / "hummingbird"


def text(name: str, command: Path) -> str:
    """A file of PLACES that starts this command."""
    return (DEPLOY / name).read_text(encoding="utf-8").replace("@HUMMINGBIRD@", str(command))


def show(console: Console) -> int:
    """Print them."""
    for name, folder in PLACES.items():
        console.out(f"# ---- /{folder}/{name}\n{text(name, program())}", highlight=False)
    return 0


def install(console: Console, root: Path = Path("/")) -> int:
    """Write them below a directory, and say what comes next.

    Raises:
        UserError: a service could not start the program, or a file cannot be written.
    """
    command = program()
    check_place(command)
    for name, folder in PLACES.items():
        path = root / folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text(name, command), encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"cannot be written: {error.strerror}",
                path=path,
                fix=f"sudo {command} unit --install",
            ) from None
        console.out(f"wrote {path}", highlight=False)
    console.out(NEXT, highlight=False)
    return 0


def check_place(command: Path) -> None:
    """UserError if a service would not see the program."""
    for path in (command, Path(sys.executable).resolve()):
        if str(path).startswith(HOMES):
            raise UserError(
                f"{path} lies in a home directory, which a service does not see",
                fix="in the folder of the source: /usr/bin/python3 -m venv /opt/hummingbird && "
                "/opt/hummingbird/bin/pip install ., then /opt/hummingbird/bin/hummingbird unit "
                "--install",
            )
