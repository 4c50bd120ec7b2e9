"""Starts a server that speaks S3 on loopback, in a process of its own: moto, behind a layer that can make it fail.

moto and its packages may warn, and a warning is an error in tests; a process of its own has its own filters. The layer
records all requests, and does to some of them what a test asks for: see `ObjectStore.fail`.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

# The credentials are any words: moto checks none.
_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "a-secret-that-appears-nowhere",
    "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
}  # fmt: skip
_CONTROL = "/_control"


class ObjectStore:
    """An S3 server with an empty bucket for each test.

    Attributes:
        endpoint: its address.
        environment: the variables with which a client finds it.
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.environment = {**_CREDENTIALS, "AWS_ENDPOINT_URL": endpoint}

    def create_bucket(self, bucket: str) -> None:
        self._send("PUT", f"/{bucket}")

    def put(self, address: str, content: bytes) -> None:
        """Writes an object: ``put("s3://bucket/in/a.csv", b"…")``. It is no request of a client."""
        self._send("PUT", f"{_CONTROL}/{address.removeprefix('s3://')}", content)

    def get(self, address: str) -> bytes:
        return self._send("GET", f"{_CONTROL}/{address.removeprefix('s3://')}")

    def delete(self, address: str) -> None:
        self._send("DELETE", f"{_CONTROL}/{address.removeprefix('s3://')}")

    def fail(self, action: str, path: str, method: str = "GET", after: int = 0, **values: Any) -> None:
        """Makes requests fail from now on.

        Args:
            action: ``deny`` (403), ``hang`` (no answer for a minute), ``cut`` (the body breaks off), or ``replace``
                (before the answer, another version of the object is written, once).
            path: part of the paths whose requests fail.
            method: their method.
            after: number of these requests that are answered before.
            values: ``content`` of the other version.
        """
        fault = {"action": action, "path": path, "method": method, "after": after, **values}
        self._send("POST", _CONTROL, json.dumps(fault).encode())

    def heal(self) -> list[dict[str, str]]:
        """Ends all failures; returns the requests since the last call: method, path, range, bytes."""
        return list(json.loads(self._send("DELETE", _CONTROL)))

    def _send(self, method: str, path: str, content: bytes | None = None) -> bytes:
        headers = {"Content-Type": "text/plain"}  # urllib's default is that of a form, which moto reads as one
        request = urllib.request.Request(self.endpoint + quote(path), content, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as response:
            return bytes(response.read())


@contextlib.contextmanager
def object_store() -> Iterator[ObjectStore]:
    """Starts the server, and ends it with the block."""
    command = [sys.executable, "-W", "ignore", str(Path(__file__))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield ObjectStore(process.stdout.readline().strip())
        finally:
            process.kill()


class _FailingStore:
    """The layer before moto, as a WSGI application."""

    def __init__(self, inner: Callable[..., Iterable[bytes]], backend: Callable[[], Any]) -> None:
        self.inner, self.backend = inner, backend
        self.faults: list[dict[str, Any]] = []
        self.requests: list[dict[str, str]] = []

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if path.startswith(_CONTROL):
            return self.control(environ, start_response)
        self.requests.append({"method": method, "path": path, "range": environ.get("HTTP_RANGE", "")})
        fault = self.find_fault(method, path)
        if fault == "deny":
            body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
            start_response("403 Forbidden", [("Content-Type", "text/xml"), ("Content-Length", str(len(body)))])
            return [b"" if method == "HEAD" else body]
        if fault == "hang":
            time.sleep(60)
        answer = b"".join(self.inner(environ, start_response))
        # Werkzeug closes the connection after a body that is shorter than its Content-Length.
        return [answer[: len(answer) // 2]] if fault == "cut" else [answer]

    def find_fault(self, method: str, path: str) -> str | None:
        for fault in self.faults:
            if fault["method"] == method and fault["path"] in path:
                fault["after"] -= 1
                if fault["after"] >= 0:
                    continue
                if fault["action"] != "replace":
                    return str(fault["action"])
                self.faults.remove(fault)
                _, bucket, key = path.split("/", 2)
                self.backend().put_object(bucket, key, fault["content"].encode())
        return None

    def control(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        answer = b""
        if bucket_and_key := environ["PATH_INFO"].removeprefix(_CONTROL).strip("/"):
            answer = self.change(environ["REQUEST_METHOD"], *bucket_and_key.split("/", 1), body)
        elif environ["REQUEST_METHOD"] == "POST":
            self.faults.append(json.loads(body))
        else:
            answer = json.dumps(self.requests).encode()
            self.requests, self.faults = [], []
        start_response("200 OK", [("Content-Length", str(len(answer)))])
        return [answer]

    def change(self, method: str, bucket: str, key: str, content: bytes) -> bytes:
        if method == "PUT":
            self.backend().put_object(bucket, key, content)
        elif method == "DELETE":
            self.backend().delete_object(bucket, key)
        else:
            return bytes(self.backend().get_object(bucket, key).value)
        return b""


def _serve() -> None:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from moto.s3.models import s3_backends
    from werkzeug.serving import WSGIRequestHandler, make_server

    class QuietHandler(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, *_: Any) -> None:
            pass

    application = DomainDispatcherApplication(create_backend_app)
    store = _FailingStore(application, lambda: s3_backends["123456789012"]["aws"])
    server = make_server("127.0.0.1", 0, store, threaded=True, request_handler=QuietHandler)
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    _serve()
