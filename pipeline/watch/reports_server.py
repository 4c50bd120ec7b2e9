"""The reports among the artifacts, for the browser of the person who watches a run: on loopback, and nothing else of
what is there, for snapshots and corpora hold people's messages.
"""

from __future__ import annotations

import contextlib
import fnmatch
import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

# What the links on Luigi's page lead to, by its name.
SHOWN = (
    "*.html", "data_report.md", "model_card.md", "history.csv", "vocabulary.json", "manifest.json", "batch-*.json",
)  # fmt: skip


@contextlib.contextmanager
def serve_reports(artifacts: Path) -> Iterator[str]:
    """Serves them while the block lasts, and gives the address of the artifacts' folder."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Reports, directory=str(artifacts))) as server:
        thread = threading.Thread(target=server.serve_forever, name="reports", daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class _Reports(http.server.SimpleHTTPRequestHandler):
    """Files by their name alone. Text is shown as text, for a browser would offer to save Markdown and JSON."""

    extensions_map = {".html": "text/html; charset=utf-8", "": "text/plain; charset=utf-8"}  # noqa: RUF012

    def send_head(self) -> Any:
        """Answers with a file that is shown, and refuses all else."""
        # A page of another site may have had its name point here, to read in the person's browser.
        here = f":{self.connection.getsockname()[1]}"
        if self.headers.get("Host") not in (f"127.0.0.1{here}", f"localhost{here}"):
            return self.send_error(403)
        if not Path(self.translate_path(self.path)).is_file():
            return self.send_error(404)
        return super().send_head()

    def translate_path(self, path: str) -> str:
        """The file that an address names; of a stage that is running it is in the folder that is being filled."""
        file = Path(super().translate_path(path))
        if not any(fnmatch.fnmatch(file.name, pattern) for pattern in SHOWN):
            return str(file.parent / "not shown")
        partial_folder = file.parent.with_name(f"{file.parent.name}.partial")
        return str(file if file.exists() else partial_folder / file.name)

    def guess_type(self, path: Any) -> str:
        """HTML or text."""
        return self.extensions_map.get(Path(path).suffix, self.extensions_map[""])

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the library's
        """Says nothing: the terminal is the run's."""
