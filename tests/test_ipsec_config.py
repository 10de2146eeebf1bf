# SPDX-License-Identifier: BSD-3-Clause
"""ipsec: what a topology may say, what a key file may be, and that no key is ever shown.

a mistake ── topology.load, build_tables ── one UserError: file, line, field, fix
"""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from chain import run_chain, udp
from ipsec_chains import TestSa, ipsec, key_files, through
from process import run, write_topology

from hummingbird import topology
from hummingbird.errors import UserError
from hummingbird.nfs.ipsec_config import SaParams
from hummingbird.nfs.ipsec_keys import Keys, read_keys

SECRET, LONGER = "5ec4e7" + "0a" * 13, "5ec4e7" + "0b" * 17

BASE = """\
policy: routes.csv
ports:
  in0: {driver: generator}
  out0: {driver: sink}
nfs:
  ipsec0:
    type: ipsec
    sas:
      out:
        direction: out
        spi: 0x1001
        src: 192.0.2.1
        dst: 192.0.2.2
        cipher: aes-128-cbc
        auth: hmac-sha1-96
        key_file: sa.key
      in:
        direction: in
        spi: 0x2001
        src: 192.0.2.2
        dst: 192.0.2.1
        cipher: aes-128-gcm
        key_file: gcm.key
    policies:
      - {dst: 10.2.0.0/16, action: out}
      - {src: 10.2.0.0/16, protocol: udp, port: 53, action: in}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "routes.csv").write_text("packet_type,current_nf,next_nf\n*,in0,ipsec0\n")
    write(tmp_path / "sa.key", f"encryption: {SECRET}\nauthentication: {LONGER}\n")
    write(tmp_path / "gcm.key", f"encryption: {SECRET}01020304\n")
    return tmp_path


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def refused(folder: Path, text: str) -> UserError:
    (folder / "topology.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        topology.load(folder / "topology.yaml").build_tables()
    assert SECRET[:6] not in str(error.value)
    return error.value


def test_what_is_right_is_taken(folder: Path) -> None:
    (folder / "topology.yaml").write_text(BASE)
    table = topology.load(folder / "topology.yaml").build_tables()["ipsec0"]
    assert table.notes == ["security associations: 1 outbound, 1 inbound; policies: 2"]


# ---- mistakes in the topology --------------------------------------------------------------------

MISTAKES: dict[str, tuple[str, str, str, str, str]] = {
    "no such SA": ("action: out}", "action: uot}", "policies[0].action", "'uot'", "'out'"),
    "an SA called bypass": ("      out:", "      bypass:", "sas.bypass", "what a policy does", ""),
    "an SA for nothing": ("action: in}", "action: out}", "sas.in", "no policy names", "action: in"),
    "reserved SPI": ("0x1001", "255", "sas.out.spi", "255", "256"),
    "SPI": ("0x1001", "0x100000000", "sas.out.spi", "4294967296", ""),
    "no cipher": ("aes-128-gcm", "", "sas.in.cipher", "no cipher", "aes-128-cbc"),
    "cipher": ("aes-128-gcm", "aes-128-ccm", "sas.in.cipher", "not offered", "aes-128-gcm"),
    "no authentication": ("        auth: hmac-sha1-96\n", "", "sas.out", "forged", "auth: hmac"),
    "GCM and HMAC": ("gcm.key", "gcm.key\n        auth: hmac-sha1-96", "sas.in.auth", "itself", ""),
    "null": ("aes-128-cbc", '"null"', "sas.out.cipher", "encrypts nothing", "allow_null: true"),
    "allow_null": ("gcm.key", "gcm.key\n        allow_null: true", "sas.in.allow_null", "does", ""),
    "direction": ("direction: in", "direction: up", "sas.in.direction", "'up'", "in"),
    "mode": (
        "direction: in",
        "direction: in\n        mode: tunel",
        "sas.in.mode",
        "'tunel'",
        "tun",
    ),
    "address": ("src: 192.0.2.2", "src: 192.0.2.256", "sas.in.src", "192.0.2.256", "IPv4"),
    "prefix": ("dst: 10.2.0.0", "dst: 10.2.0.1", "policies[0].dst", "bits set", "10.2.0.0/16"),
    "families": ("{dst:", '{src: "2001:db8::/32", dst:', "policies[0]", "never meet", "one kind"),
    "ports": ("protocol: udp", "protocol: icmp", "policies[1]", "no ports", "tcp or udp"),
    "window": ("gcm.key", "gcm.key\n        replay_window: 63", "sas.in.replay_window", "63", "64"),
    "window out": (
        "sa.key",
        "sa.key\n        replay_window: 64",
        "sas.out.replay_window",
        "no",
        "",
    ),
    "UDP": ("gcm.key", "gcm.key\n        udp: 65536", "sas.in.udp", "65536", ""),
    "field": ("key_file: sa", "keyfile: sa", "sas.out.keyfile", "'keyfile'", "'key_file'"),
    "MTU": ("    sas:", "    mtu: 575\n    sas:", "mtu", "575", "576"),
    "ICMP": ("    sas:", "    icmp: {source: x}\n    sas:", "icmp.source", "'x'", "IPv4"),
    "key file": ("gcm.key", "gmc.key", "sas.in.key_file", "no such file", "umask 077"),
    "transport": (
        "gcm.key",
        "gcm.key\n        mode: transport",
        "policies[1].src",
        "transport mode",
        "192.0.2.2",
    ),
}


def line_of(text: str, field: str) -> int:
    """Where a field stands: its key, or the element of its list; a missing one at what it is in."""
    at = text.index("ipsec0:")
    for part in field.replace("]", "").replace("[", ".#").split("."):
        for _ in range(int(part[1:]) + 1 if part.startswith("#") else 1):
            key = "- {" if part.startswith("#") else f"{part}:"
            found = text.find(key, at + 1)
            at = found if found >= 0 else at
    return text.count("\n", 0, at) + 1


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_error_with_line_field_and_fix(name: str, folder: Path) -> None:
    old, new, field, what, fix = MISTAKES[name]
    text = BASE.replace(old, new, 1)
    assert text != BASE
    error = refused(folder, text)
    assert error.path == folder / "topology.yaml"
    assert error.field == f"nfs.ipsec0.{field}"
    assert error.line == line_of(text, field)
    assert what in error.what and fix in str(error.fix)


def test_two_sas_with_one_spi(folder: Path) -> None:
    more = BASE[BASE.index("      in:") : BASE.index("    policies")].replace("in:", "again:")
    text = BASE.replace("    policies:\n", more + "    policies:\n      - {action: again}\n")
    error = refused(folder, text)
    assert error.field == "nfs.ipsec0.sas.again.spi" and "in goes to 192.0.2.1" in error.what


def test_one_gcm_key_for_two_associations_is_refused(folder: Path) -> None:
    """Also for the two directions of one tunnel, which is tempting: nonces would repeat."""
    text = BASE.replace("aes-128-cbc\n        auth: hmac-sha1-96", "aes-128-gcm")
    error = refused(folder, text.replace("sa.key", "gcm.key"))
    assert error.field == "nfs.ipsec0.sas.in.key_file" and "same AES-GCM key" in error.what
    assert error.line == 22 and "of its own" in str(error.fix)


def test_most_is_what_fits() -> None:
    """By trying: the longest packet for which headers, padding, trailer and ICV stay within."""
    for cipher, auth, iv, block, icv in (
        ("aes-128-cbc", "hmac-sha1-96", 16, 16, 12),
        ("aes-256-cbc", "hmac-sha2-256-128", 16, 16, 16),
        ("aes-256-gcm", "none", 8, 4, 16),
    ):
        for mode, outer in (("tunnel", 20), ("transport", 0)):
            fields = {"direction": "out", "spi": 256, "src": "1.1.1.1", "dst": "1.1.1.2"}
            fields |= {"cipher": cipher, "auth": auth, "mode": mode, "key_file": "x"}
            sa = SaParams.model_validate(fields)

            def size(n: int, outer: int = outer, iv: int = iv, b: int = block, i: int = icv) -> int:
                plain = n if outer else n - 20
                return 20 + 8 + iv + -(-(plain + 2) // b) * b + i

            for mtu in range(576, 1600):
                assert size(sa.most(mtu)) <= mtu < size(sa.most(mtu) + 1)


# ---- key files -----------------------------------------------------------------------------------


def test_a_key_file(tmp_path: Path) -> None:
    text = f"# mine\nauthentication: {LONGER.upper()} # 20 bytes\n\n encryption : {SECRET}\n"
    keys = read_keys(write(tmp_path / "sa.key", text))
    assert (keys.encryption.hex(), keys.authentication.hex()) == (SECRET, LONGER)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620, 0o644])
def test_a_key_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    """The fix does what it says."""
    path = write(
        tmp_path / "with space.key", f"encryption: {SECRET}\nauthentication: {LONGER}", mode
    )
    with pytest.raises(UserError, match="others than its owner") as error:
        read_keys(path)
    assert error.value.path == path and error.value.fix
    subprocess.run(["sh", "-c", error.value.fix], check=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_keys(path).encryption.hex() == SECRET


@pytest.mark.parametrize(
    ("line", "text"),
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
        (None, f"encryption: {SECRET}\n" + "#" * 70_000),
        (None, "\udcff"),
    ],
)
def test_errors_name_the_line_and_never_show_a_key(
    tmp_path: Path, line: int | None, text: str
) -> None:
    path = tmp_path / "sa.key"
    path.write_bytes(text.encode(errors="surrogateescape"))
    path.chmod(0o600)
    with pytest.raises(UserError) as error:
        read_keys(path)
    assert str(error.value).startswith(f"{path}:{line}: " if line else f"{path}: ")
    assert SECRET[:6] not in str(error.value) and error.value.__cause__ is None


def test_a_key_of_an_algorithm_without_one(tmp_path: Path) -> None:
    path = write(tmp_path / "gcm.key", f"encryption: {SECRET}01020304\nauthentication: {LONGER}\n")
    with pytest.raises(UserError, match="there is no authentication here") as error:
        read_keys(path, 20, 0)
    assert error.value.line == 2


def test_what_is_no_file_is_refused_and_nobody_waits(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(UserError, match=r"no file with keys|cannot be read"):
            read_keys(path)


@pytest.mark.parametrize(("encryption", "authentication"), [(16, 20), (36, 0), (0, 32)])
def test_a_missing_key_file_comes_with_the_command_that_makes_one(
    tmp_path: Path, encryption: int, authentication: int
) -> None:
    path = tmp_path / "it's new.key"
    with pytest.raises(UserError, match="no such file") as error:
        read_keys(path, encryption, authentication)
    assert error.value.fix
    subprocess.run(["sh", "-c", error.value.fix], check=True)
    keys = read_keys(path, encryption, authentication)
    assert (len(keys.encryption), len(keys.authentication)) == (encryption, authentication)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


# ---- nothing shows a key -------------------------------------------------------------------------


def test_no_repr_shows_a_key(folder: Path) -> None:
    (folder / "topology.yaml").write_text(BASE)
    top = topology.load(folder / "topology.yaml")
    table = top.build_tables()["ipsec0"]
    keys = Keys(bytes.fromhex(SECRET), bytes.fromhex(LONGER))
    shown = f"{top!r} {table!r} {table.extra!r} {table.extra.sas!r} {keys!r} {keys}"
    for secret in (SECRET, LONGER):
        raw = repr(bytes.fromhex(secret))[2:-1]
        assert secret not in shown and raw not in shown


def test_a_run_shows_no_key(tmp_path: Path) -> None:
    """Everything that a run prints, the summary, and what it leaves behind."""
    sas = {"one": TestSa(0x1001), "two": TestSa(0x1002, cipher="aes-256-gcm", auth="none")}
    rules = [{"protocol": "udp", "action": "one"}, {"action": "two"}]
    source, rows = through(ipsec(sas, policies=rules))
    source["ports"]["in0"] = {"driver": "generator", "packets": 100}
    source["ports"]["out0"] = {"driver": "sink"}
    write_topology(tmp_path, source, rows)
    for name, text in key_files(*sas.values()).items():
        write(tmp_path / name, text)
    ended = run(tmp_path, "topology.yaml", STATE_DIRECTORY=str(tmp_path / "state"))
    assert ended.balanced["sent"] == 100
    files = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    left = [path.read_text() + path.name for path in files]
    shown = ended.text + str(ended.summary) + "".join(left)
    assert left and "0x1001" not in "".join(left)
    for sa in sas.values():
        for key in (sa.keys.encryption, sa.keys.authentication):
            assert not key or key.hex()[:12] not in shown


def test_a_crash_leaves_no_key_in_a_core_file(tmp_path: Path) -> None:
    """A process that might leave one, until it has read a key."""
    path = write(tmp_path / "sa.key", f"encryption: {SECRET}\nauthentication: {LONGER}\n")
    code = """
