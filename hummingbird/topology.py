# SPDX-License-Identifier: BSD-3-Clause
"""The topology: a YAML file becomes ports, NFs, packet types and where they run.

Every mistake is a UserError with file, line, field and fix. The strings below fields are also what
users read: tools/reference.py makes a page of them. policies/ has examples.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from hummingbird import nfs, placement, ports, yamlfile
from hummingbird.dataplane.plane import cpu_engines
from hummingbird.errors import UserError
from hummingbird.nfs import BuildContext, Nf, NfParams, NfTable, user
from hummingbird.placement import Cores, Placement
from hummingbird.policy import DROP, OTHER, Vocabulary
from hummingbird.ports import InputFile, PortParams, Whole, mistake
from hummingbird.ports.dpdk import DpdkSection
from hummingbird.rules import MAX_RULES, Rule, RuleParams
from hummingbird.textfile import NAME, NAME_RULE, quoted, suggest
from hummingbird.yamlfile import Key, Location, YamlFile

MAX_NODES = 64  # HB_MAX_NODES of api.h
MAX_TYPES = 256  # HB_MAX_TYPES
FRAME_OVERHEAD = 384  # HB_FRAME_RESERVED + HB_FRAME_HEADROOM


# --- The file -------------------------------------------------------------------------------------


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _power_of_two(value: int) -> int:
    if value & (value - 1):
        raise mistake(f"{value} is no power of two", f"write {1 << value.bit_length()}")
    return value


def _unless_auto(value: Any) -> Any:
    return None if value == "auto" else value


PowerOfTwo = Annotated[Whole, AfterValidator(_power_of_two)]


class Device(_Section):
    """How the OpenCL device is used: the section ``device:``."""

    use: Annotated[str, Field(min_length=1)] = "auto"
    """``auto`` (GPU NFs run on the CPU where there is no device), ``required``, ``none``, or a part
    of the name of a device or platform."""
    executor: Literal["auto", "persistent", "launch"] = "auto"
    """``persistent``: one kernel that stays; ``launch``: a kernel for every batch; ``auto``:
    the former where a probe saw it work."""
    lanes: Annotated[Whole, Field(ge=1, le=1024)] = 64
    """Packets of a row: work-items of a workgroup."""
    depth: Annotated[PowerOfTwo, Field(ge=2, le=4096)] = 64
    """Rows that may wait for a workgroup."""
    groups: Annotated[
        Annotated[Whole, Field(ge=1, le=4094)] | None, BeforeValidator(_unless_auto)
    ] = None
    """Workgroups that a launch starts; ``auto``: as many as the device asks for."""
    lifetime_ms: Annotated[Whole, Field(ge=1, le=60_000)] = 200
    """A persistent kernel leaves after this long."""
    idle_ms: Annotated[Whole, Field(ge=1, le=60_000)] = 100
    """It leaves after this long without a packet."""


class Memory(_Section):
    """Sizes fixed at start: the section ``memory:``."""

    mbufs: Annotated[Whole, Field(ge=1024, lt=1 << 28)] = 16384
    """Packets that exist at once."""
    frame_size: Literal[2048, 4096] = 2048
    """Bytes of packet memory for each packet; 384 of them are not for packet data."""
    queue: Annotated[PowerOfTwo, Field(ge=64, le=1 << 20)] = 4096
    """Packets that may wait before an NF or port, and between two cores."""
    flows: Annotated[PowerOfTwo, Field(ge=64, le=1 << 24)] = 65536
    """Flows that a core with an input port can tell apart."""

    @property
    def frame_room(self) -> int:
        """Bytes of the longest packet that can come in."""
        return self.frame_size - FRAME_OVERHEAD


Seconds = Annotated[Whole, Field(ge=1, le=43_200)]  # HB_FLOW_TIMEOUT_MOST


class Timeouts(_Section):
    """Seconds of packet time after which an idle flow is over, by its state: the section
    ``flows.timeouts:``."""  # the names are those of hb_flow_state_name()

    other: Seconds = 60
    """Of another protocol, or not IP."""
    tcp_syn: Seconds = 30
    """No more than a SYN and its answer."""
    tcp_established: Seconds = 7200
    """The handshake was seen, or both ends have sent."""
    tcp_midstream: Seconds = 120
    """No SYN was seen, and one end has sent."""
    tcp_closing: Seconds = 30
    """A FIN or RST was seen."""
    udp: Seconds = 30
    """One end has sent."""
    udp_both: Seconds = 180
    """Both ends have sent."""
    icmp: Seconds = 30
    """Echo requests with one id and their replies; or all else between two addresses."""
    fragment: Seconds = 30
    """Fragments of one datagram."""


class Flows(_Section):
    """How long flows live, where NFs keep state of them: the section ``flows:``."""

    when_full: Literal["refuse", "evict"] = "refuse"
    """``refuse``: packets of new flows are dropped; ``evict``: the oldest half-open or closing
    flow ends."""
    timeouts: Timeouts = Timeouts()
    """After which an idle flow is over, by its state."""


class Telemetry(_Section):
    """What is measured beside counting: the section ``telemetry:``."""

    latency: bool = True
    """Latency samples, one packet of a burst, and busy times."""


def _name(name: str) -> str:
    if name == DROP:
        raise mistake("'drop' is the end of a path, not a name", "choose another name")
    if not NAME.fullmatch(name):
        raise mistake(f"{quoted(name)} is no name", f"write {NAME_RULE}")
    return name


def _type_name(name: str) -> str:
    if name == OTHER:
        raise mistake(f"'{OTHER}' is what no rule matches", "choose another name")
    if name == "pass":
        raise mistake("'pass' is what an NF does, not a type", "choose another name")
    return _name(name)


def _rules(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


Name = Annotated[str, AfterValidator(_name)]
TypeName = Annotated[str, AfterValidator(_type_name)]
Rules = Annotated[list[RuleParams], BeforeValidator(_rules), Field(min_length=1)]


class _Zone(_Section):
    """What every input port may say."""

    zone: Annotated[Whole, Field(ge=0, le=65535)] = 0
    """Flows of different zones are different, even where all their addresses are equal."""


class _File(_Section):
    policy: InputFile
    """The route policy's CSV file."""
    ports: dict[Name, dict[Key, Any]]
    """Where packets come from and go to: ``NAME: {driver: ..., ...}``."""
    nfs: dict[Name, dict[Key, Any]] = {}
    """The network functions: ``NAME: {type: ..., engine: ..., ...}``."""
    types: dict[TypeName, Rules] = {}
    """Packet types: ``NAME: RULE`` or a list of rules, in order."""
    device: Device = Device()
    """How the OpenCL device is used."""
    cores: Annotated[Cores, BeforeValidator(placement.from_yaml)] = Cores()
    """Which CPU runs what; ``auto``, or a map."""
    memory: Memory = Memory()
    """Sizes, fixed at the start."""
    flows: Flows = Flows()
    """How long flows live, where NFs keep state of them."""
    dpdk: DpdkSection = DpdkSection()
    """How DPDK is started."""
    telemetry: Telemetry = Telemetry()
    """What is measured beside counting."""


