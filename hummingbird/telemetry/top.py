# SPDX-License-Identifier: BSD-3-Clause
"""How a status (telemetry/status.py) is drawn on a terminal: `hummingbird top`, and what
`hummingbird run` shows meanwhile.

No line is longer than the terminal is wide: what does not fit is cut, which a ``~`` or ``..``
shows. With less room than rows, those of the nodes that matter most are kept. Colours only help.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from hummingbird.telemetry.bottleneck import TAKEN
from hummingbird.telemetry.figures import amount, gbps, latency, percent, span

CUT = "~"
HOT = 0.9
"""Busier than this is shown in red."""
NAME = 20
"""Columns for a name where the terminal has 80."""
CHAIN_NAME = 14
WIDER = 1 << 16
"""Columns that all has room in."""
LEAST_NAME = 8
BUCKET_SHARE = 0.005
"""Rows of a size that are fewer than this share of all are not shown."""

Json = Mapping[str, Any]


def lines(
    status: Json, width: int, height: int | None = None, fill: int | None = None
) -> list[Text]:
    """The status as lines of at most ``width`` columns; at most ``height`` of them.

    Args:
        status: of an instance.
        width: of the terminal.
        height: of the terminal; None: as many lines as it takes.
        fill: the title line is drawn apart to so many columns, if it is shorter; None: ``width``.
    """
    head = [
        *_title(status, width, width if fill is None else fill),
        *_bottleneck(status, width),
        *_totals(status),
    ]
    head.append(_lcores(status, width))
    device = _device(status["device"], width) if status["device"] else []
    sections = [
        s for s in (_ports(status, width), _nfs(status, width), _chains(status, width)) if s
    ]
    room = None if height is None else height - len(head) - len(device)
    found = [*head, *(line for section in _fit(sections, room) for line in section), *device]
    for line in found:
        _shorten(line, width)
    return found if height is None else found[:height]


def cut(text: str, width: int) -> str:
    """The text, or as much of it as has room and a mark."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, max(width - 1, 0)) + CUT if width > 0 else ""


def cut_name(name: str, width: int) -> str:
    """The name, or its begin and its end: names that are numbered differ there."""
    if cell_len(name) <= width or width < LEAST_NAME:
        return cut(name, width)
    tail = (width - 1) * 2 // 5
    return set_cell_size(name, width - 1 - tail) + CUT + name[-tail:]


def _shorten(line: Text, width: int) -> None:
    if cell_len(line.plain) > width:
        line.truncate(max(width - 1, 0))
        line.append(CUT)


# ---- the head --------------------------------------------------------------------------------


def _title(status: Json, width: int, fill: int) -> Iterator[Text]:
    flight = f"{status['totals']['in_flight']:,} in flight"
    state = "" if status["state"] == "running" else f"{status['state']}, "
    right = (
        f"{state}up {span(status['uptime_s'])}, policy version {status['policy_version']}, {flight}"
    )
    left = cut(f"{status['name']}: {status['title']}", max(width - len(right) - 2, LEAST_NAME))
    gap = max(2, fill - cell_len(left) - len(right))
    yield Text(left + " " * gap + right, style="bold")


def _bottleneck(status: Json, width: int) -> list[Text]:
    """One line; more only if the name in it is so long."""
    found = status["bottleneck"]
    kind = f" ({found['kind']})" if found["node"] else ""
    text = f"bottleneck{kind}: {found['why']}"
    style = "bold red" if found["node"] else "green"
    found = textwrap.wrap(text, width, subsequent_indent="  ", break_on_hyphens=False)
    return [Text(line, style=style) for line in found]


def _totals(status: Json) -> Iterator[Text]:
    rates, totals = status["rates"], status["totals"]
    yield Text(
        f"received {amount(rates['received_pps'])}/s {gbps(rates['received_gbps'])} Gbit/s, "
        f"sent {amount(rates['sent_pps'])}/s {gbps(rates['sent_gbps'])} Gbit/s, "
        f"dropped {amount(rates['dropped_pps'])}/s"
    )
    dropped = sum(totals["dropped"].values())
    counts = {"received": totals["received"], "created": totals["created"], "sent": totals["sent"]}
    counts |= {"dropped": dropped, "missed": totals["missed"]}
    shown = (f"{name} {count:,}" for name, count in counts.items() if count)
    yield Text(f"in all: {', '.join(shown) or 'nothing yet'}")


