# SPDX-License-Identifier: BSD-3-Clause
"""ipsec: what it sends, others decrypt to the very packet that went in; what others send, it does.

packet ── ipsec ── ESP ─┬─ scapy's SecurityAssociation ─┐
                        └─ cryptography, hmac           ┴─ packet
packet ── scapy, a capture, vectors ── ESP ── ipsec ────── packet
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterator
from pathlib import Path

import nf_helpers as nf
import numpy as np
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from ipsec_helpers import (
    BYPASS,
    DECAPSULATE,
    DST,
    ENCAPSULATE,
    HEAD,
    SPI,
    SRC,
    SUITES,
    TAIL,
    arg,
    opened,
    region,
    reverse,
    sa,
    scapy_sa,
    sealed,
)
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.layers.ipsec import ESP
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import checksum, rdpcap

from hummingbird.nfs import ipsec_table
from hummingbird.nfs.ipsec_table import Sa, make_table

IPV4_TYPE, IPV6_TYPE = b"\x08\x00", b"\x86\xdd"
TABLE_HEADER = Path(__file__).parent.parent / "cl_kernels" / "nf" / "ipsec_table.h"
suites = pytest.mark.parametrize("cipher, auth", SUITES)


def by_cryptography(of: Sa, esp: bytes) -> tuple[bytes, bytes, int]:
    """The payload, the padding and the next header of SPI ... ICV."""
    if of.cipher.endswith("gcm"):
        plain = AESGCM(of.key[:-4]).decrypt(of.key[-4:] + esp[8:16], esp[16:], esp[:8])
    else:
        digest, size = {
            "hmac-sha1-96": (hashlib.sha1, 12),
            "hmac-sha2-256-128": (hashlib.sha256, 16),
        }[of.auth]
        assert esp[-size:] == hmac.digest(of.auth_key, esp[:-size], digest)[:size]
        plain = esp[8:-size]
        if of.cipher != "null":
            cipher = Cipher(algorithms.AES(of.key), modes.CBC(plain[:16])).decryptor()
            plain = cipher.update(plain[16:]) + cipher.finalize()
    end = len(plain) - 2 - plain[-2]
    return plain[:end], plain[end:-2], plain[-1]


def test_the_layout_is_that_of_the_header() -> None:
    """Python's record and ipsec_table.h name the same words."""
    defined = {
        name: int(value)
        for name, value in re.findall(r"#define HB_(\w+) (\d+)u", TABLE_HEADER.read_text())
    }
    assert ipsec_table.LOCAL_BYTES == defined["AES_BYTES"] == 4 * defined["SA_COUNT"]
    assert defined["SA_FIRST"] == ipsec_table.HEAD_BYTES
    assert ipsec_table.SA.itemsize == defined["SA_BYTES"]
    words = "SPI SRC DST PORTS SALT IV_SALT INNER OUTER HASH_KEY KEY IV_KEY"
    for name in words.split():
        assert ipsec_table.SA.fields is not None
        assert ipsec_table.SA.fields[name.lower()][1] == 4 * defined[f"SA_{name}"], name


# ---- against other implementations: out ----------------------------------------------------------


