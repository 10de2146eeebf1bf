# SPDX-License-Identifier: BSD-3-Clause
"""Power meters of bench/ on trees of files as the kernel has them, and on a stand-in for NVIDIA's
library: what is counted, what is refused, and that nothing unreadable becomes a number.

    tmp/sys/class/powercap, tmp/sys/class/hwmon ── meter ── joules, or NotReadable with the reason
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from namespaces import until

sys.path.append(str(Path(__file__).parent.parent / "bench"))

import meters
import nvml
from meters import Counter, Meter, Sampler
from notreadable import NotReadable

from hummingbird.errors import UserError

RANGE_UJ = 262143328850  # of a real package: 2^32 steps of 61 uJ


def write(folder: Path, files: Mapping[str, object]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(value, bytes):
            (folder / name).write_bytes(value)
        else:
            (folder / name).write_text(f"{value}\n")
    return folder


def zone(root: Path, number: str, name: str, uj: int, type_: str = "intel-rapl") -> Path:
    """A power zone; the class folder of the kernel has subzones beside their parents."""
    files = {"name": name, "energy_uj": uj, "max_energy_range_uj": RANGE_UJ, "enabled": 0}
    return write(root / "sys/class/powercap" / f"{type_}:{number}", files)


def hwmon(root: Path, number: int, **files: object) -> Path:
    return write(root / "sys/class/hwmon" / f"hwmon{number}", {"name": "amdgpu", **files})


def metrics(revision: int, content: int) -> bytes:
    """The head of gpu_metrics, and something behind it."""
    return struct.pack("<HBB", 120, revision, content) + bytes(116)


def count(meter: Meter, monkeypatch: pytest.MonkeyPatch, seconds: float, act: Any) -> meters.Energy:
    """What a counter says of a while in which `act` happens."""
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    meter.start()
    act()
    clock[0] += seconds
    return meter.stop()


def test_rapl_counts_the_packages_and_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """package-0 (with core, dram), package-1, psys around them, package-0 once more by mmio."""
    zone(tmp_path, "0", "package-0", 1_000_000)
    zone(tmp_path, "1", "package-1", 5_000_000)
    zone(tmp_path, "2", "psys", 0)
    zone(tmp_path, "0:0", "core", 0)
    zone(tmp_path, "0:1", "dram", 0)
    zone(tmp_path, "0", "package-0", 0, "intel-rapl-mmio")
    write(tmp_path / "sys/class/powercap/intel-rapl", {"enabled": 1})

    def act() -> None:
        for number, name, uj in [
            ("0", "package-0", 21_000_000),
            ("1", "package-1", 15_000_000),
            ("2", "psys", 900_000_000),
            ("0:0", "core", 90_000_000),
            ("0:1", "dram", 90_000_000),
        ]:
            zone(tmp_path, number, name, uj)

    meter = meters.rapl(tmp_path)
    energy = count(meter, monkeypatch, 2.0, act)
    assert energy.joules == pytest.approx(30)
    assert energy.watts == pytest.approx(15)
    assert meter.covers == "2 CPU packages, without DRAM"


def test_rapl_wraps_where_the_kernel_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zone(tmp_path, "0", "package-0", RANGE_UJ - 4_000_000)
    energy = count(
        meters.rapl(tmp_path),
        monkeypatch,
        1.0,
        lambda: zone(tmp_path, "0", "package-0", 6_000_000),
    )
    assert energy.joules == pytest.approx(10)


def test_rapl_takes_a_reset_for_no_wrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """energy_uj can be written: it is 0 then."""
    zone(tmp_path, "0", "package-0", 9_000_000)
    with pytest.raises(NotReadable, match=r"was reset, from 9\.0 to 0\.0 J"):
        count(meters.rapl(tmp_path), monkeypatch, 1.0, lambda: zone(tmp_path, "0", "package-0", 0))


def test_rapl_refuses_what_may_have_wrapped_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zone(tmp_path, "0", "package-0", 1)
    with pytest.raises(NotReadable, match="at 0 more than once in 300 s"):
        count(meters.rapl(tmp_path), monkeypatch, 300.0, lambda: None)


def test_rapl_says_who_may_read_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read everything, so the kernel's refusal is played."""
    zone(tmp_path, "0", "package-0", 1)
    real = Path.read_text

    def denied(path: Path, *args: Any, **kwargs: Any) -> str:
        if path.name == "energy_uj":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", denied)
    with pytest.raises(NotReadable, match=r"energy_uj: Permission denied\n  fix: run as root"):
        meters.rapl(tmp_path)


