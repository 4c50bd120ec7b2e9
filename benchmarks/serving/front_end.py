"""Measures the front end over HTTP on loopback: latency, rate, and what happens while the version changes."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import sqlite3
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any

import psutil
from bench import BIN, HERE, Bench, Row
from messages import distinct_messages, real_messages

Figures = dict[str, Any]
# Requests of each measurement.
_WARM_UP, _SINGLE, _SHARED, _LARGE = 2_000, 1_000, 8_000, 300
_LARGE_REQUEST = 1_000
_IN_FLIGHT = 32
_SWITCH_SECONDS = 10


class FrontEndBench:
    """The front end and its baselines, in the folder of a `Bench`.

    Every measurement uses messages that were not scored before: a message that was is answered from a cache.
    """

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._texts = distinct_messages(real_messages(bench.corpus), 10**9, seed=int(time.time()))

    def rows(self) -> list[Row]:
        """Runs the benchmarks and returns their rows."""
        return [*self.one_at_a_time(), *self.shared_batches(), self.large_requests()]

    def one_at_a_time(self) -> list[Row]:
        """Compares one message a request with a call of the signature in process, and the tail with the median."""
        medians, tails, ratios = [], [], []
        for _ in range(self._bench.runs):
            with self.api() as port:
                latencies = sorted(self.load(port, self.bodies(_SINGLE), 1)["latencies"])
            medians.append(1000 * statistics.median(latencies))
            tails.append(latencies[len(latencies) * 99 // 100] / statistics.median(latencies))
            ratios.append(medians[-1] / (1000 * self.signature_median(_SINGLE)))
        return [
            Row("front end, one message at a time: median against the signature in process", ratios, 0.8, False),
            Row("front end, one message at a time: p99 against the median", tails, 3.0, False),
            Row("front end, one message at a time: median", medians, None, False, "ms"),
        ]

    def shared_batches(self) -> list[Row]:
        """Compares 32 requests in flight with the same scored one by one, and with a plain server."""
        together, alone, plain = [], [], []
        for _ in range(self._bench.runs):
            with self.api() as port:
                together.append(self.rate(port, _SHARED))
            with self.api(largest_batch=1) as port:
                alone.append(self.rate(port, _SHARED))
            with self.plain_server() as port:
                plain.append(self.rate(port, _SHARED // 2))
        return [
            Row("front end, 32 in flight: batches shared, against one by one", _ratios(together, alone), 4.0, True),
            Row(
                "front end, 32 in flight, against a plain server over the SavedModel that batches too",
                _ratios(together, plain), 2.0, True,
            ),
            Row("front end, 32 in flight: requests a second", together, None, True),
            Row("front end, 32 in flight, one by one: requests a second", alone, None, True),
            Row("plain server, 32 in flight: requests a second", plain, None, True),
        ]  # fmt: skip

    def large_requests(self) -> Row:
        """Compares requests of 1,000 messages with the rate of a batch on as many threads."""
        ratios = []
        for number in range(self._bench.runs):
            with self.api() as port:
                ours = _LARGE_REQUEST * self.rate(port, _LARGE, _LARGE_REQUEST, in_flight=4)
            ratios.append(ours / self.batch_rate(f"2026-01-{number + 1:02}", _LARGE * _LARGE_REQUEST))
        return Row("front end, 1,000 messages a request, against the batch on as many threads", ratios, 0.7, True)

    def batch_rate(self, date: str, count: int) -> float:
        """Scores a batch of new messages with ScoreBatch, and returns its messages a second."""
        inbox = self._bench.folder / "inbox"
        inbox.mkdir(exist_ok=True)
        with (inbox / f"{date}.jsonl").open("w", encoding="utf-8") as lines:
            for number, text in enumerate(itertools.islice(self._texts, count)):
                lines.write(json.dumps({"message_id": str(number), "text": text}) + "\n")
        files = ("--messages-source", "file", "--messages-path", "inbox/{date}.jsonl")
        self._bench.run([str(BIN / "luigi"), "--module", "pipeline", "ScoreBatch", "--date", date, *files])
        with contextlib.closing(sqlite3.connect(self._bench.folder / "spamscore.db")) as connection:
            query = "SELECT scored / seconds_total FROM score_batches WHERE batch_date = ?"
            return float(connection.execute(query, (date,)).fetchone()[0])

    def soak(self, minutes: float) -> list[Row]:
        """Sends requests at 70 % of the top rate while the version in service changes every ten seconds."""
        texts = list(itertools.islice(self._texts, 2_000))
        expected = {version: self.expected_answers(version, texts) for version in (1, 2)}
        bodies = [json.dumps({"messages": [text]}) for text in texts]
        with self.api() as port:
            rate = 0.7 * self.rate(port, _SHARED)
            seconds = 60 * minutes
            options = ("--repeat", "--answers", "--seconds", seconds, "--rate", f"{rate:.0f}")
            client = subprocess.Popen(  # noqa: S603 - our own script
                self.load_command(port, bodies, _IN_FLIGHT, *options), stdout=subprocess.PIPE
            )
            memory = self._change_versions(_find_listener(port), seconds)
            result = json.loads(client.communicate()[0])
        answers = [(int(number), json.loads(answer)) for number, found in result["answers"].items() for answer in found]
        wrong = sum(
            answer["predictions"][0]["probability"] != expected[answer["model_version"]][number]
            for number, answer in answers
        )
        print(f"soak: {len(result['latencies']):,} requests at {rate:,.0f} a second, {len(memory)} changes", flush=True)
        print(f"soak: memory in MiB at each change: {[round(each) for each in memory]}", flush=True)
        settled = memory[len(memory) // 10 :]
        growth = statistics.mean(settled[-5:]) / statistics.mean(settled[:5]) - 1
        return [
            Row(f"{minutes:g} minutes while the version changes: failed requests", [len(result["failures"])], 0, False),
            Row(f"{minutes:g} minutes while the version changes: wrong answers", [wrong], 0, False),
            Row("the same: versions seen in answers", [len({each["model_version"] for _, each in answers})], 2, True),
            Row("the same: growth of memory", [growth], 0.05, False),
        ]

    def _change_versions(self, server: psutil.Process, seconds: float) -> list[float]:
        """Changes the version in service every ten seconds. Returns the memory of the server in MiB at each change."""
        end, memory = time.monotonic() + seconds - _SWITCH_SECONDS, []
        for version in itertools.cycle((1, 2)):
            if time.monotonic() > end:
                return memory
            next_change = time.monotonic() + _SWITCH_SECONDS
            self._bench.run([str(BIN / "spamscore"), "serve", str(version), "--yes"])
            memory.append(server.memory_info().rss / 2**20)
            time.sleep(max(0.0, next_change - time.monotonic()))
        raise AssertionError

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
        command = [sys.executable, str(HERE / "signature.py"), str(self._bench.export), str(path), str(_WARM_UP)]
        done = subprocess.run(command, capture_output=True, check=True)  # noqa: S603 - our own script
        return statistics.median(json.loads(done.stdout))

    @contextlib.contextmanager
    def api(self, **settings: object) -> Iterator[int]:
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
        command = [sys.executable, str(HERE / "plain_server.py"), str(self._bench.export), "--port", str(port)]
        with self._server(command, port, "/", {}):
            yield port

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


def _find_listener(port: int) -> psutil.Process:
    """Returns the process that listens on a port."""
    return next(
        psutil.Process(connection.pid)
        for connection in psutil.net_connections("tcp4")
        if connection.laddr.port == port and connection.status == psutil.CONN_LISTEN
    )


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
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _ratios(ours: Sequence[float], baseline: Sequence[float]) -> list[float]:
    return [value / base for value, base in zip(ours, baseline, strict=True)]
