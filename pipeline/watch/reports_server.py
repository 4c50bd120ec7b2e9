"""Serves the reports among the artifacts on loopback, for the browser of the person who watches a run.

No other artifact is served: snapshots and corpora contain people's messages.
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

# Names of the files that the links on luigid's page lead to.
SERVED_FILES = (
    "*.html", "data_report.md", "model_card.md", "history.csv", "vocabulary.json", "manifest.json", "batch-*.json",
)  # fmt: skip


@contextlib.contextmanager
def serve_reports(artifacts: Path) -> Iterator[str]:
    """Serves the reports inside the `with` block, and yields the URL of the artifacts folder."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Reports, directory=str(artifacts))) as server:
        thread = threading.Thread(target=server.serve_forever, name="reports", daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class _Reports(http.server.SimpleHTTPRequestHandler):
    """Serves files whose name matches `SERVED_FILES`.

    Everything except HTML is sent as plain text: a browser would download Markdown and JSON instead of showing them.
    """

    extensions_map = {".html": "text/html; charset=utf-8", "": "text/plain; charset=utf-8"}  # noqa: RUF012

    def send_head(self) -> Any:
        """Sends the headers of a file that may be served, or an error."""
        # DNS rebinding: a page of another site may resolve its own name to 127.0.0.1 to read through the browser.
        port = f":{self.connection.getsockname()[1]}"
        if self.headers.get("Host") not in (f"127.0.0.1{port}", f"localhost{port}"):
            return self.send_error(403)
        if not Path(self.translate_path(self.path)).is_file():
            return self.send_error(404)
        return super().send_head()

    def translate_path(self, path: str) -> str:
        """Returns the file of a URL path. While a stage is running, its files are in its `.partial` folder."""
        file = Path(super().translate_path(path))
        if not any(fnmatch.fnmatch(file.name, pattern) for pattern in SERVED_FILES):
            return str(file.parent / "not shown")
        partial_folder = file.parent.with_name(f"{file.parent.name}.partial")
        return str(file if file.exists() else partial_folder / file.name)

    def guess_type(self, path: Any) -> str:
        """Returns the content type: HTML or plain text."""
        return self.extensions_map.get(Path(path).suffix, self.extensions_map[""])

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the library's
        """Does nothing: the terminal belongs to the run."""
