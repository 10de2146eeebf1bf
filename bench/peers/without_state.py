# SPDX-License-Identifier: BSD-3-Clause
"""without_state: the same work as with_state, and any packets may meet in a row."""

from typing import Any

import numpy as np

from hummingbird.nfs import BuildContext, Nf, NfTable

FLOWS = 1 << 17


def build(params: Any, context: BuildContext) -> NfTable:
    """A line for each flow."""
    return NfTable(np.zeros(FLOWS * 64, dtype=np.uint8))


NF = Nf("without_state", build=build)