def test_rapl_is_not_a_part_of_itself(tmp_path: Path) -> None:
    """One package of two that cannot be read: half the figure would have the name of the whole."""
    zone(tmp_path, "0", "package-0", 1)
    (zone(tmp_path, "1", "package-1", 1) / "energy_uj").unlink()
    with pytest.raises(NotReadable, match="intel-rapl:1/energy_uj: No such file"):
        meters.rapl(tmp_path)


@pytest.mark.parametrize("text", ["", "rubbish", "-5", "nan"])
def test_rapl_takes_no_rubbish(text: str, tmp_path: Path) -> None:
    write(zone(tmp_path, "0", "package-0", 1), {"energy_uj": text})
    with pytest.raises(NotReadable, match="no power or energy"):
        meters.rapl(tmp_path)


def test_rapl_on_a_virtual_machine(tmp_path: Path) -> None:
    with pytest.raises(NotReadable, match="a virtual machine has none"):
        meters.rapl(tmp_path)


@pytest.mark.parametrize(
    ("files", "covers"),
    [
        ({"in1_input": 700, "power1_input": 5_000_000}, meters.APU),
        ({"power1_average": 5_000_000, "device/gpu_metrics": metrics(2, 4)}, meters.APU),
        ({"power1_average": 5_000_000, "device/gpu_metrics": metrics(3, 0)}, meters.APU),
        ({"power1_average": 5_000_000, "device/gpu_metrics": metrics(1, 3)}, meters.DISCRETE),
        ({"power1_average": 5_000_000, "device/gpu_metrics": metrics(1, 5)}, meters.UNKNOWN),
        ({"power1_average": 5_000_000, "device/gpu_metrics": b"\1"}, meters.UNKNOWN),
        ({"power1_average": 5_000_000}, meters.UNKNOWN),
    ],
)
def test_amdgpu_knows_an_apu(files: dict[str, object], covers: str, tmp_path: Path) -> None:
    hwmon(tmp_path, 0, name="k10temp", power1_average=99_000_000)
    hwmon(tmp_path, 1, **files)
    meter = meters.amdgpu(tmp_path)
    assert meter.covers == covers
    assert ("cpu" in meter.parts) == (covers != meters.DISCRETE)


def sampled(meter: Meter) -> meters.Energy:
    """A real sampler, hurried, as long as its thread needs."""
    assert isinstance(meter, Sampler)
    meter._every = meter.period_s = 0.01
    meter.start()
    until(lambda: len(meter._samples) >= meters.MIN_PERIODS or meter._error, "samples")
    return meter.stop()


def test_amdgpu_is_in_microwatts_and_its_mean_goes_first(tmp_path: Path) -> None:
    hwmon(tmp_path, 3, power1_average=25_000_000, power1_input=99_000_000)
    energy = sampled(meters.amdgpu(tmp_path))
    assert energy.watts == pytest.approx(25)
    assert energy.joules == pytest.approx(25 * energy.seconds)
    assert "one every 0.01 s" in energy.how


def test_amdgpu_that_vanishes_while_it_is_measured(tmp_path: Path) -> None:
    card = hwmon(tmp_path, 0, power1_average=1)
    meter = meters.amdgpu(tmp_path)
    (card / "power1_average").unlink()
    with pytest.raises(NotReadable, match="power1_average: No such file"):
        sampled(meter)


def test_amdgpu_without_power_or_without_a_card(tmp_path: Path) -> None:
    with pytest.raises(NotReadable, match="no hwmon of the amdgpu driver"):
        meters.amdgpu(tmp_path)
    hwmon(tmp_path, 0)
    with pytest.raises(NotReadable, match="neither power1_average nor power1_input"):
        meters.amdgpu(tmp_path)


