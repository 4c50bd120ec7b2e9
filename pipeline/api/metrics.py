"""The metrics of the front end, for Prometheus. They contain nothing of a message and nothing that a client chooses."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.gc_collector import GCCollector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_MESSAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """Counts requests, messages, batches, reloads and failures of one process."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)
        self.requests = Counter(
            "spamscore_api_requests", "Requests, by protocol, call and status code.", ["protocol", "call", "code"],
            registry=registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "spamscore_api_request_seconds", "Seconds from the head of a request to its answer.", ["protocol"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.messages = Counter(
            "spamscore_api_messages", "Messages: flagged, passed, or unscored because empty or not scorable.",
            ["result"], registry=registry,
        )  # fmt: skip
        self.batches = Histogram(
            "spamscore_api_batch_messages", "Messages in one call of the network.", buckets=_MESSAGES, registry=registry
        )
        self.waiting = Gauge("spamscore_api_waiting_messages", "Messages that wait to be scored.", registry=registry)
        self.ready = Gauge("spamscore_api_ready", "1 if messages can be scored, else 0.", registry=registry)
        self.degraded = Gauge(
            "spamscore_api_degraded", "1 if /readyz has a warning, as for a version that cannot be loaded, else 0.",
            registry=registry,
        )  # fmt: skip
        self.version = Gauge("spamscore_api_version_in_service", "Model version that answers.", registry=registry)
        self.loads = Counter(
            "spamscore_api_version_loads", "Model versions loaded, by result: loaded or failed.", ["result"],
            registry=registry,
        )  # fmt: skip
        self.backend_failures = Counter(
            "spamscore_api_backend_failures", "Calls of the backend that failed, by reason.", ["reason"],
            registry=registry,
        )  # fmt: skip
        # `labels` takes longer than counting does.
        self._counters: dict[tuple[str, str, int | str], tuple[Counter, Histogram]] = {}
        results = ((True, "flagged"), (False, "passed"), (None, "unscored"))
        self._verdicts = [(verdict, self.messages.labels(result)) for verdict, result in results]
        self.circuit_open = Gauge(
            "spamscore_api_circuit_open", "1 while no call is sent to TensorFlow Serving, because it failed, else 0.",
            registry=registry,
        )  # fmt: skip

    def count_request(self, protocol: str, call: str, code: int | str, seconds: float) -> None:
        """Counts an answered request."""
        key = (protocol, call, code)
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = self.requests.labels(*key), self.seconds.labels(protocol)
        counter[0].inc()
        counter[1].observe(seconds)

    def count_messages(self, flagged: list[bool | None]) -> None:
        """Counts messages by their verdicts."""
        for verdict, counter in self._verdicts:
            if number := flagged.count(verdict):
                counter.inc(number)

    def render(self) -> bytes:
        """Returns the metrics in the text format of Prometheus."""
        return generate_latest(self.registry)
