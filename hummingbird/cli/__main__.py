# SPDX-License-Identifier: BSD-3-Clause
"""``python -m hummingbird.cli`` is ``hummingbird``."""

import sys

from hummingbird.cli import main

sys.exit(main())
