# SPDX-License-Identifier: BSD-3-Clause
"""ipsec: ESP in tunnel and transport mode (RFC 4301, RFC 4303), both directions. Reads the keys and
has the table made that ``cl_kernels/nf/ipsec.cl`` works with; docs/ipsec.md describes the rest."""

from __future__ import annotations

import os
from collections.abc import Iterator

from hummingbird import logs
from hummingbird.errors import UserError
from hummingbird.nfs import (
    Affinity,
    BuildContext,
    HostContext,
    Nf,
    NfHost,
    NfTable,
    Reads,
    Writes,
)
from hummingbird.nfs.ipsec_config import AUTHS, CIPHERS, IpsecParams, SaParams
from hummingbird.nfs.ipsec_host import IpsecHost
from hummingbird.nfs.ipsec_keys import Keys, NoKeyFile, read_keys
from hummingbird.nfs.ipsec_table import Sa, make_table

__all__ = ["NF", "IpsecParams", "Keys", "build", "read_keys"]


def build(params: IpsecParams, context: BuildContext) -> NfTable:
    """Read the keys and lay out the table; `extra` is the security associations with their keys."""
    sas = [_sa(name, sa, context) for name, sa in params.sas.items()]
    _check_gcm_keys(sas, context)
    table = make_table(sas)
    return NfTable(
        table.data,
        notes=list(_notes(params)),
        local_off=table.local_off,
        local_bytes=table.local_bytes,
        extra=_Secret(sas),
    )


class _Secret:
    """Shows nothing of what it holds."""

    def __init__(self, sas: list[Sa]) -> None:
        self.sas = sas


def _sa(name: str, sa: SaParams, context: BuildContext) -> Sa:
    keys = _keys(name, sa, context)
    return Sa(
        name=name,
        spi=sa.spi,
        outbound=sa.outbound,
        tunnel=(sa.src, sa.dst) if sa.mode == "tunnel" else None,
        cipher=sa.cipher,
        key=keys.encryption,
        auth=sa.auth,
        auth_key=keys.authentication,
        udp=(sa.udp.src, sa.udp.dst) if sa.udp else None,
        secret=os.urandom(16),
    )


def _keys(name: str, sa: SaParams, context: BuildContext) -> Keys:
    path = context.base / sa.key_file
    try:
        return read_keys(path, CIPHERS[sa.cipher].key, AUTHS[sa.auth].key)
    except NoKeyFile as error:
        field = f"nfs.{context.name}.sas.{name}.key_file"
        raise UserError(error.what, field=field, fix=error.fix) from None


def _check_gcm_keys(sas: list[Sa], context: BuildContext) -> None:
    """Two associations with one AES-GCM key would encrypt different packets with one nonce, which
    lays both open and lets anybody forge more (RFC 4106 section 10)."""
    seen: dict[bytes, str] = {}
    for sa in sas:
        if not sa.cipher.endswith("gcm"):
            continue
        first = seen.setdefault(sa.key, sa.name)
        if first != sa.name:
            raise UserError(
                f"{first} has the same AES-GCM key: that breaks the encryption of both",
                field=f"nfs.{context.name}.sas.{sa.name}.key_file",
                fix="give each security association, each direction too, a key of its own",
            )


def _notes(params: IpsecParams) -> Iterator[str]:
    out = sum(sa.outbound for sa in params.sas.values())
    counts = f"{out} outbound, {len(params.sas) - out} inbound; policies: {len(params.policies)}"
    yield f"security associations: {counts}"
    for name, sa in params.sas.items():
        if sa.cipher == "null":
            yield f"WARNING: {name} does NOT ENCRYPT (cipher null)"


def make_host(params: IpsecParams, table: NfTable, context: HostContext) -> NfHost:
    """The host part of an instance."""
    for name, sa in params.sas.items():
        if sa.cipher == "null":
            logs.warning(
                "not_encrypted",
                f"{context.name}: {name} does not encrypt: everybody can read it",
                fix="another cipher than null, unless this is a test",
                subject=f"{context.name} {name}",
            )
    return IpsecHost(params, table.extra.sas, context)


NF = Nf(
    name="ipsec",
    kind=4,
    params=IpsecParams,
    build=build,
    content_types=IpsecParams.content_types,
    reads=Reads.PACKET,
    writes=Writes.PACKET,
    head=20 + 8 + 8 + 16,  # outer header, UDP, SPI and sequence number, IV
    tail=15 + 2 + 16,  # most padding, trailer, ICV
    affinity=Affinity.KEY,  # sequence numbers go out in order
    host=make_host,
    engines={"ipsec_mb": "apt-get install libipsec-mb-dev, then make"},
)
