"""What Prometheus reads: requests, tokens, times. Knows nothing of HTTP; routes and models are names to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily
from prometheus_client.registry import Collector

from tuneloop.generate.live import LiveEngine, Usage

SHORT = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
LONG = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Meters(Collector):
    """The figures of one service, in a registry of its own: several services can live in one process."""

    def __init__(self, engine: LiveEngine, refused: Callable[[], int]) -> None:
        """`refused`: answers that the store has dropped so far."""
        self._registry = where = CollectorRegistry()
        self._requests = Counter("tuneloop_requests", "Requests", ["route", "status"], registry=where)
        self._seconds = Histogram(
            "tuneloop_request_seconds", "Time of requests", ["route"], buckets=LONG, registry=where
        )
        self._first = Histogram(
            "tuneloop_first_token_seconds", "Time to the first token", ["model"], buckets=SHORT, registry=where
        )
        self._answers = Counter("tuneloop_answers", "Answers", ["model", "finish"], registry=where)
        self._tokens = Counter(
            "tuneloop_tokens", "Tokens: of prompts, of those cached, of answers", ["model", "kind"], registry=where
        )
        self._votes = Counter("tuneloop_feedback", "Votes", ["thumb"], registry=where)
        self._unrecorded, self._refused = 0, refused
        where.register(self)
        running = Gauge("tuneloop_running", "Answers being written", registry=where)
        running.set_function(lambda: engine.now().running)
        waiting = Gauge("tuneloop_waiting", "Answers in the queue", registry=where)
        waiting.set_function(lambda: engine.now().waiting)

    def request(self, route: str, status: int, seconds: float) -> None:
        """A request is over."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def answer(self, model: str, finish: str, first: float | None, usage: Usage) -> None:
        """An answer is over; `first`: seconds until its first token."""
        self._answers.labels(model, finish).inc()
        if first is not None:
            self._first.labels(model).observe(first)
        for kind, count in (("prompt", usage.prompt), ("cached", usage.cached), ("completion", usage.completion)):
            self._tokens.labels(model, kind).inc(count)

    def vote(self, thumb: int | None) -> None:
        """A vote was stored."""
        self._votes.labels("none" if thumb is None else str(thumb)).inc()

    def unrecorded(self) -> None:
        """The store did not take an answer."""
        self._unrecorded += 1

    def collect(self) -> Iterator[Metric]:
        """What is counted elsewhere, as prometheus_client asks for it."""
        lost = self._unrecorded + self._refused()
        yield CounterMetricFamily("tuneloop_unrecorded", "Answers that the store refused", value=lost)

    def text(self) -> bytes:
        """All figures in Prometheus' text format."""
        return generate_latest(self._registry)
