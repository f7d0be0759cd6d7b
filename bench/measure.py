"""Measures a setup: limit, served, limit, served, … limit in one run, so that a noisy machine is noisy to both.

model folder ──► bare loops (right answers, limit) ──► container ──► load ──► result
"""

from __future__ import annotations

import shlex
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from bench import provenance
from bench.bare_loops import BareLoops
from bench.baseline import Baseline
from bench.container import Container
from bench.container_log import ServedRequest, mean_hops_ms
from bench.load_process import Window, plan_load, put_load
from bench.model_folder import make_model_folder
from bench.percentiles import percentile
from bench.progress import say
from bench.result import Result
from bench.setup import Setup
from bench.workload import ROOT

LOGS = ROOT / "build" / "bench" / "logs"
_TRACED_REQUESTS = 50


@dataclass(frozen=True, slots=True)
class Limit:
    """What is possible at best, and how it is found out.

    Attributes:
        name: `ideal`, `bare loops`, `stock`; `-` where it is not asked for.
        per_second: Measures it, or tells it.
        measured: Whether it varies from one time to the next.
    """

    name: str
    per_second: Callable[[], float | None]
    measured: bool


@dataclass(frozen=True, slots=True)
class Started:
    """Everything that runs while a setup is measured.

    Attributes:
        setup: What is measured.
        settings: The container's.
        requests: The folder with bodies and right answers.
        server: What the load goes to.
        target: Its address.
        limit: What it is compared with.
    """

    setup: Setup
    settings: dict[str, str]
    requests: Path
    server: Container | Baseline
    target: str
    limit: Limit

    def served(self, since: float) -> list[ServedRequest]:
        """What the container logged of the requests since a moment of the epoch."""
        return self.server.served(since) if isinstance(self.server, Container) else []


@contextmanager
def started(setup: Setup) -> Iterator[Started]:
    """Start the container for a setup, and what it is compared with."""
    workload = setup.workload
    name = f"{workload.name}-{setup.front_end}"
    with ExitStack() as stack:
        base_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-ml-")))
        devices = base_dir / "devices"
        make_model_folder(workload, base_dir)
        devices.mkdir()
        settings = setup.settings(str(devices))
        cores = provenance.machine()["cores"]
        # Where the limit is another one, a single loop is there for the right answers.
        count = 1 if workload.simulation or workload.name == "noop" or not setup.limit else cores
        loops = stack.enter_context(BareLoops(workload, base_dir, count, settings))
        say(f"{workload.name}: starting the container")
        container = stack.enter_context(Container(base_dir, settings, LOGS / f"{name}.log"))
        server: Container | Baseline = container
        target = container.engine_socket if setup.front_end == "engine" else container.url
        baseline: Baseline | None = None
        if workload.name == "noop":
            baseline = stack.enter_context(Baseline(container.front_end_workers, LOGS / f"{name}-baseline.log"))
            if setup.front_end == "stock":
                server, target = baseline, baseline.url
        limit = _limit(setup, loops, baseline, max(setup.concurrency))
        yield Started(setup, settings, loops.folder, server, target, limit)


def measure(setup: Setup) -> list[Result]:
    """Measure every point of a setup."""
    with started(setup) as running:
        return [_point(running, concurrency) for concurrency in setup.concurrency]


def command_line(setup: Setup, concurrency: int) -> str:
    """What measures one point again."""
    words = ["python", "-m", "bench", "run", setup.workload.name, "--front-end", setup.front_end]
    words += [] if setup.devices is None else ["--devices", str(setup.devices)]
    words += ["--replicas", str(setup.replicas), "--concurrency", str(concurrency), "--seconds", f"{setup.seconds:g}"]
    words += [] if setup.rate is None else ["--rate", f"{setup.rate:g}"]
    words += [] if setup.repeat == 1 else ["--repeat", str(setup.repeat)]
    words += ["--trace"] if setup.trace else []
    words += [word for name, value in setup.extra.items() for word in ("--set", f"{name}={value}")]
    return shlex.join(words)