def _lcores(status: Json, width: int) -> Text:
    """In their order; the busiest first where not all have room."""
    found = status["lcores"]
    if cell_len(line := _listed_lcores(found, WIDER)) > width:
        line = _listed_lcores(sorted(found, key=lambda lcore: -(lcore["busy"] or 0)), width)
    hot = any((lcore["busy"] or 0) > HOT for lcore in found)
    return Text(line, style="red" if hot else "")


def _listed_lcores(found: Sequence[Json], width: int) -> str:
    parts = [
        f"{lcore['id']}{'' if lcore['cpu'] is None else ' on CPU ' + str(lcore['cpu'])} "
        f"{percent(lcore['busy'])}"
        + (f" (others {percent(lcore['taken'])})" if (lcore["taken"] or 0) >= TAKEN else "")
        for lcore in found
    ]
    return listed("lcores: ", parts, width)


# ---- tables ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Column:
    title: str
    width: int
    right: bool = True


@dataclass
class _Item:
    """What stands together: a row, and what belongs to it."""

    lines: list[Text]
    weight: tuple[float, ...] = ()
    """How much it matters, where not all have room."""


@dataclass
class _Section:
    head: Text
    items: list[_Item] = field(default_factory=list)


_FIGURES = (
    _Column("pkt/s", 5),
    _Column("Gbit/s", 6),
    _Column("busy", 4),
    _Column("depth", 5),
    _Column("p50", 6),
    _Column("p99", 6),
    _Column("p99.9", 6),
    _Column("drop/s", 6),
)


def _node_columns(
    title: str, kind: str, names: Iterable[str], kinds: Iterable[str], width: int
) -> list[_Column]:
    """Names get what the terminal has beyond 80 columns."""
    kind_width = 7 if width <= 80 else max([7, *map(len, kinds)])
    rest = width - sum(c.width + 1 for c in _FIGURES) - kind_width - 1
    name_width = max(LEAST_NAME, min(rest, max([NAME, *map(len, names)])))
    return [_Column(title, name_width, False), _Column(kind, kind_width, False), *_FIGURES]


def _row(
    columns: Sequence[_Column], cells: Sequence[str], styles: Mapping[int, str] | None = None
) -> Text:
    line = Text()
    for n, (column, cell) in enumerate(zip(columns, cells, strict=True)):
        shown = cut(cell, column.width) if n else cut_name(cell, column.width)
        shown = shown.rjust(column.width) if column.right else shown.ljust(column.width)
        line.append(" " if n else "")
        line.append(shown, style=(styles or {}).get(n, ""))
    line.rstrip()
    return line


def _heading(columns: Sequence[_Column]) -> Text:
    line = _row(columns, [c.title for c in columns])
    line.stylize("bold underline")
    return line


def _ports(status: Json, width: int) -> _Section | None:
    ports = status["ports"]
    if not ports:
        return None
    columns = _node_columns("port", "way", ports, (), width)
    section = _Section(_heading(columns))
    for name, port in ports.items():
        rows: list[Text] = []
        for way in ("in", "out"):
            if port[way] is None:
                continue
            first, out = not rows, way == "out"
            cells = [name, way, *_rates(port[way])]
            cells += [percent(port["busy"]) if first else "", amount(port["depth"]) if out else "-"]
            cells += _latencies(port["latency_us"] if out else None)
            cells += [_drop_rate(port) if first else ""]
            rows.append(_row(columns, cells, _styles(port) if first else None))
        section.items.append(_Item([*rows, *_losses(port, width)], _weight(name, port, status)))
    return section


