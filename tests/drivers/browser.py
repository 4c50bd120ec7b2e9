"""Shows a page in a real Chromium, as a phone or a desk does, in the light or in the dark, and measures it."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from chain import ended_with_its_group

CHROMIUM = shutil.which("chromium")
MODES = {"light": 1, "dark": 0}  # as Chromium's settings number them
# What reaches out of the page sideways, what text cannot be told from what is behind it (WCAG 2.2, contrast below
# 4.5), and the smallest lettering in pixels.
MEASURE = """
const page = document.querySelector('iframe').contentDocument, view = page.defaultView;
const width = page.documentElement.clientWidth, every = [...page.querySelectorAll('body *')];
const named = one => one.tagName + '.' + (one.getAttribute('class') || '') + ' ' + one.textContent.trim().slice(0, 40);
const written = one => [...one.childNodes].some(node => node.nodeType == 3 && node.textContent.trim());
const channels = colour => colour.match(/[\\d.]+/g).map(Number);
const luminance = colour => channels(colour).slice(0, 3).map(value => value / 255)
  .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
  .reduce((sum, value, place) => sum + value * [0.2126, 0.7152, 0.0722][place], 0);
const behind = one => { for (; one; one = one.parentElement) {
  const colour = view.getComputedStyle(one).backgroundColor; if (channels(colour)[3] !== 0) return colour; } };
const contrast = one => { const both = [view.getComputedStyle(one).color, behind(one)].map(luminance);
  return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05); };
const texts = every.filter(one => written(one) && !one.closest('svg'));
document.body.textContent = 'MEASURED' + JSON.stringify({
  width, scrolls_to: page.documentElement.scrollWidth, background: view.getComputedStyle(page.body).backgroundColor,
  outside: every.filter(one => !one.closest('svg') && one.getBoundingClientRect().right > width + 1).map(named),
  faint: texts.filter(one => contrast(one) < 4.5).map(named),
  smallest: Math.min(...texts.map(one => parseFloat(view.getComputedStyle(one).fontSize))),
  lettering: Math.min(...[...page.querySelectorAll('svg text')].map(one => one.getBoundingClientRect().height)),
  drawings: [...page.querySelectorAll('svg')].map(one => one.getBoundingClientRect().width),
}) + 'END';
"""


def measured(page: str, folder: Path, width: int, mode: str) -> dict[str, Any]:
    """What Chromium makes of a page.

    Args:
        page: HTML.
        folder: where to keep Chromium's files.
        width: of the window, in CSS pixels.
        mode: `light` or `dark`.
    """
    if CHROMIUM is None:
        message = "no Chromium: install Debian's chromium to hold the report to a phone and to the dark"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    frame = f'<iframe style="border:0" width="{width}" height="900" srcdoc="{html.escape(page)}"></iframe>'
    outer = folder / f"outer-{width}-{mode}.html"
    outer.write_text(
        f'<!DOCTYPE html><meta charset="utf-8"><body>{frame}<script>onload = () => {{ {MEASURE} }}</script>', "utf-8"
    )
    options = (
        "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'chromium'}", "--dump-dom",
        f"--blink-settings=preferredColorScheme={MODES[mode]}",
    )  # fmt: skip
    log = folder / "chromium.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [CHROMIUM, *options, outer.as_uri()], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
            start_new_session=True,
        )  # fmt: skip
    # Its own processes hold the pipe open: should it stall, all of them must go.
    with ended_with_its_group(process):
        shown, _ = process.communicate(timeout=60)
    found = re.search(r"MEASURED(.*)END</body>", shown.decode(), re.DOTALL)
    assert found, log.read_text("utf-8", "replace")[-2000:]
    return dict(json.loads(html.unescape(found[1])))
