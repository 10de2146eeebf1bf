# SPDX-License-Identifier: BSD-3-Clause
"""Work that takes long, beside a thread that must not wait for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Background(Generic[T]):
    """Runs a function in a thread of its own."""

    def __init__(self, work: Callable[[], T]) -> None:
        """Begin."""
        self.error: BaseException | None = None
        self._result: T | None = None
        self._work = work
        self._thread = threading.Thread(target=self._run, name="background")
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:  # belongs to whoever asks for the result
            self.error = error

    @property
    def done(self) -> bool:
        """It has ended, well or not."""
        return not self._thread.is_alive()

    def join(self) -> None:
        """Wait until it is done."""
        self._thread.join()

    def result(self) -> T:
        """What it has returned, or raised; once it is done."""
        self.join()
        if self.error is not None:
            raise self.error
        return self._result  # type: ignore[return-value]  # done, and without an error