def _nfs(status: Json, width: int) -> _Section | None:
    nfs = status["nfs"]
    if not nfs:
        return None
    columns = _node_columns("nf", "runs on", nfs, (nf["engine"] for nf in nfs.values()), width)
    section = _Section(_heading(columns))
    for name, nf in nfs.items():
        cells = [name, nf["engine"], *_rates(nf["in"]), percent(nf["busy"]), amount(nf["depth"])]
        cells += [*_latencies(nf["latency_us"]), _drop_rate(nf)]
        row = _row(columns, cells, _styles(nf))
        section.items.append(_Item([row, *_losses(nf, width)], _weight(name, nf, status)))
    return section


def _rates(way: Json) -> list[str]:
    return [amount(way["pps"]), gbps(way["gbps"])]


def _latencies(found: Json | None) -> list[str]:
    return [latency(found[name] if found else None) for name in ("p50", "p99", "p999")]


def _drop_rate(node: Json) -> str:
    return amount(sum(node["drops_pps"].values()))


def _styles(node: Json) -> dict[int, str]:
    """Of the columns that shout: busy and drop/s."""
    styles = {4: "red"} if (node["busy"] or 0) > HOT else {}
    return styles | ({9: "yellow"} if sum(node["drops_pps"].values()) else {})


def _losses(node: Json, width: int) -> Iterator[Text]:
    """A line that says why packets were lost here, if any were: the most frequent reasons."""
    rates = node["drops_pps"]
    parts = [
        f"{reason} {count:,}" + (f" ({amount(rates[reason])}/s)" if rates.get(reason) else "")
        for reason, count in sorted(node["drops"].items(), key=lambda entry: -entry[1])
    ]
    if node.get("missed"):
        now = f" ({amount(node['missed_pps'])}/s)" if node["missed_pps"] else ""
        parts.insert(0, f"missed by the interface {node['missed']:,}{now}")
    if parts:
        lead = "  dropped: " if node["drops"] else "  "
        yield Text(listed(lead, parts, width), style="yellow")


def listed(lead: str, parts: Sequence[str], width: int) -> str:
    """As many of the parts as have room, and how many have none."""
    for shown in range(len(parts), 0, -1):
        left = len(parts) - shown
        text = lead + ", ".join(parts[:shown]) + (f", {left} more" if left else "")
        if cell_len(text) <= width:
            return text
    return cut(lead + parts[0], width)


def _weight(name: str, node: Json, status: Json) -> tuple[float, ...]:
    """The bottleneck first, then who drops, where packets wait, who is busy, who has packets."""
    moved = max((node[way]["pps"] or 0.0) for way in ("in", "out") if node[way] is not None)
    drops = sum(node["drops_pps"].values()) + (node.get("missed_pps") or 0)
    full = node["depth"] > node["depth_most"] / 2
    return (status["bottleneck"]["node"] == name, drops, full, node["busy"] or 0.0, moved)


def _chains(status: Json, width: int) -> _Section | None:
    chains = status["chains"]
    if not chains:
        return None
    longest = max(map(len, chains))
    name = CHAIN_NAME if width <= 80 else max(CHAIN_NAME, min(longest, CHAIN_NAME + width - 80))
    columns = [
        _Column("chain", name, False),
        _Column("pkt/s", 5),
        _Column("p50", 6),
        _Column("p99", 6),
        _Column("p99.9", 6),
        _Column("dropped", 7),
    ]
    rest = max(width - sum(c.width + 1 for c in columns), LEAST_NAME)
    columns.append(_Column("path", rest, False))
    section = _Section(_heading(columns))
    for type_, chain in chains.items():
        cells = [type_, amount(chain["pps"]), *_latencies(chain["latency_us"])]
        cells += [amount(chain["dropped"]), path_text(chain["path"], rest)]
        weight = (chain["pps"] or 0.0, float(chain["packets"]))
        section.items.append(_Item([_row(columns, cells)], weight))
    return section


