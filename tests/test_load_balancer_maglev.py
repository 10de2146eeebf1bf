# SPDX-License-Identifier: BSD-3-Clause
"""Maglev's tables: the paper's example, its figures, and what it does when backends come and go;
always the same as the paper's pseudocode in plain Python.

Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, 3.4, 5.3.
"""

from __future__ import annotations

import time

import load_balancer_model as model
import numpy as np
import pytest
from hummingbird.dataplane._native import ffi, lib
from hypothesis import given, settings
from hypothesis import strategies as st

from hummingbird.nfs.load_balancer_maglev import NOBODY, Table, fill, permutation

SMALL, LARGE = 65537, 655373
"""The two sizes of section 5.3."""


def table(count: int, size: int = SMALL, weights: list[int] | None = None) -> Table:
    """The table of backends b0, b1, ..."""
    names = [f"b{i}".encode() for i in range(count)]
    return fill([permutation(name, size) for name in names], weights or [1] * count, size)


def without(count: int, gone: set[int], size: int = SMALL) -> Table:
    """The table of those that are left, with the numbers they had."""
    return table(count, size, [int(i not in gone) for i in range(count)])


def test_the_example_of_the_paper() -> None:
    """Table 1: three backends, seven entries; then B1 is gone."""
    three = [(3, 4), (0, 2), (3, 1)]  # offset and skip
    assert fill(three, [1, 1, 1], 7).tolist() == [1, 0, 1, 0, 2, 2, 0]
    assert fill(three, [1, 0, 1], 7).tolist() == [0, 0, 0, 0, 2, 2, 2]


def test_the_paper_s_pseudocode_says_the_same() -> None:
    for count, size in ((1, 251), (2, 251), (13, 251), (100, 1009), (1000, 2003)):
        names = [f"b{i}" for i in range(count)]
        orders = [model.permutation(name, size) for name in names]
        assert table(count, size).tolist() == model.turns(orders, [1] * count, size)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=30), st.sampled_from([251, 509, 1021]))
def test_weights_are_as_in_the_model(weights: list[int], size: int) -> None:
    found = table(len(weights), size, weights)
    orders = [model.permutation(f"b{i}", size) for i in range(len(weights))]
    wanted = model.turns(orders, weights, size)
    assert found.tolist() == [NOBODY if one is None else one for one in wanted]
    counts = np.bincount(found[found != NOBODY], minlength=len(weights))
    for weight, count in zip(weights, counts, strict=True):
        share = size * weight / max(1, sum(weights))
        assert abs(count - share) <= 2 + share * 0.05, (weights, counts.tolist())


def test_shares_differ_by_one_entry_at_most() -> None:
    """Section 3.4: with M > 100 N the difference is at most 1 % of a share, which is one entry."""
    for count in (3, 10, 100, 655):
        counts = np.bincount(table(count), minlength=count)
        assert counts.max() - counts.min() <= 1
        assert counts.max() / counts.mean() <= 1.01
    counts = np.bincount(table(1000, LARGE), minlength=1000)
    assert counts.max() / counts.mean() <= 1.01


@pytest.mark.parametrize("size, most", [(SMALL, 0.01), (LARGE, 0.003)])
def test_few_entries_move_when_one_of_many_goes(size: int, most: float) -> None:
    """Of the entries that the backend did not have itself, a few change hands, too; fewer of them
    in the larger table (section 5.3)."""
    count, moved = 100, []
    before = table(count, size)
    for gone in (0, 17, 42, 99):
        after = without(count, {gone}, size)
        assert not (after == gone).any()
        moved.append(float(((after != before) & (before != gone)).mean()))
    assert np.mean(moved) < most, moved


def test_the_more_go_at_once_the_more_entries_move() -> None:
    """Figure 12's setting: 1,000 backends, up to 2 % of which fail at once."""
    before = table(1000)
    moved = []
    for failed in (1, 5, 10, 20):
        after = without(1000, set(range(0, 1000, 1000 // failed)[:failed]))
        kept = ~np.isin(before, range(0, 1000, 1000 // failed)[:failed])
        moved.append(float((after != before)[kept].mean()))
    assert moved == sorted(moved) and moved[-1] < 0.06, moved


def test_one_that_comes_back_finds_everything_as_it_was() -> None:
    assert (without(50, set()) == table(50)).all()
    assert (table(50) != without(50, {7})).any()


def test_a_thousand_backends_take_well_under_a_second() -> None:
    names = [f"10.0.{i >> 8}.{i & 255}:80".encode() for i in range(1000)]
    began = time.thread_time()
    fill([permutation(name, SMALL) for name in names], [1] * 1000, SMALL)
    assert time.thread_time() - began < 0.5


def test_nobody_has_an_entry_where_nobody_has_a_weight() -> None:
    assert (table(3, 251, [0, 0, 0]) == NOBODY).all()
    assert (fill([], [], 251) == NOBODY).all()


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, model.M64),
    st.binary(min_size=16, max_size=16),
    st.integers(0, 65535),
    st.binary(min_size=16, max_size=16),
    st.integers(0, 65535),
    st.sampled_from([6, 17]),
)
def test_the_hash_is_the_documented_one(
    seed: int, client: bytes, client_port: int, address: bytes, port: int, protocol: int
) -> None:
    found = lib.hb_lb_hash(seed, client, client_port, address, port, protocol)
    assert found == model.flow_hash(seed, client, client_port, address, port, protocol)


def test_the_hash_spreads_neighbours() -> None:
    """Clients and ports that differ in their last bits alone."""
    address = model.wide("203.0.113.10")
    hashes = [
        lib.hb_lb_hash(1, model.wide(f"10.0.0.{host}"), port, address, 80, 6) % 16
        for host in range(64)
        for port in range(1024, 1280)
    ]
    counts = np.bincount(hashes, minlength=16)
    assert counts.min() / 1024 > 0.9 and counts.max() / 1024 < 1.1, counts
    assert ffi.sizeof("hb_lb_backend") == 28
