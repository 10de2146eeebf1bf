# SPDX-License-Identifier: BSD-3-Clause
"""generator: makes packets of so many flows, sizes and protocols, the same ones for the same seed.

    gen0: {driver: generator, packets: 1M, size: {64: 7, 594: 4, 1514: 1}, flows: 1000, rate: 100k}

``packets`` is how many in all (0: for ever). ``size`` is frame bytes without the FCS, one size or
several with their weights. Without ``rate`` (packets per second) it makes all that the chain takes.

    syn0: {driver: generator, protocols: tcp, tcp_flags: syn, flows: 10M}    # a SYN flood
    gen0: {driver: generator, flows: 65536, zipf: 1.1}                       # few flows have most
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from hummingbird.dataplane.plane import Dataplane
from hummingbird.ports import Count, Port, PortParams, Rate, Whole, mistake

PROTOCOLS = {"tcp": 6, "udp": 17, "icmp": 1}
TCP_FLAGS = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32}
MOST_FLOWS = 1 << 28
MOST_DRAWN = 1 << 22
"""Flows with ``zipf``: it has a table of them."""
STEEPEST = 3.0

FrameSize = Annotated[int, Field(strict=True, ge=60, le=1514)]
Weight = Annotated[int, Field(strict=True, ge=1, le=65535)]


def _as_mix(value: Any) -> Any:
    return {value: 1} if isinstance(value, int) else value


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class GeneratorParams(PortParams):
    """What to make; every field has a default."""

    packets: Count = 0
    """To make in all; 0: for ever."""
    size: Annotated[
        dict[FrameSize, Weight], BeforeValidator(_as_mix), Field(min_length=1, max_length=8)
    ] = {64: 1}
    """Frame bytes without FCS: one size, or several with their weights, such as ``{64: 7, 1514:
    1}``."""
    flows: Annotated[Count, Field(ge=1, le=MOST_FLOWS)] = 1
    """Distinct 5-tuples."""
    zipf: Annotated[float, Field(strict=True, ge=0, le=STEEPEST)] = 0.0
    """0: the flows are taken in turn. Else each packet's is drawn, flow i (from 1) with a
    probability ~ i^-zipf."""
    rate: Rate | None = None
    """Packets per second; left out: as many as the chain takes."""
    protocols: Annotated[
        tuple[Literal["tcp", "udp", "icmp"], ...],
        BeforeValidator(_as_list),
        Field(min_length=1, max_length=4),
    ] = ("udp",)
    """The flows take them in turn."""
    tcp_flags: Annotated[
        tuple[Literal["fin", "syn", "rst", "psh", "ack", "urg"], ...], BeforeValidator(_as_list)
    ] = ("ack",)
    """Of every TCP packet; ``syn`` with many flows is a SYN flood."""
    src: IPv4Address = IPv4Address("198.18.0.1")
    """Of flow 0; the low 16 bits vary with the flow."""
    dst: IPv4Address = IPv4Address("198.19.0.1")
    """Destination of all flows."""
    dst_port: Annotated[Whole, Field(ge=0, le=65535)] = 9
    """Destination port of all flows."""
    seed: Annotated[Whole, Field(ge=0, lt=1 << 64)] = 1
    """The same seed makes the same packets in the same order."""

    @model_validator(mode="after")
    def _fits(self) -> GeneratorParams:
        if self.zipf and self.flows > MOST_DRAWN:
            raise mistake(
                f"{self.flows} flows are too many to draw from",
                f"take {MOST_DRAWN} flows at most, or leave zipf out",
            )
        return self

    @property
    def ingress(self) -> bool:
        return True

    @property
    def protocol_numbers(self) -> tuple[int, ...]:
        """IP protocol numbers of ``protocols``."""
        return tuple(PROTOCOLS[name] for name in self.protocols)

    @property
    def flag_bits(self) -> int:
        """``tcp_flags`` as they stand in a packet."""
        return sum(TCP_FLAGS[name] for name in set(self.tcp_flags))

    def __str__(self) -> str:
        many = f"{self.packets:,} packets" if self.packets else "packets for ever"
        return f"makes {many} of {'/'.join(map(str, self.size))} bytes"


def attach(plane: Dataplane, lcores: Sequence[int], params: GeneratorParams) -> int:
    """Add it to a data plane."""
    return plane.add_generator(
        lcores[0],
        params.size,
        params.protocol_numbers,
        packets=params.packets,
        rate=params.rate or 0.0,
        flows=params.flows,
        zipf=params.zipf,
        src=int(params.src),
        dst=int(params.dst),
        dst_port=params.dst_port,
        tcp_flags=params.flag_bits,
        seed=params.seed,
    )


PORT = Port(name="generator", params=GeneratorParams, attach=attach)
