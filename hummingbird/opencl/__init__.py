# SPDX-License-Identifier: BSD-3-Clause
"""The device side of the control plane: choosing a device, probing what it really does, binding
memory, building programs. The data plane is handed finished OpenCL objects."""
