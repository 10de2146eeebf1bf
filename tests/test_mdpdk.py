# SPDX-License-Identifier: BSD-3-Clause
"""mdpdk_patches: DPDK that has all its memory from the application, and the script that builds it.

    DPDK's release ── + patches, build.sh ── archives ─┐
                               tests/c/mdpdk_*.c ──────┴─ a shared object, loaded by a Python

The build is kept (~/.cache/hummingbird), so only the first run on a machine waits for it.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from scapy.utils import RawPcapReader

ROOT = Path(__file__).parent.parent
PATCHES = ROOT / "mdpdk_patches"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hummingbird"
DEMO = ROOT / "policies" / "demo" / "branch.pcap"
KNOWN = "22.11.11"
CANNOT = 3  # exit status: the source or the packages cannot be had
AF_XDP = 44  # a name for it Python lacks

# Loads a shared object as the data plane loads a driver: nothing in it is seen by others.
LOADED = """
import ctypes, os, sys
code = ctypes.CDLL(sys.argv[1], os.RTLD_NOW | os.RTLD_LOCAL).mdpdk_test
sys.exit(min(code(*map(os.fsencode, sys.argv[2:])), 100))
"""

pytestmark = pytest.mark.timeout(900)  # of which a build, on one slow core, is most


def build(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PATCHES / "build.sh", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )


def error_of(done: subprocess.CompletedProcess[str], status: int = 1) -> str:
    """The one error of a build that failed; it has printed no prefix."""
    assert (done.returncode, done.stdout) == (status, ""), done
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and done.stderr.endswith(errors[0] + "\n"), done.stderr
    return errors[0].removeprefix("error: ")


@pytest.fixture(scope="session")
def mdpdk() -> Path:
    """Where DPDK with the patches is."""
    done = build()
    if done.returncode == CANNOT:
        pytest.skip(f"NOT TESTED: DPDK with the patches: {error_of(done, CANNOT)}")
    if done.returncode != 0:
        pytest.fail(done.stderr, False)
    return Path(done.stdout.rstrip("\n"))


@pytest.fixture
def released(mdpdk: Path, tmp_path: Path) -> Path:
    """DPDK as released, but only what the patches change; a test may change it."""
    tarball = CACHE / f"dpdk_{KNOWN}.orig.tar.xz"
    if not tarball.exists():
        pytest.skip(f"NOT TESTED: {tarball} is gone; remove {mdpdk} to have it fetched")
    changed = {
        name
        for patch in PATCHES.glob("*.patch")
        for name in re.findall(r"^--- a/(.*)", patch.read_text(), re.MULTILINE)
    }
    tree = tmp_path / "dpdk"
    tree.mkdir()
    names = [f"dpdk-stable-{KNOWN}/{name}" for name in ["VERSION", *changed]]
    subprocess.run(["tar", "-xf", tarball, "-C", tree, "--strip-components=1", *names], check=True)
    return tree


def test_a_second_build_does_nothing(mdpdk: Path) -> None:
    before = mdpdk.stat().st_ino, (mdpdk / "ready").stat().st_mtime_ns
    again = build()
    assert (again.returncode, again.stdout, again.stderr) == (0, f"{mdpdk}\n", "")
    assert (mdpdk.stat().st_ino, (mdpdk / "ready").stat().st_mtime_ns) == before


def test_what_is_built_says_how_to_use_it(mdpdk: Path) -> None:
    assert (mdpdk / "ready").read_text().startswith(KNOWN + " ")
    assert "rte_eal_mem_provider_set" in (mdpdk / "include" / "rte_eal.h").read_text()
    assert f'-isystem "{mdpdk}/include"' in (mdpdk / "compile.flags").read_text()
    wanted = set(re.findall(r"-l:(\S+)", (mdpdk / "link.flags").read_text()))
    assert wanted == {path.name for path in (mdpdk / "lib").iterdir()}
    drivers = ["af_packet", "af_xdp", "null", "pcap", "ring", "tap"]
    assert wanted > {f"librte_net_{name}.a" for name in drivers} | {"librte_bus_pci.a"}


@pytest.mark.parametrize("version", ["21.11.9", "22.11.12", "23.11.0"])
def test_a_version_the_patches_are_not_known_for_is_refused(version: str, tmp_path: Path) -> None:
    source = tmp_path / "dpdk"
    source.mkdir()
    (source / "VERSION").write_text(version + "\n")
    error = error_of(build("--source", source, "--prefix", tmp_path / "there"))
    assert f"{source} is DPDK {version}, and the patches are known for {KNOWN};" in error
    assert f"--source dpdk-{KNOWN}.tar.xz" in error
    assert os.listdir(tmp_path) == ["dpdk"]  # nothing half-made is left


@pytest.mark.parametrize("name", ["nothing.tar.xz", "text", "empty"])
def test_what_is_no_dpdk_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no tarball")
    (tmp_path / "empty").mkdir()
    before = sorted(os.listdir(tmp_path))
    source = tmp_path / name
    error = error_of(build("--source", source, "--prefix", tmp_path / "there"))
    assert error.startswith(f"{source} is ")
    assert sorted(os.listdir(tmp_path)) == before


def test_a_patch_that_does_not_fit_is_named(released: Path, tmp_path: Path) -> None:
    driver = released / "drivers" / "net" / "af_xdp" / "rte_eth_af_xdp.c"
    code = driver.read_text()
    assert code.count("umem->mb_pool = mb_pool;") == 1
    driver.write_text(code.replace("umem->mb_pool = mb_pool;", "umem->mb_pool = other_pool;"))
    error = error_of(build("--source", released, "--prefix", tmp_path / "there"))
    patch = next(path.name for path in PATCHES.glob("0003-*"))
    assert error.startswith(f"{patch} does not fit DPDK {KNOWN} of {released} (")
    assert "rte_eth_af_xdp.c" in error and "take the source as it was released" in error
    assert os.listdir(tmp_path) == ["dpdk"]
    assert "other_pool" in driver.read_text()  # of which nothing was changed
    assert "rte_eal_mem_provider_set" not in (released / "lib/eal/version.map").read_text()


def test_patches_do_not_fit_twice(released: Path, tmp_path: Path) -> None:
    for patch in sorted(PATCHES.glob("*.patch")):
        subprocess.run(["git", "apply", "-p1", patch], cwd=released, check=True)
    error = error_of(build("--source", released, "--prefix", tmp_path / "there"))
    assert error.startswith("0001-") and "does not fit" in error


def test_a_directory_with_something_else_is_left_alone(released: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (there / "letter").write_text("dear reader")
    error = error_of(build("--source", released, "--prefix", there))
    assert error == f"{there} holds something else; name a new directory: --prefix DIR"
    assert (there / "letter").read_text() == "dear reader"


@pytest.fixture
def apt_get(tmp_path: Path) -> dict[str, str]:
    """An environment with an apt-get that the test writes, and an empty cache."""
    tool = tmp_path / "bin" / "apt-get"
    tool.parent.mkdir()
    tool.touch(0o755)
    cache = tmp_path / "cache"
    return {"PATH": f"{tool.parent}:{os.environ['PATH']}", "XDG_CACHE_HOME": str(cache)}


def test_a_source_that_cannot_be_fetched(apt_get: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "bin" / "apt-get").write_text("#!/bin/sh\necho 'E: no network' >&2; exit 100\n")
    error = error_of(build(**apt_get), CANNOT)
    assert error.startswith("cannot fetch it: E: no network; give it: --source ")
    assert os.listdir(tmp_path / "cache" / "hummingbird") == ["mdpdk.lock"]


def test_a_new_version_in_the_archive(apt_get: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "dpdk-99").mkdir()
    (tmp_path / "dpdk-99" / "VERSION").write_text("22.11.99\n")
    tarball = tmp_path / "dpdk_22.11.99.orig.tar.xz"
    subprocess.run(["tar", "-cJf", tarball, "-C", tmp_path, "dpdk-99"], check=True)
    (tmp_path / "bin" / "apt-get").write_text(f"#!/bin/sh\ncp {tarball} .\n")
    assert " is DPDK 22.11.99, and the patches are known for " in error_of(build(**apt_get), CANNOT)


# ---- what was built -----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def loaded(mdpdk: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The command that runs mdpdk_test() of a file of tests/c."""
    directory = tmp_path_factory.mktemp("mdpdk")
    commands = {}
    for name in ["mdpdk_memory", "mdpdk_af_xdp"]:
        library = directory / f"{name}.so"
        command = ["gcc", "-std=gnu11", "-D_GNU_SOURCE", "-O2", "-g", "-Wall", "-Wextra", "-Werror"]
        command += ["-fPIC", "-fvisibility=hidden", "-shared", f"@{mdpdk}/compile.flags"]
        command += [str(ROOT / "tests" / "c" / f"{name}.c"), "-o", str(library)]
        command += [f"@{mdpdk}/link.flags", "-Wl,--no-undefined"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        commands[name] = [sys.executable, "-c", LOADED, str(library)]
    return commands


def run(command: list[str], timeout: float = 120) -> str:
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout
    )
    if done.returncode != 0:
        pytest.fail(f"exit status {done.returncode}\n{done.stdout[-8000:]}", False)
    return done.stdout


