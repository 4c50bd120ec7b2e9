"""Photographs a page for the documentation: `python tests/drivers/screenshot.py PAGE.html PICTURE.png [HEIGHT]`.

The picture of a report: `luigi --module pipeline ReportBatch --date 2026-01-31` in an empty folder, then its page.
"""

from __future__ import annotations

import base64
import io
import sys
import tempfile
from pathlib import Path

from page import chromium
from PIL import Image

WIDTH, HEIGHT = 1100, 1870


def photograph(source: Path, picture: Path, height: int) -> None:
    """Writes the upper part of a page as a PNG of few colours, as a browser in the light shows it."""
    with tempfile.TemporaryDirectory() as folder, chromium(Path(folder)) as page:
        page._call("Emulation.setDeviceMetricsOverride", width=WIDTH, height=height, deviceScaleFactor=1, mobile=False)
        page._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "light"}])
        page.open(source.resolve().as_uri())
        shot = base64.b64decode(page._call("Page.captureScreenshot", format="png")["data"])
    with Image.open(io.BytesIO(shot)) as image:
        few = image.convert("RGB").quantize(128, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        few.save(picture, optimize=True)


if __name__ == "__main__":
    photograph(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else HEIGHT)
