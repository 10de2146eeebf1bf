# SPDX-License-Identifier: BSD-3-Clause
"""flow_monitor"""

from hummingbird.nfs import Nf

NF = Nf(name="flow_monitor", kind=10)
