# SPDX-License-Identifier: BSD-3-Clause
"""with_state: the stateful NF of bench/flow_skew.py."""

import numpy as np

from hummingbird.nfs import Nf

NF = Nf("with_state", flow_state=np.dtype([("packets", "u8"), ("bytes", "u8")]))