def test_an_apu_is_never_added_to_rapl(tmp_path: Path) -> None:
    zone(tmp_path, "0", "package-0", 1)
    card = hwmon(tmp_path, 0, power1_average=1)
    for files in ({}, {"in1_input": 700}):  # it is not known, it is known
        write(card, files)
        with pytest.raises(UserError, match="rapl\\+amdgpu would count the CPU twice") as caught:
            meters.find(["rapl+amdgpu"], tmp_path)
        assert not isinstance(caught.value, NotReadable)
    (card / "in1_input").unlink()
    write(card, {"device/gpu_metrics": metrics(1, 3)})
    (meter,), reasons = meters.find(["rapl+amdgpu"], tmp_path)
    assert (meter.name, reasons) == ("rapl+amdgpu", {})
    assert meter.covers == "1 CPU package, without DRAM; discrete AMD GPU"


def test_a_sum_is_refused_where_nobody_knows() -> None:
    with pytest.raises(UserError, match="rapl\\+rapl would count the CPU twice"):
        meters.add([Counter("rapl", "", frozenset({"cpu"}), 1, lambda: [0.0])] * 2)
    with pytest.raises(UserError, match="is added to nothing"):
        meters.add([meters.external("echo 1"), meters.tdp("15")])


def test_a_sum_adds_powers_and_fails_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    joules = {"a": 0.0, "b": 0.0}
    both = [Counter(n, n, frozenset({n}), 0.01, lambda n=n: [joules[n]]) for n in joules]  # type: ignore[misc]
    meter = meters.add(both)
    energy = count(meter, monkeypatch, 2.0, lambda: joules.update(a=10.0, b=4.0))
    assert (energy.joules, energy.seconds) == (14, 2)
    with pytest.raises(NotReadable, match="b: its counter was reset"):
        count(meter, monkeypatch, 2.0, lambda: joules.update(b=1.0))


def test_too_short_for_the_meter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zone(tmp_path, "0", "package-0", 1)
    with pytest.raises(NotReadable, match=r"too short .* 0.001 s(.|\n)*at least 0.005 s"):
        count(meters.rapl(tmp_path), monkeypatch, 0.004, lambda: None)
    hwmon(tmp_path, 0, power1_average=1)
    meter = meters.amdgpu(tmp_path)
    assert isinstance(meter, Sampler) and meter.period_s == 0.1
    meter.period_s = 100.0  # longer than the next two lines can take
    meter.start()
    with pytest.raises(NotReadable, match=r"amdgpu: .* too short for a meter of 100 s"):
        meter.stop()


# ---- NVIDIA --------------------------------------------------------------------------------------


class Library:
    """libnvidia-ml: functions with pointers to what they fill in."""

    def __init__(self, counts: list[bool], fails: Mapping[str, int] | None = None) -> None:
        self.counts, self.fails = counts, fails or {}
        self.mj = 1_000_000

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any) -> Any:
            return self.fails.get(name) or getattr(self, "_" + name)(*args)

        return call

    def _nvmlErrorString(self, status: int) -> bytes:
        return {3: b"Not Supported", 4: b"Insufficient Permissions"}[status]

    def _nvmlInit_v2(self) -> int:
        return 0

    def _nvmlDeviceGetCount_v2(self, to: Any) -> int:
        to._obj.value = len(self.counts)
        return 0

    def _nvmlDeviceGetHandleByIndex_v2(self, index: ctypes.c_uint, to: Any) -> int:
        to._obj.value = index.value + 1
        return 0

    def _nvmlDeviceGetName(self, handle: ctypes.c_void_p, to: Any, size: ctypes.c_uint) -> int:
        to.value = f"GPU {handle.value}".encode()
        return 0

    def _nvmlDeviceGetTotalEnergyConsumption(self, handle: ctypes.c_void_p, to: Any) -> int:
        to._obj.value = self.mj
        return 0 if self.counts[(handle.value or 0) - 1] else 3

    def _nvmlDeviceGetPowerUsage(self, handle: ctypes.c_void_p, to: Any) -> int:
        to._obj.value = 70_500
        return 0


