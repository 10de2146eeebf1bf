# SPDX-License-Identifier: BSD-3-Clause
"""ipsec: sequence numbers leave in order and never twice, whatever ends a run; the replay window.

run ── kill -9 ── run ── stop ── run     one file of the association says where to go on
"""

from __future__ import annotations

import itertools
import os
import signal
import stat
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chain import Result, run_chain, started, udp
from hummingbird.dataplane._native import ffi, lib
from hypothesis import given
from hypothesis import strategies as st
from ipsec_chains import LEFT, RIGHT, TestSa, ipsec, key_files, through
from nf_helpers import ETHERNET
from process import service, write_topology
from scapy.layers.inet import IP

from hummingbird.errors import UserError
from hummingbird.nfs import ipsec_host
from hummingbird.nfs.ipsec_host import LEAST_BLOCK
from hummingbird.nfs.ipsec_state import END, LINE, SequenceFile, identity
from hummingbird.nfs.ipsec_table import Sa

SA = TestSa(0x1001)
PACKETS = [udp("10.1.0.1", "10.2.0.1", 5, 6, bytes(20)) for _ in range(100)]


def numbers(packets: Sequence[bytes]) -> list[int]:
    """ESP sequence numbers."""
    return [struct.unpack_from(">I", packet, 14 + 20 + 4)[0] for packet in packets]


def increase(found: Sequence[int]) -> bool:
    return all(a < b for a, b in itertools.pairwise(found))


def run(state: Path, packets: Sequence[bytes] = PACKETS, sa: TestSa = SA) -> Result:
    source, rows = through(ipsec({"sa": sa}))
    return run_chain(source, packets, rows, files=key_files(sa), state=state, use="none")


def the_file(state: Path) -> Path:
    (path,) = (state / "ipsec.sequences").iterdir()
    return path


# ---- runs ----------------------------------------------------------------------------------------


def test_a_run_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    """Each instance here has a name of its own. With another key it begins anew."""
    assert numbers(run(tmp_path).packets) == list(range(1, 101))
    assert numbers(run(tmp_path).packets) == list(range(101, 201))
    source, rows = through(ipsec({"renamed": SA}))
    again = run_chain(source, PACKETS, rows, files=key_files(SA), state=tmp_path, use="none")
    assert numbers(again.packets) == list(range(201, 301))
    new_key = TestSa(SA.spi, cipher="aes-256-cbc")
    assert numbers(run(tmp_path, sa=new_key).packets) == list(range(1, 101))


def test_what_is_kept_tells_nothing_of_the_keys(tmp_path: Path) -> None:
    run(tmp_path)
    path = the_file(tmp_path)
    kept = path.name + path.read_text()
    for key in (SA.keys.encryption, SA.keys.authentication):
        assert key.hex()[:8] not in kept
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def endless(folder: Path) -> dict[str, str]:
    """A topology that sends until it is killed; the environment of its runs."""
    source, rows = through(ipsec({"sa": SA}))
    source["ports"]["in0"] = {"driver": "generator", "rate": 20_000}
    source["ports"]["out0"]["write"] = "out.pcap"
    write_topology(folder, source, rows)
    for name, text in key_files(SA).items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    return {"STATE_DIRECTORY": str(folder / "state")}


def whole(path: Path) -> list[bytes]:
    """The packets of a capture whose writer was killed."""
    data, at, packets = path.read_bytes(), 24, []
    while at + 16 <= len(data):
        length = struct.unpack_from("<I", data, at + 8)[0]
        if at + 16 + length > len(data):
            break
        packets.append(data[at + 16 : at + 16 + length])
        at += 16 + length
    return packets


