"""Measures a setup: limit, served, limit, served, … limit in one run, so that a noisy machine is noisy to both.

model folder ──► bare loops (right answers, limit) ──► container ──► load ──► result
"""

from __future__ import annotations

import dataclasses
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from bench import provenance
from bench import setup as setups
from bench.bare_loops import BareLoops
from bench.baseline import Baseline
from bench.container import Container
from bench.container_log import ServedRequest, mean_hops_ms
from bench.device_time import DeviceSeconds, device_time
from bench.limit import BARE_LOOPS, MMS, NONE, STOCK, Limit, limit_name
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
        folder = base_dir / "run"
        make_model_folder(workload, base_dir)
        folder.mkdir()
        settings = setup.settings(str(folder))
        limit_is = limit_name(setup)
        # Where the limit is another one, a single loop is there for the right answers.
        count = provenance.machine()["cores"] if limit_is == BARE_LOOPS else 1
        loops = stack.enter_context(BareLoops(workload, base_dir, count, settings))
        say(f"{workload.name}: starting the container")
        container = stack.enter_context(Container(base_dir, settings, LOGS / f"{name}.log"))
        server: Container | Baseline = container
        target = container.engine_socket if setup.front_end == setups.ENGINE else container.url
        other: Container | Baseline | None = None
        if limit_is == STOCK or setup.front_end == setups.STOCK:
            other = stack.enter_context(Baseline(container.front_end_workers, LOGS / f"{name}-baseline.log"))
            if setup.front_end == setups.STOCK:
                server, target = other, other.url
        elif limit_is == MMS:
            say(f"{workload.name}: starting the container with multi-model-server")
            other_settings = dataclasses.replace(setup, front_end=setups.MMS).settings(str(folder))
            other = stack.enter_context(Container(base_dir, other_settings, LOGS / f"{name}-mms.log"))
        limit = _limit(setup, loops, other, max(setup.concurrency))
        yield Started(setup, settings, loops.folder, server, target, limit)


def measure(setup: Setup) -> list[Result]:
    """Measure every point of a setup."""
    with started(setup) as running:
        return [_point(running, concurrency) for concurrency in setup.concurrency]


def put_setup_load(
    setup: Setup,
    requests: Path,
    server: Container | Baseline,
    target: str,
    concurrency: int,
    on_measuring: Callable[[], object] = lambda: None,
    on_measured: Callable[[], object] = lambda: None,
) -> Window:
    """One window of a setup's load, with what the devices did meanwhile where the container says it."""
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
    looks: list[DeviceSeconds] = []
    advice: list[str] = []

    def begin() -> None:
        looks.append(server.device_seconds())
        on_measuring()

    def end() -> None:
        on_measured()
        looks.append(server.device_seconds())
        advice.append(server.advice())

    window = put_load(plan, server.pid, begin, end)
    return dataclasses.replace(window, device_time=device_time(*looks), advice=advice[0])


def command_line(setup: Setup, concurrency: int) -> str:
    """What measures one point again."""
    words = ["python", "-m", "bench", "run", setup.workload.name, "--front-end", setup.front_end]
    words += [] if setup.devices is None else ["--devices", str(setup.devices)]
    words += ["--replicas", str(setup.replicas), "--concurrency", str(concurrency), "--seconds", f"{setup.seconds:g}"]
    words += [] if setup.rate is None else ["--rate", f"{setup.rate:g}"]
    words += [] if setup.repeat == 1 else ["--repeat", str(setup.repeat)]
    words += ["--trace"] if setup.trace else []
    words += [] if setup.body_bytes is None else ["--body-bytes", str(setup.body_bytes)]
    words += [word for name, value in setup.extra.items() for word in ("--set", f"{name}={value}")]
    return shlex.join(words)


def median_index(values: Sequence[float]) -> int:
    """Where the median stands; of an even number the lower of the two."""
    order = sorted(range(len(values)), key=values.__getitem__)
    return order[(len(values) - 1) // 2]


def _limit(setup: Setup, loops: BareLoops, other: Container | Baseline | None, concurrency: int) -> Limit:
    name = limit_name(setup)
    if name == NONE:
        return Limit(name, lambda: None, measured=False)
    if setup.workload.simulation is not None and setup.devices is not None:
        ideal = setup.workload.simulation.ideal_per_second(setup.devices)
        return Limit(name, lambda: ideal, measured=False)
    if other is None:
        return Limit(name, lambda: loops.run(setup.seconds / 2), measured=True)
    server = other

    def through_the_other() -> float:
        return put_setup_load(setup, loops.folder, server, server.url, concurrency).requests_per_second

    return Limit(name, through_the_other, measured=True)


def _point(running: Started, concurrency: int) -> Result:
    setup, limit = running.setup, running.limit
    windows: list[Window] = []
    limits = [limit.per_second()]
    since = time.time()
    for number in range(setup.repeat):
        say(f"{setup.workload.name}: {concurrency} in flight, window {number + 1} of {setup.repeat}")
        windows.append(put_setup_load(setup, running.requests, running.server, running.target, concurrency))
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
        body_bytes=setup.body_bytes,
        device_time=window.device_time,
        advice=window.advice,
        settings={name: value for name, value in running.settings.items() if name not in setups.PATHS},
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
