# SPDX-License-Identifier: BSD-3-Clause
"""The C core without Python: its own tests under sanitizers, and its parsers under a fuzzer.

    tests/c/test_*.c ─┐                 ┌─ gcc, AddressSanitizer + UBSan ── all
                      ├─ + data plane ──┼─ gcc, ThreadSanitizer ─────────── those marked /* tsan */
    tests/c/fuzz_*.c ─┘                 └─ clang, libFuzzer + ASan + UBSan ─ fuzz_*.c

A test has a main() that returns 0 if all is well and prints what is not. A fuzz target gets bytes,
its seeds are the frames of the demo capture. HUMMINGBIRD_FUZZ_SECONDS (10) is the time for each
target; unless it is set, the run is the same every time.
"""

import functools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from scapy.utils import RawPcapReader

from hummingbird import topology
from hummingbird.dataplane import build
from hummingbird.nfs.tables import layout

ROOT = Path(__file__).parent.parent
C_TESTS = ROOT / "tests" / "c"
DEMO = ROOT / "policies" / "demo" / "branch.pcap"
CRASHES = ROOT / "build" / "fuzz"
SECONDS = int(os.environ.get("HUMMINGBIRD_FUZZ_SECONDS", "10"))
SANITIZE = {
    "asan": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "tsan": ["-fsanitize=thread"],
    "fuzz": ["-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"],
}
SANITIZER_OPTIONS = {
    "ASAN_OPTIONS": "print_legend=0",
    "TSAN_OPTIONS": "halt_on_error=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}
INCLUDES = [f"-I{directory}" for directory in [*build.INCLUDE_DIRS, C_TESTS]]
LIBRARIES = [f"-l{name}" for name in build.LIBRARIES]

Objects = Callable[[str], list[Path]]


@functools.cache
def clang() -> str:
    """A clang that can link libFuzzer; skips the test where there is none."""
    for name in ["clang", *(f"clang-{version}" for version in range(25, 13, -1))]:
        if shutil.which(name) is None:
            continue
        target = "int LLVMFuzzerTestOneInput(const char *d, long n) { return d && n < 0; }"
        link = [name, *SANITIZE["fuzz"], "-x", "c", "-", "-o", "/dev/null"]
        if subprocess.run(link, input=target, text=True, capture_output=True).returncode == 0:
            return name
    pytest.skip("NOT FUZZED: no clang with libFuzzer; apt-get install clang libclang-rt-dev")


@functools.cache
def fixed_addresses() -> list[str]:
    """`setarch -R` where it works: old sanitizer runtimes fail on kernels that randomise more."""
    prefix = ["setarch", "-R"]
    try:
        return prefix if subprocess.run([*prefix, "true"]).returncode == 0 else []
    except FileNotFoundError:
        return []


def call(command: list[str | Path], seconds: float = 110) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*map(str, command)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=seconds,
        env=os.environ | SANITIZER_OPTIONS,
    )


def check(command: list[str | Path], seconds: float = 110) -> None:
    done = call(command, seconds)
    if done.returncode != 0:
        text = done.stdout[-12000:]
        pytest.fail(f"{' '.join(map(str, command))}\nexit status {done.returncode}\n{text}", False)


def compiler(kind: str) -> list[str]:
    return [clang() if kind == "fuzz" else "gcc", *build.CFLAGS, "-g", "-O1", *SANITIZE[kind]]


def compile_file(kind: str, source: Path, target: Path) -> Path:
    flags = compiler(kind)
    if kind == "fuzz":
        flags.append("-fsanitize=fuzzer-no-link")  # libFuzzer brings a main(); only links take it
    check([*flags, *INCLUDES, "-c", source, "-o", target], 300)
    return target


def link_file(kind: str, source: Path, objects: list[Path], directory: Path) -> Path:
    program = directory / source.stem
    check([*compiler(kind), *INCLUDES, source, *objects, "-o", program, *LIBRARIES], 300)
    return program


@pytest.fixture(scope="session")
def core(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    """The data plane's objects for a kind of sanitizer; compiled when first asked for."""

    @functools.cache
    def objects(kind: str) -> list[Path]:
        directory = tmp_path_factory.mktemp(kind)
        with ThreadPoolExecutor(2) as pool:
            return list(
                pool.map(
                    lambda source: compile_file(kind, source, directory / f"{source.stem}.o"),
                    map(Path, build.find(".c")),
                )
            )

    return objects


def cases() -> Iterator[tuple[str, str]]:
    for path in sorted(C_TESTS.glob("test_*.c")):
        yield path.name, "asan"
        if any("/* tsan */" in line for line in path.read_text().splitlines()[:5]):
            yield path.name, "tsan"


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("name", "kind"), [*cases()])
def test_c(name: str, kind: str, core: Objects, tmp_path: Path) -> None:
    program = link_file(kind, C_TESTS / name, core(kind), tmp_path)
    check([*fixed_addresses(), program], 400)  # it waits a minute for each thing that may come


