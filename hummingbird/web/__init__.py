# SPDX-License-Identifier: BSD-3-Clause
"""What a browser and Prometheus see of a run: the page, the status, the metrics."""
