# SPDX-License-Identifier: BSD-3-Clause
"""Power meters: what a stretch of time cost in joules (docs/power.md).

A meter that cannot be read raises NotReadable with the reason. It never returns 0 instead, and
never an estimate: only `tdp` is one, and its name says so wherever it goes.
"""

from __future__ import annotations

import math
import os
import signal
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from notreadable import NotReadable
from nvml import Library, counted_joules, gpus, load, watts_now

from hummingbird.errors import UserError

T = TypeVar("T")
ROOT = Path("/")
MIN_PERIODS = 5
"""A measurement is at least this many periods of its meter long: so the two ends, each known to one
period, weigh at most 40 %, and a sampled mean has some samples."""
DECLARED = "declared TDP, not measured"
AUTOMATIC = ("rapl", "amdgpu", "nvml")
"""Meters that are tried when none is asked for."""


@dataclass(frozen=True)
class Energy:
    """What a meter counted."""

    joules: float
    seconds: float
    how: str
    """Where the figure comes from, sampling period included."""

    @property
    def watts(self) -> float:
        """The mean."""
        return self.joules / self.seconds


class Meter(Protocol):
    """Something that measures energy between start() and stop()."""

    @property
    def name(self) -> str:
        """For tables and plots: `rapl`, or `tdp 15 W (declared TDP, not measured)`."""

    @property
    def covers(self) -> str:
        """What the energy is of, for people."""

    @property
    def parts(self) -> frozenset[str]:
        """The same for add(): what has a part in common must not be added. Empty: nobody knows."""

    @property
    def period_s(self) -> float:
        """How often its figure moves, or is asked for."""

    def start(self) -> None:
        """Begin to measure. Raises NotReadable, and then stop() is not to be called."""

    def stop(self) -> Energy:
        """End. Raises NotReadable: it could not be read, or for too short a time."""


def _long_enough(name: str, seconds: float, period_s: float) -> None:
    least = MIN_PERIODS * period_s
    if seconds < least:
        raise NotReadable(
            f"{name}: {seconds:.3g} s is too short for a meter of {period_s:g} s resolution",
            fix=f"measure for at least {least:g} s",
        )


# ---- the two kinds of meters ---------------------------------------------------------------------


class Counter:
    """A meter that counts energy by itself."""

    def __init__(
        self,
        name: str,
        covers: str,
        parts: frozenset[str],
        period_s: float,
        read: Callable[[], Sequence[float]],
        wraps: Sequence[float | None] = (),
    ) -> None:
        """Make one, and read it once.

        Args:
            name: for tables.
            covers: what it counts the energy of.
            parts: the same, for add().
            period_s: how often the counters move.
            read: the counters in joules.
            wraps: where each begins at 0 again, in joules; None or nothing: never.
        """
        self.name, self.covers, self.parts, self.period_s = name, covers, parts, period_s
        self._read, self._wraps = read, wraps or [None] * len(read())
        self._before: Sequence[float] = ()
        self._began = 0.0
        read()

    def start(self) -> None:
        """Begin to measure."""
        self._before, self._began = self._read(), time.monotonic()

    def stop(self) -> Energy:
        """End."""
        after, seconds = self._read(), time.monotonic() - self._began
        _long_enough(self.name, seconds, self.period_s)
        readings = zip(self._before, after, self._wraps, strict=True)
        joules = sum(self._difference(*reading, seconds) for reading in readings)
        return Energy(joules, seconds, f"energy counter, {self.period_s:g} s resolution")

    def _difference(self, before: float, after: float, wrap: float | None, seconds: float) -> float:
        if wrap is not None and seconds > wrap / MOST_WATTS:
            raise NotReadable(
                f"{self.name}: its counter may have begun at 0 more than once in {seconds:.0f} s",
                fix=f"measure for at most {wrap / MOST_WATTS:.0f} s",
            )
        if after >= before:
            return after - before
        joules = after - before + (wrap or 0.0)
        if not 0 <= joules <= MOST_WATTS * seconds:
            raise NotReadable(f"{self.name}: its counter was reset, from {before} to {after} J")
        return joules


MOST_WATTS = 1000.0
"""No package draws more: what bounds how long a counter that wraps can be trusted."""


