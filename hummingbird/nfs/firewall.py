# SPDX-License-Identifier: BSD-3-Clause
"""firewall"""

from hummingbird.nfs import Nf

NF = Nf(name="firewall", kind=7)