def test_numbers_never_repeat_over_kill_and_stop(tmp_path: Path) -> None:
    """Three runs are killed with SIGKILL in the middle, one is stopped; all numbers that any of
    them put on the wire, one behind the other, increase."""
    environment = endless(tmp_path)
    sent: list[int] = []
    out = tmp_path / "out.pcap"
    for end in (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        out.unlink(missing_ok=True)
        with service(tmp_path, "topology.yaml", "--device", "none", **environment) as process:
            process.until(lambda: out.exists() and out.stat().st_size > 300_000, "packets")
            process.process.send_signal(end)
            process.process.wait()
        found = numbers(whole(out))
        assert len(found) > 1000
        sent += found
    assert increase(sent)
    assert sent[-1] <= 4 * LEAST_BLOCK, "a kill costs one block at most"


@pytest.mark.parametrize("executor", ["none", "launch", "auto"])
def test_numbers_are_in_order_over_reloads_and_relaunches(executor: str, tmp_path: Path) -> None:
    """A kernel that leaves every 20 ms, and a policy that changes back and forth: the numbers at
    each output increase, and none is at both."""
    source, rows = through(ipsec({"sa": SA}, engine="gpu"))
    source["ports"]["in0"] = {"driver": "generator", "rate": 30_000}
    source["ports"]["out1"] = {"driver": "pcap", "write": "other.pcap"}
    settings = {"use": "none"} if executor == "none" else {"executor": executor}
    if executor == "auto":
        settings["lifetime_ms"] = 20  # type: ignore[assignment]
    with started(source, None, rows, files=key_files(SA), state=tmp_path, **settings) as r:
        for port, other in (("out0", "out1"), ("out1", "out0"), ("out0", "out1")):
            at = int(r.counters(port)["out_packets"])
            r.until(lambda p=port, n=at: r.counters(p)["out_packets"] > n + 2000, what=port)  # type: ignore[misc]
            r.reload(f"*,in0,nf0\n*,nf0,{other}\n")
        result = r.stop()
    first, second = (numbers(result.packets_of(port)) for port in ("out0", "out1"))
    assert len(first) > 2000 < len(second)
    assert increase(first) and increase(second) and not set(first) & set(second)
    assert max(first + second) <= len(first) + len(second) + sum(result.dropped.values())


def test_two_that_would_repeat_each_others_numbers_exclude_each_other(tmp_path: Path) -> None:
    source, rows = through(ipsec({"sa": SA}), ipsec({"sa": SA}))
    with pytest.raises(UserError, match=r"sends with the key of nf1's security association sa"):
        run_chain(source, PACKETS, rows, files=key_files(SA), use="none")
    source, rows = through(ipsec({"sa": SA}))
    with started(source, PACKETS, rows, files=key_files(SA), state=tmp_path) as first:
        with pytest.raises(UserError, match="another IPsec NF or instance"):
            run_chain(source, PACKETS, rows, files=key_files(SA), state=tmp_path)
        first.wait()
        first.stop()


# ---- the end of the numbers ----------------------------------------------------------------------


def test_the_last_number_is_used_and_then_it_stops(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One clear event; it does not begin anew with the next start either."""
    run(tmp_path)
    the_file(tmp_path).write_text(f"{END - 40:024d}\n")
    result = run(tmp_path)
    assert numbers(result.packets) == list(range(END - 40, END))
    assert result.dropped == {"seq_exhausted": 60}
    assert caplog.text.count("has used all its sequence numbers") == 1
    assert run(tmp_path).dropped == {"seq_exhausted": 100}


def test_a_warning_comes_long_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(tmp_path)
    the_file(tmp_path).write_text(f"{END - (END >> 5):024d}\n")
    assert run(tmp_path).dropped == {}
    assert caplog.text.count("has used 15 of 16 parts") == 1


def test_a_full_disk_stops_the_association_and_nothing_repeats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The first block was reserved, the second is not: its numbers are not used."""
    monkeypatch.setattr(ipsec_host, "LEAST_BLOCK", 64)
    reserve = SequenceFile.reserve
    left = [1]

    def full(file: SequenceFile, limit: int) -> None:
        if left[0] <= 0:
            raise OSError(28, os.strerror(28))
        left[0] -= 1
        reserve(file, limit)

    monkeypatch.setattr(SequenceFile, "reserve", full)
    result = run(tmp_path)
    assert numbers(result.packets) == list(range(1, 65))
    assert result.dropped == {"seq_unsaved": 36}
    assert "No space left on device; it stops" in caplog.text
    left[0] = 1 << 30
    assert numbers(run(tmp_path).packets)[0] == 65, "all of the block counts as used"


def test_more_numbers_are_reserved_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three quarters of a block at once, and as many two seconds later: by then there is another,
    however busy the machine and its disk are, and none is dropped for want of one."""
    monkeypatch.setattr(ipsec_host, "LEAST_BLOCK", 512)
    source, rows = through(ipsec({"sa": SA}))
    source["ports"]["in0"]["pace"] = "original"
    packets = [udp("10.1.0.1", "10.2.0.1", 1, 2)] * 768
    times = [2_000_000_000 * (number // 384) for number in range(768)]
    options: dict[str, Any] = {"files": key_files(SA), "state": tmp_path, "times": times}
    result = run_chain(source, packets, rows, **options)
    assert result.dropped == {}
    assert numbers(result.packets) == list(range(1, 769))


# ---- the file ------------------------------------------------------------------------------------


def a_file(folder: Path) -> SequenceFile:
    return SequenceFile(folder, "name", "ipsec0's security association sa")


def test_a_line_that_was_cut_does_not_count(tmp_path: Path) -> None:
    """Cut anywhere: the line before it holds, which reserved at least as much."""
    file = a_file(tmp_path)
    file.reserve(1000)
    file.reserve(2000)
    file.close()
    content = (tmp_path / "name").read_bytes()
    assert len(content) == 2 * LINE
    for size in range(len(content) + 1):
        (tmp_path / "name").write_bytes(content[:size])
        again = a_file(tmp_path)
        assert again.next == (1, 1000, 2000)[size // LINE]
        again.reserve(3000)
        again.close(2500)
        third = a_file(tmp_path)
        assert third.next == 2500
        third.close()


@pytest.mark.parametrize(
    "content", [b"x" * LINE, b"0" * 24 + b"\n", b"9" * 24 + b"\n", b"%024d\n" % 7 + b"z" * LINE]
)
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "name").write_bytes(content)
    with pytest.raises(UserError, match="damaged") as error:
        a_file(tmp_path)
    assert error.value.path == tmp_path / "name" and "new keys" in str(error.value.fix)


def test_a_directory_that_cannot_be_made_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot keep the sequence numbers"):
        a_file(tmp_path / "file" / "below")


def table_sa(spi: int, cipher: str, key: bytes) -> Sa:
    auth = "none" if cipher.endswith("gcm") else "hmac-sha1-96"
    return Sa("x", spi, True, None, cipher, key, auth, bytes(20 if auth != "none" else 0))


def test_one_gcm_key_is_one_association_whatever_its_spi() -> None:
    """Its nonces must not repeat (RFC 4106 section 10); with CBC the SPI counts, too."""
    dst, other = bytes(4), bytes([1] * 4)
    one, two = (table_sa(spi, "aes-128-gcm", bytes(20)) for spi in (256, 257))
    assert identity(one, dst) == identity(two, other)
    assert identity(one, dst) != identity(table_sa(256, "aes-128-gcm", bytes([1] * 20)), dst)
    one, two = (table_sa(spi, "aes-128-cbc", bytes(16)) for spi in (256, 257))
    assert len({identity(one, dst), identity(two, dst), identity(one, other)}) == 3


# ---- the replay window ---------------------------------------------------------------------------


def accepted(window: int, given_numbers: Sequence[int]) -> list[bool]:
    array = ffi.new("uint32_t[]", list(given_numbers))
    answer = ffi.new("uint8_t[]", len(given_numbers))
    assert lib.hb_ipsec_replay(window, array, len(given_numbers), answer) == 0
    return [bool(value) for value in answer]


def model(window: int, arriving: Sequence[int]) -> Iterator[bool]:
    """RFC 4303 section 3.4.3, with a set."""
    seen: set[int] = set()
    top = 0
    for number in arriving:
        new = number > 0 and number > top - window and number not in seen
        if new:
            seen.add(number)
            top = max(top, number)
        yield new


@st.composite
def arrivals(draw: st.DrawFn) -> list[int]:
    """Numbers that go on, jump, come late or twice; also near the end of all numbers."""
    at = draw(st.sampled_from([0, 1, 63, 64, 5000, 2**31 - 10, 2**32 - 3000]))
    steps = st.one_of(
        st.integers(-80, 80),
        st.sampled_from([-4097, -4096, -4095, -1025, -1024, -64, -63, 64, 65, 1024, 4096, 4160]),
        st.integers(-6000, 6000),
    )
    found = []
    for step in draw(st.lists(steps, min_size=1, max_size=120)):
        at = min(max(at + step, 0), 2**32 - 1)
        found.append(at)
    return found


WINDOWS = st.one_of(st.sampled_from([64, 65, 128, 1000, 1024, 4096]), st.integers(64, 4096))


@given(WINDOWS, arrivals())
def test_the_window_is_that_of_a_set(window: int, arriving: list[int]) -> None:
    assert accepted(window, arriving) == list(model(window, arriving))


@pytest.mark.parametrize("window", [64, 1024, 4096])
def test_replayed_late_and_shuffled_packets(window: int) -> None:
    """ESP by scapy with chosen numbers through the data plane: what a set accepts comes out, in
    order, once. The same packet twice within a burst is caught behind the ICV check."""
    sa = TestSa(0x2001, RIGHT, LEFT)
    rng = np.random.default_rng(window)
    base = np.arange(1, 500) + rng.integers(-2 * window, 40, 499) // 8
    chosen = [int(n) for n in base if n >= 0] + [9000, 9000, 9000 - window, 9001 - window, 8999, 0]
    scapy = sa.scapy()
    inner, packets = [], []
    for index, number in enumerate(chosen):
        ip = IP(udp("10.2.0.1", "10.1.0.1", 5, 6, index.to_bytes(4, "big"))[14:])
        scapy.seq_num = number
        inner.append(ETHERNET + b"\x08\x00" + bytes(ip))
        packets.append(ETHERNET + b"\x08\x00" + bytes(scapy.encrypt(ip, seq_num=number)))
    nf = ipsec(None, {"back": sa})
    nf["sas"]["back"]["replay_window"] = window
    source, rows = through(nf)
    result = run_chain(source, packets, rows, files=key_files(sa), use="none")
    new = list(model(window, chosen))
    assert result.packets == [p for p, fresh in zip(inner, new, strict=True) if fresh]
    assert result.dropped == {"replay": new.count(False)}
    detail = result.summary["nfs"]["nf0"]["detail"]["sas"]["back"]
    assert detail["replayed"] == new.count(False) and detail["last"] == 9000


def test_a_forged_packet_does_not_move_the_window() -> None:
    """A number far ahead with a wrong ICV: the packets behind it still come through."""
    sa = TestSa(0x2001, RIGHT, LEFT)
    ip = IP(udp("10.2.0.1", "10.1.0.1", 5, 6)[14:])
    packets = [bytes(sa.scapy().encrypt(ip, seq_num=n)) for n in (1, 100_000, 2, 3)]
    packets[1] = packets[1][:-1] + bytes([packets[1][-1] ^ 1])
    source, rows = through(ipsec(None, {"back": sa}))
    frames = [ETHERNET + b"\x08\x00" + packet for packet in packets]
    result = run_chain(source, frames, rows, files=key_files(sa), use="none")
    assert len(result.packets) == 3 and result.dropped == {"bad_icv": 1}
    assert result.summary["nfs"]["nf0"]["detail"]["sas"]["back"]["last"] == 3