def test_nvml_counts_millijoules_of_all_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library([True, True])
    meter = meters.nvml(library)
    energy = count(meter, monkeypatch, 1.0, lambda: setattr(library, "mj", 1_050_000))
    assert energy.joules == pytest.approx(100)
    assert meter.covers == "GPU 1, GPU 2"
    assert energy.how == "energy counter, 0.1 s resolution"


def test_nvml_samples_power_where_one_gpu_has_no_counter() -> None:
    meter = meters.nvml(Library([True, False]))
    assert meter.period_s == 1.0  # the power is a mean of the last second
    assert sampled(meter).watts == pytest.approx(141)


@pytest.mark.parametrize(
    ("counts", "fails", "why"),
    [
        ([], {}, "shows no GPU"),
        ([True], {"nvmlInit_v2": 4}, "nvmlInit_v2: Insufficient Permissions"),
        ([False], {"nvmlDeviceGetPowerUsage": 3}, "nvmlDeviceGetPowerUsage: Not Supported"),
    ],
)
def test_nvml_that_cannot_be_read(counts: list[bool], fails: dict[str, int], why: str) -> None:
    with pytest.raises(NotReadable, match=why):
        meters.nvml(Library(counts, fails))


def test_nvml_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "LIBRARY", "libnot-there.so.1")
    with pytest.raises(NotReadable, match="no NVIDIA driver: libnot-there"):
        meters.nvml()


# ---- external, tdp, which there are --------------------------------------------------------------


def test_external_takes_watts_from_a_command_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "watts"
    file.write_text("12.5\n")
    for what in ("echo 12.5", f"@{file}"):
        assert sampled(meters.external(what)).watts == pytest.approx(12.5)


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("exit 3", "ended with status 3"),
        ("echo broken >&2; exit 1", "ended with status 1: broken"),
        ("not-a-command-7", "ended with status 127"),
        ("true", "says ''"),
        ("echo 12 W", "says '12 W'"),
        ("echo nan", "says 'nan'"),
        ("echo -1", "says '-1'"),
        ("@/not/there", "/not/there: No such file"),
    ],
)
def test_external_that_fails(what: str, why: str) -> None:
    with pytest.raises(NotReadable, match=why):
        meters.external(what)


def test_external_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "EXTERNAL_TIMEOUT_S", 0.1)
    with pytest.raises(NotReadable, match=r"no answer in 0\.1 s"):
        meters.external("sleep 9; echo 1")  # its children go with it


def test_external_that_is_too_slow_for_its_period() -> None:
    """Its first answer has not come when the measurement ends."""
    meter = meters.external("echo 1")
    assert isinstance(meter, Sampler)
    meter._every = meter.period_s = 0.01
    meter._read = lambda: float(meter._end.wait(60))
    meter.start()
    time.sleep(meters.MIN_PERIODS * 0.01)
    with pytest.raises(NotReadable, match="it answers slowly"):
        meter.stop()


def test_tdp_says_everywhere_that_it_is_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = meters.make("tdp:15")
    energy = count(meter, monkeypatch, 2.0, lambda: None)
    assert energy.joules == 30
    for text in (meter.name, meter.covers, energy.how):
        assert "declared TDP, not measured" in text


@pytest.mark.parametrize(
    "text", ["rapll", "tdp:", "tdp:0", "external:", "external:@", "rapl+tdp:5"]
)
def test_a_mistake_is_no_unreadable_meter(text: str, tmp_path: Path) -> None:
    zone(tmp_path, "0", "package-0", 1)
    with pytest.raises(UserError) as caught:
        meters.find([text], tmp_path)
    assert not isinstance(caught.value, NotReadable)


def test_what_is_found_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One can be read; of each of the others there is the reason."""
    monkeypatch.setattr(nvml, "LIBRARY", "libnot-there.so.1")
    zone(tmp_path, "0", "package-0", 1)
    found, reasons = meters.find(None, tmp_path)
    assert [meter.name for meter in found] == ["rapl"]
    assert list(reasons) == ["amdgpu", "nvml"]
    assert all(reason.startswith("not readable: no ") for reason in reasons.values())