@suites
@pytest.mark.parametrize("version", [4, 6])
def test_every_size_comes_out_of_the_tunnel_as_it_went_in(
    cipher: str, auth: str, version: int
) -> None:
    """Inner packets of 20 (IPv6: 40) to 1,500 bytes, through cryptography: each size for the two
    suites that everybody uses, each residue modulo a block for the others."""
    rng = np.random.default_rng(4303)
    out = sa(cipher, auth)
    head, make = (20, nf.ipv4) if version == 4 else (40, nf.ipv6)
    common = (cipher, auth) in {("aes-128-cbc", "hmac-sha1-96"), ("aes-128-gcm", "none")}
    sizes = range(head, 1501, 1 if common else 13)
    inner = [make(rng.bytes(size - head), 59, rng) for size in sizes]
    packets = [nf.ETHERNET + (IPV4_TYPE if version == 4 else IPV6_TYPE) + ip for ip in inner]
    align = 16 if cipher.endswith("cbc") else 4
    answers = sealed(out, packets)
    for sequence, (ip, answer) in enumerate(zip(inner, answers, strict=True), 1):
        assert answer.verdict == nf.PASS
        assert answer.result == arg(ENCAPSULATE, sequence)
        assert answer.data[:14] == nf.ETHERNET + IPV4_TYPE
        outer = IP(answer.data[14:34])
        assert (outer.src, outer.dst, outer.proto, outer.ttl) == (SRC, DST, 50, 64)
        assert (outer.len, outer.ihl, outer.id) == (len(answer.data) - 14, 5, sequence & 0xFFFF)
        assert checksum(answer.data[14:34]) == 0
        esp = answer.data[34:]
        assert esp[:8] == SPI.to_bytes(4, "big") + sequence.to_bytes(4, "big")
        data, padding, next_header = by_cryptography(out, esp)
        assert data == ip
        assert padding == bytes(range(1, len(padding) + 1)) and len(padding) < align
        assert next_header == {4: 4, 6: 41}[version]
    back = opened(reverse(out), [answer.data for answer in answers])
    assert [answer.data for answer in back] == packets
    assert [answer.result for answer in back] == [
        arg(DECAPSULATE, sequence) for sequence in range(1, len(packets) + 1)
    ]


@suites
def test_random_keys(cipher: str, auth: str) -> None:
    """Key expansion, the HMAC's states and GHASH hold for any key, many SAs in one table."""
    rng = np.random.default_rng(3602)
    packet = nf.ETHERNET + IPV4_TYPE + nf.ipv4(rng.bytes(90), 17, rng)
    sizes = (ipsec_table.CIPHERS[cipher], ipsec_table.AUTHS[auth])
    many = [
        sa(cipher, auth, key=rng.bytes(sizes[0]), auth_key=rng.bytes(sizes[1]), spi=256 + i)
        for i in range(200)
    ]
    out = [arg(ENCAPSULATE, 7 + i, i) for i in range(len(many))]
    answers = nf.run(region(many), [packet] * len(many), out, HEAD, TAIL)
    for one, answer in zip(many, answers, strict=True):
        assert by_cryptography(one, answer.data[34:])[0] == packet[14:]
    back = nf.run(
        region([reverse(one) for one in many]),
        [answer.data for answer in answers],
        [arg(DECAPSULATE, 0, i) for i in range(len(many))],
    )
    assert {answer.data for answer in back} == {packet}


@pytest.mark.parametrize("size", [0, 1, 19, 20, 32, 63, 64, 65, 131])
@pytest.mark.parametrize("auth", ["hmac-sha1-96", "hmac-sha2-256-128"])
def test_authentication_keys_of_any_length(auth: str, size: int) -> None:
    rng = np.random.default_rng(2104)
    out = sa("null", auth, auth_key=rng.bytes(size))
    packet = nf.ETHERNET + IPV4_TYPE + nf.ipv4(b"", 17, rng)
    [answer] = sealed(out, [packet])
    assert by_cryptography(out, answer.data[34:])[0] == packet[14:]


# ---- against other implementations: both ways ----------------------------------------------------


def plain_packets(version: int) -> Iterator[Ether]:
    """Packets with headers that transport mode has to respect."""
    payload = Raw(bytes(range(200)))
    if version == 4:
        yield Ether() / IP(src="10.0.0.1", dst="10.0.0.2", tos=0xB8) / UDP() / payload
        yield Ether() / IP(src="10.0.0.1", dst="10.0.0.2", options=b"\x94\4\0\0") / TCP() / payload
        yield Ether() / IP(src="10.0.0.1", dst="10.0.0.2", flags="DF", ttl=3) / UDP()
    else:
        yield Ether() / IPv6(src="fd00::1", dst="fd00::2", tc=0xB8, fl=99) / UDP() / payload
        yield (
            Ether()
            / IPv6(src="fd00::1", dst="fd00::2")
            / IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0" * 4)])
            / IPv6ExtHdrRouting(addresses=["fd00::3"], segleft=0)
            / TCP()
            / payload
        )


