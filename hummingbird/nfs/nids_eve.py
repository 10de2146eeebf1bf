# SPDX-License-Identifier: BSD-3-Clause
"""Alerts as EVE JSON lines, Suricata's format."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from hummingbird.dataplane._native import ffi, lib
from hummingbird.nfs.snort_model import Rule

# Names, texts and priorities of classification.config, as Snort and Suricata have them.
CLASSES: Mapping[str, tuple[str, int]] = {
    "not-suspicious": ("Not Suspicious Traffic", 3),
    "unknown": ("Unknown Traffic", 3),
    "bad-unknown": ("Potentially Bad Traffic", 2),
    "attempted-recon": ("Attempted Information Leak", 2),
    "successful-recon-limited": ("Information Leak", 2),
    "successful-recon-largescale": ("Large Scale Information Leak", 2),
    "attempted-dos": ("Attempted Denial of Service", 2),
    "successful-dos": ("Denial of Service", 2),
    "attempted-user": ("Attempted User Privilege Gain", 1),
    "unsuccessful-user": ("Unsuccessful User Privilege Gain", 1),
    "successful-user": ("Successful User Privilege Gain", 1),
    "attempted-admin": ("Attempted Administrator Privilege Gain", 1),
    "successful-admin": ("Successful Administrator Privilege Gain", 1),
    "rpc-portmap-decode": ("Decode of an RPC Query", 2),
    "shellcode-detect": ("Executable code was detected", 1),
    "string-detect": ("A suspicious string was detected", 3),
    "suspicious-filename-detect": ("A suspicious filename was detected", 2),
    "suspicious-login": ("An attempted login using a suspicious username was detected", 2),
    "system-call-detect": ("A system call was detected", 2),
    "tcp-connection": ("A TCP connection was detected", 4),
    "trojan-activity": ("A Network Trojan was detected", 1),
    "unusual-client-port-connection": ("A client was using an unusual port", 2),
    "network-scan": ("Detection of a Network Scan", 3),
    "denial-of-service": ("Detection of a Denial of Service Attack", 2),
    "non-standard-protocol": ("Detection of a non-standard protocol or event", 2),
    "protocol-command-decode": ("Generic Protocol Command Decode", 3),
    "web-application-activity": ("access to a potentially vulnerable web application", 2),
    "web-application-attack": ("Web Application Attack", 1),
    "misc-activity": ("Misc activity", 3),
    "misc-attack": ("Misc Attack", 2),
    "icmp-event": ("Generic ICMP event", 3),
    "inappropriate-content": ("Inappropriate Content was Detected", 1),
    "policy-violation": ("Potential Corporate Privacy Violation", 1),
    "default-login-attempt": ("Attempt to login by a default username and password", 2),
    "sdf": ("Sensitive Data was Transmitted Across the Network", 2),
    "file-format": ("Known malicious file or file based exploit", 1),
    "malware-cnc": ("Known malware command and control traffic", 1),
    "client-side-exploit": ("Known client side exploit attempt", 1),
    "targeted-activity": ("Targeted Malicious Activity was Detected", 1),
    "exploit-kit": ("Exploit Kit Activity Detected", 1),
    "external-ip-check": ("Device Retrieving External IP Address Detected", 2),
    "domain-c2": ("Domain Observed Used for C2 Detected", 1),
    "pup-activity": ("Possibly Unwanted Program Detected", 2),
    "credential-theft": ("Successful Credential Theft Detected", 1),
    "social-engineering": ("Possible Social Engineering Attempted", 2),
    "coin-mining": ("Crypto Currency Mining Activity Detected", 2),
    "command-and-control": ("Malware Command and Control Activity Detected", 1),
}
NO_CLASS = ("", 3)

PROTOCOLS = {
    1: "ICMP", 2: "IGMP", 6: "TCP", 17: "UDP", 41: "IPv6", 47: "GRE", 50: "ESP", 51: "AH",
    58: "IPv6-ICMP", 89: "OSPFIGP", 103: "PIM", 132: "SCTP",
}  # fmt: skip


@dataclass(frozen=True)
class Alert:
    """One alert, as hb_nids_alert says it."""

    time_ns: int
    flow_id: int
    serial: int
    rule: int
    src: bytes
    dst: bytes
    src_port: int
    dst_port: int
    protocol: int
    blocked: bool
    flow: int
    in_port: int
    version: int
    has_ports: bool

    @classmethod
    def of(cls, alert: Any) -> Alert:
        """From the data plane's."""
        return cls(
            alert.time_ns,
            alert.flow_id,
            alert.serial,
            alert.rule,
            bytes(ffi.buffer(alert.src)),
            bytes(ffi.buffer(alert.dst)),
            alert.src_port,
            alert.dst_port,
            alert.protocol,
            bool(alert.blocked),
            alert.flow,
            alert.in_port,
            alert.version,
            bool(alert.has_ports),
        )


