# SPDX-License-Identifier: BSD-3-Clause
"""A headless Chromium, spoken to in its own protocol over a pipe: no driver, no port, no library.

test ── JSON, ended by a zero byte, on file descriptors 3 and 4 ── chromium --headless
"""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
TIMEOUT_S = 60.0
FLAGS = (
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",  # which root has none of
    "--no-first-run",
    "--disable-gpu",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)


class Browser:
    """One page in it."""

    def __init__(self, to: int, come: int) -> None:
        """Speak over two pipes."""
        self._to, self._from = to, come
        self._numbers = itertools.count(1)
        self._session: str | None = None
        self._rest = b""
        self.said: list[str] = []
        """Errors and warnings of the page."""
        self.asked: list[str] = []
        """Addresses that it has asked for."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Performance"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command; returns its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive(TIMEOUT_S)
            assert answer is not None, f"no answer to {method}"
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer)
                result: dict[str, Any] = answer["result"]
                return result

    def end(self) -> None:
        """Make it end. It may be gone before it has answered."""
        message = {"id": next(self._numbers), "method": "Browser.close"}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while select.select([self._from], [], [], TIMEOUT_S)[0] and os.read(self._from, 1 << 20):
            pass

    def _receive(self, timeout: float) -> dict[str, Any] | None:
        end = time.monotonic() + timeout
        while b"\0" not in self._rest:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._from], [], [], left)[0]:
                return None
            data = os.read(self._from, 1 << 20)
            assert data, "the browser has ended"
            self._rest += data
        raw, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(raw)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, method: str, params: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.asked.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.said.append(json.dumps(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.said.append(json.dumps(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.said.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")

    def open(self, address: str) -> None:
        """Load a page and wait until it has loaded."""
        self.call("Page.navigate", url="about:blank")
        self.until("location.href === 'about:blank' && document.readyState === 'complete'")
        self.said.clear()  # what the page before has said
        self.asked.clear()
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        """The value of an expression, as JSON has it; promises are waited for."""
        found = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, script: str, timeout: float = TIMEOUT_S) -> Any:
        """Until an expression is true; returns its value."""
        end = time.monotonic() + timeout
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"waited for {script}"
            self._receive(0.02)
        return value

    def look(self, width: int, height: int = 900, scheme: str = "light") -> None:
        """Be a screen of this size and colour scheme."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
        self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def picture(self, path: Path) -> None:
        """A picture of the whole page."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def sizes(self) -> tuple[int, int]:
        """Bytes of the page's heap after collecting garbage, and nodes of its document."""
        self.call("HeapProfiler.collectGarbage")
        metrics = {m["name"]: m["value"] for m in self.call("Performance.getMetrics")["metrics"]}
        return int(metrics["JSHeapUsedSize"]), int(metrics["Nodes"])


@contextmanager
def browser() -> Iterator[Browser]:
    """A fresh one; gone when the block ends."""
    assert CHROMIUM is not None
    # processes that it has started may write there for a moment after it has ended
    place = tempfile.TemporaryDirectory(prefix="hummingbird-browser-", ignore_cleanup_errors=True)
    with ExitStack() as stack, place as folder:
        theirs_in, ours_out = _pipe(stack)
        ours_in, theirs_out = _pipe(stack)
        script = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        process = subprocess.Popen(
            ["bash", "-c", script, "-", CHROMIUM, *FLAGS, f"--user-data-dir={folder}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": folder},
            pass_fds=(theirs_in, theirs_out),
        )
        try:
            found = Browser(ours_out, ours_in)
            yield found
            found.end()
            process.wait(TIMEOUT_S)
        finally:
            process.kill()
            process.wait()


def _pipe(stack: ExitStack) -> tuple[int, int]:
    """Both ends, with numbers that stand in nobody's way."""
    ends = []
    for end in os.pipe():
        ends.append(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 20))
        os.close(end)
        stack.callback(os.close, ends[-1])
    return ends[0], ends[1]