@suites
@pytest.mark.parametrize("udp", [None, (4500, 4501)], ids=["", "udp"])
@pytest.mark.parametrize("mode", ["tunnel", "transport"])
@pytest.mark.parametrize("version", [4, 6])
def test_scapy_both_ways(
    cipher: str, auth: str, udp: tuple[int, int] | None, mode: str, version: int
) -> None:
    """ipsec -> scapy and scapy -> ipsec, for each suite, mode and form."""
    if udp and mode == "transport" and version == 6:
        pytest.skip("scapy puts no UDP under IPv6 in transport mode")
    out = sa(cipher, auth, udp=udp, **({} if mode == "tunnel" else {"tunnel": None}))
    other = scapy_sa(out)
    layer = IP if version == 4 else IPv6
    for sequence, packet in enumerate(plain_packets(version), 1):
        plain = bytes(packet)
        [answer] = sealed(out, [plain], sequence)
        assert answer.verdict == nf.PASS
        by_us = IP if mode == "tunnel" else layer
        assert bytes(other.decrypt(by_us(answer.data[14:]))) == plain[14:]

        from_them = other.encrypt(layer(plain[14:]), seq_num=sequence)
        ethertype = IPV4_TYPE if mode == "tunnel" or version == 4 else IPV6_TYPE
        [answer] = opened(reverse(out), [nf.ETHERNET + ethertype + bytes(from_them)])
        assert answer.verdict == nf.PASS, answer.reason
        assert answer.result == arg(DECAPSULATE, sequence)
        assert answer.data[14:] == plain[14:]
        assert answer.data[12:14] == plain[12:14]


# ---- vectors -------------------------------------------------------------------------------------


def with_iv(of: Sa, iv: bytes, sequence: int, packet: bytes) -> nf.Answer:
    """Encapsulate with a given IV: change the round key that is added last when IVs are made."""
    table = make_table([of])
    last = table.data[ipsec_table.HEAD_BYTES :].view(ipsec_table.SA)[0]["iv_key"][10]
    for wanted in (None, iv):
        args = [arg(ENCAPSULATE, sequence)]
        [answer] = nf.run(nf.region(4, table), [packet], args, HEAD + 1, TAIL)
        if wanted is None:
            at = answer.data.index(of.spi.to_bytes(4, "big") + sequence.to_bytes(4, "big")) + 8
            last ^= np.frombuffer(answer.data[at : at + 16], np.uint8) ^ np.frombuffer(iv, np.uint8)
    return answer


def nist_vectors(name: str) -> Iterator[tuple[bytes, bytes, bytes, bytes]]:
    """Key, IV, plaintext, ciphertext of each."""
    found: dict[str, bytes] = {}
    for line in nf.real_data(f"vectors/{name}").read_text().splitlines():
        field, equals, value = line.partition(" = ")
        if equals and field != "COUNT":
            found[field] = bytes.fromhex(value)
        if not line and "CIPHERTEXT" in found:
            yield found["KEY"], found["IV"], found["PLAINTEXT"], found["CIPHERTEXT"]
            found = {}


@pytest.mark.parametrize("name", ["CBCGFSbox128", "CBCMMT128", "CBCMMT192", "CBCMMT256"])
def test_nist_vectors(name: str) -> None:
    """Out, the payload of a transport packet; in, what the frame holds behind decryption."""
    tried = 0
    for key, iv, plaintext, ciphertext in nist_vectors(f"{name}.rsp"):
        of = sa(f"aes-{8 * len(key)}-cbc", "none", tunnel=None, key=key)
        packet = bytes(Ether() / IP(proto=253) / Raw(plaintext))
        [answer] = [with_iv(of, iv, 5, packet)]
        assert answer.data[42:58] == iv
        assert answer.data[58 : 58 + len(ciphertext)] == ciphertext

        esp = of.spi.to_bytes(4, "big") + bytes(4) + iv + ciphertext
        frames, work = nf.frames_of([bytes(Ether() / IP(proto=50) / Raw(esp))])
        args = np.array([arg(DECAPSULATE)], np.uint64)
        nf.run_raw(region(reverse(of)), frames, work, args)
        at = nf.START + 58
        assert frames[0, at : at + len(plaintext)].tobytes() == plaintext
        tried += 1
    assert tried >= 10


