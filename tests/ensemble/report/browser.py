"""Drive a headless Chromium over its debugging pipe, for the tests of the page; standard library only."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)


class Browser:
    """One tab; `complaints` has the errors of the console, of the policy, and every request to another place."""

    def __init__(self, process: subprocess.Popen[bytes], to: int, back: int, folder: Path) -> None:
        self.process, self.to, self.back, self.folder = process, to, back, folder
        self.number, self.rest, self.session = 0, b"", ""
        self.complaints: list[str] = []
        self.loaded = False
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self._note(answer)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            block = os.read(self.back, 1 << 20)
            if not block:
                raise RuntimeError("the browser has ended")
            self.rest += block
        line, _, self.rest = self.rest.partition(b"\0")
        return json.loads(line)

    def _note(self, event: dict[str, Any]) -> None:
        method, params = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"])[:400])
        elif method == "Runtime.consoleAPICalled":
            self.complaints.append(f"console.{params['type']}: {json.dumps(params['args'])[:400]}")
        elif method == "Log.entryAdded":
            self.complaints.append(params["entry"]["text"][:400])
        elif method == "Page.javascriptDialogOpening":
            self.complaints.append(f"dialog: {params['message']}")
            self.number += 1
            close = {
                "id": self.number,
                "method": "Page.handleJavaScriptDialog",
                "params": {"accept": True},
                "sessionId": self.session,
            }
            os.write(self.to, json.dumps(close).encode() + b"\0")
        elif method == "Network.requestWillBeSent" and not params["request"]["url"].startswith(
            ("file:", "data:", "blob:")
        ):
            self.complaints.append(f"request: {params['request']['url'][:200]}")
        elif method == "Page.loadEventFired":
            self.loaded = True

    def open(self, path: Path, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.loaded = False
        self.send("Page.navigate", url=path.absolute().as_uri())
        while not self.loaded:
            self._note(self._receive())

    def run(self, code: str) -> Any:
        """Return the value of a JavaScript expression."""
        found = self.send("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True, userGesture=True)
        if "exceptionDetails" in found:
            raise RuntimeError(json.dumps(found["exceptionDetails"])[:800])
        return found["result"].get("value")

    def press(self, key: str, code: int) -> None:
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    def screenshot(self, path: Path, whole: bool = True) -> Path:
        import base64

        data = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))
        return path


@contextmanager
def chromium() -> Iterator[Browser]:
    assert PROGRAM is not None
    with tempfile.TemporaryDirectory() as folder:
        down, up = os.pipe(), os.pipe()  # to the browser, which reads 3 and writes 4

        def place() -> None:
            reading, writing = os.dup(down[0]), os.dup(up[1])
            os.dup2(reading, 3)
            os.dup2(writing, 4)

        words = [
            PROGRAM, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", f"--user-data-dir={folder}",
            "--no-first-run", "--disable-extensions", "--disable-background-networking", "--disable-dev-shm-usage",
            "--disable-component-update", "about:blank",
        ]  # fmt: skip
        process = subprocess.Popen(
            words, preexec_fn=place, close_fds=False, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        os.close(down[0])
        os.close(up[1])
        try:
            yield Browser(process, down[1], up[0], Path(folder))
        finally:
            process.kill()
            process.wait()
            os.close(down[1])
            os.close(up[0])
