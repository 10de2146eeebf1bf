# SPDX-License-Identifier: BSD-3-Clause
"""What Linux says of rights, interfaces and BPF programs: one module per way of asking it.

Nothing here knows of topologies, and nothing but `xdp.detach` changes anything. What cannot be
asked raises OSError, as files that cannot be read do.
"""
