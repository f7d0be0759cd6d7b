"""What is to be measured, and the container's settings that follow from it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.bench_error import BenchError
from bench.workload import Workload

MMS, HTTP, ENGINE, STOCK = FRONT_ENDS = ("mms", "http", "engine", "stock")
# Settings that are paths of one run.
PATHS = ("SIM_DEVICE_DIR", "HOLD_WHILE")
# On the CPU: one for each of the two cores that the figures are stated for.
_DEFAULT_REPLICAS = 2
_DEFAULT_DEVICES = 4
# Requests beyond those in flight that may wait: one whose connection broke is still being answered.
_SPARE_QUEUE = 16


@dataclass(frozen=True)
class Setup:
    """One start of the container, and the loads that it gets.

    Attributes:
        workload: What is served.
        front_end: `mms`, `http`, `engine` or `stock`.
        devices: Simulated devices; None without a simulation.
        replicas: Replicas.
        concurrency: Requests in flight, one point after the other.
        rate: Requests per second of an open loop, with `concurrency` connections; None: a closed loop.
        seconds: Of each window.
        warmup_s: Before each window.
        repeat: Windows per point, of which the median counts.
        trace: Whether the engine logs when each hop of a request was.
        limit: Whether the limit is measured as well.
        body_bytes: Length of the bodies, where another than the workload's was asked for.
        extra: Further environment variables of the container.
    """

    workload: Workload
    front_end: str
    devices: int | None
    replicas: int
    concurrency: tuple[int, ...]
    rate: float | None = None
    seconds: float = 10.0
    warmup_s: float = 2.0
    repeat: int = 1
    trace: bool = False
    limit: bool = True
    body_bytes: int | None = None
    extra: Mapping[str, str] = field(default_factory=dict)

    def settings(self, folder: str) -> dict[str, str]:
        """The container's environment.

        Args:
            folder: Where simulated devices keep their locks, and where the file is that holds requests back.
        """
        settings = {
            "MULTIGPU_FRONT_END": HTTP if self.front_end == HTTP else MMS,
            "MULTIGPU_NUM_REPLICAS": str(self.replicas),
            "MULTIGPU_MAX_QUEUE_SIZE": str(max(self.concurrency) + _SPARE_QUEUE),
            **self.workload.settings,
        }
        simulation = self.workload.simulation
        if simulation is not None and self.devices is not None:
            settings["MULTIGPU_PREPROCESS_WORKERS"] = str(simulation.pool_workers(self.devices))
            settings |= simulation.environment(self.devices, folder)
        if self.workload.name == "hold":
            settings["HOLD_WHILE"] = os.path.join(folder, "hold")
        if self.front_end == ENGINE:
            settings["SAGEMAKER_MODEL_SERVER_WORKERS"] = "1"  # it is there, and idle
        if self.trace:
            settings["MULTIGPU_TRACE"] = "1"
        return {**settings, **self.extra}


def make_setup(
    workload: Workload,
    *,
    front_end: str = MMS,
    devices: int | None = None,
    replicas: int | None = None,
    concurrency: tuple[int, ...] = (),
    rate: float | None = None,
    seconds: float = 10.0,
    warmup_s: float = 2.0,
    repeat: int = 1,
    trace: bool = False,
    limit: bool = True,
    body_bytes: int | None = None,
    extra: Mapping[str, str] | None = None,
) -> Setup:
    """Fill in what was not said; `BenchError` where something does not go together.

    A simulation has as many replicas as devices and so many requests in flight for each device.
    """
    if front_end not in FRONT_ENDS:
        raise BenchError(f"--front-end {front_end}: allowed are {', '.join(FRONT_ENDS)}")
    if front_end == STOCK and workload.name != "noop":
        raise BenchError("--front-end stock is a handler that returns at once, which only the workload noop compares with")
    if workload.simulation is None and devices is not None:
        raise BenchError(f"--devices is for simulated ones, which {workload.name} has none of; say --replicas")
    if workload.simulation is not None:
        devices = devices or _DEFAULT_DEVICES
        replicas = replicas or devices
    return Setup(
        workload=workload if body_bytes is None else workload.with_bodies_of(body_bytes),
        front_end=front_end,
        devices=devices,
        replicas=replicas or min(_DEFAULT_REPLICAS, len(os.sched_getaffinity(0))),
        concurrency=concurrency or (workload.concurrency * (devices or 1),),
        rate=rate,
        seconds=seconds,
        warmup_s=warmup_s,
        repeat=repeat,
        trace=trace,
        limit=limit,
        body_bytes=body_bytes,
        extra=extra or {},
    )