def median_index(values: Sequence[float]) -> int:
    """Where the median stands; of an even number the lower of the two."""
    order = sorted(range(len(values)), key=values.__getitem__)
    return order[(len(values) - 1) // 2]


def _limit(setup: Setup, loops: BareLoops, baseline: Baseline | None, concurrency: int) -> Limit:
    simulation, devices = setup.workload.simulation, setup.devices
    if not setup.limit:
        return Limit("-", lambda: None, measured=False)
    if simulation is not None and devices is not None:
        ideal = simulation.ideal_per_second(devices)
        return Limit("ideal", lambda: ideal, measured=False)
    if baseline is None:
        return Limit("bare loops", lambda: loops.run(setup.seconds / 2), measured=True)
    server = baseline

    def stock() -> float:
        return _load(setup, loops.folder, server, server.url, concurrency).requests_per_second

    return Limit("stock", stock, measured=True)


def _load(setup: Setup, requests: Path, server: Container | Baseline, target: str, concurrency: int) -> Window:
    workload = setup.workload
    plan = plan_load(
        requests,
        target,
        content_type=workload.content_type,
        accept=workload.accept,
        exact=workload.exact,
        concurrency=concurrency,
        seconds=setup.seconds,
        warmup_s=setup.warmup_s,
        rate=setup.rate,
    )
    return put_load(plan, server.pid)


def _point(running: Started, concurrency: int) -> Result:
    setup, limit = running.setup, running.limit
    windows: list[Window] = []
    limits = [limit.per_second()]
    since = time.time()
    for number in range(setup.repeat):
        say(f"{setup.workload.name}: {concurrency} in flight, window {number + 1} of {setup.repeat}")
        windows.append(_load(setup, running.requests, running.server, running.target, concurrency))
        limits.append(limit.per_second() if limit.measured else limits[0])
    around = [_mean(before, after) for before, after in pairwise(limits)]
    shares = [window.requests_per_second / (best or 1.0) for window, best in zip(windows, around, strict=True)]
    chosen = median_index(shares)
    window, best = windows[chosen], around[chosen]
    begins = window.outcome.started + time.time() - time.monotonic()
    served = [request for request in running.served(max(since, begins)) if request.time < begins + window.outcome.seconds]
    latencies = window.outcome.latencies_ms
    return Result(
        workload=setup.workload.name,
        front_end=setup.front_end,
        devices=setup.devices,
        replicas=setup.replicas,
        concurrency=concurrency,
        rate=setup.rate,
        seconds=window.outcome.seconds,
        requests=len(latencies),
        requests_per_second=window.requests_per_second,
        limit=limit.name,
        limit_per_second=best,
        ratio=None if best is None else shares[chosen],
        ratios=[] if best is None else shares,
        p50_ms=percentile(latencies, 50),
        p95_ms=percentile(latencies, 95),
        p99_ms=percentile(latencies, 99),
        errors=window.outcome.errors,
        cpu_ms_per_request=window.cpu_ms_per_request(),
        pss_mib=window.after.pss_mib,
        foreign_cores=window.foreign_cores,
        hops_ms=mean_hops_ms(served),
        trace=_trace(served),
        settings={name: value for name, value in running.settings.items() if name != "SIM_DEVICE_DIR"},
        command=command_line(setup, concurrency),
        machine=provenance.machine(),
        date=provenance.now(),
        commit=provenance.commit(),
    )


def _trace(served: Sequence[ServedRequest]) -> list[dict[str, object]]:
    """Requests that followed each other in the middle of the window, with their spans."""
    traced = sorted((request for request in served if request.spans), key=lambda request: request.spans[0].started)
    first = max(0, (len(traced) - _TRACED_REQUESTS) // 2)
    return [
        {
            "request_id": request.request_id,
            "replica": request.replica,
            "spans": [[span.name, span.started, span.ended, span.batch_size] for span in request.spans],
        }
        for request in traced[first : first + _TRACED_REQUESTS]
    ]


def _mean(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else (one + other) / 2
