"""A page in a real headless Chromium that a test reads, clicks on and photographs, by Chromium's DevTools protocol.

Nothing leaves the machine: every name but loopback's is unknown to this browser.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM
from chain import ended_with_its_group
from PIL import Image

WIDTH, HEIGHT = 1280, 1150
_OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run", "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", f"--window-size={WIDTH},{HEIGHT}",
)  # fmt: skip


class Page:
    """One tab. Messages are JSON with a NUL after each, on two pipes."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, os.fdopen(from_browser, "rb")
        self._number, self._rest = 0, b""
        self._session: str | None = None
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._call("Page.enable")
        self._call("Emulation.setDeviceMetricsOverride", width=WIDTH, height=HEIGHT, deviceScaleFactor=1, mobile=False)

    def open(self, url: str) -> None:
        """Goes to an address, anew although only what is behind the # differs."""
        self._call("Page.navigate", url="about:blank")
        self._call("Page.navigate", url=url)
        self.wait_for("document.readyState == 'complete'")

    def value(self, expression: str) -> Any:
        """What a line of JavaScript comes to."""
        found = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, (expression, found)
        return found["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """Waits until a line of JavaScript comes to something true, and gives that."""
        for _ in range(600):  # looks are counted: the clock of a busy virtual machine may leap
            if found := self.value(expression):
                return found
            time.sleep(0.1)
        raise AssertionError(f"{expression}\n{self.value('document.body.innerText')}")

    def click(self, selector: str) -> None:
        """Clicks in the middle of an element, as a hand does, once the element is there, at rest and not covered."""
        one = f"document.querySelector({json.dumps(selector)})"
        self.wait_for(f"{one} && {one}.getClientRects().length")
        middle = f"(r => [r.x + r.width / 2, r.y + r.height / 2])({one}.getBoundingClientRect())"
        place: Any = None
        for _ in range(100):
            before, place = place, self.value(f"{one} && ({one}.scrollIntoView({{block: 'center'}}), {middle})")
            if place and place == before and self.value(f"{one}.contains(document.elementFromPoint(...{place}))"):
                break
            time.sleep(0.5)
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def type(self, text: str) -> None:
        """Types into what has the focus."""
        self._call("Input.insertText", text=text)

    def photograph(self, path: Path, height: int = HEIGHT) -> None:
        """Writes what is seen as a PNG of few colours, so that it is small."""
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": height, "scale": 1}
        shot = base64.b64decode(self._call("Page.captureScreenshot", format="png", clip=clip)["data"])
        with Image.open(io.BytesIO(shot)) as image:
            image.convert("RGB").quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(
                path, optimize=True
            )

    def _call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        session = {"sessionId": self._session} if self._session else {}
        message = {"id": self._number, "method": method, "params": parameters, **session}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer)
                return answer["result"]

    def _receive(self) -> Any:
        while b"\0" not in self._rest:
            part = self._from.read1()
            assert part, "Chromium ended"
            self._rest += part
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)


@contextlib.contextmanager
def chromium(folder: Path) -> Iterator[Page]:
    """A browser with one page; it is gone when the block ends.

    Args:
        folder: takes its files.
    """
    if CHROMIUM is None:
        message = "no Chromium: install Debian's chromium to see Luigi's page as a person does"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    (read_orders, to_browser), (from_browser, write_answers) = os.pipe(), os.pipe()

    def hand_over() -> None:
        # Chromium expects them as numbers 3 and 4; either may be in the other's place.
        orders, answers = os.dup(read_orders), os.dup(write_answers)
        os.dup2(orders, 3)
        os.dup2(answers, 4)

    with (folder / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            [CHROMIUM, *_OPTIONS, f"--user-data-dir={folder / 'profile'}"], stdin=subprocess.DEVNULL, stdout=log,
            stderr=log, preexec_fn=hand_over, close_fds=False, start_new_session=True,
        )  # fmt: skip
    os.close(read_orders)
    os.close(write_answers)
    with ended_with_its_group(process):
        page = Page(to_browser, from_browser)
        yield page
    os.close(to_browser)
    page._from.close()
