# SPDX-License-Identifier: BSD-3-Clause
"""`hummingbird web`: a process of its own, so that nothing a client does reaches the data plane."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress

from rich.console import Console

from hummingbird.telemetry.attach import running_instances, the_only_one
from hummingbird.telemetry.view import View
from hummingbird.web.listen import Address, address_of, is_loopback, listen
from hummingbird.web.report import render
from hummingbird.web.server import Server
from hummingbird.web.source import Source

NICE = 10
"""Lcores go first where there are not enough CPUs."""


def serve(name: str | None, address: Address, console: Console) -> int:
    """Until SIGINT or SIGTERM.

    Args:
        name: of the instance; None: the only one that runs.
        address: where to listen.
        console: where to say what happens.

    Returns:
        0.

    Raises:
        UserError: nobody can listen there.
    """
    listeners = listen(address)
    os.nice(NICE)

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    where = [address_of(one) for one in listeners]
    say(f"page, status and metrics: {', '.join(f'http://{one}/' for one in where)}")
    if not all(map(is_loopback, where)):
        say(
            "warning: whoever reaches this address can read there, without a password; "
            "nobody can change anything"
        )
    if name is None and len(running_instances()) > 1:
        the_only_one()  # which is meant?
    allowed = os.sched_getaffinity(0)
    source = Source(name, say=say, found=lambda view: _keep_off(view, allowed))
    source.look()
    try:
        asyncio.run(_serve(Server(source, render(None).encode(), listeners)))
    finally:
        source.close()
        for one in listeners:
            one.close()
    return 0


def _keep_off(view: View, allowed: set[int]) -> None:
    """Leave lcores the CPUs that they are pinned to, if there are others."""
    with suppress(OSError):  # those others have been taken away meanwhile
        os.sched_setaffinity(0, allowed - set(view.cpus) or allowed)


async def _serve(server: Server) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(ValueError, RuntimeError):  # not in the main thread
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await server.run(stop)
