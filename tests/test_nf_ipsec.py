# SPDX-License-Identifier: BSD-3-Clause
"""ipsec: what it sends, cryptography and scapy decrypt to the very packet that went in.

inner packet ── ipsec ── ESP ─┬─ scapy's SecurityAssociation ─┐
                              └─ cryptography: HMAC, AES-CBC ─┴─ inner packet
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path

import nf_helpers as nf
import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.ipsec import ESP, SecurityAssociation
from scapy.layers.l2 import Ether
from scapy.utils import checksum, rdpcap

from hummingbird.errors import UserError
from hummingbird.nfs import BuildContext, load
from hummingbird.nfs.ipsec import IpsecParams, Keys, build, make_table, read_keys

DEMO = Path(__file__).parent.parent / "policies" / "demo"
IPV4_TYPE = b"\x08\x00"
SPI = 0x1F2E3D4C
SRC, DST = "192.0.2.9", "192.0.2.1"
KEYS = Keys(bytes(range(1, 17)), bytes(range(101, 121)))
IV_ROUND_KEY = 60 + 40  # word of the table: the last round key of the key that makes IVs


def params(spi: int = SPI, src: str = SRC, dst: str = DST, key_file: str = "sa.key") -> IpsecParams:
    tunnel = {"src": src, "dst": dst}
    return IpsecParams.model_validate({"spi": spi, "tunnel": tunnel, "key_file": key_file})


def table(keys: Keys = KEYS, random: bytes = bytes(16)) -> nf.Array:
    return make_table(params(), keys, random)


def encapsulated(packets: Sequence[bytes], args: Sequence[int] | None = None) -> list[nf.Answer]:
    args = args or range(1, len(packets) + 1)
    return nf.run(nf.region(4, table()), packets, args, head=44, tail=29)


def opened(esp: bytes, keys: Keys = KEYS) -> tuple[bytes, bytes, int]:
    """By cryptography: the inner packet, the padding and the next header of SPI ... ICV."""
    icv = hmac.digest(keys.authentication, esp[:-12], hashlib.sha1)[:12]
    assert esp[-12:] == icv
    cipher = Cipher(algorithms.AES(keys.encryption), modes.CBC(esp[8:24])).decryptor()
    plain = cipher.update(esp[24:-12]) + cipher.finalize()
    end = len(plain) - 2 - plain[-2]
    return plain[:end], plain[end:-2], plain[-1]


# ---- against other implementations ---------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 6])
def test_every_size_comes_out_of_the_tunnel_as_it_went_in(version: int) -> None:
    """Inner packets of 20 (IPv6: 40) to 1,500 bytes, through cryptography and through scapy."""
    rng = np.random.default_rng(4303)
    if version == 4:
        sizes = range(20, 1501)
        inner = [nf.ipv4(rng.bytes(size - 20), 17, rng) for size in sizes]
        packets = [nf.ETHERNET + IPV4_TYPE + ip for ip in inner]
    else:
        sizes = range(40, 1501)
        inner = [nf.ipv6(rng.bytes(size - 40), 59, rng) for size in sizes]
        packets = [nf.ETHERNET + b"\x86\xdd" + ip for ip in inner]
    sa = SecurityAssociation(
        ESP,
        spi=SPI,
        crypt_algo="AES-CBC",
        crypt_key=KEYS.encryption,
        auth_algo="HMAC-SHA1-96",
        auth_key=KEYS.authentication,
        tunnel_header=IP(src=SRC, dst=DST),
    )
    for sequence, (ip, answer) in enumerate(zip(inner, encapsulated(packets), strict=True), 1):
        assert answer.verdict == nf.PASS
        assert answer.data[:14] == nf.ETHERNET + IPV4_TYPE
        outer = IP(answer.data[14:])
        assert (outer.src, outer.dst, outer.proto, outer.ttl) == (SRC, DST, 50, 64)
        assert (outer.len, outer.ihl, outer.id) == (len(answer.data) - 14, 5, sequence & 0xFFFF)
        assert checksum(answer.data[14:34]) == 0
        esp = answer.data[34:]
        assert esp[:8] == SPI.to_bytes(4, "big") + sequence.to_bytes(4, "big")
        data, padding, next_header = opened(esp)
        assert data == ip
        assert padding == bytes(range(1, len(padding) + 1)) and len(padding) < 16
        assert next_header == {4: 4, 6: 41}[version]
        assert bytes(sa.decrypt(outer)) == ip


def test_random_keys() -> None:
    """Key expansion and the HMAC's precomputed states hold for any key."""
    rng = np.random.default_rng(3602)
    inner = nf.ipv4(rng.bytes(80), 17, rng)
    for sequence in range(1, 200):
        keys = Keys(rng.bytes(16), rng.bytes(20))
        region = nf.region(4, table(keys, rng.bytes(16)))
        [answer] = nf.run(region, [nf.ETHERNET + IPV4_TYPE + inner], [sequence])
        assert opened(answer.data[34:], keys)[0] == inner


