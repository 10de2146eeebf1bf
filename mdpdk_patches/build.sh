#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
#
# mdpdk_patches/build.sh: DPDK with the patches beside this script, as static archives.
#
#   --prefix DIR     where to (default: ~/.cache/hummingbird/mdpdk-VERSION-CRC)
#   --source PATH    an unpacked DPDK, or its tarball, in place of what Debian 12 has
#   --drivers LIST   more drivers than those below, as DPDK's build names them: net/ixgbe,net/i40e
#
# Prints the prefix. In it: include/, lib/, and compile.flags and link.flags for gcc (@FILE).
# With nothing to do it takes no time. Exit status 3: what it takes, the source or packages, cannot
# be had.

set -euo pipefail
shopt -s inherit_errexit
here=$(cd -P "$(dirname "${BASH_SOURCE[0]}")" && pwd)

known="22.11.11" # the versions that the patches have been built and tested with, newest first
drivers=bus/pci,bus/vdev,mempool/ring
drivers+=,net/af_packet,net/af_xdp,net/null,net/pcap,net/ring,net/tap
unneeded=bitratestats,cfgfile,flow_classify,gpudev,graph,gro,jobstats,kni,latencystats,metrics,node
unneeded+=,pdump,pipeline,port,power,table,vhost

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*" && exit "${status:-1}"; }

trap 'say "error: line $LINENO of $0 failed"' ERR # for what says nothing itself

prefix='' source='' more=''
while [ $# -gt 0 ]; do
    if [ $# = 1 ]; then die "$1 is no option with a value; the options are in the head of $0"; fi
    case $1 in
        --prefix) prefix=$(realpath -m "$2") ;;
        --source) source=$(realpath -m "$2") ;;
        --drivers) more=$2 ;;
        *) die "unknown option $1; the options are in the head of $0" ;;
    esac
    shift 2
done

# ---- nothing to do? -----------------------------------------------------------------------------

cache=${XDG_CACHE_HOME:-${HOME:?}/.cache}/hummingbird
crc=$(cd "$here" && { cat ./*.patch build.sh && echo "$more"; } | cksum | tr -d ' ' | head -c 10)
place() { echo "${prefix:-$cache/mdpdk-$1-$crc}"; } # of a version
done_if_ready() { # one of these versions
    local version at
    for version; do
        at=$(place "$version")
        if [ "$(cat "$at/ready" 2>/dev/null)" = "$version $crc" ]; then echo "$at" && exit 0; fi
    done
}
if [ -z "$source" ]; then done_if_ready $known; fi

# ---- what it takes ------------------------------------------------------------------------------

missing=()
need() { command -v "$1" >/dev/null || missing+=("$2"); }
need_header() { echo "#include <$1>" | gcc -E -x c - >/dev/null 2>&1 || missing+=("$2"); }
need gcc gcc
need meson meson
need ninja ninja-build
need patch patch
need pkg-config pkg-config
need xz xz-utils
python=$(sed -n '1s/^#! *//p' "$(command -v meson || echo /dev/null)") # what meson runs scripts with
if ! ${python:-python3} -c 'import elftools' 2>/dev/null; then missing+=(python3-pyelftools); fi
need_header numa.h libnuma-dev
need_header pcap/pcap.h libpcap-dev
need_header xdp/xsk.h libxdp-dev
need_header bpf/bpf.h libbpf-dev
if [ ${#missing[@]} -gt 0 ]; then
    status=3 die "packages are missing; as root, run:" \
        "apt-get install -y --no-install-recommends ${missing[*]}"
fi

beside=$(dirname "$(place any)")
mkdir -p "$cache" "$beside"
exec 9>"$cache/mdpdk.lock"
if ! flock -n 9; then # one at a time; whoever waited may find it done
    say "waiting for another build to end"
    flock 9
fi
if [ -z "$source" ]; then done_if_ready $known; fi
temp=$(mktemp -d "$beside/mdpdk-building.XXXXXX") # to be moved in place at the end
trap 'rm -rf "$temp"' EXIT

# step LABEL COMMAND...: one line of output, unless the command fails.
step() {
    say "$1"
    if ! "${@:2}" >"$temp/log" 2>&1 9>&- </dev/null; then
        tail -n 15 "$temp/log" >&2
        die "that failed: $1"
    fi
}

# ---- the source ---------------------------------------------------------------------------------

# Debian's source packages are not among what apt knows of on most machines, and on Ubuntu they are
# others: lists and settings of our own, the machine's stay as they are.
fetch() {
    local apt=(-o Dir::Etc::sourcelist="$temp/apt/sources.list" -o Dir::Etc::sourceparts=-
        -o Dir::State::lists="$temp/apt/lists" -o Dir::Cache="$temp/apt/cache"
        -o APT::Sandbox::User= -o Acquire::Languages=none)
    local key=/usr/share/keyrings/debian-archive-keyring.gpg
    mkdir -p "$temp"/apt/{lists,cache/archives}/partial &&
        echo "deb-src [signed-by=$key] http://deb.debian.org/debian bookworm main" \
            >"$temp/apt/sources.list" && cd "$temp/apt" &&
        apt-get "${apt[@]}" update && apt-get "${apt[@]}" source --download-only dpdk &&
        mv dpdk_*.orig.tar.xz "$cache"
}
fetched() { # prints the newest there is of a known version
    local version
    for version in $known; do
        if [ -e "$cache/dpdk_$version.orig.tar.xz" ]; then
            echo "$cache/dpdk_$version.orig.tar.xz" && return
        fi
    done
    return 0
}

given=$source
if [ -z "$source" ]; then
    source=$(fetched)
    if [ -z "$source" ]; then
        say "fetching DPDK's source (16 MB) from Debian 12"
        if ! (fetch) >"$temp/log" 2>&1 9>&-; then
            status=3 die "cannot fetch it: $(grep -m 1 '^E:' "$temp/log" || tail -n 1 "$temp/log");" \
                "give it: --source dpdk-${known%% *}.tar.xz, from https://fast.dpdk.org/rel/"
        fi
        source=$(fetched)
        if [ -z "$source" ]; then source=$(ls -t "$cache"/dpdk_*.orig.tar.xz | head -n 1); fi
    fi
fi

mkdir "$temp/dpdk"
if [ -d "$source" ]; then
    cp -a "$source/." "$temp/dpdk"
else
    tar -xf "$source" -C "$temp/dpdk" --strip-components=1 2>/dev/null ||
        die "$source is no tarball and no directory"
fi
version=$(cat "$temp/dpdk/VERSION" 2>/dev/null) || die "$source is not the source of DPDK: no file VERSION"
case " $known " in
    *" $version "*) ;;
    *) if [ -z "$given" ]; then status=3; fi # nobody can have the right one from there
        die "$source is DPDK $version, and the patches are known for ${known// / and };" \
        "take one of these: --source dpdk-${known%% *}.tar.xz, from https://fast.dpdk.org/rel/" ;;
esac
done_if_ready "$version"
prefix=$(place "$version")
if [ -e "$prefix" ] && [ ! -e "$prefix/ready" ] && [ "$(ls -A "$prefix")" ]; then
    die "$prefix holds something else; name a new directory: --prefix DIR"
fi

# ---- patch, build -------------------------------------------------------------------------------

for patch in "$here"/*.patch; do
    if ! patch -d "$temp/dpdk" -p1 -F0 --batch --forward <"$patch" >"$temp/log" 2>&1; then
        die "${patch##*/} does not fit DPDK $version of $source" \
            "($(grep -m 1 -i -B 9 'fail\|find\|revers' "$temp/log" | tr '\n' ' ' | tail -c 150));" \
            "take the source as it was released, or adapt the patch (mdpdk_patches/README.md)"
    fi
done

build=$temp/build
step "configuring DPDK $version" meson setup "$build" "$temp/dpdk" --buildtype=release \
    -Dplatform=generic -Ddefault_library=static -Dtests=false '-Ddisable_apps=*' \
    -Denable_drivers="$drivers${more:+,$more}" -Ddisable_libs="$unneeded"

# The archives that make up the drivers: what their shared objects would be linked with.
targets=$(ninja -C "$build" -t targets all | cut -d : -f 1)
archives=''
for driver in $(tr ,/ ' _' <<<"$drivers${more:+,$more}"); do
    if ! object=$(grep -m 1 -x "drivers/librte_$driver\.so\.[0-9.]*" <<<"$targets"); then
        why=$(sed -n "s|^[\t ]*${driver/_//}:[\t ]*||p" "$build/meson-logs/meson-log.txt")
        die "DPDK does not build the driver ${driver/_//}: ${why:-it has none of that name}"
    fi
    archives+=" drivers/librte_$driver.a $(ninja -C "$build" -t query "$object" |
        sed -n 's/^ *| *\(\(lib\|drivers\)\/librte_[a-z0-9_]*\)\.so\..*/\1.a/p')"
