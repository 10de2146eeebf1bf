# SPDX-License-Identifier: BSD-3-Clause
"""The command line: one file per subcommand, which parses arguments and calls what does it."""

from __future__ import annotations

import argparse
import errno
import io
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from hummingbird import __version__
from hummingbird.cli import (
    bench,
    capture,
    check,
    clean,
    ctl,
    devices,
    doctor,
    explain,
    flows,
    nf,
    run,
    top,
    trace,
    unit,
    web,
)
from hummingbird.errors import UserError

USER_ERROR = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells have it
BROKEN_PIPE = 141  # 128 + SIGPIPE

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
"""What a write to standard output may end with."""

DESCRIPTION = """\
Runs chains of network functions (NFs) over the CPU cores and the GPU of this machine.
A topology (YAML) says which ports and NFs there are; a route policy (CSV) says which way each
type of packet goes."""

EPILOG = """\
example:
  hummingbird check policies/branch_gateway.yaml
  hummingbird run policies/branch_gateway.yaml --in policies/demo/branch.pcap --out out.pcap

'hummingbird COMMAND --help' tells about one command."""


def parser() -> argparse.ArgumentParser:
    """The parser of all subcommands; each leaves its function in ``main``."""
    whole = argparse.ArgumentParser(
        prog="hummingbird",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    whole.add_argument("--version", action="version", version=f"hummingbird {__version__}")
    subparsers = whole.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (
        run,
        check,
        doctor,
        explain,
        top,
        flows,
        trace,
        capture,
        ctl,
        web,
        devices,
        nf,
        bench,
        clean,
        unit,
    ):
        command.add_parser(subparsers)
    return whole


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line, ``sys.argv`` by default; returns the exit status."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 (it was closed)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may be any bytes
    logging.basicConfig(format="hummingbird: %(levelname)s: %(message)s")
    try:
        return _run(argv)
    except UserError as error:
        return _refuse(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our output has seen enough, such as `head`
        _print_no_more()
        return BROKEN_PIPE
    except OSError as error:
        if error.errno not in NO_ROOM or error.filename is not None:
            raise
        _print_no_more()
        what = f"standard output cannot be written: {error.strerror}"
        return _refuse(UserError(what, fix="make room where it goes, or send it elsewhere"))


def _refuse(error: UserError) -> int:
    with suppress(OSError):  # nobody can be told
        print(f"hummingbird: error: {error}", file=sys.stderr)
    return USER_ERROR


def _print_no_more() -> None:
    """What is not written yet goes nowhere, now and at the end of the process."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(argv: Sequence[str] | None) -> int:
    try:
        args = parser().parse_args(argv)
        status: int = args.main(args)
        return status
    finally:
        sys.stdout.flush()
