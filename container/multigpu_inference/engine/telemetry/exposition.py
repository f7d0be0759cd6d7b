"""The metrics as Prometheus reads them: what has been counted, and what is so at this moment, as text.

Made on the engine's loop when somebody asks, from plain counts: nothing is kept in the client library on a request's way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from multigpu_inference.engine.telemetry.gpus import GpuReading
from multigpu_inference.engine.telemetry.histogram import Histogram
from multigpu_inference.engine.telemetry.process_memory import ProcessMemory
from multigpu_inference.engine.telemetry.snapshot import Snapshot
from multigpu_inference.engine.telemetry.statistics import Statistics

Labels = TypeVar("Labels", bound=tuple[str, ...])

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_HEALTH = ("healthy", "below_minimum", "draining")


@dataclass(frozen=True, slots=True)
class Observed:
    """All that the metrics are made of.

    Attributes:
        now: Monotonic seconds.
        statistics: Since the start.
        snapshot: The engine now.
        device_seconds: By device and state.
        gpus: What the driver says.
        memory: By process: `engine`, and workers by name.
    """

    now: float
    statistics: Statistics
    snapshot: Snapshot
    device_seconds: Mapping[str, Mapping[str, float]]
    gpus: Sequence[GpuReading]
    memory: Mapping[str, ProcessMemory]


def exposition(observed: Observed) -> bytes:
    """The metrics in Prometheus' text format, of the type `CONTENT_TYPE`."""
    return generate_latest(_Families(observed))


class _Families:
    """What the client library takes for something that collects."""

    def __init__(self, observed: Observed) -> None:
        self._observed = observed

    def collect(self) -> Iterator[Metric]:
        yield from _of_requests(self._observed.statistics)
        yield from _of_replicas(self._observed.statistics)
        yield from _of_the_queue(self._observed.snapshot, self._observed.now)
        yield from _of_workers(self._observed)
        yield from _of_devices(self._observed)


def _of_requests(counted: Statistics) -> Iterator[Metric]:
    yield _counter(
        "multigpu_requests",
        "Requests answered, by HTTP status and error code (empty where answered as asked).",
        ("status", "error"),
        {(str(status), error): count for (status, error), count in counted.requests.items()},
    )
    yield _counter(
        "multigpu_refused",
        "Requests refused before anybody worked on them, by error code and by who refused.",
        ("reason", "by"),
        counted.refusals,
    )
    yield _counter(
        "multigpu_spared",
        "Requests dropped since nobody waited for them any more, by why, and by what was not begun because of it.",
        ("reason", "before"),
        counted.spared,
    )
    yield _histogram("multigpu_request_seconds", "From a request's arrival to its answer.", (), {(): counted.request_seconds})
    yield _histogram(
        "multigpu_hop_seconds",
        "What a request spent in each hop; `queue` is all that no hop accounts for.",
        ("hop",),
        {(hop,): seconds for hop, seconds in counted.hops.items()},
    )
    yield _histogram(
        "multigpu_batch_size",
        "Items that a stage worked on together; each batch counts once.",
        ("hop",),
        {(hop,): sizes for hop, sizes in counted.batches.items()},
    )
    yield _counter("multigpu_received_bytes", "Bytes of requests' bodies.", (), {(): counted.bytes_in})
    yield _counter("multigpu_answered_bytes", "Bytes of answers' bodies.", (), {(): counted.bytes_out})


def _of_replicas(counted: Statistics) -> Iterator[Metric]:
    yield _counter(
        "multigpu_replica_requests",
        "Requests answered, by the replica that ran them.",
        ("replica",),
        {(replica,): count for replica, count in counted.replica_requests.items()},
    )
    yield _counter(
        "multigpu_replica_stage_seconds",
        "Seconds in which a replica's stage worked on a batch: its rate is the stage's utilisation.",
        ("replica", "hop"),
        counted.stage_seconds,
    )