done
archives=$(printf '%s\n' $archives | sort -u)
if [ -t 2 ]; then
    say "compiling DPDK $version"
    # shellcheck disable=SC2086 # a list
    nice ninja -C "$build" $archives >&2 9>&- || die "that failed: compiling DPDK $version"
else
    # shellcheck disable=SC2086 # a list
    step "compiling DPDK $version (a minute or two)" nice ninja -C "$build" $archives
fi

# ---- gather -------------------------------------------------------------------------------------

# Headers as DPDK would install them; its own install wants everything built.
headers() {
    meson introspect "$build" --installed >"$temp/installed.json" &&
        python3 - "$temp/installed.json" "$temp/out/include" <<'PYTHON'
import json, pathlib, shutil, sys

for source, target in json.load(open(sys.argv[1])).items():
    parts = pathlib.Path(target).parts
    if "include" in parts and source.endswith(".h"):
        there = pathlib.Path(sys.argv[2], *parts[parts.index("include") + 1 :])
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, there)
PYTHON
}

mkdir -p "$temp/out/lib"
step "gathering headers and archives" headers
(cd "$build" && cp $archives "$temp/out/lib")
config=$(find "$build" -maxdepth 1 -name rte_build_config.h)
{
    echo "-isystem \"$prefix/include\" -include rte_config.h"
    sed -n 's/^Cflags:.*\(-march=[^ ]*\).*/\1/p' "$build/meson-private/libdpdk-libs.pc"
    echo "-DALLOW_EXPERIMENTAL_API -DHB_MDPDK"
} >"$temp/out/compile.flags"
{
    echo "-L\"$prefix/lib\" -Wl,--exclude-libs,ALL" # other DPDKs in the process see nothing of this one
    echo "-Wl,--whole-archive" # drivers register themselves; nobody calls them by name
    for name in $archives; do echo "-l:${name##*/}"; done
    echo "-Wl,--no-whole-archive -lxdp -lbpf -lpcap -lnuma -lm -ldl -pthread"
    if grep -q RTE_HAS_LIBARCHIVE "$config"; then echo -larchive; fi
    if grep -q RTE_USE_LIBBSD "$config"; then echo -lbsd; fi
} >"$temp/out/link.flags"
echo "$version $crc" >"$temp/out/ready"

rm -rf "$prefix"
mv "$temp/out" "$prefix"
echo "$prefix"
