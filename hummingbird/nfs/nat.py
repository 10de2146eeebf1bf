# SPDX-License-Identifier: BSD-3-Clause
"""nat"""

from hummingbird.nfs import Nf

NF = Nf(name="nat", kind=9)
