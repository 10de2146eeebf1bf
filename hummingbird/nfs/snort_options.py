# SPDX-License-Identifier: BSD-3-Clause
"""Which options of Snort and Suricata rules there are.

Where Snort and Suricata mean different things, Suricata's meaning holds (docs/nids.md lists them).
"""

from __future__ import annotations

import re

from hummingbird.nfs import snort_fields as fields
from hummingbird.nfs import snort_payload as payload
from hummingbird.nfs.snort_draft import Draft
from hummingbird.nfs.snort_model import Field, Mistake, Skip
from hummingbird.textfile import quoted

MOST_STEPS = 64
MOST_CHECKS = 64


def add(draft: Draft, keyword: str, value: str | None) -> None:
    """Take in one option.

    Raises:
        Mistake: it is wrong.
        Skip: it is not implemented.
    """
    handle = _OPTIONS.get(keyword)
    if handle is None:
        raise Skip(_why_not(keyword))
    if keyword in _ONCE:
        if keyword in draft.seen:
            raise Mistake(f"a second {keyword}")
        draft.seen.add(keyword)
    if value is None and keyword not in _BARE:
        raise Mistake(f"{keyword} needs a value", f"write {keyword}:...;")
    if value is not None and keyword in _BARE - {"fast_pattern"}:
        raise Mistake(f"{keyword} takes no value", f"write {keyword};")
    handle(draft, keyword, (value or "").strip())
    if len(draft.steps) > MOST_STEPS or len(draft.checks) > MOST_CHECKS:
        raise Skip(f"more than {MOST_STEPS} options that look at the packet")


def _content(draft: Draft, keyword: str, value: str) -> None:
    for name, argument in payload.content(draft, keyword, value):
        if name in _MODIFIERS:
            add(draft, name, argument)
        elif name.startswith(("http_", "fast_pattern_")):
            raise Skip(_why_not(name))
        else:
            raise Mistake(f"{quoted(name)} is no modifier of a content")


def _nothing(draft: Draft, keyword: str, value: str) -> None:
    """Says nothing about the bytes of a packet."""


# ---- which there are -----------------------------------------------------------------------------

_POSITIONS = ("offset", "depth", "distance", "within")
_MODIFIERS = {*_POSITIONS, "nocase", "rawbytes", "fast_pattern", "startswith", "endswith"}
_BARE = {"nocase", "rawbytes", "fast_pattern", "startswith", "endswith", "sameip", "pkt_data"}
_ONCE = {"msg", "sid", "gid", "rev", "classtype", "priority", "flow"}

_OPTIONS: dict[str, fields.Handler] = {
    "content": _content,
    **dict.fromkeys(_POSITIONS, payload.position),
    "nocase": payload.nocase,
    "rawbytes": payload.rawbytes,
    "fast_pattern": payload.fast_pattern,
    "startswith": payload.startswith,
    "endswith": payload.endswith,
    "pcre": payload.pcre,
    "isdataat": payload.isdataat,
    "byte_test": payload.byte_test,
    "byte_jump": payload.byte_jump,
    "pkt_data": _nothing,
    "dsize": fields.field_of(Field.DSIZE, 65535),
    "flags": fields.flags,
    "tcp.flags": fields.flags,
    "ttl": fields.field_of(Field.TTL, 255),
    "tos": fields.field_of(Field.TOS, 255),
    "id": fields.field_of(Field.IP_ID, 65535),
    "ip_proto": fields.ip_proto,
    "fragbits": fields.fragbits,
    "itype": fields.field_of(Field.ICMP_TYPE, 255),
    "icode": fields.field_of(Field.ICMP_CODE, 255),
    "icmp_id": fields.field_of(Field.ICMP_ID, 65535),
    "icmp_seq": fields.field_of(Field.ICMP_SEQ, 65535),
    "seq": fields.field_of(Field.TCP_SEQ, 0xFFFFFFFF),
    "ack": fields.field_of(Field.TCP_ACK, 0xFFFFFFFF),
    "window": fields.field_of(Field.TCP_WINDOW, 65535),
    "sameip": fields.sameip,
    "flow": fields.flow,
    "msg": fields.msg,
    "sid": fields.id_up_to(0xFFFFFFFF),
    "gid": fields.id_up_to(0xFFFFFFFF),
    "rev": fields.id_up_to(0xFFFFFFFF),
    "priority": fields.id_up_to(255),
    "classtype": fields.word,
    "reference": fields.listed,
    "metadata": fields.listed,
    "target": _nothing,
}

_APPLICATION = re.compile(
    r"(http|dns|tls|ssl|ssh|smb|smtp|ftp|sip|dce|dcerpc|krb5|snmp|rfb|mqtt|quic|ike|nfs|modbus|dnp3"
    r"|enip|cip|ja3s?|ja4|file|email|vba|js|websocket|ldap|sdp|rpc|sd|pgsql|mysql|bittorrent)"
    r"[._].*|uricontent|urilen|bufferlen|filemagic|fileext|filename|filesize|filemd5|ftpbounce"
    r"|app-layer-\w+|base64_\w+|file_data"
).fullmatch


def _why_not(keyword: str) -> str:
    if _APPLICATION(keyword):
        return f"{keyword} (needs the application layer)"
    return f"{keyword} is not implemented"
