# SPDX-License-Identifier: BSD-3-Clause
"""Hummingbird: chains of network functions over the CPU cores and the GPU of one machine."""

__version__ = "0.1.0"