def test_rfc3602_case_5() -> None:
    """RFC 3602 section 4, case 5, transport mode: the same packet out, and in again."""
    case = json.loads(nf.real_data("vectors/rfc3602_esp_case5.json").read_text())
    esp, plaintext = bytes.fromhex(case["esp"]), bytes.fromhex(case["plaintext"])
    key = bytes.fromhex(case["key"])
    of = sa(auth="none", tunnel=None, key=key, spi=int.from_bytes(esp[:4], "big"))
    theirs = nf.ETHERNET + IPV4_TYPE + bytes.fromhex(case["ip_header"]) + esp
    [back] = opened(reverse(of), [theirs])
    assert back.data[34:] == plaintext
    assert back.data[23] == case["next_header"]
    assert checksum(back.data[14:34]) == 0
    ours = with_iv(of, esp[8:24], int.from_bytes(esp[4:8], "big"), back.data)
    assert ours.data == theirs


def test_rfc3602_case_7() -> None:
    """RFC 3602 section 4, case 7, a tunnel: the same bytes from SPI to ciphertext."""
    inner = bytes.fromhex(
        "45000054 09040000 4001f988 c0a87b03 c0a87bc8 08009f76 a90a0100 b49c083d 02a20400 08090a0b"
        "0c0d0e0f 10111213 14151617 18191a1b 1c1d1e1f 20212223 24252627 28292a2b 2c2d2e2f 30313233"
        "34353637"
    )
    esp = bytes.fromhex(
        "00008765 00000002 f4e76524 4f6407ad f13dc138 0f673f37 773b5241 a4c44922 5e4f3ce5 ed611b0c"
        "237ca96c f74a9301 3c1b0ea1 a0cf70f8 e4ecaec7 8ac53aad 7a0f022b 859243c6 47752e94 a859352b"
        "8a4d4d2d ecd136e5 c177f132 ad3fbfb2 201ac990 4c74ee0a 109e0ca1 e4dfe9d5 a100b842 f1c22f0d"
    )
    of = sa(auth="none", key=bytes.fromhex("0123456789abcdef0123456789abcdef"), spi=0x8765)
    answer = with_iv(of, esp[8:24], 2, nf.ETHERNET + IPV4_TYPE + inner)
    assert answer.data[34:] == esp
    assert opened(reverse(of), [answer.data])[0].data[14:] == inner


