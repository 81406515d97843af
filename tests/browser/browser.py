"""Chromium without a window, spoken to in its debugging protocol through a pipe.

What a tab says of itself is kept: errors of scripts and of the page's policy, dialogs, what it asks for.
"""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-first-run",
    "--no-sandbox",  # as root, in a container
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
)
WAIT_S = 120.0
"""For an answer, on a machine that does other things too."""


def program() -> str:
    """Where Chromium is. FileNotFoundError where it is not."""
    if path := next(filter(None, map(shutil.which, PROGRAMS)), None):
        return path
    raise FileNotFoundError("no Chromium here; `make test-browser` installs Debian's package chromium")


class Browser:
    """A process of Chromium; a context manager."""

    def __init__(self, folder: Path) -> None:
        """`folder`: an empty one, for what the browser keeps."""
        its_in, self._out = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in os.pipe())
        self._in, its_out = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in os.pipe())

        def connect() -> None:
            os.dup2(its_in, 3)
            os.dup2(its_out, 4)

        self._process = subprocess.Popen(
            [program(), *OPTIONS, f"--user-data-dir={folder}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=connect,
            close_fds=False,
        )
        os.close(its_in)
        os.close(its_out)
        self._read, self._number = b"", 0
        self.tabs: dict[str, Tab] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def ask(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """The answer to a command. RuntimeError where it is an error, TimeoutError where there is none."""
        self._number += 1
        command = {"id": self._number, "method": method, "params": params}
        command |= {"sessionId": session} if session else {}
        os.write(self._out, json.dumps(command).encode() + b"\0")
        end_s = time.monotonic() + WAIT_S
        while (told := self.next(end_s)).get("id") != self._number:
            pass
        if "error" in told:
            raise RuntimeError(f"{method}: {told['error']}")
        return told["result"]

    def next(self, end_s: float) -> dict[str, Any]:
        """The next thing that the browser says; events go to their tab too."""
        while b"\0" not in self._read:
            ready, _, _ = select.select([self._in], [], [], max(0, end_s - time.monotonic()))
            part = os.read(self._in, 1 << 20) if ready else b""
            if not part:
                raise TimeoutError("Chromium has ended, or does not answer")
            self._read += part
        line, _, self._read = self._read.partition(b"\0")
        told = json.loads(line)
        if tab := self.tabs.get(told.get("sessionId", "")):
            tab.hear(told)
        return told

    def open(self, path: Path, *, width: int = 1000, height: int = 800, scheme: str = "light") -> "Tab":
        """A tab that has loaded a file. `width` and `height` in pixels; `scheme`: light or dark."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = self.tabs[session] = Tab(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            tab.ask(f"{domain}.enable")
        tab.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        tab.ask("Emulation.setFocusEmulationEnabled", enabled=True)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        tab.ask("Emulation.setEmulatedMedia", features=features)
        tab.load(path.absolute().as_uri())
        return tab


class Tab:
    """A tab, and what it has said of itself."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session
        self._num_loads = 0
        self.problems: list[str] = []
        """Errors of scripts and of the policy, dialogs."""
        self.requests: list[str] = []
        """Addresses."""

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        return self._browser.ask(method, self._session, **params)

    def hear(self, told: dict[str, Any]) -> None:
        """Keep what an event says."""
        params = told.get("params", {})
        match told.get("method"):
            case "Page.loadEventFired":
                self._num_loads += 1
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Runtime.exceptionThrown":
                self.problems.append(str(params["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "assert", "warning"):
                self.problems.append(str(params["args"]))
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.problems.append(params["entry"]["text"])
            case "Page.javascriptDialogOpening":
                self.problems.append(f"a dialog: {params['message']}")

    def load(self, url: str) -> None:
        """Go there, and wait until it is there."""
        before = self._num_loads
        self.ask("Page.navigate", url=url)
        self.wait_for_load(before)

    def wait_for_load(self, before: int | None = None) -> None:
        """Until one more page than `before` is loaded."""
        goal, end_s = (self._num_loads if before is None else before) + 1, time.monotonic() + WAIT_S
        while self._num_loads < goal:
            self._browser.next(end_s)

    @property
    def num_loads(self) -> int:
        return self._num_loads

    def run(self, expression: str) -> Any:
        """The value of an expression, run in the page."""
        told = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in told:
            raise RuntimeError(f"{expression}: {told['exceptionDetails']}")
        return told["result"].get("value")

    def type(self, text: str) -> None:
        """Put text where the focus is, as a keyboard does."""
        self.ask("Input.insertText", text=text)

    def press(self, key: str, code: int) -> None:
        """Press a key and let it go. `code`: its Windows virtual key code."""
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.ask(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text
            )

    def top_of(self, name: str) -> float:
        """How far down on the page the element with this id begins, in pixels."""
        return self.run(f"document.getElementById({json.dumps(name)}).getBoundingClientRect().top + scrollY")

    def screenshot(self, path: Path, *, width: int, height: float, y: float = 0, scale: float = 1) -> None:
        """Write a part of the page, from `y` on at its left, as a PNG."""
        clip = {"x": 0, "y": y, "width": width, "height": height, "scale": scale}
        found = self.ask("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))