def path_text(path: Sequence[str], width: int) -> str:
    """A path: with too little room without its middle."""
    whole = " > ".join(path)
    if cell_len(whole) <= width or len(path) < 3:
        return whole
    for kept in range(len(path) - 2, 0, -1):
        text = " > ".join((*path[:kept], "..", path[-1]))
        if cell_len(text) <= width:
            return text
    each = (width - len(" > .. > ")) // 2
    return f"{cut_name(path[0], each)} > .. > {cut_name(path[-1], each)}"


# ---- what has room ---------------------------------------------------------------------------


def _fit(sections: Sequence[_Section], room: int | None) -> Iterator[list[Text]]:
    """The sections' lines, at most ``room`` if that can be: in turn each gets one item more, those
    that matter most first; what is shown stands in its usual order."""
    kept = [len(section.items) for section in sections]
    if room is not None and sum(_height(s, s.items) for s in sections) > room:
        kept = _share(sections, room)
    for section, count in zip(sections, kept, strict=True):
        items = _most_important(section, count)
        found = [section.head, *(line for item in items for line in item.lines)]
        if left := len(section.items) - count:
            found.append(Text(f"... {left} more; hummingbird top --once shows all", style="dim"))
        yield found


def _share(sections: Sequence[_Section], room: int) -> list[int]:
    """How many items of each section have room."""
    kept = [0] * len(sections)
    growing = set(range(len(sections)))
    while growing:
        for n in sorted(growing):
            kept[n] += 1
            shown = (_most_important(s, k) for s, k in zip(sections, kept, strict=True))
            if sum(_height(s, i) for s, i in zip(sections, shown, strict=True)) > room:
                kept[n] -= 1
                growing.discard(n)
            elif kept[n] == len(sections[n].items):
                growing.discard(n)
    return kept


def _most_important(section: _Section, count: int) -> list[_Item]:
    """In their usual order."""
    order = sorted(range(len(section.items)), key=lambda n: section.items[n].weight, reverse=True)
    return [section.items[n] for n in sorted(order[:count])]


def _height(section: _Section, items: Sequence[_Item]) -> int:
    """Lines of a section of which these items are shown."""
    return 1 + sum(len(i.lines) for i in items) + (len(items) < len(section.items))


def progress(status: Json) -> str:
    """One line, for where there is no terminal."""
    totals = status["totals"]
    return (
        f"{totals['received']:,} received, {totals['sent']:,} sent, "
        f"{sum(totals['dropped'].values()):,} dropped, {totals['in_flight']:,} in flight"
    )


# ---- the device ------------------------------------------------------------------------------


def _device(device: Json, width: int) -> list[Text]:
    state = "" if device["state"] in (None, "healthy") else f", {device['state']}"
    how = f"{device['executor']}, tier {device['tier'] or '-'}{state}"
    how = f" (a CPU plays the GPU), {how}" if device["is_cpu"] else f", {how}"
    relaunches = f"  {device['relaunches']:,} relaunches; rows by packets: "
    return [
        Text(
            f"device: {cut(str(device['name']), max(width - len(how) - 8, LEAST_NAME))}{how}",
            style="red" if state else "bold",
        ),
        Text(
            f"  slots/s: {amount(device['slots_real_per_s'])} real, "
            f"{amount(device['slots_dummy_per_s'])} dummy; {amount(device['rows_per_s'])} rows/s "
            f"of {amount(device['packets_per_row'])} packets, {percent(device['fill'])} full"
        ),
        Text(listed(relaunches, _batches(device), width)),
    ]


def _batches(device: Json) -> list[str]:
    """What share of the rows had so many packets, the most frequent first."""
    rows = device["batch"]
    total = sum(rows)
    order = sorted(range(len(rows)), key=lambda n: -rows[n])
    shown = [n for n in order if total and rows[n] / total >= BUCKET_SHARE]
    return [f"{_bucket(n, device['lanes'])} {percent(rows[n] / total)}" for n in shown] or ["-"]


def _bucket(n: int, lanes: int) -> str:
    """Sizes in a bucket: no row has more packets than lanes."""
    least, most = 2**n, min(2 ** (n + 1) - 1, lanes)
    return str(least) if least >= most else f"{least}-{most}"