import resource, sys
from pathlib import Path
from hummingbird.nfs.ipsec_keys import read_keys
_, hard = resource.getrlimit(resource.RLIMIT_CORE)
resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
read_keys(Path(sys.argv[1]))
print(hard, resource.getrlimit(resource.RLIMIT_CORE)[0])
"""
    command = [sys.executable, "-c", code, str(path)]
    hard, now = map(int, subprocess.run(command, capture_output=True, check=True).stdout.split())
    if hard == 0:
        pytest.skip("NOT TESTED: no process here can leave a core file")
    assert now == 0


def test_null_encryption_warns(caplog: pytest.LogCaptureFixture) -> None:
    sa = TestSa(0x1001, cipher="null")
    source, rows = through(ipsec({"sa": sa}))
    packets: list[Any] = [udp("10.1.0.1", "10.2.0.1", 1, 2)]
    with caplog.at_level(logging.WARNING):
        result = run_chain(source, packets, rows, files=key_files(sa), use="none")
    assert len(result.packets) == 1 and "nf0: sa does not encrypt" in caplog.text


def test_null_encryption_is_noted_by_check(folder: Path) -> None:
    text = BASE.replace("cipher: aes-128-cbc", 'cipher: "null"\n        allow_null: true')
    write(folder / "sa.key", f"authentication: {LONGER}\n")
    (folder / "topology.yaml").write_text(text)
    table = topology.load(folder / "topology.yaml").build_tables()["ipsec0"]
    assert table.notes[1] == "WARNING: out does NOT ENCRYPT (cipher null)"
