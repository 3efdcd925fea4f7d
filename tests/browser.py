"""Chromium for tests, driven as its own tools drive it: keys are pressed as people press them."""

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import websocket

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser")
KEYS = {"ArrowRight": 39, "ArrowLeft": 37, "ArrowDown": 40, "ArrowUp": 38, " ": 32, "End": 35}
WAIT = 60  # seconds for a busy machine


class Browser:
    """One page. `said`: what it wrote into its console, and what it failed at."""

    def __init__(self, folder: str) -> None:
        options = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0")
        self.process = subprocess.Popen(
            [PROGRAM, *options, "--remote-allow-origins=*", f"--user-data-dir={folder}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        port = _eventually(lambda: Path(folder, "DevToolsActivePort").read_text().split()[0])
        pages = json.load(urlopen(f"http://127.0.0.1:{port}/json/list", timeout=WAIT))
        page = next(one for one in pages if one["type"] == "page")
        self.socket = websocket.create_connection(page["webSocketDebuggerUrl"], timeout=WAIT)
        self.asked = 0
        self.said: list[str] = []
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **settings: Any) -> dict[str, Any]:
        """One command of the protocol, answered."""
        self.asked += 1
        self.socket.send(json.dumps({"id": self.asked, "method": method, "params": settings}))
        while (answer := self._next()).get("id") != self.asked:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        found = json.loads(self.socket.recv())
        if found.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
            self.said.append(json.dumps(found["params"]))
        return found

    def open(self, address: str, width: int = 1280) -> None:
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.ask("Page.navigate", url="about:blank")  # else an address that differs behind # alone
        self.ask("Page.navigate", url=address)
        _eventually(lambda: self.run("document.readyState") == "complete" or None)

    def run(self, script: str) -> Any:
        """The value of an expression on the page."""
        found = self.ask("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str, times: int = 1) -> None:
        """A key, where the focus is."""
        code = {"key": key, "windowsVirtualKeyCode": KEYS[key]}
        text = {"text": key} if len(key) == 1 else {}
        for _ in range(times):
            self.ask("Input.dispatchKeyEvent", type="keyDown", **code, **text)
            self.ask("Input.dispatchKeyEvent", type="keyUp", **code)

    def close(self) -> None:
        self.socket.close()
        self.process.kill()
        self.process.wait()


def _eventually(found: Any) -> Any:
    """What a function returns once it does; what it lacks until then may be missing."""
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        try:
            if (value := found()) is not None:
                return value
        except (FileNotFoundError, IndexError):
            pass
        time.sleep(0.05)
    raise TimeoutError


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not PROGRAM:
        pytest.skip("chromium is not installed: pages are not driven")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        one = Browser(folder)
        yield one
        one.close()
