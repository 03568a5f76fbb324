"""A real browser that a test talks to: pages are opened, scripts run, complaints collected."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SWITCHES = (
    "--headless",
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--remote-debugging-pipe",
)

LOOKS = tuple((width, dark) for width in (1280, 400) for dark in (False, True))
CHECKS = Path(__file__).with_name("page_checks.js").read_text(encoding="utf-8")
KEY_CODES = {"Tab": 9, "Enter": 13, "Escape": 27}


class Browser:
    """Chromium with one page, driven by its DevTools protocol over a pair of pipes.

    Attributes
    ----------
    complaints : list of str
        Errors and warnings of the page and its scripts, and all that was asked of a network.
    """

    def __init__(self, profile: Path, width: int = 1280, timeout_s: float = 100.0) -> None:
        self.complaints: list[str] = []
        self._deadline = time.monotonic() + timeout_s
        self._last = 0
        self._rest = b""
        theirs_in, self._to = os.pipe()
        self._from, theirs_out = os.pipe()
        # the browser reads from descriptor 3 and writes to 4
        words = [f"--user-data-dir={profile}", f"--window-size={width},900", "about:blank"]
        moved = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self._process = subprocess.Popen(
            ["bash", "-c", moved, "bash", str(CHROMIUM), *SWITCHES, *words],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._session: str | None = None
        targets = self.ask("Target.getTargets")["targetInfos"]
        page = next(target for target in targets if target["type"] == "page")
        asked = {"targetId": page["targetId"], "flatten": True}
        self._session = self.ask("Target.attachToTarget", **asked)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Return the browser's answer."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._last:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, path: Path) -> None:
        """Open a file and wait until it is loaded."""
        self.ask("Page.navigate", url=path.as_uri())
        self.wait("document.readyState === 'complete' && location.protocol === 'file:'")

    def run(self, script: str) -> Any:
        """Return the value of an expression; a promise is awaited."""
        words = {"expression": script, "awaitPromise": True, "returnByValue": True}
        answer = self.ask("Runtime.evaluate", **words)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until an expression is true."""
        while not self.run(condition):
            assert time.monotonic() < self._deadline, f"never came: {condition}"
            time.sleep(0.1)

    def look(self, width: int = 1280, *, dark: bool = False) -> None:
        """Set the width of the page, and the user's choice of colours; nothing moves by itself."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.ask("Emulation.setDeviceMetricsOverride", **size)
        chosen = {"prefers-color-scheme": "dark" if dark else "light"}
        chosen["prefers-reduced-motion"] = "reduce"
        features = [{"name": name, "value": value} for name, value in chosen.items()]
        self.ask("Emulation.setEmulatedMedia", features=features)

    def press(self, key: str) -> None:
        """Press a key as a user does."""
        word = {"key": key, "code": key, "windowsVirtualKeyCode": KEY_CODES.get(key, 0)}
        if key == "Enter":
            word["text"] = "\r"
        self.ask("Input.dispatchKeyEvent", type="keyDown", **word)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **word)

    def click(self, element: str, across: float = 0.5, down: float = 0.5) -> None:
        """Click on an element, an expression, at a part of its width and height."""
        x, y = self.run(f"""(() => {{
            const element = {element};
            element.scrollIntoView({{block: "center", behavior: "instant"}});
            const box = element.getBoundingClientRect();
            return [box.left + {across} * box.width, box.top + {down} * box.height];
        }})()""")
        where = {"x": x, "y": y, "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, **where)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            left = self._deadline - time.monotonic()
            assert left > 0 and select.select([self._from], [], [], left)[0], "no answer"
            self._rest += os.read(self._from, 1 << 16)
        text, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(text)
        self._note(message.get("method"), message.get("params", {}))
        return message

    def _note(self, method: str | None, said: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.complaints.append(str(said["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and said["type"] in ("error", "warning"):
            self.complaints.append(str(said["args"]))
        elif method == "Log.entryAdded" and said["entry"]["level"] in ("error", "warning"):
            self.complaints.append(said["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            url = said["request"]["url"]
            if not url.startswith(("file:", "data:", "blob:")):
                self.complaints.append(f"asked for {url}")
