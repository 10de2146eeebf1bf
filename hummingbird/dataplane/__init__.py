# SPDX-License-Identifier: BSD-3-Clause
"""The data plane: C, built by cffi as ``_native``. ``plane.py`` is its Python handle."""