class Sampler:
    """A meter that tells power when asked: the mean of samples a period apart."""

    def __init__(
        self,
        name: str,
        covers: str,
        parts: frozenset[str],
        period_s: float,
        read: Callable[[], float],
        window_s: float = 0.0,
    ) -> None:
        """Make one, and read it once.

        Args:
            name: for tables.
            covers: what it tells the power of.
            parts: the same, for add().
            period_s: between samples.
            read: watts now.
            window_s: the time that the meter itself takes the mean over: what was before the
                measurement shows in it for that long.
        """
        self.name, self.covers, self.parts = name, covers, parts
        self.period_s = max(period_s, window_s)
        self._every, self._read = period_s, read
        self._samples: list[float] = []
        self._error: NotReadable | None = None
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self._began = 0.0
        read()

    def start(self) -> None:
        """Begin to measure."""
        self._samples, self._error, self._end = [], None, threading.Event()
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        due = self._began + self._every
        while not self._end.wait(max(0.0, due - time.monotonic())):
            try:
                self._samples.append(self._read())
            except NotReadable as error:
                self._error = error
                return
            due = max(due + self._every, time.monotonic())

    def stop(self) -> Energy:
        """End."""
        seconds = time.monotonic() - self._began
        self._end.set()
        assert self._thread is not None, "start() comes first"
        self._thread.join()
        if self._error:
            raise self._error
        _long_enough(self.name, seconds, self.period_s)
        n = len(self._samples)
        if n < MIN_PERIODS - 1:
            raise NotReadable(
                f"{self.name}: only {n} samples in {seconds:.3g} s: it answers slowly"
            )
        watts = math.fsum(self._samples) / n
        return Energy(watts * seconds, seconds, f"mean of {n} samples, one every {self._every:g} s")


# ---- files ---------------------------------------------------------------------------------------


def _text(meter: str, path: Path, fix: str | None = None) -> str:
    """A file of sysfs, or why it cannot be read."""
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        denied = isinstance(error, PermissionError)
        raise NotReadable(f"{meter}: {path}: {why}", fix=fix if denied else None) from None


