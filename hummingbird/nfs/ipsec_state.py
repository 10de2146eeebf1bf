# SPDX-License-Identifier: BSD-3-Clause
"""Sequence numbers that never repeat: one file for each outbound security association says which
numbers may have been used, also by a run that was killed.

The file is a log. Before the data plane may use numbers, a line with the first one that it may not
use is on the disk; a clean end adds the exact next one. So the last whole line is where to go on,
and a line that was cut by a power failure never counts: the one before it claims at least as much.

    000000000000000000000001     fresh
    000000000000000000100001     a block was reserved: killed here, go on behind it
    000000000000000000000539     a clean end: go on here

The file's name is made from the keys by a keyed digest, which tells nothing about them. It stays
locked while the association is in use, so two that would repeat each other's numbers exclude each
other.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import re
from pathlib import Path

from hummingbird.errors import UserError
from hummingbird.nfs.ipsec_table import Sa

END = 1 << 32
"""Behind the last sequence number (RFC 4303 section 3.3.3, without extended ones)."""
LINE = 25
_LINE = re.compile(rb"[0-9]{24}\n")


def identity(sa: Sa, dst: bytes) -> str:
    """What makes two security associations the same one, as a file's name.

    Of AES-GCM the key alone: two with one key would encrypt with one nonce, whatever their SPIs,
    and that lays both open (RFC 4106 section 10).
    """
    parts = [sa.cipher.encode(), sa.auth.encode()]
    if not sa.cipher.endswith("gcm"):
        parts += [sa.spi.to_bytes(4, "big"), dst]
    secret = hashlib.sha256(b"hummingbird IPsec state" + sa.key + b"|" + sa.auth_key).digest()
    return hmac.digest(secret, b"|".join(parts), "sha256").hex()[:32]


class SequenceFile:
    """The numbers of one outbound security association."""

    def __init__(self, folder: Path, name: str, label: str) -> None:
        """Open and lock it.

        Args:
            folder: where such files are kept; made if need be.
            name: from `identity`.
            label: what messages call the association.

        Raises:
            UserError: it is in use, damaged, or cannot be written.
        """
        self.path = folder / name
        self._label = label
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            self._file = os.open(self.path, flags, 0o600)
        except OSError as error:
            raise UserError(
                f"cannot keep the sequence numbers of {label}: {error.strerror}",
                path=self.path,
                fix="make the directory writable; raise 'ulimit -n' if too many files are open",
            ) from None
        try:
            self._lock()
            self.next = self._read()
            _sync_folder(folder)
        except BaseException:
            os.close(self._file)
            raise

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"another IPsec NF or instance sends with the key of {self._label} now: both would "
                "use the same sequence numbers",
                path=self.path,
                fix="stop the other one, or give each security association a key of its own",
            ) from None

    def _read(self) -> int:
        """The next number; drops a line that was cut."""
        size = os.fstat(self._file).st_size
        data = os.pread(self._file, size, 0)
        lines = data[: len(data) // LINE * LINE]
        last = int(lines[-LINE:]) if lines and _LINE.fullmatch(lines[-LINE:]) else 0
        if (lines and not 1 <= last <= END) or not _LINE.match(lines + b"0" * 24 + b"\n"):
            raise UserError(
                f"the record of the sequence numbers that {self._label} has used is damaged",
                path=self.path,
                fix="draw new keys for the security association; the file is of no use any more",
            )
        os.ftruncate(self._file, len(lines))
        return last or 1

    def reserve(self, limit: int) -> None:
        """Put on the disk that numbers below ``limit`` may be used from now on; OSError if that
        fails, and then nothing is reserved."""
        size = os.fstat(self._file).st_size
        try:
            _write(self._file, b"%024d\n" % limit)
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, size)
            raise

    def close(self, next_number: int | None = None) -> None:
        """Give it free; ``next_number`` is exact after a clean end."""
        try:
            if next_number is not None:
                self.reserve(next_number)
        finally:
            os.close(self._file)


def _write(file: int, data: bytes) -> None:
    if os.write(file, data) != len(data):
        raise OSError(28, "no space left on device")


def _sync_folder(folder: Path) -> None:
    """A new file's name has to survive, too."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)
