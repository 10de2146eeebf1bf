# SPDX-License-Identifier: BSD-3-Clause
"""What a device can do: dialects, ways to share memory, tiers, and what the engine makes of them.

    device ── claims ── probe ── tier A, B: persistent, with the memory that the probe has tried
                            └─── tier C:    launch

The device is the first GPU, else a CPU runtime; a CPU runtime shares all memory with the host.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chain import line, run_chain, udp

from hummingbird.errors import UserError
from hummingbird.nfs import NAMES
from hummingbird.opencl import device as devices
from hummingbird.opencl import memory, probe, program
from hummingbird.opencl.device import ATOMICS, COARSE, FINE, SYSTEM, Device, choose
from hummingbird.opencl.memory import Region
from hummingbird.opencl.probe import Tier

cl = pytest.importorskip("pyopencl")

CODES = [program.builtin(name) for name in NAMES]

PACKETS = [udp("10.0.0.1", "10.0.0.2", number, 9) for number in range(300)]
EVERY_KIND = ",".join([COARSE, FINE, SYSTEM, ATOMICS])


@pytest.fixture
def device() -> Device:
    found = choose("auto")
    if found is None:
        pytest.skip("NOT TESTED: there is no OpenCL device")
    return found


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe of a second; the whole one takes several and has been run by tier_of()."""
    monkeypatch.setattr(probe, "ROUNDS", 50)
    monkeypatch.setattr(probe, "WORKING_SETS", (16 << 10, 1 << 20))


def test_a_cpu_runtime_is_tier_a(device: Device) -> None:
    """The whole probe, in a child process: at once if it has ever run on this machine."""
    tier = probe.tier_of(device)
    assert tier.tier in "ABC" and tier.reason
    if not device.is_cpu:
        pytest.skip(f"{device.label} is tier {tier.tier}: {tier.reason}")
    assert tier.tier == "A", tier
    assert tier.packets > 30_000_000 and tier.launched >= tier.resident >= 1


def test_layouts_that_the_data_plane_was_not_built_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = shutil.copytree(program.KERNELS, tmp_path / "cl_kernels")
    with (kernels / "hummingbird.h").open("a") as header:
        header.write("/* newer */\n")
    monkeypatch.setattr(program, "KERNELS", kernels)
    with pytest.raises(UserError, match=r"(?s)hummingbird\.h: .*run make"):
        program.source(CODES)


@pytest.mark.parametrize("dialect", [program.C11, program.CL12])
def test_every_nf_compiles_in_both_dialects(
    device: Device, dialect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUMMINGBIRD_DIALECT", dialect)
    context = cl.Context([device.handle])
    try:
        built, used = program.build(context, device, CODES)
    except UserError as error:
        if device.is_cpu or dialect == program.CL12:
            raise
        pytest.skip(f"{device.label} has no C11 atomics: {error}")
    assert used == dialect
    assert {kernel.function_name for kernel in built.all_kernels()} == {"hb_persistent", "hb_batch"}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("dialect", [program.C11, program.CL12])
def test_the_tier_says_what_was_promised(
    device: Device, dialect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A: the driver promises what was seen; B: it does not."""
    monkeypatch.setenv("HUMMINGBIRD_DIALECT", dialect)
    if not device.is_cpu:
        pytest.skip(f"{device.label} need not share memory with the host")
    tier = probe.probe(device)
    assert (tier.tier, tier.dialect) == ("A" if dialect == program.C11 else "B", dialect), tier
    assert tier.packets == 50 * (64 + 512)


@pytest.mark.usefixtures("quick")
def test_without_svm_a_device_is_tier_b_by_userptr(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not device.is_cpu:
        pytest.skip(f"{device.label} need not share memory with the host")
    monkeypatch.setenv("HUMMINGBIRD_HIDE_SVM", EVERY_KIND)
    bare = next(d for d in devices.devices() if d.handle == device.handle)
    assert bare.svm == frozenset() and memory.bindings(bare) == ["userptr", "staged"]
    tier = probe.probe(bare)
    assert (tier.tier, tier.binding) == ("B", "userptr"), tier
    assert "not promised" in tier.reason


@pytest.mark.usefixtures("quick")
def test_a_stale_byte_is_tier_c(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device gets a copy of the tables, as they were at the start: every row is stale."""
    if not device.is_cpu:
        pytest.skip(f"{device.label} need not share memory with the host")
    share = memory.shared_region
    calls = []

    def copied(context: Any, device: Device, size: int, binding: str) -> Region:
        region = share(context, device, size, binding)
        calls.append(size)
        if len(calls) % 3 == 2:  # frames, tables, control
            flags = cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR
            region.argument = cl.Buffer(context, flags, hostbuf=region.array)
        return region

    monkeypatch.setattr(memory, "shared_region", copied)
    tier = probe.probe(device)
    assert tier.tier == "C" and "stale words" in tier.reason, tier


def test_staging_alone_is_tier_c_and_gets_the_launch_executor(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUMMINGBIRD_BINDING", "staged")
    assert probe.probe(device).tier == "C"
    source, rows = line("gpu")
    result = run_chain(source, PACKETS, rows)
    assert result.packets == PACKETS
    seen = result.summary["device"]
    assert (seen["executor"], seen["tier"], seen["binding"]) == ("launch", "C", "staged")
    assert seen["copied_bytes"] > 0
    with pytest.raises(UserError, match="tier C"):
        run_chain(source, PACKETS, rows, executor="persistent")


def test_the_engine_uses_the_memory_that_the_probe_has_tried(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shared virtual memory was stale, userptr was not: a persistent kernel gets userptr."""
    if not device.is_cpu:
        pytest.skip(f"{device.label} need not share memory with the host")
    found = Tier("B", "planted", "userptr", program.C11, 1, 1, 1)
    monkeypatch.setattr(probe, "tier_of", lambda device: found)
    source, rows = line("gpu")
    result = run_chain(source, PACKETS, rows)
    assert result.packets == PACKETS
    seen = result.summary["device"]
    assert (seen["executor"], seen["tier"], seen["binding"]) == ("persistent", "B", "userptr")


# ---- the cache -----------------------------------------------------------------------------------


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A cache of its own, and the names of the devices that were probed."""
    names: list[str] = []

    def in_child(device: Device) -> Tier:
        names.append(device.name)
        return Tier("B", "planted", "userptr", program.C11, 1, 1, 1)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(probe, "_probe_in_child", in_child)
    return names


def test_a_device_is_probed_once(device: Device, probed: list[str], tmp_path: Path) -> None:
    assert probe.known_tier(device) is None
    first = probe.tier_of(device)
    assert probe.tier_of(device) == probe.known_tier(device) == first
    assert probed == [device.name]
    assert probe.tier_of(device, fresh=True) == first
    assert probed == [device.name] * 2


def test_another_driver_or_setting_is_probed_anew(
    device: Device, probed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    probe.tier_of(device)
    probe.tier_of(replace(device, runtime="another driver"))
    monkeypatch.setenv("HUMMINGBIRD_DIALECT", program.CL12)
    probe.tier_of(device)
    assert len(probed) == 3


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"KEY": {"tier": "A"}}', '{"KEY": 7}'])
def test_a_damaged_cache_is_no_cache(
    damage: str, device: Device, probed: list[str], tmp_path: Path
) -> None:
    probe.tier_of(device)
    (cache,) = tmp_path.rglob("probe.json")
    (key,) = json.loads(cache.read_text())
    cache.write_text(damage.replace("KEY", key))
    assert probe.known_tier(device) is None
    assert probe.tier_of(device).reason == "planted"
    assert len(probed) == 2