def _of_the_queue(now: Snapshot, time_s: float) -> Iterator[Metric]:
    age = 0.0 if now.oldest_waiting_since is None else max(0.0, time_s - now.oldest_waiting_since)
    for name, help_text, value in (
        ("multigpu_requests_in_flight", "Requests that have no answer yet, waiting ones included.", now.in_flight),
        ("multigpu_queue_depth", "Requests that wait to be admitted.", now.waiting),
        ("multigpu_queue_age_seconds", "How long the first of those has waited; 0 where none waits.", age),
        ("multigpu_max_in_flight", "The most requests that are admitted at a time.", now.max_in_flight),
        ("multigpu_max_queue_size", "The most requests that may wait to be admitted.", now.max_queue_size),
        ("multigpu_replicas", "Replicas that there are to be.", len(now.replicas)),
        ("multigpu_healthy_replicas", "Replicas that can take requests.", now.healthy_replicas),
        ("multigpu_spare_workers", "Warm workers that wait to take a dead one's place.", now.spares),
    ):
        yield _gauge(name, help_text, (), {(): value})
    yield _gauge(
        "multigpu_health",
        "1 for the state that the container is in.",
        ("state",),
        {(state,): float(state == now.health) for state in dict.fromkeys((*_HEALTH, now.health))},
    )


def _of_workers(observed: Observed) -> Iterator[Metric]:
    workers = observed.snapshot.workers
    ages = {w.name: 0.0 if w.oldest_task_s is None else max(0.0, observed.now - w.oldest_task_s) for w in workers}
    memory = observed.memory.items()
    yield _gauge(
        "multigpu_worker_up",
        "Whether a worker process lives; 0 while it is being replaced.",
        ("worker",),
        {(w.name,): float(w.pid is not None) for w in workers},
    )
    yield _counter(
        "multigpu_worker_restarts",
        "How often a worker process has been replaced.",
        ("worker",),
        {(w.name,): w.restarts for w in workers},
    )
    yield _gauge(
        "multigpu_replica_taken_out",
        "Whether a replica gets nothing but probes, because it is much slower than its peers.",
        ("worker",),
        {(w.name,): float(w.taken_out) for w in observed.snapshot.replicas},
    )
    yield _gauge(
        "multigpu_worker_in_flight", "Tasks that a worker holds.", ("worker",), {(w.name,): w.in_flight for w in workers}
    )
    yield _gauge(
        "multigpu_worker_oldest_task_seconds",
        "How long a worker has had the oldest task that it holds; 0 where it holds none.",
        ("worker",),
        {(name,): age for name, age in ages.items()},
    )
    yield _gauge(
        "multigpu_process_resident_bytes",
        "Memory of a process that is in RAM.",
        ("worker",),
        {(name,): of.resident_bytes for name, of in memory},
    )
    yield _gauge(
        "multigpu_process_shared_bytes",
        "What of that others may have too: requests' arenas, libraries, files.",
        ("worker",),
        {(name,): of.shared_bytes for name, of in memory},
    )


def _of_devices(observed: Observed) -> Iterator[Metric]:
    yield _counter(
        "multigpu_device_seconds",
        "Where each device's time went: busy, or idle for a reason. The rate of a state is its share.",
        ("device", "state"),
        {(device, state): s for device, states in observed.device_seconds.items() for state, s in states.items()},
    )
    for name, help_text, attribute in (
        ("utilization_ratio", "Share of the time in which a kernel ran, as the driver samples it.", "utilization_ratio"),
        ("memory_used_bytes", "Memory of a GPU that is in use, by all processes.", "memory_used_bytes"),
        ("memory_capacity_bytes", "All memory of a GPU.", "memory_capacity_bytes"),
        ("temperature_celsius", "Temperature of a GPU.", "temperature_celsius"),
        ("power_watts", "What a GPU draws.", "power_watts"),
    ):
        values = {(gpu.device, gpu.uuid): getattr(gpu, attribute) for gpu in observed.gpus}
        known = {labels: value for labels, value in values.items() if value is not None}
        if known:
            yield _gauge(f"multigpu_gpu_{name}", help_text, ("device", "uuid"), known)


def _counter(name: str, text: str, labels: tuple[str, ...], values: Mapping[Labels, float]) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _gauge(name: str, text: str, labels: tuple[str, ...], values: Mapping[Labels, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _histogram(name: str, text: str, labels: tuple[str, ...], values: Mapping[Labels, Histogram]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    for key, histogram in values.items():
        bounds = [*(f"{bound:g}" for bound in histogram.bounds), "+Inf"]
        family.add_metric(key, list(zip(bounds, histogram.cumulative(), strict=True)), histogram.total)
    return family
