"""Measures the front end over HTTP on loopback: latency, rate, and what happens while the version changes."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
from measure import BIN, Bench, Row
from messages import distinct_messages, real_messages

HERE = Path(__file__).parent
Figures = dict[str, Any]
_WARM_UP, _SINGLE, _SHARED, _LARGE = 2_000, 1_000, 8_000, 300
_LARGE_REQUEST = 1_000
_IN_FLIGHT = 32
_SWITCH_SECONDS = 10


class FrontEndBench:
    """The front end and its baselines, in the folder of a `Bench` with two exported versions.

    Every measurement uses messages that were not scored before: a message that was is answered from a cache.
    """

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        real = real_messages(bench.corpus)
        self._texts = distinct_messages(real, 10**9, seed=int(time.time()))

    def rows(self) -> list[Row]:
        """Runs the benchmarks and returns their rows."""
        return [*self.one_at_a_time(), self.shared_batches(), self.against_plain_server(), self.large_requests()]

    def one_at_a_time(self) -> list[Row]:
        """Compares one message a request with a call of the signature in process, and the tail with the median."""
        medians, tails, signatures = [], [], []
        for _ in range(self._bench.runs):
            with self.api() as port:
                latencies = sorted(self.load(port, self.bodies(_SINGLE), 1)["latencies"])
            medians.append(1000 * statistics.median(latencies))
            tails.append(1000 * latencies[len(latencies) * 99 // 100])
            signatures.append(1000 * self.signature_median(_SINGLE))
        return [
            Row(
                "front end, one message at a time, against the signature in process: median",
                medians, signatures, _ratios(medians, signatures), 0.8, False, "ms",
            ),
            Row(
                "front end, one message at a time: 99th percentile against the median",
                tails, medians, _ratios(tails, medians), 3.0, False, "ms",
            ),
        ]  # fmt: skip

    def shared_batches(self) -> Row:
        """Compares 32 requests in flight that share batches with the same ones scored one by one."""
        together, alone = [], []
        for _ in range(self._bench.runs):
            with self.api() as port:
                together.append(self.rate(port, _SHARED))
            with self.api(largest_batch="1") as port:
                alone.append(self.rate(port, _SHARED // 4))
        title = "front end, 32 in flight: batches shared, against one by one"
        return Row(title, together, alone, _ratios(together, alone), 4.0, True, "/s")

    def against_plain_server(self) -> Row:
        """Compares 32 requests in flight with the same at a plain server over the SavedModel."""
        ours, plain = [], []
        for _ in range(self._bench.runs):
            with self.api() as port:
                ours.append(self.rate(port, _SHARED))
            with self.plain_server() as port:
                plain.append(self.rate(port, _SHARED // 2))
        title = "front end, 32 in flight, against a plain server over the SavedModel that batches too"
        return Row(title, ours, plain, _ratios(ours, plain), 2.0, True, "/s")

    def large_requests(self) -> Row:
        """Compares requests of 1,000 messages with the rate of a batch on as many threads."""
        ours, batches = [], []
        count = _LARGE * _LARGE_REQUEST
        name = self._bench.snapshot(f"serving-{count}", lambda: itertools.islice(self._texts, count))
        for _ in range(self._bench.runs):
            with self.api() as port:
                ours.append(_LARGE_REQUEST * self.rate(port, _LARGE, _LARGE_REQUEST, in_flight=4))
            figures = self._bench.job("batch", name, "sqlite")
            batches.append(figures["messages"] / figures["seconds"])
        title = "front end, 1,000 messages a request, 4 in flight, against the batch on as many threads"
        return Row(title, ours, batches, _ratios(ours, batches), 0.7, True, "messages/s")

    def soak(self, minutes: float) -> Figures:
        """Sends requests at 70 % of the top rate while the version in service changes every ten seconds.

        Returns:
            Counts of requests, failures and wrong answers; memory in MiB after a tenth of the time and at the end.
        """
        texts = list(itertools.islice(self._texts, 2_000))
        expected = {version: self.expected_answers(version, texts) for version in (1, 2)}
        with self.api() as port, self.server_process(port) as server:
            rate = 0.7 * self.rate(port, _SHARED)
            bodies = [json.dumps({"messages": [text]}) for text in texts]
            command = self.load_command(port, bodies, _IN_FLIGHT, "--repeat", "--answers", "--seconds", minutes * 60)
            client = subprocess.Popen([*command, "--rate", f"{rate:.0f}"], stdout=subprocess.PIPE)  # noqa: S603
            end, memory = time.monotonic() + minutes * 60, []
            for version in itertools.cycle((1, 2)):
                if time.monotonic() > end - _SWITCH_SECONDS:
                    break
                self._bench.command([str(BIN / "spamscore"), "serve", str(version), "--yes"])
                memory.append(server.memory_info().rss / 2**20)
                time.sleep(_SWITCH_SECONDS)
            result = json.loads(client.communicate()[0])
        wrong = [
            answer
            for number, answers in result["answers"].items()
            for answer in map(json.loads, answers)
            if answer["predictions"][0]["probability"] != expected[answer["model_version"]][int(number)]
        ]
        settled = memory[len(memory) // 10 :]
        return {
            "requests": len(result["latencies"]), "rate": rate, "changes": len(memory),
            "failures": len(result["failures"]), "first_failure": result["failures"][:1], "wrong": len(wrong),
            "versions": len({json.loads(answer)["model_version"] for found in result["answers"].values()
                             for answer in found}),
            "memory_start": settled[0], "memory_end": settled[-1], "memory_growth": settled[-1] / settled[0] - 1,
            "median_ms": 1000 * statistics.median(result["latencies"]),
            "p99_ms": 1000 * sorted(result["latencies"])[len(result["latencies"]) * 99 // 100],
        }  # fmt: skip

    def expected_answers(self, version: int, texts: Sequence[str]) -> list[float | None]:
        """Returns the probabilities that `spamscore text` prints for messages without line breaks."""
        command = [str(BIN / "spamscore"), "text", "--json", "--model-version", str(version)]
        done = subprocess.run(  # noqa: S603 - our own command
            command, input="\n".join(texts), capture_output=True, text=True, check=True, cwd=self._bench.folder
        )
        return [json.loads(line)["spam_probability"] for line in done.stdout.splitlines()]

    def bodies(self, requests: int, messages: int = 1) -> list[str]:
        """Returns the bodies of requests with new messages."""
        return [
            json.dumps({"messages": list(itertools.islice(self._texts, messages))}, ensure_ascii=False)
            for _ in range(requests)
        ]

    def rate(self, port: int, requests: int, messages: int = 1, in_flight: int = _IN_FLIGHT) -> float:
        """Returns the answered requests a second."""
        result = self.load(port, self.bodies(requests, messages), in_flight)
        return len(result["latencies"]) / float(result["seconds"])

    def load(self, port: int, bodies: Sequence[str], in_flight: int) -> Figures:
        """Sends the bodies and returns what `load.py` prints; stops the benchmark if a request failed."""
        done = subprocess.run(self.load_command(port, bodies, in_flight), capture_output=True, check=True)  # noqa: S603
        result: Figures = json.loads(done.stdout)
        if result["failures"]:
            raise SystemExit(f"{len(result['failures'])} requests failed: {result['failures'][:3]}")
        return result

    def load_command(self, port: int, bodies: Sequence[str], in_flight: int, *options: object) -> list[str]:
        """Returns the command line of `load.py`, after writing the bodies to a file."""
        path = self._bench.folder / "bodies.jsonl"
        path.write_text("\n".join(bodies), encoding="utf-8")
        command = [sys.executable, HERE / "load.py", path, "--port", port, "--in-flight", in_flight, *options]
        return list(map(str, command))

    def signature_median(self, count: int) -> float:
        """Returns the median seconds of a call of the SavedModel's signature with one message, in a process."""
        path = self._bench.folder / "texts.json"
        path.write_text(json.dumps(list(itertools.islice(self._texts, _WARM_UP + count))), encoding="utf-8")
        command = [sys.executable, str(HERE / "signature.py"), str(self._export()), str(path), str(_WARM_UP)]
        done = subprocess.run(command, capture_output=True, check=True)  # noqa: S603 - our own script
        return statistics.median(json.loads(done.stdout))

    def _export(self) -> Path:
        return next(self._bench.folder.glob("artifacts/exports/*/1"))

    @contextlib.contextmanager
    def api(self, **settings: str) -> Iterator[int]:
        """Starts the front end and yields its port, once it is ready and warm."""
        port = _free_port()
        path = self._bench.folder / "serving.cfg"
        path.write_text("[api]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items()), encoding="utf-8")
        environment = {"LUIGI_CONFIG_PATH": str(path)}
        with self._server([str(BIN / "spamscore"), "api", "--port", str(port)], port, "/readyz", environment):
            yield port

    @contextlib.contextmanager
    def plain_server(self) -> Iterator[int]:
        """Starts the plain server over the SavedModel and yields its port, once it is warm."""
        port = _free_port()
        command = [sys.executable, str(HERE / "plain_server.py"), str(self._export()), "--port", str(port)]
        with self._server(command, port, "/", {}):
            yield port

    @contextlib.contextmanager
    def server_process(self, port: int) -> Iterator[psutil.Process]:
        """Yields the process that listens on a port."""
        yield next(
            psutil.Process(connection.pid)
            for connection in psutil.net_connections("tcp4")
            if connection.laddr.port == port and connection.status == psutil.CONN_LISTEN
        )

    @contextlib.contextmanager
    def _server(self, command: Sequence[str], port: int, path: str, variables: dict[str, str]) -> Iterator[None]:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        process = subprocess.Popen(  # noqa: S603 - our own commands
            command, cwd=self._bench.folder, env={**environment, **variables}, stderr=subprocess.PIPE, text=True
        )
        try:
            while not _answers(port, path):
                if process.poll() is not None:
                    raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}\n{process.communicate()[1]}")
                time.sleep(0.1)
            self.load(port, self.bodies(_WARM_UP), 1)
            yield
        finally:
            process.terminate()
            process.wait()


def _answers(port: int, path: str) -> bool:
    """Returns whether a server answers a GET request; any status but 503 counts."""
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5)
    except urllib.error.HTTPError as error:
        return error.code != 503
    except OSError:
        return False
    return True


def _free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _ratios(ours: Sequence[float], baseline: Sequence[float]) -> list[float]:
    return [value / base for value, base in zip(ours, baseline, strict=True)]
