# SPDX-License-Identifier: BSD-3-Clause
"""load_balancer"""

from hummingbird.nfs import Nf

NF = Nf(name="load_balancer", kind=8)
