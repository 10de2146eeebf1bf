# SPDX-License-Identifier: BSD-3-Clause
"""ipsec against itself, scapy, tshark and the Linux kernel.

packets ── ipsec (out) ─┬─ ipsec (in) ────────────── the same packets
                        ├─ scapy, tshark ─────────── the same packets
                        └─ Linux in User-Mode Linux ─ pings, both ways
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from chain import capture, run_chain, tcp, udp
from ipsec_chains import ALGORITHMS, LEFT, RIGHT, TestSa, ipsec, key_files, through
from nf_helpers import ETHERNET
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from uml import MAC, Uml, needs_uml, uml

from hummingbird.dataplane.plane import cpu_engines

WAYS: dict[str, dict[str, str]] = {
    "cpu": {"use": "none"},
    "ipsec_mb": {"use": "none"},
    "launch": {"executor": "launch"},
    "persistent": {"executor": "auto"},  # unless the device is tier C
}
LINK = Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:02")


def mixed() -> list[bytes]:
    """IPv4 and IPv6, of many sizes, with and without VLAN tag."""
    packets = [udp("10.1.0.1", "10.2.0.1", 5, 6, bytes(size)) for size in range(0, 1400, 7)]
    packets += [tcp("10.1.0.1", "10.2.0.1", 5, 6, bytes(size)) for size in range(0, 1380, 31)]
    for size in range(0, 1300, 17):
        v6 = IPv6(src="2001:db8::1", dst="2001:db8::2") / UDP(sport=5, dport=6) / bytes(size)
        packets.append(bytes(LINK / v6))
    tag = b"\x81\x00\x00\x07"
    return packets + [p[:12] + tag + p[12:] for p in packets[::5]]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("cipher", "auth"), [*ALGORITHMS, ("null", "hmac-sha1-96")])
@pytest.mark.parametrize("port", [None, 4500], ids=["esp", "udp"])
def test_what_goes_in_comes_out_at_the_far_end(
    way: str, cipher: str, auth: str, port: int | None
) -> None:
    """in0 -> nf0 (out) -> nf1 (in) -> out0."""
    sa = TestSa(0x1001, cipher=cipher, auth=auth, udp=port)
    if way == "ipsec_mb" and way not in [engine.name for engine in cpu_engines(4) if engine.usable]:
        pytest.skip("NOT TESTED with ipsec_mb: apt-get install libipsec-mb-dev, then make")
    engine = way if way in ("cpu", "ipsec_mb") else "gpu"
    source, rows = through(ipsec({"sa": sa}, engine=engine), ipsec(None, {"sa": sa}, engine=engine))
    result = run_chain(source, mixed(), rows, files=key_files(sa), **WAYS[way])
    assert result.packets == mixed() and result.dropped == {}
    details = [result.summary["nfs"][nf]["detail"]["sas"]["sa"] for nf in ("nf0", "nf1")]
    assert [detail["packets"] for detail in details] == [len(mixed())] * 2
    assert [detail["last"] for detail in details] == [len(mixed())] * 2


# ---- scapy ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["tunnel", "transport"])
@pytest.mark.parametrize(("cipher", "auth"), ALGORITHMS)
@pytest.mark.parametrize("port", [None, 4500], ids=["esp", "udp"])
def test_scapy_takes_ours_and_we_take_scapys(
    mode: str, cipher: str, auth: str, port: int | None
) -> None:
    out = TestSa(0x1001, cipher=cipher, auth=auth, mode=mode, udp=port)
    back = TestSa(0x2001, RIGHT, LEFT, cipher, auth, mode, port)
    ends = (LEFT, RIGHT) if mode == "transport" else ("10.1.0.1", "10.2.0.1")
    sent = [udp(*ends, 5, 6, bytes(size)) for size in range(0, 1300, 100)]
    theirs = []
    scapy = back.scapy()
    for packet in sent:
        ip = IP(packet[14:])
        ip.src, ip.dst, ip.chksum = *reversed(ends), None
        theirs.append(IP(bytes(ip)))
    came = [ETHERNET + b"\x08\x00" + bytes(scapy.encrypt(ip)) for ip in theirs]
    source, rows = through(ipsec({"out": out}, {"back": back}))
    result = run_chain(source, sent + came, rows, files=key_files(out, back), use="none")
    ours, opened = result.packets[: len(sent)], result.packets[len(sent) :]
    assert [p[14:] for p in opened] == [bytes(ip) for ip in theirs]
    mine = out.scapy()
    assert [bytes(mine.decrypt(IP(p[14:]))[UDP]) for p in ours] == [p[34:] for p in sent]


# ---- tshark --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cipher", "auth"), ALGORITHMS)
def test_tshark_decrypts_what_we_send(cipher: str, auth: str, tmp_path: Path) -> None:
    if subprocess.run(["which", "tshark"], capture_output=True).returncode:
        pytest.skip("NOT TESTED against tshark: apt-get install tshark")
    sa = TestSa(0x1001, cipher=cipher, auth=auth)
    sent = [tcp("10.1.0.1", "10.2.0.1", 1000 + n, 443, bytes(n)) for n in range(0, 1300, 50)]
    source, rows = through(ipsec({"sa": sa}))
    result = run_chain(source, sent, rows, files=key_files(sa), use="none")
    (tmp_path / "out.pcap").write_bytes(capture(result.packets))
    words = ["tshark", "-r", str(tmp_path / "out.pcap"), "-T", "fields"]
    words += ["-o", "esp.enable_encryption_decode:TRUE", "-o", f"uat:esp_sa:{sa.uat()}"]
    if auth != "none":
        words += ["-o", "esp.enable_authentication_check:TRUE"]
    words += ["-e", "esp.sequence", "-e", "esp.icv_good", "-e", "tcp.srcport", "-e", "tcp.len"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    rows_seen = [line.split("\t") for line in done.stdout.splitlines()]
    wanted = [(str(n + 1), str(1000 + 50 * n), str(50 * n)) for n in range(len(sent))]
    assert [(row[0], row[2], row[3]) for row in rows_seen] == wanted
    if auth != "none":
        assert {row[1] for row in rows_seen} <= {"1", "True"}


# ---- Linux ---------------------------------------------------------------------------------------

OUR_MAC = "02:00:00:00:09:01"
FRAME = bytes.fromhex(MAC.replace(":", "") + OUR_MAC.replace(":", "")) + b"\x08\x00"
US, THEM = "10.9.0.1", "10.9.0.2"
PINGS = 4


class Pair:
    """A tunnel or a transport association with the kernel, both directions."""

    def __init__(self, number: int, cipher: str, auth: str, mode: str, port: int | None) -> None:
        self.mode = mode
        net = number if mode == "transport" else 0  # transport mode: addresses of its own
        us, them = f"10.9.{net}.1", f"10.9.{net}.2"
        self.out = TestSa(0x1000 + number, us, them, cipher, auth, mode, port)
        self.back = TestSa(0x2000 + number, them, us, cipher, auth, mode, port)
        tunnel = mode == "tunnel"
        self.ours, self.theirs = (
            (f"10.{n}.{number}.1" for n in (100, 200)) if tunnel else (us, them)
        )

    @property
    def names(self) -> tuple[str, str]:
        return f"out{self.out.spi}", f"in{self.back.spi}"

    def commands(self) -> list[str]:
        """What the kernel is told: the same associations, from its end."""
        found = [f"ip xfrm state add {sa.xfrm()}" for sa in (self.out, self.back)]
        found.append(f"ip addr add {self.theirs}/24 dev vec0")
        if self.mode == "tunnel":
            found.append(f"ip route add {self.ours}/32 dev vec0 src {self.theirs}")
        found.append(f"ip neigh add {self.out.src} lladdr {OUR_MAC} dev vec0 nud permanent")
        if self.mode == "tunnel":
            found[-1] = f"ip neigh add {self.ours} lladdr {OUR_MAC} dev vec0 nud permanent"
        for way, sa, src, dst in (
            ("in", self.out, self.ours, self.theirs),
            ("out", self.back, self.theirs, self.ours),
        ):
            template = f"src {sa.src} dst {sa.dst} proto esp reqid {sa.spi} mode {self.mode}"
            found.append(f"ip xfrm policy add src {src} dst {dst} dir {way} tmpl {template}")
        return found

    def policies(self) -> list[dict[str, str]]:
        """Ours."""
        out, back = self.names
        ends = {"src": self.ours, "dst": self.theirs}
        return [{**ends, "action": out}, {"src": ends["dst"], "dst": ends["src"], "action": back}]


PAIRS = [
    *(Pair(n, *names, "tunnel", None) for n, names in enumerate(ALGORITHMS, 1)),
    Pair(11, "aes-128-cbc", "hmac-sha1-96", "tunnel", 4500),
    Pair(12, "aes-128-gcm", "none", "tunnel", 4500),
    Pair(21, "aes-128-cbc", "hmac-sha1-96", "transport", None),
    Pair(22, "aes-256-gcm", "none", "transport", None),
]


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Uml]:
    needs_uml()
    folder = tmp_path_factory.mktemp("uml")
    commands = ["ip link set lo up", "ip link set vec0 up", f"ip addr add {THEM}/24 dev vec0"]
    commands.append(f"ip neigh add {US} lladdr {OUR_MAC} dev vec0 nud permanent")
    commands += [command for pair in PAIRS for command in pair.commands()]
    with uml(folder, commands, udp=[4500]) as made:
        yield made


class Gateway:
    """Ours: one NF with all associations, started anew for each batch; its state stays."""

    def __init__(self, folder: Path, engine: str) -> None:
        out = {pair.names[0]: pair.out for pair in PAIRS}
        back = {pair.names[1]: pair.back for pair in PAIRS}
        policies = [policy for pair in PAIRS for policy in pair.policies()]
        self.source, self.rows = through(ipsec(out, back, policies, engine=engine))
        self.files = key_files(*out.values(), *back.values())
        self.folder = folder
        self.packets = dict.fromkeys([*out, *back], 0)
        self.dropped: dict[str, int] = {}

    def pass_on(self, packets: Sequence[bytes]) -> list[bytes]:
        result = run_chain(
            self.source, packets, self.rows, files=self.files, state=self.folder / "state"
        )
        for name, counts in result.summary["nfs"]["nf0"]["detail"]["sas"].items():
            self.packets[name] += counts["packets"]
        for reason, count in result.dropped.items():
            self.dropped[reason] = self.dropped.get(reason, 0) + count
        return result.packets


def reply_to(packet: bytes) -> bytes:
    """To an echo request."""
    ip = IP(packet[14:])
    assert ip[ICMP].type == 8
    ip.src, ip.dst, ip[ICMP].type = ip.dst, ip.src, 0
    ip.chksum = ip[ICMP].chksum = None
    return FRAME + bytes(ip)


def echo(pair: Pair, number: int) -> bytes:
    body = bytes(range(number, number + 56))
    ip = IP(src=pair.ours, dst=pair.theirs) / ICMP(id=pair.out.spi, seq=number) / body
    return FRAME + bytes(ip)


def serve(kernel: Uml, gateway: Gateway) -> list[bytes]:
    """Answer the kernel's echo requests for a short time; what it sent, decrypted."""
    came = kernel.receive(0.05)
    clear = gateway.pass_on(came) if came else []
    requests = [packet for packet in clear if packet[34] == 8]
    if requests:
        kernel.send(gateway.pass_on([reply_to(packet) for packet in requests]))
    return clear