# --- What it becomes ------------------------------------------------------------------------------


@dataclass(frozen=True)
class PortSpec:
    """A port of a topology."""

    name: str
    driver: str
    params: PortParams
    line: int = field(compare=False)
    zone: int = 0
    """Of its packets: equal addresses in two zones are not one flow."""


@dataclass(frozen=True)
class NfSpec:
    """An NF of a topology."""

    name: str
    type: str
    engine: str
    """``auto``, ``cpu``, ``gpu`` or a CPU engine of the NF."""
    params: NfParams
    nf: Nf
    line: int = field(compare=False)

    @property
    def content_types(self) -> list[str]:
        """Packet types that it gives to packets."""
        return self.nf.content_types(self.params)

    @property
    def sticky(self) -> bool:
        """A re-type holds for the whole flow from then on."""
        return getattr(self.params, "sticky", None) in (True, "flow")


@dataclass(frozen=True)
class Topology:
    """A checked topology. Node and type numbers are indices into ``nodes`` and ``types``."""

    path: Path
    policy: Path
    """The route policy's CSV file."""
    ports: tuple[PortSpec, ...]
    nfs: tuple[NfSpec, ...]
    types: tuple[str, ...]
    """Names: ``other``, those with rules in the order of the file, those that only NFs give."""
    rules: tuple[Rule, ...]
    """In order; the first that a packet matches gives its type, none gives ``other``."""
    device: Device
    cores: Cores
    memory: Memory
    flows: Flows
    dpdk: DpdkSection
    telemetry: Telemetry
    yaml: YamlFile = field(compare=False, repr=False)

    @property
    def base(self) -> Path:
        """The directory that relative paths in the file start from."""
        return self.path.parent

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the ports, then of the NFs, in the order of the file."""
        return (*(port.name for port in self.ports), *(nf.name for nf in self.nfs))

    @property
    def type_numbers(self) -> Mapping[str, int]:
        """Packet type numbers by name."""
        return MappingProxyType({name: number for number, name in enumerate(self.types)})

    @property
    def uses_device(self) -> bool:
        """An NF is meant for the OpenCL device, and the device may be used."""
        return self.device.use != "none" and any(nf.engine == "gpu" for nf in self.nfs)

    def vocabulary(self) -> Vocabulary:
        """What the route policy may speak of."""
        arriving = {self.types[rule.type] for rule in self.rules} | {OTHER}
        arriving.update(name for nf in self.nfs if nf.sticky for name in nf.content_types)
        return Vocabulary(
            nodes=self.nodes,
            types=self.types,
            ingress=tuple(port.name for port in self.ports if port.params.ingress),
            egress=tuple(port.name for port in self.ports if port.params.egress),
            arriving=tuple(name for name in self.types if name in arriving),
            retypes={nf.name: tuple(nf.content_types) for nf in self.nfs if nf.content_types},
        )

    def place(self, cpus: Iterable[int] | None = None, device: bool = True) -> Placement:
        """Where everything runs.

        Args:
            cpus: CPU numbers that may be used; None: those this process may run on.
            device: False if GPU NFs have to run on the CPU.

        Raises:
            UserError: ``cores:`` names a CPU that may not be used.
        """
        allowed = tuple(sorted(os.sched_getaffinity(0) if cpus is None else set(cpus)))
        queues = {port.name: port.params.queue_count for port in self.ports}
        try:
            return placement.place(
                self.cores, allowed, queues, self.nfs, device and self.uses_device
            )
        except placement.PlacementError as error:
            raise self.yaml.error(error.what, ("cores", *error.place), error.fix) from None

    def choose_engines(self, engines: Mapping[str, Literal["cpu", "gpu"]]) -> dict[str, int]:
        """The engine of every NF that a CPU runs, by the NF's name.

        Args:
            engines: what each NF runs on (Placement.engines).

        Raises:
            UserError: an engine that an NF asks for does not run here.
        """
        chosen = {spec.name: self._engine(spec) for spec in self.nfs}
        return {name: engine for name, engine in chosen.items() if engines[name] == "cpu"}

    def _engine(self, spec: NfSpec) -> int:
        found = cpu_engines(spec.nf.kind)
        usable = [number for number, engine in enumerate(found) if engine.usable]
        if spec.engine == "cpu" or not usable:
            return 0
        if spec.engine in ("auto", "gpu"):
            return usable[-1]
        for number in usable:
            if found[number].name == spec.engine:
                return number
        built_in = any(engine.name == spec.engine for engine in found)
        fix = "write engine: auto" if built_in else spec.nf.engines[spec.engine]
        why = "does not run on this CPU" if built_in else "is not built in"
        what = f"engine {spec.engine} {why}"
        raise self.yaml.error(what, ("nfs", spec.name, "engine"), fix)

    def build_tables(self) -> dict[str, NfTable]:
        """The table of every NF, by its name; reads the files that the NFs name.

        Raises:
            UserError: an NF refuses its parameters or a file.
        """
        return {spec.name: self._build_table(spec) for spec in self.nfs}

    def _build_table(self, spec: NfSpec) -> NfTable:
        context = BuildContext(spec.name, self.base, self.type_numbers)
        with self.errors_of(spec):
            return spec.nf.build(spec.params, context)

    @contextmanager
    def errors_of(self, spec: NfSpec) -> Iterator[None]:
        """Give a UserError of an NF that names no file its place in this one."""
        try:
            yield
        except UserError as error:
            if error.path is not None:
                raise
            field = error.field or f"nfs.{spec.name}"
            place = self.yaml.known(field.split("."))
            raise UserError(
                error.what, path=self.path, line=self.yaml.line(place), field=field, fix=error.fix
            ) from None


# --- Loading --------------------------------------------------------------------------------------


def load(path: Path | str, bindings: Mapping[str, Path | str] | None = None) -> Topology:
    """Read and check a topology.

    Args:
        path: the YAML file.
        bindings: files for ``$in`` and ``$out`` by "in" and "out", relative to the working
            directory. None leaves the two unbound: enough to check and to explain, not to run.

    Raises:
        UserError: the first mistake found.
    """
    return build(yamlfile.load(Path(path)), bindings)


def build(yaml: YamlFile, bindings: Mapping[str, Path | str] | None = None) -> Topology:
    """`load` for a file that is parsed already."""
    if not isinstance(yaml.data, dict):
        raise yaml.error("not a topology", (), "begin with 'policy: FILE.csv' and 'ports:'")
    context = {"base": yaml.path.parent}
    file = yaml.validate(_File, yaml.data, (), context)
    port_specs = tuple(_ports(yaml, file, bindings))
    nf_specs = tuple(_nfs(yaml, file))
    _check_nodes(yaml, port_specs, nf_specs)
    _check_files(yaml, port_specs)
    _check_interfaces(yaml, port_specs)
    _check_bindings(yaml, bindings or {})
    types = _types(yaml, file, nf_specs)
    topology = Topology(
        path=yaml.path,
        policy=file.policy,
        ports=port_specs,
        nfs=nf_specs,
        types=types,
        rules=tuple(_entries(yaml, file)),
        device=file.device,
        cores=file.cores,
        memory=file.memory,
        flows=file.flows,
        dpdk=file.dpdk,
        telemetry=file.telemetry,
        yaml=yaml,
    )
    named = file.cores.cpus()
    topology.place((*os.sched_getaffinity(0), *named))  # what is wrong on any machine
    return topology


def _ports(
    yaml: YamlFile, file: _File, bindings: Mapping[str, Path | str] | None
) -> Iterator[PortSpec]:
    context = {"base": yaml.path.parent, "bindings": bindings}
    for name, data in file.ports.items():
        place = ("ports", name)
        driver, rest = _take(yaml, data, place, "driver", ports.NAMES)
        zone = yaml.validate(
            _Zone, {k: rest.pop(k) for k in ("zone",) if k in rest}, place, context
        ).zone
        params = yaml.validate(ports.load(driver).params, rest, place, context)
        if zone and not params.ingress:
            what = "no packet comes in here, so it has no zone"
            raise yaml.error(what, (*place, "zone"), "leave zone out")
        yield PortSpec(name, driver, params, yaml.line(place), zone)


def _nfs(yaml: YamlFile, file: _File) -> Iterator[NfSpec]:
    own: dict[Path, Nf] = {}
    for name, data in file.nfs.items():
        place = ("nfs", name)
        kind, nf, rest = _nf_type(yaml, data, place, own)
        engine = rest.pop("engine", "auto")
        options = ("auto", "cpu", *(() if nf.peer else ("gpu",)), *nf.engines)
        if engine not in options:
            what = f"there is no engine {quoted(engine)} of {kind}"
            raise yaml.error(what, (*place, "engine"), f"write one of: {', '.join(options)}")
        params = yaml.validate(nf.params, rest, place, {"base": yaml.path.parent})
        _check_nf_files(yaml, params, place)
        yield NfSpec(name, kind, engine, params, nf, yaml.line(place))


def _nf_type(
    yaml: YamlFile, data: Mapping[Key, Any], place: Location, own: dict[Path, Nf]
) -> tuple[str, Nf, dict[Key, Any]]:
    """The value of ``type:``, the NF that it names, and the other fields. `own` are the users' NFs
    so far, by their files."""
    value = data.get("type")
    if not (isinstance(value, str) and value.endswith(".py")):
        kind, rest = _take(yaml, data, place, "type", nfs.TYPES)
        return kind, nfs.load(kind), rest
    path = Path(os.path.abspath(yaml.path.parent / value))
    if path not in own:
        _check_readable(yaml, path, (*place, "type"))
        nf = replace(user.load(path), kind=nfs.FIRST_OWN + len(own))
        if nf.name in (other.name for other in own.values()):
            what = f"two files of NFs are called {nf.name}.py"
            raise yaml.error(what, (*place, "type"), "rename one of the two, and what is in it")
        own[path] = nf
    return value, own[path], {key: entry for key, entry in data.items() if key != "type"}


def _take(
    yaml: YamlFile, data: Mapping[Key, Any], place: Location, name: str, options: tuple[str, ...]
) -> tuple[str, dict[Key, Any]]:
    """The value of the field `name`, one of `options`, and the other fields."""
    rest = dict(data)
    if name not in rest:
        fix = f"add '{name}: ...' with one of: {', '.join(options)}"
        raise yaml.error(f"{name} is missing", place, fix, missing=name)
    value = rest.pop(name)
    if value not in options:
        what = f"there is no {name} {quoted(value)}"
        raise yaml.error(what, (*place, name), suggest(value, options))
    return str(value), rest


def _check_nodes(
    yaml: YamlFile, port_specs: tuple[PortSpec, ...], nf_specs: tuple[NfSpec, ...]
) -> None:
    names = {port.name for port in port_specs}
    for nf in nf_specs:
        if nf.name in names:
            place = ("nfs", nf.name)
            raise yaml.error(f"a port is called {nf.name}, too", place, "rename one of the two")
    if len(port_specs) + len(nf_specs) > MAX_NODES:
        what = f"{len(port_specs) + len(nf_specs)} ports and NFs"
        raise yaml.error(what, ("nfs",), f"use {MAX_NODES} at most")
    if not any(port.params.ingress for port in port_specs):
        fix = "add a port with 'driver: generator', or 'driver: pcap' and 'read: FILE'"
        raise yaml.error("no port takes packets in", ("ports",), fix)


def _check_files(yaml: YamlFile, port_specs: tuple[PortSpec, ...]) -> None:
    """No file that is written is read or written by another port."""
    users = {_file(path): port.name for port in port_specs for path in port.params.reads()}
    for port in port_specs:
        for path in port.params.writes():
            user = users.setdefault(_file(path), port.name)
            if user != port.name and not _is_special(path):
                what = f"{path} would be replaced while {user} uses it"
                raise yaml.error(what, ("ports", port.name, "write"), "name another file")


def _check_interfaces(yaml: YamlFile, port_specs: tuple[PortSpec, ...]) -> None:
    """No interface belongs to two ports: each would have all its packets, or none."""
    users: dict[str, str] = {}
    for port in port_specs:
        if port.params.watched is None:
            continue
        user = users.setdefault(port.params.watched, port.name)
        if user != port.name:
            what = f"{user} has the interface {port.params.watched}"
            raise yaml.error(what, ("ports", port.name), "name another one, or remove a port")


def _file(path: Path) -> str:
    return str(path) if ports.is_unbound(path) else os.path.realpath(path)


def _is_special(path: Path) -> bool:
    return os.path.exists(path) and not os.path.isfile(path)  # such as /dev/null


def _check_bindings(yaml: YamlFile, bindings: Mapping[str, Path | str]) -> None:
    used = {
        value
        for port in yaml.data["ports"].values()
        for value in port.values()
        if isinstance(value, str)
    }
    for name in bindings:
        if f"${name}" not in used:
            what = f"--{name} is given, but no port uses ${name}"
            fix = f"leave --{name} out, or write ${name} for the file of a port"
            raise yaml.error(what, ("ports",), fix)


def _check_nf_files(yaml: YamlFile, params: BaseModel, place: Location) -> None:
    """Every file that an NF's parameters name exists."""
    for name in type(params).model_fields:
        value = getattr(params, name)
        if isinstance(value, BaseModel):
            _check_nf_files(yaml, value, (*place, name))
        for path in value if isinstance(value, list) else [value]:
            if isinstance(path, Path):
                _check_readable(yaml, path, (*place, name))


