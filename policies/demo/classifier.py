# SPDX-License-Identifier: BSD-3-Clause
"""A small classifier in NumPy: does a packet's payload look like text, or like random bytes, as of
something encrypted or compressed? Logistic regression on three features of its first 64 bytes.

An example of a Python NF (docs/write-an-nf.md). policies/classifier.yaml runs it.
"""

import numpy as np

from hummingbird.nfs.burst import PASS, Burst

LOOK = 64
"""Payload bytes that it looks at ..."""
LEAST = 16
"""... and how many there must be to say anything."""
WEIGHTS = np.array([6.3, -4.8, 15.4])
"""Of entropy (0 to 1), share of printable ASCII, share of bytes from 0x80 up. Trained on the
payloads of branch.pcap and on random bytes, then rounded."""
BIAS = -5.9
TCP, UDP = 6, 17


def payloads(burst: Burst) -> tuple[np.ndarray, np.ndarray]:
    """The first bytes behind TCP and UDP headers, [packets, LOOK], and how many there are."""
    l4, protocol = burst.column("l4").astype(int), burst.column("protocol")
    tcp_header = (burst.bytes_at(l4 + 12, 1)[:, 0] >> 4) * 4
    start = l4 + np.where(protocol == TCP, tcp_header, 8)
    known = ((protocol == TCP) | (protocol == UDP)) & (l4 < 255)
    count = np.where(known, np.clip(burst.lengths.astype(int) - start, 0, LOOK), 0)
    return burst.bytes_at(start, LOOK), count


def features(data: np.ndarray, count: np.ndarray) -> np.ndarray:
    """[packets, 3]: entropy, share of printable ASCII, share of high bytes."""
    inside = np.arange(LOOK) < count[:, None]
    n = np.maximum(count, 1)
    rows = np.repeat(np.arange(len(data)), LOOK).reshape(data.shape)[inside]
    times = np.zeros((len(data), 256))  # that each byte value occurs
    np.add.at(times, (rows, data[inside]), 1)
    share = times / n[:, None]
    entropy = -(share * np.log2(np.where(share > 0, share, 1))).sum(axis=1)
    printable = times[:, 0x20:0x7F].sum(axis=1) / n
    high = times[:, 0x80:].sum(axis=1) / n
    return np.stack([entropy / np.log2(np.maximum(n, 2)), printable, high], axis=1)


def process(burst: Burst) -> np.ndarray:
    """Packets whose payload looks random get the type `opaque`."""
    data, count = payloads(burst)
    score = features(data, count) @ WEIGHTS + BIAS
    return np.where((count >= LEAST) & (score > 0), burst.retype("opaque"), PASS)