def pinged(kernel: Uml, gateway: Gateway, pair: Pair) -> int:
    """The kernel pings us: how many of PINGS were answered."""
    kernel.ask("ping", pair.theirs, pair.ours, PINGS)
    end = time.monotonic() + 60
    while not (answers := kernel.answer(0)):
        assert time.monotonic() < end, f"waited in vain; {gateway.dropped}"
        serve(kernel, gateway)
    return int(answers[0])


def answers_of(kernel: Uml, gateway: Gateway, pair: Pair) -> list[bytes]:
    """We ping the kernel: its answers to PINGS requests."""
    kernel.send(gateway.pass_on([echo(pair, number) for number in range(PINGS)]))
    found: list[bytes] = []
    end = time.monotonic() + 60
    while len(found) < PINGS:
        assert time.monotonic() < end, f"waited in vain; {gateway.dropped}"
        found += serve(kernel, gateway)
    return found


def xfrm_packets(kernel: Uml, sa: TestSa) -> int:
    """The kernel's own counter of an association."""
    words = ["ip", "-s", "xfrm", "state", "get", "src", sa.src, "dst", sa.dst, "proto", "esp"]
    text = kernel.run("run", *words, "spi", hex(sa.spi))
    (line,) = [line for line in text.splitlines() if "(packets)" in line and "limit" not in line]
    return int(line.split(",")[1].split("(")[0])


@pytest.mark.timeout(300)
def test_linux_pings_us_and_we_ping_linux(kernel: Uml, tmp_path: Path) -> None:
    """Every algorithm, mode and encapsulation, 4 pings each way; all counters agree."""
    gateway = Gateway(tmp_path, "auto")
    for pair in PAIRS:
        assert pinged(kernel, gateway, pair) == PINGS, (pair.names, gateway.dropped)
        answers = answers_of(kernel, gateway, pair)
        wanted = [bytes(IP(echo(pair, number)[14:])[ICMP])[4:] for number in range(PINGS)]
        assert [packet[38:] for packet in answers] == wanted
        assert {packet[34] for packet in answers} == {0}

        ours = [gateway.packets[name] for name in pair.names]
        assert ours == [2 * PINGS] * 2
        assert [xfrm_packets(kernel, sa) for sa in (pair.out, pair.back)] == ours
    assert gateway.dropped == {}
