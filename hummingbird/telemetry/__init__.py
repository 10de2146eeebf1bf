# SPDX-License-Identifier: BSD-3-Clause
"""What a run tells about itself: counters in shared memory, the live table, the summary."""
