"""Sends HTTP requests with a fixed number in flight, and measures latency and rate. Runs in a process of its own.

A light client: requests are prepared bytes, and of an answer only status and length are read, so that a core that the
client uses is spent on the connection. Latency is measured from the write of a request to the last byte of its answer.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvloop


class _Connection(asyncio.Protocol):
    """One keep-alive connection, with one request at a time."""

    def __init__(self, load: Load) -> None:
        self._load, self._buffer, self._length = load, b"", -1
        self._waits = False
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        """Sends the first request."""
        self._transport = transport
        self._send()

    def _send(self) -> None:
        self._number, request = next(self._load.requests, (-1, b""))
        if not request or time.perf_counter() >= self._load.end:
            self._transport.close()
            return
        if delay := self._load.next_delay():
            asyncio.get_running_loop().call_later(delay, self._write, request)
        else:
            self._write(request)

    def _write(self, request: bytes) -> None:
        self._start, self._waits = time.perf_counter(), True
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Collects an answer; sends the next request after its last byte."""
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        if self._length < 0:
            self._length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        if len(body) < self._length:
            return
        self._load.record(self._number, int(head[9:12]), time.perf_counter() - self._start, body)
        self._buffer, self._length, self._waits = b"", -1, False
        self._send()

    def connection_lost(self, error: Exception | None) -> None:
        """Counts a request whose connection broke as failed."""
        if self._waits:
            self._load.record(self._number, 0, 0.0, repr(error).encode())
        self.done.set_result(None)


class Load:
    """Requests and what came of them.

    Attributes:
        latencies: seconds of each answered request.
        failures: status and beginning of the body of each answer with another status than 200.
        answers: distinct bodies of each request number, if they are kept.
    """

    def __init__(self, requests: Iterator[tuple[int, bytes]], seconds: float, rate: float, keep_answers: bool) -> None:
        self.requests, self.end = requests, time.perf_counter() + seconds
        self._interval, self._next = 1 / rate if rate else 0.0, time.perf_counter()
        self.latencies: list[float] = []
        self.failures: list[tuple[int, str]] = []
        self.answers: dict[int, set[str]] = {}
        self._keep_answers = keep_answers

    def next_delay(self) -> float:
        """Returns the seconds until the next request may be sent."""
        delay = max(0.0, self._next - time.perf_counter())
        self._next += self._interval
        return delay if self._interval else 0.0

    def record(self, number: int, status: int, seconds: float, body: bytes) -> None:
        """Records an answer."""
        if status != 200:
            self.failures.append((status, body[:200].decode("utf-8", "replace")))
            return
        self.latencies.append(seconds)
        if self._keep_answers:
            self.answers.setdefault(number, set()).add(body.decode())


def prepare_request(port: int, path: str, body: bytes) -> bytes:
    """Returns a POST request with a JSON body."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


async def _run(load: Load, port: int, in_flight: int) -> float:
    loop = asyncio.get_running_loop()
    start = time.perf_counter()
    connections = [
        (await loop.create_connection(lambda: _Connection(load), "127.0.0.1", port))[1] for _ in range(in_flight)
    ]
    await asyncio.gather(*(connection.done for connection in connections))
    return time.perf_counter() - start


def main() -> None:
    """Reads bodies from a file, one JSON document a line, sends them, and prints the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bodies", type=Path, help="file with one body a line")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", default="/v1/predictions")
    parser.add_argument("--in-flight", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3600, help="time limit")
    parser.add_argument("--repeat", action="store_true", help="start again after the last body")
    parser.add_argument("--rate", type=float, default=0, help="requests a second at most; 0 for no limit")
    parser.add_argument("--answers", action="store_true", help="print the distinct answers of each body too")
    options = parser.parse_args()
    bodies = options.bodies.read_bytes().splitlines()
    numbered = [
        (number, prepare_request(options.port, options.path, body)) for number, body in enumerate(bodies) if body
    ]
    load = Load(
        iter(itertools.cycle(numbered) if options.repeat else numbered), options.seconds, options.rate, options.answers
    )
    seconds = uvloop.run(_run(load, options.port, options.in_flight))
    json.dump(
        {
            "seconds": seconds,
            "latencies": load.latencies,
            "failures": load.failures,
            "answers": {number: sorted(found) for number, found in load.answers.items()},
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