def real_tables(folder: Path) -> bytes:
    """The tables region of a forward, and of the NFs of fuzz_chain.py."""
    import numpy as np
    from fuzz_chain import scenarios

    specs = []
    for number, scenario in enumerate(scenarios()):
        if scenario.name.endswith(("hyperscan", "ipsec_mb", "avx2", "chain")):
            continue  # tables that the others have, too
        base = folder / str(number)
        base.mkdir()
        for name, content in scenario.files.items():
            (base / name).write_text(str(content))
            (base / name).chmod(0o600)
        (base / "policy.csv").write_text("packet_type,current_nf,next_nf\n" + scenario.rows)
        ports = {"in0": {"driver": "generator"}, "out0": {"driver": "sink"}}
        text = yaml.safe_dump(scenario.topology | {"ports": ports, "policy": "policy.csv"})
        (base / "topology.yaml").write_text(text)
        top = topology.load(base / "topology.yaml")
        tables = top.build_tables()
        # a Python NF has no packet function to fuzz
        specs += [(spec.nf, tables[spec.name]) for spec in top.nfs if not spec.nf.peer]
    instances = [(nf.kind, table) for nf, table in specs]
    plan = layout(instances, [[0]], [nf.flow_bytes for nf, _ in specs], flows=1)
    region = np.zeros(plan.size, dtype=np.uint8)
    plan.fill(region)
    return region.tobytes()


@pytest.mark.timeout(400 + SECONDS)
@pytest.mark.parametrize("name", sorted(path.name for path in C_TESTS.glob("fuzz_*.c")))
def test_fuzz(name: str, core: Objects, tmp_path: Path) -> None:
    program = link_file("fuzz", C_TESTS / name, core("fuzz"), tmp_path)
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    for number, (frame, _) in enumerate(RawPcapReader(str(DEMO))):
        (seeds / f"{number:05}").write_bytes(frame)
    tables = tmp_path / "tables"
    tables.write_bytes(real_tables(tmp_path))
    CRASHES.mkdir(parents=True, exist_ok=True)
    effort = [f"-max_total_time={SECONDS}"] if SECONDS else ["-runs=0"]
    if "HUMMINGBIRD_FUZZ_SECONDS" not in os.environ:
        effort.append("-seed=1")
    # libFuzzer takes for its own what pytest had when it forked: most of it is none of the target's
    options = ["-max_len=2048", "-timeout=10", "-rss_limit_mb=0"]
    options.append(f"-artifact_prefix={CRASHES}/{program.name}-")
    given = ["env", f"HUMMINGBIRD_FUZZ_TABLES={tables}"]
    check([*given, *fixed_addresses(), program, *effort, *options, seeds], SECONDS + 100)


PLANTED = {
    "asan": ("heap-use-after-free", "main(void) { return use_after_free(); }"),
    "tsan": (
        "data race",
        """main(void) {
            pthread_t other;
            pthread_create(&other, NULL, count, NULL);
            count(NULL);
            return pthread_join(other, NULL);
        }""",
    ),
    "fuzz": (
        "heap-use-after-free",
        """LLVMFuzzerTestOneInput(const unsigned char *data, size_t n) {
            if (n > 1 && data[0] == 'h' && data[1] == 'b')
                sum += use_after_free();
            return 0;
        }""",
    ),
}


@pytest.mark.parametrize("kind", SANITIZE)
def test_planted_bug_is_found(kind: str, tmp_path: Path) -> None:
    """The sanitizers and the fuzzer do work on this machine: each finds a bug put there for it."""
    word, body = PLANTED[kind]
    source = tmp_path / "planted.c"
    source.write_text(f"""
        #include <pthread.h>
        #include <stdlib.h>
        long sum;
        void *count(void *unused) {{
            for (int i = 0; i < 100000; i++)
                sum++;
            return unused;
        }}
        int use_after_free(void) {{
            char *volatile p = malloc(8);
            free(p);
            return p[7];
        }}
        int {body}
    """)
    program = tmp_path / "planted"
    check([*compiler(kind), source, "-o", program, "-lpthread"])
    options = ["-seed=1", "-max_total_time=30", f"-artifact_prefix={tmp_path}/"]
    done = call([*fixed_addresses(), program, *(options if kind == "fuzz" else [])])
    assert done.returncode != 0, done.stdout
    assert word in done.stdout


def test_declarations_are_what_cffi_can_parse() -> None:
    """A header as C has it -> what FFI.cdef() takes."""
    header = """
        /* a comment; with #define INNER 3 */
        #ifndef API_H
        #define API_H
        #include <stdint.h>
        #ifdef __cplusplus
        extern "C" {
        #endif
        #define COUNT 0x40u /* plain */
        #define MASK (COUNT - 1)
        #define TWICE(x) ((x) + (x))
        int hb_f(int n); // after
        #endif
    """
    lines = [line.strip() for line in build.declarations(header).splitlines() if line.strip()]
    assert lines == ["#define COUNT 0x40u", "#define MASK ...", "int hb_f(int n);"]
