"""Tests that the documentation site builds without warnings, has no dead internal link, and fits a phone."""

from __future__ import annotations

import html.parser
import os
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from doc_pages import DOCS, ROOT
from page import Page, chromium

SIZES = {"phone": (390, 844), "desk": (1200, 900)}
# Finds elements that are wider than the page, except in tables and code blocks, which scroll on their own. Finds text
# with a contrast below 4.5 (WCAG 2.2).
MEASURE = """(() => {
  const width = document.documentElement.clientWidth;
  const scrolls = element => { const box = element.closest('pre, .table-wrapper');
    return box && ['auto', 'scroll'].includes(getComputedStyle(box).overflowX); };
  const describe = element =>
    `${element.tagName}.${element.getAttribute('class') || ''} ${element.textContent.trim().slice(0, 40)}`;
  const hasText = element => [...element.childNodes].some(node => node.nodeType == 3 && node.textContent.trim());
  const channels = colour => colour.match(/[\\d.]+/g).map(Number);
  const luminance = colour => channels(colour).slice(0, 3).map(value => value / 255)
    .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
    .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
  const background = element => { for (; element; element = element.parentElement) {
    const colour = getComputedStyle(element).backgroundColor; if (channels(colour)[3] !== 0) return colour; }
    return 'rgb(255, 255, 255)'; };
  const contrast = element => { const both = [getComputedStyle(element).color, background(element)].map(luminance);
    return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05); };
  const visible = [...document.querySelectorAll('article *')].filter(element => element.getClientRects().length);
  return {
    scrolls_to: document.documentElement.scrollWidth, background: getComputedStyle(document.body).backgroundColor,
    outside: visible.filter(element => element.getBoundingClientRect().right > width + 1 && !scrolls(element))
      .map(describe),
    faint: visible.filter(element =>
      hasText(element) && !element.closest('svg, .headerlink') && contrast(element) < 4.5).map(describe),
  };
})()"""


class PageLinks(html.parser.HTMLParser):
    """Collects the links of a page, the files that it loads, and its anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.anchors |= {str(attributes[name]) for name in ("id", "name") if attributes.get(name)}
        if tag == "a" and attributes.get("href"):
            self.targets.append(str(attributes["href"]))
        elif tag in ("img", "script", "link") and (address := attributes.get("src") or attributes.get("href")):
            self.loaded.append(address)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the site, built as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    options = ("--fail-on-warning", "--nitpicky", "--keep-going", "--fresh-env", "--quiet")
    assert " ".join(options[:4]) in (ROOT / "Makefile").read_text(encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, "--doctree-dir", folder / "doctrees", DOCS, folder / "html"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "html"


def pages_of(site: Path) -> list[Path]:
    return [page for page in sorted(site.rglob("*.html")) if page.name != "search.html"]


@cache
def read_links(page: Path) -> PageLinks:
    links = PageLinks()
    links.feed(page.read_text(encoding="utf-8"))
    return links


def test_no_internal_link_is_dead(site: Path) -> None:
    dead = []
    for page in site.rglob("*.html"):
        for target in [*read_links(page).targets, *read_links(page).loaded]:
            address = urllib.parse.urlparse(target)
            if address.scheme or not (address.path or address.fragment):
                continue
            destination = (page.parent / urllib.parse.unquote(address.path)).resolve() if address.path else page
            exists = destination.is_file() and (
                not address.fragment or destination.suffix != ".html" or has_anchor(destination, address.fragment)
            )
            dead += [] if exists else [f"{page.relative_to(site)}: {target}"]
    assert dead == []


def has_anchor(page: Path, fragment: str) -> bool:
    return urllib.parse.unquote(fragment) in read_links(page).anchors


def test_no_page_loads_a_file_from_another_site(site: Path) -> None:
    external = [address for page in site.rglob("*.html") for address in read_links(page).loaded if "://" in address]
    assert external == []


def test_the_navigation_lists_every_page(site: Path) -> None:
    text = (site / "index.html").read_text(encoding="utf-8")
    for caption in ("Tutorial", "How-to guides", "Reference", "Explanation"):
        assert f'<span class="caption-text">{caption}</span>' in text
    for page in pages_of(site):
        assert page.name == "index.html" or f'href="{page.relative_to(site)}"' in text


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("browser")) as page:
        yield page


def measure(browser: Page, page: Path, size: str, mode: str) -> dict[str, Any]:
    width, height = SIZES[size]
    browser._call(
        "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=size == "phone"
    )
    browser._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": mode}])
    browser.open(page.as_uri())
    return dict(browser.value(MEASURE))


@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_no_page_is_wider_than_the_window_and_all_text_has_enough_contrast(
    site: Path, browser: Page, size: str, mode: str
) -> None:
    measurements = {str(page.relative_to(site)): measure(browser, page, size, mode) for page in pages_of(site)}
    assert {
        name: page["scrolls_to"] for name, page in measurements.items() if page["scrolls_to"] > SIZES[size][0]
    } == {}
    assert {name: page["outside"] for name, page in measurements.items() if page["outside"]} == {}
    assert {name: page["faint"] for name, page in measurements.items() if page["faint"]} == {}
    (background,) = {page["background"] for page in measurements.values()}
    assert (background == "rgb(255, 255, 255)") == (mode == "light")
