"""What the server does, in numbers for Prometheus."""

import os
import threading
import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from ..inference import Engine

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
COUNTS = {
    "tokens_written": "Tokens of answers.",
    "tokens_read": "Tokens of prompts that were read.",
    "tokens_taught": "Tokens of prompts that were read by the teacher.",
    "tokens_cached": "Tokens of prompts that were known and not read again.",
    "steps": "Steps of the engine.",
}
FRESH_SECONDS = 1.0  # after which a worker's numbers are there for the others to tell


class Metrics:
    """Counters of requests and times, and the engine's own.

    In a process of several that share `PROMETHEUS_MULTIPROC_DIR`, every one of them tells the sums over all.

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
        self.first = self._histogram("first_piece_seconds", "Until the first piece of an answer.")
        self.whole = self._histogram("answer_seconds", "Until the end of an answer.")
        self._counters = {
            name: Counter(f"smt_hf_{name}", text, registry=self.registry) for name, text in COUNTS.items()
        }
        self._told = dict.fromkeys(COUNTS, 0)
        self._rows = self._gauge("rows", "Answers that are stepped together.")
        self._waiting = self._gauge("waiting", "Requests that wait for a row.")
        self._cache_bytes = None
        if engine.prefixes is not None:
            self._cache_bytes = self._gauge("prefix_cache_bytes", "Bytes of memories of known prefixes.")
        self._lock = threading.Lock()
        self.is_shared = "PROMETHEUS_MULTIPROC_DIR" in os.environ
        if self.is_shared:
            threading.Thread(target=self._keep_fresh, daemon=True).start()

    def text(self) -> bytes:
        """All of it as Prometheus reads it."""
        self.refresh()
        if not self.is_shared:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)
        return generate_latest(together)

    def refresh(self) -> None:
        """Takes the engine's numbers as they are now."""
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