class EveWriter:
    """Turns alerts into lines."""

    def __init__(self, rules: Sequence[Rule], nodes: Sequence[str] = ()) -> None:
        """
        Args:
            rules: by number.
            nodes: names of the ports by node, if they are known.
        """
        self._rules = rules
        self._nodes = nodes
        self._said = [_alert_object(rule) for rule in rules]

    def lines(self, alerts: Iterable[Alert]) -> str:
        """A line for each alert."""
        return "".join(json.dumps(self.event(alert)) + "\n" for alert in alerts)

    def event(self, alert: Alert) -> dict[str, Any]:
        """One alert."""
        event: dict[str, Any] = {
            "timestamp": timestamp(alert.time_ns),
            "flow_id": alert.flow_id,
        }
        if alert.in_port < len(self._nodes):
            event["in_iface"] = self._nodes[alert.in_port]
        event |= {
            "pcap_cnt": alert.serial,
            "event_type": "alert",
            "src_ip": _address(alert.src, alert.version),
            **({"src_port": alert.src_port} if alert.has_ports else {}),
            "dest_ip": _address(alert.dst, alert.version),
            **({"dest_port": alert.dst_port} if alert.has_ports else {}),
            "proto": PROTOCOLS.get(alert.protocol, f"{alert.protocol:03d}"),
            "ip_v": alert.version,
            "pkt_src": "wire/pcap",
        }
        if alert.protocol in (1, 58):
            event |= {"icmp_type": alert.src_port, "icmp_code": alert.dst_port}
        action = "blocked" if alert.blocked else "allowed"
        event["alert"] = {"action": action, **self._said[alert.rule]}
        for flag, name in (
            (lib.HB_NIDS_FLOW_TO_SERVER, "to_server"),
            (lib.HB_NIDS_FLOW_TO_CLIENT, "to_client"),
        ):
            if alert.flow & flag:
                event["direction"] = name
        return event

    def stats(self, counters: Mapping[str, int], suppressed: Sequence[int]) -> str:
        """The last line: what was not written."""
        now = datetime.now(timezone.utc).timestamp()
        event = {
            "timestamp": timestamp(int(now * 1e9)),
            "event_type": "stats",
            "stats": {
                "detect": {
                    "alert": counters["alerts"] - counters["surplus"],
                    "alert_queue_overflow": counters["surplus"],
                    "alerts_lost": counters["lost"],
                    "alerts_suppressed": counters["suppressed"],
                    "suppressed": [
                        {"gid": rule.gid, "signature_id": rule.sid, "count": count}
                        for rule, count in zip(self._rules, suppressed, strict=True)
                        if count
                    ],
                }
            },
        }
        return json.dumps(event) + "\n"


def timestamp(ns: int) -> str:
    """As Suricata writes it, in UTC."""
    seconds, rest = divmod(ns, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest // 1000:06d}+0000"


def _address(address: bytes, version: int) -> str:
    if version == 4:
        return str(ipaddress.IPv4Address(address[12:]))
    return ipaddress.IPv6Address(address).exploded


def _alert_object(rule: Rule) -> dict[str, Any]:
    """What is the same in all alerts of a rule."""
    category, severity = CLASSES.get(rule.classtype, NO_CLASS)
    said: dict[str, Any] = {
        "gid": rule.gid,
        "signature_id": rule.sid,
        "rev": rule.rev,
        "signature": rule.msg,
        "category": category,
        "severity": severity if rule.priority is None else rule.priority,
    }
    metadata: dict[str, list[str]] = {}
    for entry in rule.metadata:
        name, _, value = entry.partition(" ")
        if name and value:
            metadata.setdefault(name, []).append(value)
    return said | ({"metadata": metadata} if metadata else {})