def _check_readable(yaml: YamlFile, path: Path, place: Location) -> None:
    full = yaml.path.parent / path
    if not os.path.exists(full):
        fix = "correct the name, which is relative to this file"
        raise yaml.error(f"no such file: {full}", place, fix)
    if os.path.isdir(full) or not os.access(full, os.R_OK):
        raise yaml.error(f"{full} cannot be read", place, "name a file that can be read")


def _types(yaml: YamlFile, file: _File, nf_specs: tuple[NfSpec, ...]) -> tuple[str, ...]:
    names = dict.fromkeys([OTHER, *file.types])
    for nf in nf_specs:
        for name in nf.content_types:
            if not NAME.fullmatch(name):
                what = f"{quoted(name)} is no name of a packet type"
                raise yaml.error(what, yaml.where(name, ("nfs", nf.name)), f"write {NAME_RULE}")
            names[name] = None
    if len(names) > MAX_TYPES:
        raise yaml.error(f"{len(names)} packet types", ("types",), f"use {MAX_TYPES} at most")
    return tuple(names)


def _entries(yaml: YamlFile, file: _File) -> Iterator[Rule]:
    count = 0
    for number, (name, rules) in enumerate(file.types.items(), 1):
        for index, rule in enumerate(rules):
            place = ("types", name, index)
            for entry in rule.entries(number, yaml.line(place)):
                count += 1
                if count > MAX_RULES:
                    what = f"more than {MAX_RULES} combinations of protocol, address and port"
                    raise yaml.error(what, place, "write fewer rules or shorter lists")
                yield entry
