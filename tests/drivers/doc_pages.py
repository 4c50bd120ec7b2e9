"""The pages of the documentation and the blocks of code on them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
# setup.py is the one place of the version.
(VERSION,) = re.findall(r'^    version="(.*)",$', (ROOT / "setup.py").read_text(encoding="utf-8"), re.MULTILINE)
sys.path.insert(0, str(DOCS))

import reference_pages  # noqa: E402

README, CONTRIBUTING = ROOT / "README.md", ROOT / "CONTRIBUTING.md"
_PARSER = MarkdownIt().enable("table")


@dataclass(frozen=True)
class Block:
    """A block of code: page, section, the line it begins at, its language (empty if indented) and its text."""

    page: str
    section: str
    line: int
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """The commands of a shell block without their comments; lines that go on are joined."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line for line in (re.sub(r"(^|\s)# .*$", "", line).strip() for line in lines) if line]


def sources() -> dict[str, str]:
    """The Markdown of every page by its path: written by hand, or made from declarations."""
    written = [path for path in sorted(DOCS.rglob("*.md")) if not {"_build", "_generated"} & set(path.parts)]
    pages = {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in [README, CONTRIBUTING, *written]}
    generated = {f"generated/{name}": "\n".join(page()) for name, page in reference_pages.PAGES.items()}
    return pages | generated


def blocks() -> Iterator[Block]:
    """Every block of code of every page."""
    for page, text in sources().items():
        section, last = "", ""
        for token in _PARSER.parse(text):
            section = token.content if last == "heading_open" else section
            last = token.type
            if token.type in ("fence", "code_block") and token.map:
                yield Block(page, section, token.map[0] + 1, token.info.strip(), token.content)


def inline_code() -> Iterator[tuple[str, str]]:
    """Every piece of code within a sentence, with its page."""
    for page, text in sources().items():
        for token in _PARSER.parse(text):
            yield from ((page, child.content) for child in token.children or () if child.type == "code_inline")
