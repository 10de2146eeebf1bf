# SPDX-License-Identifier: BSD-3-Clause
"""pcap: a capture file that packets come from or go to.

    in0:  {driver: pcap, read: $in, loop: 10, pace: original}
    out0: {driver: pcap, write: $out}

``loop`` is how often the capture is played (0: for ever). ``pace`` is ``fast`` (as fast as the
chain takes it, nothing is lost) or ``original`` (with the capture's own gaps); ``rate`` asks for
packets per second instead. Only a file that is read has a pace.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import model_validator

from hummingbird.dataplane.plane import Dataplane
from hummingbird.errors import UserError
from hummingbird.ports import Count, InputFile, OutputFile, Port, PortParams, Rate, mistake

READ_FIX = "name a pcap or pcapng file with Ethernet, raw IP or Linux SLL packets"
WRITE_FIX = "name a file that can be made or replaced"


class PcapParams(PortParams):
    """Exactly one of ``read`` and ``write``."""

    read: InputFile | None = None
    """The capture to play; ``$in`` is ``--in`` of the command line. Either this or ``write``."""
    write: OutputFile | None = None
    """The capture to write; ``$out`` is ``--out``. None of the other fields goes with it."""
    loop: Count = 1
    """Times the capture is played; 0: for ever."""
    pace: Literal["fast", "original"] = "fast"
    """``fast``: as fast as the chain takes it, losing nothing; ``original``: with its own gaps."""
    rate: Rate | None = None
    """Packets per second, instead of ``pace``."""

    @model_validator(mode="after")
    def _fits_together(self) -> PcapParams:
        if (self.read is None) == (self.write is None):
            raise mistake("a pcap port has either read or write", "write one: 'read: FILE'")
        timing = self.model_fields_set & {"loop", "pace", "rate"}
        if self.write is not None and timing:
            raise mistake(f"a written capture has no {min(timing)}", f"remove '{min(timing)}'")
        if self.rate is not None and "pace" in self.model_fields_set:
            raise mistake("pace and rate contradict each other", "remove one of the two")
        return self

    @property
    def ingress(self) -> bool:
        return self.read is not None

    @property
    def egress(self) -> bool:
        return self.write is not None

    def reads(self) -> list[Path]:
        return [] if self.read is None else [self.read]

    def writes(self) -> list[Path]:
        return [] if self.write is None else [self.write]

    def __str__(self) -> str:
        return f"reads {self.read}" if self.read else f"writes {self.write}"


def attach(plane: Dataplane, lcores: Sequence[int], params: PcapParams) -> int:
    """Add it to a data plane: opens the file.

    Raises:
        UserError: it is no capture, of no known link type, or cannot be opened.
    """
    try:
        if params.read is not None:
            loops, pace, rate = params.loop, params.pace, params.rate
            return plane.add_pcap_input(lcores[0], str(params.read), loops, pace, rate)
        return plane.add_pcap_output(lcores[0], str(params.write))
    except UserError as error:
        raise UserError(error.what, fix=READ_FIX if params.read else WRITE_FIX) from None


PORT = Port(name="pcap", params=PcapParams, attach=attach)
