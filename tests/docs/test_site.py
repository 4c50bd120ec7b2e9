"""The documentation site: it builds without a warning, no internal link is dead, no page is wider than a phone."""

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
# What reaches out of the page, but for tables and blocks of code, which scroll on their own; and text that cannot be
# told from what is behind it (WCAG 2.2, contrast below 4.5).
MEASURE = """(() => {
  const width = document.documentElement.clientWidth;
  const scrolls = one => { const box = one.closest('pre, .table-wrapper');
    return box && ['auto', 'scroll'].includes(getComputedStyle(box).overflowX); };
  const named = one => `${one.tagName}.${one.getAttribute('class') || ''} ${one.textContent.trim().slice(0, 40)}`;
  const written = one => [...one.childNodes].some(node => node.nodeType == 3 && node.textContent.trim());
  const channels = colour => colour.match(/[\\d.]+/g).map(Number);
  const luminance = colour => channels(colour).slice(0, 3).map(value => value / 255)
    .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
    .reduce((sum, value, place) => sum + value * [0.2126, 0.7152, 0.0722][place], 0);
  const behind = one => { for (; one; one = one.parentElement) {
    const colour = getComputedStyle(one).backgroundColor; if (channels(colour)[3] !== 0) return colour; }
    return 'rgb(255, 255, 255)'; };
  const contrast = one => { const both = [getComputedStyle(one).color, behind(one)].map(luminance);
    return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05); };
  const shown = [...document.querySelectorAll('article *')].filter(one => one.getClientRects().length);
  return {
    scrolls_to: document.documentElement.scrollWidth, background: getComputedStyle(document.body).backgroundColor,
    outside: shown.filter(one => one.getBoundingClientRect().right > width + 1 && !scrolls(one)).map(named),
    faint: shown.filter(one => written(one) && !one.closest('svg, .headerlink') && contrast(one) < 4.5).map(named),
  };
})()"""


class Links(html.parser.HTMLParser):
    """The links of a page, what it loads, and its places that a link can lead to."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.loaded: list[str] = []
        self.places: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.places |= {str(given[name]) for name in ("id", "name") if given.get(name)}
        if tag == "a" and given.get("href"):
            self.targets.append(str(given["href"]))
        elif tag in ("img", "script", "link") and (address := given.get("src") or given.get("href")):
            self.loaded.append(address)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it."""
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
def links(page: Path) -> Links:
    found = Links()
    found.feed(page.read_text(encoding="utf-8"))
    return found


def test_no_internal_link_is_dead(site: Path) -> None:
    dead = []
    for page in site.rglob("*.html"):
        for target in [*links(page).targets, *links(page).loaded]:
            address = urllib.parse.urlparse(target)
            if address.scheme or not (address.path or address.fragment):
                continue
            to = (page.parent / urllib.parse.unquote(address.path)).resolve() if address.path else page
            exists = to.is_file() and (not address.fragment or to.suffix != ".html" or places(address.fragment, to))
            dead += [] if exists else [f"{page.relative_to(site)}: {target}"]
    assert dead == []


def places(fragment: str, page: Path) -> bool:
    return urllib.parse.unquote(fragment) in links(page).places


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    elsewhere = [one for page in site.rglob("*.html") for one in links(page).loaded if "://" in one]
    assert elsewhere == []


def test_each_kind_of_page_has_its_place_in_the_navigation(site: Path) -> None:
    text = (site / "index.html").read_text(encoding="utf-8")
    for caption in ("Tutorial", "How-to guides", "Reference", "Explanation"):
        assert f'<span class="caption-text">{caption}</span>' in text
    for page in pages_of(site):
        assert page.name == "index.html" or f'href="{page.relative_to(site)}"' in text


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("browser")) as page:
        yield page


def measured(browser: Page, page: Path, size: str, mode: str) -> dict[str, Any]:
    width, height = SIZES[size]
    browser._call(
        "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=size == "phone"
    )
    browser._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": mode}])
    browser.open(page.as_uri())
    return dict(browser.value(MEASURE))


@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_no_page_is_wider_than_the_window_and_every_text_can_be_read(
    site: Path, browser: Page, size: str, mode: str
) -> None:
    found = {str(page.relative_to(site)): measured(browser, page, size, mode) for page in pages_of(site)}
    assert {name: page["scrolls_to"] for name, page in found.items() if page["scrolls_to"] > SIZES[size][0]} == {}
    assert {name: page["outside"] for name, page in found.items() if page["outside"]} == {}
    assert {name: page["faint"] for name, page in found.items() if page["faint"]} == {}
    (background,) = {page["background"] for page in found.values()}
    assert (background == "rgb(255, 255, 255)") == (mode == "light")