def with_iv(sa: IpsecParams, keys: Keys, iv: bytes, sequence: int, packet: bytes) -> nf.Answer:
    """Encapsulate with a given IV: change the round key that is added last when IVs are made."""
    words = make_table(sa, keys, bytes(16)).view(np.uint32)
    [answer] = nf.run(nf.region(4, words.view(np.uint8)), [packet], [sequence])
    for i in range(4):
        made, wanted = answer.data[42 + 4 * i : 46 + 4 * i], iv[4 * i : 4 * i + 4]
        words[IV_ROUND_KEY + i] ^= int.from_bytes(made, "big") ^ int.from_bytes(wanted, "big")
    [answer] = nf.run(nf.region(4, words.view(np.uint8)), [packet], [sequence])
    return answer


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
    keys = Keys(bytes.fromhex("0123456789abcdef0123456789abcdef"), KEYS.authentication)
    sa = params(0x8765, "192.168.123.3", "192.168.123.200")
    answer = with_iv(sa, keys, esp[8:24], 2, nf.ETHERNET + IPV4_TYPE + inner)
    assert answer.data[34:-12] == esp


def test_a_capture_of_another_implementation_byte_for_byte() -> None:
    """What some host sent, decrypted and encapsulated again with its number and IV, is the same."""
    folder = nf.real_data("traces/esp")
    [described] = [
        e for e in json.loads((folder / "keys.json").read_text()) if "tunnel" in e["mode"]
    ]
    compared = 0
    for packet in rdpcap(str(folder / described["file"])):
        for sa in described["sas"]:
            if packet[ESP].spi != int(sa["spi"], 16):
                continue
            keys = Keys(bytes.fromhex(sa["key"]), bytes.fromhex(sa["auth_key"]))
            esp = bytes(packet[IP])[20 : packet[IP].len]
            inner, _, _ = opened(esp, keys)
            answer = with_iv(
                params(packet[ESP].spi, sa["src"], sa["dst"]),
                keys,
                esp[8:24],
                packet[ESP].seq,
                nf.ETHERNET + IPV4_TYPE + inner,
            )
            assert answer.data[34:] == esp
            compared += 1
    assert compared == 6


# ---- the outer header ----------------------------------------------------------------------------


def test_dscp_ecn_and_df_are_inherited() -> None:
    """RFC 4301 section 5.1.2, RFC 6040 section 4.1; from IPv6 the tunnel may fragment."""
    every = range(256)
    packets = [bytes(Ether() / IP(tos=tos, flags="DF" if tos & 1 else 0)) for tos in every]
    packets += [bytes(Ether() / IPv6(tc=tc)) for tc in every]
    answers = encapsulated(packets)
    for i, answer in enumerate(answers):
        outer = IP(answer.data[14:])
        assert outer.tos == i % 256
        assert outer.flags == ("DF" if i < 256 and i & 1 else 0)


def test_every_outer_checksum_is_right() -> None:
    """The identification, from the sequence number, takes the sum through all its carries."""
    answers = encapsulated([nf.ETHERNET + IPV4_TYPE + bytes(IP())] * 0x10000)
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
        nf.ETHERNET + tags + b"\x86\xdd" + nf.ipv6(b"", 59, rng),
    ]
    plain, tagged, six = encapsulated(packets)
    assert opened(plain.data[34:])[0] == ip
    assert tagged.data[:22] == nf.ETHERNET + tags + IPV4_TYPE
    assert opened(tagged.data[42:])[0] == ip
    assert six.data[:22] == nf.ETHERNET + tags + IPV4_TYPE
    assert opened(six.data[42:])[0] == packets[2][22:]


def test_without_an_ethernet_header() -> None:
    """A packet that starts with its IP header leaves as one that starts with the outer one."""
    ip = bytes(IP(dst="203.0.113.1") / UDP())
    frames, work = nf.frames_of([ip])
    work["l3"], work["l4"] = 0, 20
    done = nf.run_raw(nf.region(4, table()), frames, work, np.ones(1, np.uint64))
    [answer] = nf.answers(frames, done)
    assert opened(answer.data[20:])[0] == ip


