"""Starts `spamscore api` in a folder, and sends it requests as a browser or a program does."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from chain import environment, kill_group_on_exit
from eventually import eventually
from servers import free_port, wait_for_port
from spamscore_command import SPAMSCORE


@dataclass(frozen=True)
class FrontEnd:
    """A running front end.

    Attributes:
        url: its address, without a slash at the end.
        process: the command.
    """

    url: str
    process: subprocess.Popen[str]

    @property
    def port(self) -> int:
        """Its port."""
        return int(self.url.rpartition(":")[2])


@contextlib.contextmanager
def front_end(folder: Path, *options: str, port: int | None = None, **variables: str) -> Iterator[FrontEnd]:
    """Starts the command, waits until its model is loaded, and ends it at the end of the block.

    Args:
        folder: working folder; its output is in the file ``api.log`` there.
        options: of the command.
        port: its port; a free one if not given.
        variables: of its environment.
    """
    port = port or free_port()
    log = folder / "api.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [SPAMSCORE, "api", "--port", str(port), *options], cwd=folder, env=environment(**variables),
            stdout=output, stderr=output, text=True, start_new_session=True,
        )  # fmt: skip
    with kill_group_on_exit(process):
        wait_for_port(port, process, log)
        server = FrontEnd(f"http://127.0.0.1:{port}", process)
        eventually(lambda: Visitor(server).get("/readyz").ok, detail=lambda: log.read_text("utf-8", "replace"))
        yield server


class Visitor:
    """A browser without scripts: keeps cookies, and sends what a browser sends with a form of a page.

    Attributes:
        session: holds the cookies.
    """

    def __init__(self, front_end: FrontEnd) -> None:
        self._front_end = front_end
        self.session = requests.Session()
        self.session.trust_env = False

    def get(self, path: str, **headers: str) -> requests.Response:
        """Opens a page, without following redirects."""
        return self._send("GET", path, headers)

    def csrf_token(self, path: str = "/") -> str:
        """Returns the token in the forms of a page."""
        match = re.search(r'name="csrf-token" content="([^"]+)"', self.get(path).text)
        assert match, f"{path} has no token"
        return match[1]

    def post(self, path: str, fields: dict[str, str] | str, **headers: str) -> requests.Response:
        """Sends a form. The headers are used in place of those of a browser; an empty one is left out."""
        return self._send("POST", path, {**self._own_page(), **headers}, data=fields)

    def post_json(self, path: str, content: object, **headers: str) -> requests.Response:
        """Sends JSON as the script of a page does."""
        return self._send("POST", path, {**self._own_page(), **headers}, json=content)

    def _own_page(self) -> dict[str, str]:
        return {"Origin": self._front_end.url, "Sec-Fetch-Site": "same-origin"}

    def _send(self, method: str, path: str, headers: dict[str, str], **content: Any) -> requests.Response:
        sent = {name: value for name, value in headers.items() if value}
        return self.session.request(
            method, self._front_end.url + path, headers=sent, allow_redirects=False, timeout=60, **content
        )
