"""A headless Chromium, driven by the DevTools protocol over a pair of pipes.

The protocol: https://chromedevtools.github.io/devtools-protocol/. With --remote-debugging-pipe the
browser reads commands from fd 3 and writes to fd 4, each a JSON object that a NUL byte ends.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any, Self

from tests.support import need

if TYPE_CHECKING:
    from pathlib import Path

_FLAGS = (
    "--headless",
    "--no-sandbox",  # for root; what is looked at is our own
    "--disable-gpu",
    "--disable-dev-shm-usage",  # containers have little of it
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
    "about:blank",
)
# Puts two descriptors on 3 and 4, wherever they are now, and becomes the browser.
_LAUNCH = """
import fcntl, os, sys
high = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 10) for fd in sys.argv[1:3]]
for place, fd in zip((3, 4), high):
    os.dup2(fd, place)
os.execvp(sys.argv[3], sys.argv[3:])
"""
_ANSWER_S = 60.0
#: What a key types, where that is not its name (DevTools protocol, Input.dispatchKeyEvent).
_CODES = {
    "Tab": 9, "Enter": 13, " ": 32, "PageUp": 33, "PageDown": 34, "End": 35, "Home": 36,
    "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40,
}  # fmt: skip


def need_chromium() -> None:
    need(shutil.which("chromium") is not None, "no chromium here", "KVMENC_REQUIRE_CHROMIUM")


class Browser:
    """One browser with one tab; a context manager that ends it.

    Attributes:
        complaints: what a page logged or threw, and what it asked the network for.
    """

    def __init__(self) -> None:
        self.complaints: list[str] = []
        self._folder = tempfile.mkdtemp(prefix="kvmenc-chromium-")
        reader, self._commands = os.pipe()
        self._answers, writer = os.pipe()
        browser = ["chromium", *_FLAGS, f"--user-data-dir={self._folder}"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, str(reader), str(writer), *browser],
            pass_fds=(reader, writer),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(reader)
        os.close(writer)
        self._buffer, self._last, self._session, self._loads = b"", 0, "", 0
        try:
            self._attach()
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._commands)
        os.close(self._answers)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _attach(self) -> None:
        targets = self.call("Target.getTargets")["targetInfos"]
        target = next(it["targetId"] for it in targets if it["type"] == "page")
        answer = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = answer["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def open(self, path: Path, *, width: int = 1000, height: int = 900, dark: bool = False) -> None:
        """Load a page, and wait until it is there."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        loads = self._loads
        self.call("Page.navigate", url=path.as_uri())
        while self._loads == loads:
            self._take()

    def run(self, script: str) -> Any:
        """The value of an expression in the page; a promise is waited for."""
        answer = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, *keys: str, shift: bool = False) -> None:
        """Type keys, by their names in KeyboardEvent.key."""
        for key in keys:
            event: dict[str, Any] = {"key": key, "modifiers": 8 if shift else 0}
            if key in _CODES:
                event |= {"windowsVirtualKeyCode": _CODES[key], "code": key}
            text = (
                {}
                if key in _CODES and key != "Enter"
                else {"text": "\r" if key == "Enter" else key}
            )
            self.call("Input.dispatchKeyEvent", type="keyDown", **event, **text)
            self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def click(self, x: float, y: float, times: int = 1) -> None:
        """Click a place of the window."""
        for count in range(1, times + 1):
            for kind in ("mousePressed", "mouseReleased"):
                place = {"x": x, "y": y, "button": "left", "clickCount": count}
                self.call("Input.dispatchMouseEvent", type=kind, **place)

    def picture(self, clip: dict[str, float] | None = None) -> bytes:
        """A PNG of the whole page, or of a part of it."""
        asked: dict[str, Any] = {"captureBeyondViewport": True}
        if clip:
            asked["clip"] = clip | {"scale": 1}
        return base64.b64decode(self.call("Page.captureScreenshot", **asked)["data"])

    def call(self, method: str, **parameters: Any) -> Any:
        """Carry out one command of the protocol."""
        self._last += 1
        command: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            command["sessionId"] = self._session
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        while (message := self._take()).get("id") != self._last:
            pass
        assert "error" not in message, (method, message["error"])
        return message["result"]

    def _take(self) -> dict[str, Any]:
        """The next message; what an event tells is kept."""
        end = time.monotonic() + _ANSWER_S
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], max(0, end - time.monotonic()))
            data = os.read(self._answers, 2**20) if ready else b""
            assert data, "the browser says nothing any more"
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\0", 1)
        message: dict[str, Any] = json.loads(line)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, method: str, event: dict[str, Any]) -> None:
        if method == "Page.loadEventFired":
            self._loads += 1
        elif method in {"Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"}:
            self.complaints.append(json.dumps(event))
        elif method == "Network.requestWillBeSent":
            url = event["request"]["url"]
            if not url.startswith(("file:", "data:", "about:")):
                self.complaints.append(f"asked for {url}")
