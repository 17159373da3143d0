"""The server's metrics, for Prometheus."""

import os
import threading
import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from ..inference import Engine

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
COUNTS = {
    "tokens_written": "Tokens of answers.",
    "tokens_read": "Prompt tokens that were read.",
    "tokens_taught": "Prompt tokens that the teacher read.",
    "tokens_cached": "Prompt tokens that were cached and not read again.",
    "steps": "Steps of the engine.",
}
FRESH_SECONDS = 1.0  # how often a worker publishes its numbers for the others to report


class Metrics:
    """Counters of requests and times, and the engine's own.

    If several processes share `PROMETHEUS_MULTIPROC_DIR`, each of them reports the sums over all.

    Args:
        engine: the engine.
    """

    def __init__(self, engine: Engine):
        self.engine = engine
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "smt_hf_requests",
            "Requests by path and status of their answer.",
            ["path", "status"],
            registry=self.registry,
        )
        self.first = self._histogram("first_piece_seconds", "Seconds until the first piece of an answer.")
        self.whole = self._histogram("answer_seconds", "Seconds until the end of an answer.")
        self._counters = {
            name: Counter(f"smt_hf_{name}", text, registry=self.registry) for name, text in COUNTS.items()
        }
        self._told = dict.fromkeys(COUNTS, 0)
        self._rows = self._gauge("rows", "Answers that are stepped together.")
        self._waiting = self._gauge("waiting", "Requests that wait for a row.")
        self._cache_bytes = None
        if engine.prefixes is not None:
            self._cache_bytes = self._gauge("prefix_cache_bytes", "Bytes of the memories of known prefixes.")
        self._lock = threading.Lock()
        self.is_shared = "PROMETHEUS_MULTIPROC_DIR" in os.environ
        if self.is_shared:
            threading.Thread(target=self._keep_fresh, daemon=True).start()

    def text(self) -> bytes:
        """All metrics in the format of Prometheus."""
        self.refresh()
        if not self.is_shared:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)
        return generate_latest(together)

    def refresh(self) -> None:
        """Updates the metrics with the engine's current numbers."""
        with self._lock:
            for name, counter in self._counters.items():
                now = self.engine.counts[name]
                counter.inc(now - self._told[name])
                self._told[name] = now
            self._rows.set(len(self.engine.rows))
            self._waiting.set(len(self.engine.waiting))
            if self._cache_bytes is not None:
                self._cache_bytes.set(self.engine.prefixes.num_bytes)

    def _keep_fresh(self) -> None:
        while True:
            time.sleep(FRESH_SECONDS)
            self.refresh()

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(f"smt_hf_{name}", text, buckets=SECONDS, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"smt_hf_{name}", text, registry=self.registry, multiprocess_mode="livesum")
