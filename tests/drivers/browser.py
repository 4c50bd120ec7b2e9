"""Renders a page in Chromium with the width of a phone or a desktop, in light or dark mode, and measures its layout."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from chain import kill_group_on_exit
from missing import skip_or_fail

CHROMIUM = shutil.which("chromium")
MODES = {"light": 1, "dark": 0}  # values of Chromium's preferredColorScheme
# A function that measures, for a document, which elements overflow it to the right, which texts have a contrast below
# 4.5 (WCAG 2.2), and the smallest font size in pixels.
MEASURE = """
page => {
  const view = page.defaultView;
  const width = page.documentElement.clientWidth, elements = [...page.querySelectorAll('body *')];
  const describe = element => element.tagName + '.' + (element.getAttribute('class') || '') + ' ' +
    element.textContent.trim().slice(0, 40);
  const hasText = element => [...element.childNodes].some(node => node.nodeType == 3 && node.textContent.trim());
  const channels = colour => colour.match(/[\\d.]+/g).map(Number);
  const luminance = colour => channels(colour).slice(0, 3).map(value => value / 255)
    .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
    .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
  const background = element => { for (; element; element = element.parentElement) {
    const colour = view.getComputedStyle(element).backgroundColor; if (channels(colour)[3] !== 0) return colour; } };
  const contrast = element => {
    const colours = [view.getComputedStyle(element).color, background(element)].map(luminance);
    return (Math.max(...colours) + 0.05) / (Math.min(...colours) + 0.05); };
  const texts = elements.filter(element => hasText(element) && !element.closest('svg'));
  return {
    width, scrolls_to: page.documentElement.scrollWidth, background: view.getComputedStyle(page.body).backgroundColor,
    outside: elements.filter(element => !element.closest('svg') && element.getBoundingClientRect().right > width + 1)
      .map(describe),
    faint: texts.filter(element => contrast(element) < 4.5).map(describe),
    smallest: Math.min(...texts.map(element => parseFloat(view.getComputedStyle(element).fontSize))),
    lettering: Math.min(...[...page.querySelectorAll('svg text')].map(text => text.getBoundingClientRect().height)),
    drawings: [...page.querySelectorAll('svg')].map(drawing => drawing.getBoundingClientRect().width),
  };
}
"""
_MEASURE_FRAME = f"""
const measured = ({MEASURE})(document.querySelector('iframe').contentDocument);
document.body.textContent = 'MEASURED' + JSON.stringify(measured) + 'END';
"""


def measure_page(page: str, folder: Path, width: int, mode: str) -> dict[str, Any]:
    """Renders a page and returns what `MEASURE` measures.

    Args:
        page: HTML.
        folder: for the files of Chromium.
        width: width of the page, in CSS pixels.
        mode: `light` or `dark`.
    """
    if CHROMIUM is None:
        message = "skipped: Chromium is not installed (apt-get install chromium)"
        skip_or_fail(message)
    frame = f'<iframe style="border:0" width="{width}" height="900" srcdoc="{html.escape(page)}"></iframe>'
    outer = folder / f"outer-{width}-{mode}.html"
    outer.write_text(
        f'<!DOCTYPE html><meta charset="utf-8"><body>{frame}<script>onload = () => {{ {_MEASURE_FRAME} }}</script>',
        "utf-8",
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
    # The child processes of Chromium hold the pipe open: if it hangs, all of them must end.
    with kill_group_on_exit(process):
        dump, _ = process.communicate(timeout=60)
    match = re.search(r"MEASURED(.*)END</body>", dump.decode(), re.DOTALL)
    assert match, log.read_text("utf-8", "replace")[-2000:]
    return dict(json.loads(html.unescape(match[1])))
