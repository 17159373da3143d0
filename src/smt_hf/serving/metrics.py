"""What the server does, in numbers for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from ..inference import Engine

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """Counters of requests and times, and the engine's own.

    Args:
        engine: the engine.
    """

    def __init__(self, engine: Engine):
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "smt_hf_requests",
            "Requests by path and status of their answer.",
            ["path", "status"],
            registry=self.registry,
        )
        self.first = Histogram(
            "smt_hf_first_piece_seconds",
            "Until the first piece of an answer.",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.whole = Histogram(
            "smt_hf_answer_seconds", "Until the end of an answer.", buckets=SECONDS, registry=self.registry
        )
        self.registry.register(_EngineCollector(engine))

    def text(self) -> bytes:
        """All of it as Prometheus reads it."""
        return generate_latest(self.registry)


class _EngineCollector(Collector):
    def __init__(self, engine: Engine):
        self.engine = engine

    def collect(self):
        """The engine's numbers as they are now."""
        names = {
            "tokens_written": "Tokens of answers.",
            "tokens_read": "Tokens of prompts that were read.",
            "tokens_cached": "Tokens of prompts that were known and not read again.",
            "steps": "Steps of the engine.",
        }
        for name, text in names.items():
            yield CounterMetricFamily(f"smt_hf_{name}", text, value=self.engine.counts[name])
        yield GaugeMetricFamily("smt_hf_rows", "Answers that are stepped together.", value=len(self.engine.rows))
        yield GaugeMetricFamily("smt_hf_waiting", "Requests that wait for a row.", value=len(self.engine.waiting))
        if self.engine.prefixes is not None:
            size = self.engine.prefixes.num_bytes
            yield GaugeMetricFamily("smt_hf_prefix_cache_bytes", "Bytes of memories of known prefixes.", value=size)
