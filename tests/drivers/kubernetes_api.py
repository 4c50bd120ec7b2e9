"""An API server that keeps pods in memory and records each request, as far as a Spark driver uses it. No pod runs."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import urllib.parse
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Object = dict[str, Any]


class KubernetesApi:
    """A running server.

    Attributes:
        url: its address.
        requests: verb and resource of each request, as a Role names them.
        tokens: values of the header Authorization.
        pods: the pods that were created, as they were sent.
        stopped: ends the watches, of which none has an event.
    """

    def __init__(self, port: int, driver: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.requests: list[tuple[str, str]] = []
        self.tokens: set[str] = set()
        self.pods: list[Object] = []
        self.stopped = threading.Event()
        self._lock, self._driver = threading.Lock(), driver

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Object]:
        """Records a request, and returns the status code and the answer."""
        address = urllib.parse.urlsplit(path)
        match = re.fullmatch(r"/api/v1/namespaces/[\w-]+/(\w+)(?:/([\w-]+))?", address.path)
        if match is None:
            return 404, _status("not found", 404)
        resource, name = match.groups()
        verb = _find_verb(method, name, urllib.parse.parse_qs(address.query))
        with self._lock:
            self.requests.append((verb, resource))
            if verb == "create":
                pod = json.loads(body)
                self.pods.append(pod)
                return 201, {**pod, "metadata": {**pod["metadata"], "uid": str(uuid.uuid4())}, "status": _PENDING}
        if verb == "get" and name == self._driver:
            metadata = {"name": name, "namespace": "spamscore", "uid": str(uuid.uuid4())}
            return 200, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {}, "status": _READY}
        if verb == "watch":
            return 200, {}
        if verb == "list":
            return 200, {"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "1"}, "items": []}
        if verb in ("delete", "deletecollection"):
            return 200, _status("done", 200)
        return 404, _status("not found", 404)


_PENDING: Object = {"phase": "Pending"}
_READY: Object = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}


def _status(message: str, code: int) -> Object:
    state = "Success" if code < 400 else "Failure"
    return {"apiVersion": "v1", "kind": "Status", "status": state, "message": message, "code": code}


def _find_verb(method: str, name: str | None, query: dict[str, list[str]]) -> str:
    """Returns the verb of a request: https://kubernetes.io/docs/reference/access-authn-authz/authorization/"""
    if method == "GET":
        return "watch" if query.get("watch") == ["true"] else "get" if name else "list"
    if method == "DELETE":
        return "delete" if name else "deletecollection"
    return {"POST": "create", "PUT": "update", "PATCH": "patch"}[method]


@contextlib.contextmanager
def kubernetes_api(driver: str) -> Iterator[KubernetesApi]:
    """Runs the server. It has one pod, the driver's."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            api.tokens.add(self.headers.get("Authorization", ""))
            status, content = api.answer(self.command, self.path, body)
            # A client first asks for a WebSocket. Any other answer with the code 200 makes it ask for a stream.
            if (status, content) == (200, {}) and "Upgrade" not in self.headers:
                self._hold()
                return
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _hold(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            api.stopped.wait()
            with contextlib.suppress(OSError):  # the client may have left
                self.wfile.write(b"0\r\n\r\n")

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Prints nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        api = KubernetesApi(server.server_address[1], driver)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield api
        api.stopped.set()
        server.shutdown()
        thread.join()
