# SPDX-License-Identifier: BSD-3-Clause
"""The error of a meter: apart from a mistake in the options, it ends nothing."""

from hummingbird.errors import UserError


class NotReadable(UserError):
    """This machine, or this user, cannot read a meter: the text says why."""