def _number(meter: str, text: str, where: str) -> float:
    """A figure that energy or power can have."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise NotReadable(f"{meter}: {where} says {text[:60]!r}, which is no power or energy")
    return value


# ---- rapl ----------------------------------------------------------------------------------------

RAPL_PERIOD_S = 0.001
RAPL_FIX = "run as root: since Linux 5.10 only root may read energy_uj"


def rapl(root: Path = ROOT) -> Meter:
    """The CPU packages, by the kernel's powercap driver (Documentation/power/powercap), on AMD too.

    Only zones named package-*: their subzones (core, uncore) are in them, a zone `psys` contains
    them, and intel-rapl-mmio:* are the same packages once more. DRAM, where it is counted at all,
    is a zone apart that no package includes: it is left out, and the meter says so.

    Raises:
        NotReadable: there is none, or not all of it can be read.
    """
    top = root / "sys/class/powercap"
    names = {zone: _text("rapl", zone / "name") for zone in sorted(top.glob("intel-rapl:*"))}
    packages = [zone for zone, name in names.items() if name.startswith("package-")]
    if not packages:
        raise NotReadable(
            f"rapl: no intel-rapl package in {top}: a virtual machine has none, and the kernel "
            "needs CONFIG_INTEL_RAPL"
        )
    ranges = [_microjoules(zone / "max_energy_range_uj") for zone in packages]
    count = f"{len(packages)} CPU package{'s' if len(packages) > 1 else ''}"
    return Counter(
        "rapl",
        f"{count}, without DRAM",
        frozenset({"cpu"}),
        RAPL_PERIOD_S,
        lambda: [_microjoules(zone / "energy_uj") for zone in packages],
        ranges,
    )


def _microjoules(path: Path) -> float:
    return _number("rapl", _text("rapl", path, RAPL_FIX), str(path)) / 1e6


# ---- amdgpu --------------------------------------------------------------------------------------

AMDGPU_PERIOD_S = 0.1


def amdgpu(root: Path = ROOT) -> Meter:
    """All AMD GPUs, by the hwmon files of their driver (the kernel's gpu/amdgpu/thermal page):
    socket power, which on an APU includes the CPU.

    Raises:
        NotReadable: there is none, or not all of them can be read.
    """
    top = root / "sys/class/hwmon"
    cards = [at for at in sorted(top.glob("hwmon*")) if _is_amdgpu(at)]
    if not cards:
        raise NotReadable(f"amdgpu: no hwmon of the amdgpu driver in {top}")
    files = [_power_file(card) for card in cards]
    kinds = [_kind(card) for card in cards]
    parts = {f"amdgpu:{i}" for i in range(len(cards))}
    if any(kind != DISCRETE for kind in kinds):
        parts.add("cpu")
    return Sampler(
        "amdgpu",
        ", ".join(kinds),
        frozenset(parts),
        AMDGPU_PERIOD_S,
        lambda: sum(_microwatts(file) for file in files),
    )


APU = "APU (its CPU included)"
DISCRETE = "discrete AMD GPU"
UNKNOWN = "AMD GPU (if it is an APU, its CPU is included)"


def _is_amdgpu(at: Path) -> bool:
    try:
        return (at / "name").read_text().strip() == "amdgpu"
    except OSError:
        return False


def _power_file(card: Path) -> Path:
    """The mean if the card has it, else the power of the moment: many have one of the two."""
    for name in ("power1_average", "power1_input"):
        if (card / name).exists():
            return card / name
    raise NotReadable(f"amdgpu: {card} has neither power1_average nor power1_input")


def _microwatts(file: Path) -> float:
    return _number("amdgpu", _text("amdgpu", file), str(file)) / 1e6


def _kind(card: Path) -> str:
    """in1_input, the northbridge's voltage, is there on APUs only. The header of gpu_metrics
    (kgd_pp_interface.h) has revision 1 on discrete GPUs, 2 and 3 on APUs; from 1.4 on it is of
    accelerators that come as both."""
    if (card / "in1_input").exists():
        return APU
    try:
        _, revision, content = struct.unpack("<HBB", (card / "device/gpu_metrics").read_bytes()[:4])
    except (OSError, struct.error):
        return UNKNOWN
    if revision >= 2:
        return APU
    return DISCRETE if revision == 1 and content < 4 else UNKNOWN


# ---- nvml ----------------------------------------------------------------------------------------

NVML_ENERGY_PERIOD_S = 0.1
NVML_POWER_PERIOD_S = 0.1
NVML_WINDOW_S = 1.0
"""From Ampere on nvmlDeviceGetPowerUsage() is the mean of the last second."""


def nvml(library: Library | None = None) -> Meter:
    """All NVIDIA GPUs that the driver shows: its energy counter (Volta and later), else power.

    Args:
        library: libnvidia-ml; None: the one of this machine.

    Raises:
        NotReadable: no driver, no GPU, or not all of them can be read.
    """
    lib = library or load()
    found = gpus(lib)
    covers = ", ".join(gpu.name for gpu in found)
    parts = frozenset(f"nvml:{i}" for i in range(len(found)))
    if all(gpu.counts_energy for gpu in found):
        return Counter(
            "nvml",
            covers,
            parts,
            NVML_ENERGY_PERIOD_S,
            lambda: [counted_joules(lib, gpu) for gpu in found],
        )
    return Sampler(
        "nvml",
        covers,
        parts,
        NVML_POWER_PERIOD_S,
        lambda: sum(watts_now(lib, gpu) for gpu in found),
        NVML_WINDOW_S,
    )


# ---- external, tdp -------------------------------------------------------------------------------

EXTERNAL_PERIOD_S = 0.2
EXTERNAL_TIMEOUT_S = 5.0


def external(what: str) -> Meter:
    """Watts from elsewhere, such as a meter at the wall.

    Args:
        what: a shell command that prints watts, one number, each time it is run; or `@FILE`, a
            file that holds them.

    Raises:
        NotReadable: it fails, or says something else.
        UserError: nothing is named.
    """
    if not what.strip("@ "):
        raise UserError("external: no command", fix="write external:COMMAND or external:@FILE")
    name = f"external:{what}"
    if what.startswith("@"):
        file = Path(what[1:])

        def read() -> float:
            return _number(name, _text(name, file), str(file))
    else:

        def read() -> float:
            return _number(name, _output(name, what), "the command")

    return Sampler(name, "what the meter is connected to", frozenset(), EXTERNAL_PERIOD_S, read)


def _output(name: str, command: str) -> str:
    child = subprocess.Popen(
        ["/bin/sh", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        said, errors = child.communicate(timeout=EXTERNAL_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)  # what it has started holds the pipes open
        child.communicate()
        raise NotReadable(f"{name}: no answer in {EXTERNAL_TIMEOUT_S:g} s") from None
    if child.returncode:
        raise NotReadable(f"{name}: ended with status {child.returncode}: {errors.strip()[:200]}")
    return said.strip()


class Tdp:
    """What the user says that the machine draws. Not a measurement, and labelled so everywhere."""

    covers = DECLARED
    parts: frozenset[str] = frozenset()
    period_s = 0.0

    def __init__(self, watts: float) -> None:
        self.name = f"tdp {watts:g} W ({DECLARED})"
        self._watts = watts
        self._began = 0.0

    def start(self) -> None:
        """Begin."""
        self._began = time.monotonic()

    def stop(self) -> Energy:
        """End."""
        seconds = time.monotonic() - self._began
        return Energy(self._watts * seconds, seconds, DECLARED)


def tdp(text: str) -> Meter:
    """A declared power in watts.

    Raises:
        UserError: it is none.
    """
    try:
        watts = float(text)
    except ValueError:
        watts = math.nan
    if not 0 < watts < math.inf:
        raise UserError(f"tdp: {text!r} is no power", field="--meter", fix="write tdp:15")
    return Tdp(watts)


# ---- several meters ------------------------------------------------------------------------------


def start(meters: Sequence[Meter]) -> list[NotReadable | None]:
    """Start all; None, or why one could not be."""
    return [_tried(meter.start) for meter in meters]


def stop(meters: Sequence[Meter]) -> list[Energy | NotReadable]:
    """Stop all, whatever some of them say; those that did not start repeat why."""
    return [_tried(meter.stop) for meter in meters]


def _tried(act: Callable[[], T]) -> T | NotReadable:
    try:
        return act()
    except NotReadable as error:
        return error


class Sum:
    """Several meters that measure different things, at once."""

    def __init__(self, meters: Sequence[Meter]) -> None:
        self._meters = meters
        self.name = "+".join(meter.name for meter in meters)
        self.covers = "; ".join(meter.covers for meter in meters)
        self.parts = frozenset().union(*(meter.parts for meter in meters))
        self.period_s = max(meter.period_s for meter in meters)

    def start(self) -> None:
        """Begin to measure."""
        for error in start(self._meters):
            if error:
                stop(self._meters)
                raise error

    def stop(self) -> Energy:
        """End: each has its own few microseconds, so powers are added."""
        found = stop(self._meters)
        for energy in found:
            if isinstance(energy, NotReadable):
                raise energy
        all_ = [energy for energy in found if isinstance(energy, Energy)]
        watts = math.fsum(energy.watts for energy in all_)
        how = "; ".join(f"{m.name}: {e.how}" for m, e in zip(self._meters, all_, strict=True))
        return Energy(watts * all_[0].seconds, all_[0].seconds, how)


def add(meters: Sequence[Meter]) -> Meter:
    """The sum of meters.

    Raises:
        UserError: it would count some energy twice, or nobody knows whether it would.
    """
    if len(meters) == 1:
        return meters[0]
    seen: dict[str, str] = {}
    for meter in meters:
        if not meter.parts:
            raise UserError(
                f"{meter.name} is added to nothing: nobody knows what it includes",
                fix="give it a --meter of its own",
            )
        for part in sorted(meter.parts):
            if part in seen:
                raise UserError(
                    f"{seen[part]}+{meter.name} would count the {part.upper()} twice",
                    fix="give each a --meter of its own",
                )
            seen[part] = meter.name
    return Sum(meters)


SYNTAX = "rapl, amdgpu, nvml, external:COMMAND, external:@FILE, tdp:WATTS, or a sum: rapl+nvml"


def make(text: str, root: Path = ROOT) -> Meter:
    """The meter that an option names: SYNTAX.

    Raises:
        NotReadable: it is not readable.
        UserError: there is no such meter, or it is a sum that would count something twice.
    """
    kind, colon, rest = text.partition(":")
    if colon and kind == "external":
        return external(rest)
    if colon and kind == "tdp":
        return tdp(rest)
    plain: Mapping[str, Callable[[], Meter]] = {
        "rapl": lambda: rapl(root),
        "amdgpu": lambda: amdgpu(root),
        "nvml": nvml,
    }
    names = text.split("+")
    for name in names:
        if name not in plain:
            raise UserError(f"there is no meter {name!r}", field="--meter", fix=f"write {SYNTAX}")
    return add([plain[name]() for name in names])


def find(
    wanted: Sequence[str] | None = None, root: Path = ROOT
) -> tuple[list[Meter], dict[str, str]]:
    """The meters that can be read, and why others cannot.

    Args:
        wanted: as for make(); nothing: AUTOMATIC.
        root: where sys/ is.

    Raises:
        UserError: one of them is no meter, or a sum that would count something twice.
    """
    meters: list[Meter] = []
    reasons: dict[str, str] = {}
    for text in wanted or AUTOMATIC:
        try:
            meters.append(make(text, root))
        except NotReadable as error:
            reasons[text] = f"not readable: {str(error).removeprefix(f'{text}: ')}"
    return meters, reasons
