"""Controls a page in headless Chromium over the DevTools protocol: reads values, clicks, types, takes screenshots.

Nothing leaves the machine: the browser resolves no host name except *.test, to loopback.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import subprocess
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from browser import CHROMIUM, MEASURE
from chain import kill_group_on_exit
from eventually import eventually
from missing import skip_or_fail
from PIL import Image

WIDTH, HEIGHT = 1280, 1150
_READS_AT_REST = 6
_LEFT = "Inspected target navigated or closed"
_OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run", "--hide-scrollbars",
    "--host-resolver-rules=MAP *.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", f"--window-size={WIDTH},{HEIGHT}",
)  # fmt: skip


class _LeftPageError(Exception):
    """The browser left the page while it evaluated an expression."""


class Page:
    """One tab. Messages are JSON, each ends with a NUL byte, over two pipes.

    Attributes:
        requested: URLs that the tab requested, in their order.
    """

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, os.fdopen(from_browser, "rb")
        self._number, self._buffer = 0, b""
        self._session: str | None = None
        self.requested: list[str] = []
        self._leaves = False
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._call("Page.enable")
        self._call("Network.enable")
        self.resize(WIDTH, HEIGHT)

    def open(self, url: str) -> None:
        """Loads a URL; reloads the page even if only the fragment after # differs."""
        self._call("Page.navigate", url="about:blank")
        self._call("Page.navigate", url=url)
        self.wait_for("document.readyState == 'complete'")

    def resize(self, width: int, height: int, phone: bool = False) -> None:
        """Sets the size of the tab in CSS pixels, and whether it is that of a phone: with touch, without a mouse."""
        self._width = width
        self._call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone
        )  # fmt: skip
        self._call("Emulation.setTouchEmulationEnabled", enabled=phone)

    def set_mode(self, mode: str) -> None:
        """Sets the preferred colours: `light` or `dark`."""
        feature = {"name": "prefers-color-scheme", "value": mode}
        self._call("Emulation.setEmulatedMedia", features=[feature])

    def allow_scripts(self, allowed: bool) -> None:
        """Switches the scripts of pages on or off; `value` works either way."""
        self._call("Emulation.setScriptExecutionDisabled", value=not allowed)

    def reload(self) -> None:
        """Loads the page again, as a person does."""
        self.value("window.before = true")
        self._call("Page.reload")
        self.wait_for("!window.before && document.readyState == 'complete'")

    def measure(self) -> dict[str, Any]:
        """Returns what `browser.MEASURE` measures on the page."""
        return dict(self.value(f"({MEASURE})(document)"))

    def value(self, expression: str) -> Any:
        """Evaluates a JavaScript expression and returns its value."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, (expression, answer)
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """Waits until a JavaScript expression is true, and returns its value; the page may be left meanwhile."""

        def read() -> Any:
            try:
                return self.value(expression)
            except _LeftPageError:
                return None

        return eventually(read, detail=lambda: f"{expression}\n{self.value('document.body.innerText')}")

    def click(self, selector: str) -> None:
        """Clicks in the middle of an element, once the element exists, does not move and is not covered."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.wait_for(f"{element} && {element}.getClientRects().length")
        middle = f"(r => [r.x + r.width / 2, r.y + r.height / 2])({element}.getBoundingClientRect())"
        # Windows slide in: the middle must be the same in the last reads, over half a second.
        middles: deque[Any] = deque(maxlen=_READS_AT_REST)

        def middle_at_rest() -> Any:
            middles.append(self.value(f"{element} && ({element}.scrollIntoView({{block: 'center'}}), {middle})"))
            point = middles[-1]
            if not point or middles.count(point) < _READS_AT_REST:
                return None
            return point if self.value(f"{element}.contains(document.elementFromPoint(...{point}))") else None

        x, y = eventually(middle_at_rest, detail=lambda: f"{selector} is missing, moves or is covered")
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, text: str) -> None:
        """Types into the element that has the focus."""
        self._call("Input.insertText", text=text)

    def list_frames(self) -> list[dict[str, Any]]:
        """Returns the URL of each frame in the page, and whether the browser refused to show it."""
        frames = [child["frame"] for child in self._call("Page.getFrameTree")["frameTree"].get("childFrames", [])]
        loaded = [frame for frame in frames if frame["url"] != "about:blank"]
        return [
            {"url": frame.get("unreachableUrl", frame["url"]), "refused": "unreachableUrl" in frame} for frame in loaded
        ]

    def allow_leaving(self) -> None:
        """Answers yes when the page asks whether to leave it."""
        self._leaves = True

    def press(self, key: str, held: bool = False) -> None:
        """Presses a key, such as s, Enter or Tab; a key that is held down repeats twice."""
        text = {"Enter": "\r", "Tab": "", " ": " "}.get(key, key)
        code = {"Enter": 13, "Tab": 9, " ": 32}.get(key, ord(key[0].upper()))
        for repeats in [False, True, True] if held else [False]:
            self._call(
                "Input.dispatchKeyEvent", type="keyDown", key=key, text=text, windowsVirtualKeyCode=code,
                autoRepeat=repeats,
            )  # fmt: skip
        self._call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def take_screenshot(self, path: Path, height: int = HEIGHT) -> None:
        """Writes a screenshot as a PNG with 256 colours, which keeps the file small."""
        clip = {"x": 0, "y": 0, "width": self._width, "height": height, "scale": 1}
        shot = base64.b64decode(self._call("Page.captureScreenshot", format="png", clip=clip)["data"])
        with Image.open(io.BytesIO(shot)) as image:
            image.convert("RGB").quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(
                path, optimize=True
            )

    def _send(self, method: str, **parameters: Any) -> int:
        self._number += 1
        session = {"sessionId": self._session} if self._session else {}
        message = {"id": self._number, "method": method, "params": parameters, **session}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        return self._number

    def _call(self, method: str, **parameters: Any) -> Any:
        number = self._send(method, **parameters)
        while True:
            answer = self._receive()
            if answer.get("method") == "Network.requestWillBeSent":
                self.requested.append(answer["params"]["request"]["url"])
            if answer.get("method") == "Page.javascriptDialogOpening" and self._leaves:
                self._send("Page.handleJavaScriptDialog", accept=True)
            if answer.get("id") == number:
                if answer.get("error", {}).get("message") == _LEFT:
                    raise _LeftPageError(method)
                assert "error" not in answer, (method, answer)
                return answer["result"]

    def _receive(self) -> Any:
        while b"\0" not in self._buffer:
            part = self._from.read1()
            assert part, "Chromium ended"
            self._buffer += part
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)


@contextlib.contextmanager
def chromium(folder: Path) -> Iterator[Page]:
    """Starts a browser with one page; kills the browser when the block ends.

    Args:
        folder: for the log and the profile of the browser.
    """
    if CHROMIUM is None:
        message = "skipped: Chromium is not installed (apt-get install chromium)"
        skip_or_fail(message)
    (read_requests, to_browser), (from_browser, write_answers) = os.pipe(), os.pipe()

    def pass_pipes() -> None:
        # Chromium expects file descriptors 3 and 4; copies first, because the pipes may already have these numbers.
        requests, answers = os.dup(read_requests), os.dup(write_answers)
        os.dup2(requests, 3)
        os.dup2(answers, 4)

    with (folder / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            [CHROMIUM, *_OPTIONS, f"--user-data-dir={folder / 'profile'}"], stdin=subprocess.DEVNULL, stdout=log,
            stderr=log, preexec_fn=pass_pipes, close_fds=False, start_new_session=True,
        )  # fmt: skip
    os.close(read_requests)
    os.close(write_answers)
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, to_browser)
        stack.enter_context(kill_group_on_exit(process))
        page = Page(to_browser, from_browser)
        stack.callback(page._from.close)
        yield page