@pytest.mark.parametrize(
    "file, auth, digest",
    [
        ("rfc-2202-sha1.txt", "hmac-sha1-96", "SHA-1"),
        ("rfc-4231-sha256.txt", "hmac-sha2-256-128", "SHA-256"),
    ],
)
def test_hmac_vectors(file: str, auth: str, digest: str) -> None:
    """Those whose message can be an ESP packet: the right code is accepted, a wrong one is not."""
    text = nf.real_data(f"vectors/{file}").read_text()
    tried = 0
    for length, key, message, code in re.findall(
        r"Len = (\d+)\s+Key = (\w+)\s+Msg = (\w+)\s+MD = (\w+)", re.sub("#.*", "", text)
    ):
        esp = bytes.fromhex(message)[: int(length) // 8]
        if len(esp) % 4 or len(esp) < 12:
            continue
        spi = int.from_bytes(esp[:4], "big")
        of = sa("null", auth, outbound=False, auth_key=bytes.fromhex(key), spi=spi)
        icv = bytes.fromhex(code)[: 12 if auth == "hmac-sha1-96" else 16]
        wrong = icv[:-1] + bytes([icv[-1] ^ 1])
        packets = [bytes(Ether() / IP(proto=50) / Raw(esp + end)) for end in (icv, wrong)]
        right, bad = opened(of, packets)
        assert right.reason == "esp_malformed"  # it is no padding, but the ICV was right
        assert bad.reason == "bad_icv"
        tried += 1
    assert tried >= 2


# ---- a capture of another implementation ---------------------------------------------------------


def captured() -> Iterator[tuple[Sa, bytes, bytes]]:
    """The SA, the packet with its Ethernet header, and from SPI to ICV."""
    folder = nf.real_data("traces/esp")
    for described in json.loads((folder / "keys.json").read_text()):
        for packet in rdpcap(str(folder / described["file"])):
            for of in described["sas"]:
                if ESP in packet and packet[ESP].spi == int(of["spi"], 16):
                    yield (
                        sa(
                            key=bytes.fromhex(of["key"]),
                            auth_key=bytes.fromhex(of["auth_key"]),
                            spi=packet[ESP].spi,
                        ),
                        bytes(packet),
                        bytes(packet[IP])[20 : packet[IP].len],
                    )


def test_captures_decapsulate_to_the_inner_packet() -> None:
    checked = 0
    for of, packet, esp in captured():
        [answer] = opened(reverse(of), [packet])
        assert answer.verdict == nf.PASS, answer.reason
        assert answer.data[14:] == by_cryptography(of, esp)[0]
        assert answer.data[:14] == packet[:14]
        inner = IP(answer.data[14:])
        assert inner.proto == 1 and checksum(bytes(inner)[:20]) == 0
        again = with_iv(of, esp[8:24], int.from_bytes(esp[4:8], "big"), answer.data)
        assert again.data[34:] == esp
        checked += 1
    assert checked == 6


# ---- the outer header ----------------------------------------------------------------------------


def test_dscp_ecn_and_df_are_inherited() -> None:
    """RFC 4301 section 5.1.2, RFC 6040 section 4.1; from IPv6 the tunnel may fragment."""
    every = range(256)
    packets = [bytes(Ether() / IP(tos=tos, flags="DF" if tos & 1 else 0)) for tos in every]
    packets += [bytes(Ether() / IPv6(tc=tc)) for tc in every]
    for i, answer in enumerate(sealed(sa(), packets)):
        outer = IP(answer.data[14:34])
        assert outer.tos == i % 256
        assert outer.flags == ("DF" if i < 256 and i & 1 else 0)


NOT_ECT, ECT1, ECT0, CE = range(4)
# RFC 6040, figure 4: what the packet carries on; rows: inside, columns: outside.
LEAVES = {
    NOT_ECT: {NOT_ECT: NOT_ECT, ECT0: NOT_ECT, ECT1: NOT_ECT, CE: None},
    ECT0: {NOT_ECT: ECT0, ECT0: ECT0, ECT1: ECT1, CE: CE},
    ECT1: {NOT_ECT: ECT1, ECT0: ECT1, ECT1: ECT1, CE: CE},
    CE: {NOT_ECT: CE, ECT0: CE, ECT1: CE, CE: CE},
}


@pytest.mark.parametrize("inside", range(4))
@pytest.mark.parametrize("version", [4, 6])
def test_congestion_marks_leave_the_tunnel(version: int, inside: int) -> None:
    """All of RFC 6040's figure 4. DSCP stays what it was inside (RFC 4301 section 5.1.2)."""
    inner = IP(tos=0x48 | inside) if version == 4 else IPv6(tc=0x48 | inside, fl=0x12345)
    [answer] = sealed(sa(), [bytes(Ether() / inner / UDP())])
    for outside in range(4):
        outer = IP(answer.data[14:])
        outer.tos = 0xFC | outside
        del outer.chksum
        [back] = opened(reverse(sa()), [answer.data[:14] + bytes(outer)])
        leaves = LEAVES[inside][outside]
        if leaves is None:
            assert back.reason == "bad_ecn"
            assert back.result == arg(DECAPSULATE, 1)  # its ICV was right
            continue
        expected = inner.copy()
        if version == 4:
            expected.tos = 0x48 | leaves
        else:
            expected.tc = 0x48 | leaves
        assert back.data[14:] == bytes(expected / UDP())


def test_every_outer_checksum_is_right() -> None:
    """The identification, from the sequence number, takes the sum through all its carries."""
    answers = sealed(sa("null"), [nf.ETHERNET + IPV4_TYPE + bytes(IP())] * 0x10000)
    assert all(checksum(answer.data[14:34]) == 0 for answer in answers)
    assert {answer.data[18:20] for answer in answers} == {
        i.to_bytes(2, "big") for i in range(0x10000)
    }


def test_tags_stay_and_ethernet_padding_goes() -> None:
    rng = np.random.default_rng(8021)
    ip = nf.ipv4(b"", 17, rng)
    tags = b"\x88\xa8\x00\x05\x81\x00\x00\x06"
    packets = [
        nf.ETHERNET + IPV4_TYPE + ip + bytes(26),
        nf.ETHERNET + tags + IPV4_TYPE + ip + bytes(18),
        nf.ETHERNET + tags + IPV6_TYPE + nf.ipv6(b"", 59, rng),
    ]
    plain, tagged, six = sealed(sa(), packets)
    assert by_cryptography(sa(), plain.data[34:])[0] == ip
    assert tagged.data[:22] == nf.ETHERNET + tags + IPV4_TYPE
    assert by_cryptography(sa(), tagged.data[42:])[0] == ip
    assert six.data[:22] == nf.ETHERNET + tags + IPV4_TYPE
    back = opened(reverse(sa()), [answer.data + bytes(9) for answer in (plain, tagged, six)])
    assert [answer.data for answer in back] == [
        packets[0][:34],
        packets[1][:42],
        packets[2],
    ]


def test_without_an_ethernet_header() -> None:
    """A packet that starts with its IP header leaves as one that starts with the outer one."""
    ip = bytes(IP(dst="203.0.113.1") / UDP())
    frames, work = nf.frames_of([ip])
    work["l3"], work["l4"] = 0, 20
    args = np.array([arg(ENCAPSULATE, 1)], np.uint64)
    [answer] = nf.answers(frames, nf.run_raw(region(sa()), frames, work, args))
    assert by_cryptography(sa(), answer.data[20:])[0] == ip


# ---- drops ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reason, what, packet",
    [
        ("not_ip", "ARP", nf.ETHERNET + b"\x08\x06" + bytes(28)),
        ("not_ip", "version 5", nf.ETHERNET + IPV4_TYPE + b"\x50" + bytes(30)),
        ("malformed", "one byte short", nf.ETHERNET + IPV4_TYPE + bytes(IP() / UDP())[:-1]),
        ("malformed", "16-byte header", nf.ETHERNET + IPV4_TYPE + b"\x44" + bytes(IP())[1:]),
        ("malformed", "IPv6 cut", bytes(Ether() / IPv6() / UDP())[:-1]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_it_drops(reason: str, what: str, packet: bytes) -> None:
    for answers in (sealed(sa(), [packet]), opened(reverse(sa()), [packet])):
        assert answers[0].reason == reason
        assert answers[0].data == packet


@pytest.mark.parametrize("version", [4, 6])
def test_fragments(version: int) -> None:
    """A tunnel takes them; transport mode must not (RFC 4303 section 3.1.1); decapsulation needs
    them reassembled (section 3.4.1)."""
    first = IP(flags="MF") / Raw(bytes(64)) if version == 4 else IPv6() / IPv6ExtHdrFragment(m=1)
    later = IP(frag=8) / Raw(bytes(64)) if version == 4 else IPv6() / IPv6ExtHdrFragment(offset=8)
    packets = [bytes(Ether() / fragment) for fragment in (first, later)]
    assert {answer.reason for answer in sealed(sa(), packets)} == {None}
    transport = sa(tunnel=None)
    assert {answer.reason for answer in sealed(transport, packets)} == {"esp_fragment"}
    assert {answer.reason for answer in opened(reverse(sa()), packets)} == {"esp_fragment"}


@suites
def test_any_changed_bit_is_noticed(cipher: str, auth: str) -> None:
    """From SPI to the ICV's last bit; a dropped packet is as it came."""
    out = sa(cipher, auth)
    [answer] = sealed(out, [bytes(Ether() / IP() / UDP() / Raw(b"x" * 33))])
    good, packets = answer.data, []
    for bit in range(8 * 34, 8 * len(good)):
        changed = bytearray(good)
        changed[bit // 8] ^= 1 << bit % 8
        packets.append(bytes(changed))
    for i, (packet, back) in enumerate(zip(packets, opened(reverse(out), packets), strict=True)):
        assert back.reason == ("esp_malformed" if i < 32 else "bad_icv")  # 32: another SPI
        assert back.data == packet
        assert back.result == 0
    if cipher.endswith("gcm"):  # that cryptography sees it the same way
        with pytest.raises(InvalidTag):
            by_cryptography(out, packets[100][34:])


def by_hand(of: Sa, plain: bytes) -> bytes:
    """An ESP packet that holds these bytes as padding, trailer and all."""
    iv = bytes(range(16))
    cipher = Cipher(algorithms.AES(of.key), modes.CBC(iv)).encryptor()
    esp = of.spi.to_bytes(4, "big") + (9).to_bytes(4, "big") + iv + cipher.update(plain)
    esp += hmac.digest(of.auth_key, esp, hashlib.sha1)[:12]
    return bytes(Ether() / IP(proto=50) / Raw(esp))


INNER = bytes(IP(src="10.1.1.1", dst="10.2.2.2") / UDP() / Raw(b"abcd"))  # 32 bytes


@pytest.mark.parametrize(
    "reason, what, plain",
    [
        (None, "right", INNER + bytes([*range(1, 15), 14, 4])),
        (None, "traffic flow padding", INNER + bytes(100) + bytes([*range(1, 11), 10, 4])),
        (None, "a lot of padding", INNER + bytes([*range(1, 255), 254, 4])),
        ("esp_malformed", "padding not 1, 2, 3", INNER + bytes(13) + bytes([14, 14, 4])),
        ("esp_malformed", "more padding than packet", bytes([*range(14), 15, 4])),
        ("esp_malformed", "only padding", bytes([*range(1, 15), 14, 4])),
        ("esp_malformed", "IPv4 called IPv6", INNER + bytes([*range(1, 15), 14, 41])),
        ("esp_malformed", "TCP in a tunnel", INNER + bytes([*range(1, 15), 14, 6])),
        ("esp_malformed", "inner packet cut", INNER[:-1] + bytes([*range(1, 16), 15, 4])),
        ("esp_dummy", "dummy", INNER + bytes([*range(1, 15), 14, 59])),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_inside(reason: str | None, what: str, plain: bytes) -> None:
    """Behind a right ICV: padding, next header, and the inner packet itself."""
    [answer] = opened(reverse(sa()), [by_hand(sa(), plain)])
    assert answer.reason == reason
    assert answer.result == arg(DECAPSULATE, 9)
    if reason is None:
        assert answer.data[14:] == INNER


@pytest.mark.parametrize("udp", [None, (4500, 4500)], ids=["", "udp"])
@suites
def test_every_length_of_nonsense(cipher: str, auth: str, udp: tuple[int, int] | None) -> None:
    """ESP packets cut at every byte, the headers in front of them right."""
    of = sa(cipher, auth, udp=udp)
    [answer] = sealed(of, [bytes(Ether() / IP() / UDP() / Raw(b"x" * 80))])
    packets = []
    for size in range(0, len(answer.data) - 34):
        ip = IP(answer.data[14:34]) / Raw(answer.data[34 : 34 + size])
        del ip.len, ip.chksum
        packets.append(bytes(Ether() / ip))
    reasons = {back.reason for back in opened(reverse(of), packets)}
    assert reasons <= {"esp_malformed", "bad_icv"}


def test_no_room_in_the_frame_is_a_drop() -> None:
    """44 bytes in front and up to 29 behind, exactly."""
    rng = np.random.default_rng(44)
    for size in range(20, 40):
        packet = nf.ETHERNET + IPV4_TYPE + nf.ipv4(bytes(size - 20), 17, rng)
        needed = (-(size + 2)) % 16 + 2 + 12
        for head, tail, fits in [(44, needed, True), (43, needed, False), (44, needed - 1, False)]:
            [answer] = nf.run(region(sa()), [packet], [arg(ENCAPSULATE, 1)], head, tail)
            assert answer.reason == (None if fits else "no_room")


@suites
def test_it_never_takes_more_room_than_it_declares(cipher: str, auth: str) -> None:
    out = sa(cipher, auth, udp=(4500, 4500))
    packets = [bytes(Ether() / IP() / Raw(bytes(size))) for size in range(16)]
    answers = sealed(out, packets)
    assert {answer.reason for answer in answers} == {None}


def test_bypass_drop_and_nonsense_arguments() -> None:
    """What prepare() says is done, whatever it says."""
    packet = bytes(Ether() / IP() / UDP())
    bypassed, dropped, no_sa, nothing = nf.run(
        region(sa()), [packet] * 4, [arg(BYPASS), arg(0, 3), arg(ENCAPSULATE, 1, 1), arg(77)]
    )
    assert (bypassed.verdict, bypassed.data, bypassed.result) == (nf.PASS, packet, arg(BYPASS))
    assert dropped.reason == nf.REASONS[3]
    assert no_sa.reason == "policy"
    assert nothing.verdict == 0  # counted as bad_result


@pytest.mark.parametrize("mode", ["tunnel", "transport"])
@suites
def test_no_packet_is_too_strange(cipher: str, auth: str, mode: str) -> None:
    """Damaged packets get a verdict, both ways; what is sent opens to what was there."""
    rng = np.random.default_rng(4301)
    out = sa(cipher, auth, **({} if mode == "tunnel" else {"tunnel": None}))
    packets = [nf.some_packet(rng) for _ in range(1_000)]
    answers = sealed(out, packets)
    assert {answer.verdict for answer in answers} == {nf.PASS, nf.DROP}
    assert {answer.verdict for answer in opened(reverse(out), packets)} == {nf.DROP}
    sent = [
        (packet, answer.data)
        for packet, answer in zip(packets, answers, strict=True)
        if answer.verdict == nf.PASS
    ]
    for (packet, _), back in zip(sent, opened(reverse(out), [esp for _, esp in sent]), strict=True):
        if back.verdict == nf.PASS:
            l3, _ = nf.offsets(packet)
            assert packet[l3 + 12 :].startswith(back.data[l3 + 12 :])
        else:
            assert back.reason in {"esp_malformed", "esp_dummy", "bad_ecn"}


# ---- initialisation vectors ----------------------------------------------------------------------


def test_initialisation_vectors_never_repeat() -> None:
    """Not within a run, and not after a restart, even if sequence numbers start again."""
    packet = bytes(Ether() / IP())
    seen = set()
    for secret in (bytes(16), bytes(15) + b"\1"):
        of = sa()
        of = Sa(**{**of.__dict__, "secret": secret})
        seen |= {answer.data[42:58] for answer in sealed(of, [packet] * 1_000)}
    assert len(seen) == 2_000


def test_the_iv_of_gcm_is_the_sequence_number() -> None:
    [answer] = sealed(sa("aes-128-gcm", "none"), [bytes(Ether() / IP())], 0x12345678)
    assert answer.data[42:50] == (0x12345678).to_bytes(8, "big")


def test_keys_are_never_shown() -> None:
    shown = repr(sa())
    assert repr(sa().key)[2:-1] not in shown and sa().key.hex() not in shown
    assert "secret" not in shown and "auth_key" not in shown
