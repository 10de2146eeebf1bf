# SPDX-License-Identifier: BSD-3-Clause
"""`hummingbird ctl`: asks a running instance over its control socket and prints the answer."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TextIO

from hummingbird.control import Json
from hummingbird.control_client import Reply
from hummingbird.errors import UserError
from hummingbird.telemetry.rundir import is_running
from hummingbird.telemetry.summary import drops_text

DONE, NOT_ALL = 0, 1
END_S = 30.0
"""An instance that was asked to stop has ended after this long."""
LOOK_S = 0.02


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    command: str
    name: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Of the request."""
    json: bool = False


def ask(options: Options, out: TextIO = sys.stdout) -> int:
    """Ask, and print what is answered.

    Returns:
        0; 1 if packets were still in flight when a drain ran out of time.

    Raises:
        UserError: nobody answers, or the answer is an error. What was said before it is printed.
    """
    reply = Reply(options.name, options.command, **options.fields)
    items: list[Json] = []
    try:
        for item in reply:
            items.append(item)
            if not options.json:
                print(_item(item), file=out, flush=True)
    finally:
        if options.json:
            print(json.dumps({"items": items, **reply.end} if items else reply.end), file=out)
    if not options.json:
        for line in SAY.get(options.command, _nothing)(reply):
            print(line, file=out)
    if options.command == "stop":
        _wait_end(reply.name)
    return DONE if _all_out(reply.end) else NOT_ALL


def _all_out(end: Json) -> bool:
    stopped = end.get("drained")
    if isinstance(stopped, dict):  # by a restart
        return not stopped["dropped"].get("shutdown")
    return stopped is not False


def _wait_end(name: str) -> None:
    """So that whoever starts the next one finds the name free."""
    end = time.monotonic() + END_S
    while is_running(name):
        if time.monotonic() > end:
            raise UserError(
                f"the instance {name!r} is still ending after {END_S:.0f} s",
                fix="wait, or end its process",
            )
        time.sleep(LOOK_S)


# ---- for people ----------------------------------------------------------------------------------


def _item(item: Json) -> str:
    """A change, or a command."""
    if "command" in item:
        return f"{item['command']:<10} {item['about']}"
    return str(item.get("text", json.dumps(item)))


def _nothing(reply: Reply) -> Iterator[str]:
    yield from ()


def _status(reply: Reply) -> Iterator[str]:
    end = reply.end
    rates, device = end["rates"], end["device"]
    yield (
        f"{end['name']}: {end['title']}, policy version {end['policy_version']}, "
        f"{end['state']}, up for {end['uptime_s']:.0f} s, pid {end['pid']}"
    )
    yield _totals(end["totals"])
    yield (
        f"Now: {rates['received_pps']:,.0f} packets/s in, {rates['sent_pps']:,.0f} out, "
        f"{rates['dropped_pps']:,.0f} dropped; {rates['sent_gbps']:.3f} Gbit/s out"
    )
    if device and device["name"]:
        yield f"Device: {device['name']}, {device['executor']} executor, {device['state']}"
    yield f"Bottleneck: {end['bottleneck']['why']}"


def _totals(totals: Json) -> str:
    dropped = sum(totals["dropped"].values())
    return (
        f"Packets: received {totals['received']:,} + created {totals['created']:,} = "
        f"sent {totals['sent']:,} + dropped {dropped:,} ({drops_text(totals['dropped'])}) "
        f"+ in flight {totals['in_flight']:,}"
    )


def _reload(reply: Reply) -> Iterator[str]:
    end = reply.end
    if not end["changes"]:
        yield f"nothing changed; policy version {end['version']}"
    elif end["restarted"]:
        yield "what ran before has ended; " + _totals(end["drained"])
        yield f"restarted; policy version {end['version']}"
    else:
        yield f"policy version {end['version']}"


def _drain(reply: Reply) -> Iterator[str]:
    left = reply.end["in_flight"]
    if reply.end["drained"]:
        yield "drained: inputs take nothing in, nothing is in flight (hummingbird ctl resume)"
    else:
        yield f"draining: {left:,} packets are still in flight"
    yield _totals(reply.end)


def _resume(reply: Reply) -> Iterator[str]:
    was = reply.end["was_drained"]
    yield "inputs take packets in again" if was else "it was not drained"


def _stop(reply: Reply) -> Iterator[str]:
    left = reply.end["in_flight"]
    yield "drained, and stopping" if not left else f"stopping; {left:,} packets are dropped"
    yield _totals(reply.end)


SAY: Mapping[str, Callable[[Reply], Iterator[str]]] = {
    "status": _status,
    "reload": _reload,
    "drain": _drain,
    "resume": _resume,
    "stop": _stop,
}