# ---- drops ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reason, what, packet",
    [
        ("not_ip", "ARP", nf.ETHERNET + b"\x08\x06" + bytes(28)),
        ("not_ip", "version 5", nf.ETHERNET + IPV4_TYPE + b"\x50" + bytes(30)),
        ("malformed", "one byte short", nf.ETHERNET + IPV4_TYPE + bytes(IP() / UDP())[:-1]),
        ("malformed", "16-byte header", nf.ETHERNET + IPV4_TYPE + b"\x44" + bytes(IP())[1:]),
        ("malformed", "IPv6 cut", nf.ETHERNET + b"\x86\xdd" + bytes(IPv6() / ICMP())[:-1]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_it_drops(reason: str, what: str, packet: bytes) -> None:
    [answer] = encapsulated([packet])
    assert answer.reason == reason
    assert answer.data == packet


def test_no_room_in_the_frame_is_a_drop() -> None:
    """44 bytes in front and up to 29 behind, exactly."""
    rng = np.random.default_rng(44)
    region = nf.region(4, table())
    for size in range(20, 40):
        packet = nf.ETHERNET + IPV4_TYPE + nf.ipv4(bytes(size - 20), 17, rng)
        needed = (-(size + 2)) % 16 + 2 + 12
        for head, tail, fits in [(44, needed, True), (43, needed, False), (44, needed - 1, False)]:
            [answer] = nf.run(region, [packet], [1], head, tail)
            assert answer.reason == (None if fits else "no_room")


def test_no_packet_is_too_strange() -> None:
    """Damaged packets get a verdict; what is sent opens to what was there."""
    rng = np.random.default_rng(4301)
    packets = [nf.some_packet(rng) for _ in range(3_000)]
    verdicts = set()
    for packet, answer in zip(packets, encapsulated(packets), strict=True):
        verdicts.add(answer.verdict)
        if answer.verdict == nf.PASS:
            l3, _ = nf.offsets(packet)
            inner, _, _ = opened(answer.data[l3 + 20 :])
            assert packet[l3:].startswith(inner)
    assert verdicts == {nf.PASS, nf.DROP}


# ---- sequence numbers and initialisation vectors -------------------------------------------------


def test_initialisation_vectors_never_repeat(tmp_path: Path) -> None:
    """Not within a run, and not after a restart, when sequence numbers start at 1 again."""
    write_keys(tmp_path)
    packet = bytes(Ether() / IP())
    seen = set()
    for _ in range(2):
        region = nf.region(4, build(params(), BuildContext("ipsec0", tmp_path, {})).data)
        answers = nf.run(region, [packet] * 1_000, range(1, 1_001))
        seen |= {answer.data[42:58] for answer in answers}
    assert len(seen) == 2_000


# ---- the key file --------------------------------------------------------------------------------

SECRET = "00112233445566778899aabbccddeeff"
LONGER = SECRET + "01234567"


def write_keys(
    folder: Path, text: str = f"encryption: {SECRET}\nauthentication: {LONGER}\n"
) -> Path:
    path = folder / "sa.key"
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_a_key_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = f"# mine\nauthentication: {LONGER.upper()} # 20 bytes\n\n encryption : {SECRET}\n"
    keys = read_keys(write_keys(tmp_path, text))
    assert (keys.encryption.hex(), keys.authentication.hex()) == (SECRET, LONGER)
    assert SECRET not in repr(keys)
    assert caplog.text == ""


@pytest.mark.parametrize(
    "line, text",
    [
        (1, f"encryption: {SECRET[:-1]}\n"),
        (1, f"encryption: {SECRET}0\n"),
        (1, f"encryption: {SECRET[:-1]}x\n"),
        (2, f"encryption: {SECRET}\nauthentication: {SECRET}\n"),
        (2, f"encryption: {SECRET}\nencryption: {SECRET}\n"),
        (1, f"{SECRET}\n"),
        (1, f"{SECRET}: encryption\n"),
        (None, f"encryption: {SECRET}\n"),
        (None, ""),
    ],
)
def test_errors_name_the_line_and_never_show_a_key(
    tmp_path: Path, line: int | None, text: str
) -> None:
    path = write_keys(tmp_path, text)
    with pytest.raises(UserError) as error:
        read_keys(path)
    assert str(error.value).startswith(f"{path}:{line}: " if line else f"{path}: ")
    assert SECRET[:8] not in str(error.value)
    assert error.value.__cause__ is None


def test_keys_that_others_may_read_are_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_keys(tmp_path)
    path.chmod(0o640)
    with caplog.at_level(logging.WARNING):
        read_keys(path)
    assert f"others may read the keys in {path}" in caplog.text
    assert SECRET not in caplog.text


def test_a_missing_key_file_comes_with_the_command_that_makes_one(tmp_path: Path) -> None:
    path = tmp_path / "sa.key"
    with pytest.raises(UserError, match="there is no key file") as error:
        read_keys(path)
    assert error.value.path == path
    assert error.value.fix
    subprocess.run(["sh", "-c", error.value.fix], check=True)
    keys = read_keys(path)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert len(set(keys.encryption + keys.authentication)) > 10


def test_demo_keys() -> None:
    build(params(key_file="ipsec.key"), BuildContext("ipsec0", DEMO, {}))


@pytest.mark.parametrize("spi", [0, 255, 2**32])
def test_reserved_spis_are_refused(spi: int) -> None:
    with pytest.raises(ValueError, match="spi"):
        params(spi)


def test_declared_growth_is_what_it_takes() -> None:
    """The most: a packet that just misses a block's end, as test_no_room checks for all others."""
    declared = load("ipsec")
    packet = nf.ETHERNET + IPV4_TYPE + bytes(IP(len=31) / bytes(11))
    [answer] = nf.run(nf.region(4, table()), [packet], [1], declared.head, declared.tail)
    assert len(answer.data) == len(packet) + declared.head + declared.tail