def test_all_memory_is_the_applications(loaded: dict[str, list[str]], tmp_path: Path) -> None:
    """
    capture ── net_pcap ── our memory; the first byte is changed in our own view ── net_pcap ── out
    """
    out = tmp_path / "out.pcap"
    run([*loaded["mdpdk_memory"], "life", str(DEMO), str(out)])
    before, after = ([bytes(data) for data, _ in RawPcapReader(str(path))] for path in (DEMO, out))
    assert len(before) > 500
    assert after == [bytes([packet[0] ^ 0xFF]) + packet[1:] for packet in before]


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("none", r"EAL: The memory provider has no 100663296 bytes\n"),
        ("crooked", r"EAL: The memory provider gave 0x\w+, which is no multiple of 2097152\n"),
        ("huge", r"EAL: A memory provider needs option --no-huge and a primary process\n"),
    ],
)
def test_without_good_memory_eal_does_not_start(
    how: str, says: str, loaded: dict[str, list[str]], tmp_path: Path
) -> None:
    said = run([*loaded["mdpdk_memory"], how, str(DEMO), str(tmp_path / "out.pcap")])
    assert re.search(says, said), said


@pytest.mark.parametrize(("how", "to"), [("small", "hbm1"), ("shared", "hbm3")])
def test_af_xdp_uses_the_applications_memory(
    how: str, to: str, loaded: dict[str, list[str]]
) -> None:
    """
    16,000 frames through a pool of fewer mbufs, with pages of 4 KB, so that mbufs have gaps between
    them; and from port to port, which share one UMEM. The network namespace ends with the run.
    """
    try:
        socket.socket(AF_XDP, socket.SOCK_RAW).close()
    except OSError as error:
        pytest.skip(f"NOT TESTED: net_af_xdp in our memory: AF_XDP: {error}")
    if subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode != 0:
        pytest.skip("NOT TESTED: net_af_xdp in our memory: no network namespaces; be root")
    script = """set -e
    echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6
    ip link add hbm0 numrxqueues 1 up type veth peer name hbm1 numrxqueues 1
    ip link add hbm2 numrxqueues 1 up type veth peer name hbm3 numrxqueues 1
    ip link set hbm1 up && ip link set hbm3 up
    exec "$@"
    """
    command = [*loaded["mdpdk_af_xdp"], how, "hbm1", to]
    run(["unshare", "-n", "sh", "-c", script, "sh", *command])
