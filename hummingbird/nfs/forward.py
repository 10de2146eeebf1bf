# SPDX-License-Identifier: BSD-3-Clause
"""forward: passes every packet on unchanged. The smallest NF, and the yardstick for all others."""

from __future__ import annotations

import numpy as np

from hummingbird.nfs import BuildContext, Nf, NfParams, NfTable


def build(params: NfParams, context: BuildContext) -> NfTable:
    """No parameters, no table."""
    return NfTable(np.zeros(0, dtype=np.uint8))


NF = Nf(name="forward", kind=1, params=NfParams, build=build)
