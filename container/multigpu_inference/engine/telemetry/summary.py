"""The figures that people look at, as plain data: for the page, the log, and the benchmark's report. A pure function."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from multigpu_inference.engine.placement import Devices
from multigpu_inference.engine.telemetry.advice import advice
from multigpu_inference.engine.telemetry.device_time import DeviceTime
from multigpu_inference.engine.telemetry.gpus import GpuReading
from multigpu_inference.engine.telemetry.idle_causes import BUSY, IDLE_CAUSES
from multigpu_inference.engine.telemetry.snapshot import Snapshot
from multigpu_inference.engine.telemetry.statistics import Statistics


def summary(
    counted: Statistics,
    now: Snapshot,
    placement: tuple[Devices, ...],
    devices: Mapping[str, DeviceTime],
    gpus: Iterable[GpuReading],
    max_batch_delay_ms: float,
) -> dict[str, Any]:
    """Put the figures together; JSON can write all of it.

    Args:
        counted: Since the start.
        now: The engine.
        placement: For each replica its devices.
        devices: Where their time went.
        gpus: What the driver says of them.
        max_batch_delay_ms: `MULTIGPU_MAX_BATCH_DELAY_MS`.
    """
    pool_workers = sum(worker.pid is not None for worker in now.pool)
    readings = {gpu.device: asdict(gpu) for gpu in gpus}
    together = {state: sum(device.recent()[state] for device in devices.values()) for state in (BUSY, *IDLE_CAUSES)}

    def advise(name: str, seconds: Mapping[str, float]) -> str:
        return advice(name, seconds, pool_workers=pool_workers, max_batch_delay_ms=max_batch_delay_ms)

    return {
        "health": now.health,
        "in_flight": now.in_flight,
        "waiting": now.waiting,
        "requests": {
            "total": counted.num_requests,
            "server_errors": counted.num_server_errors,
            "refused": counted.num_refusals,
            "spared": _spared(counted),
            "p50_s": round(counted.request_seconds.quantile(0.5), 4),
            "p99_s": round(counted.request_seconds.quantile(0.99), 4),
        },
        "hops": {hop: {"requests": of.count, "mean_s": round(of.mean, 6)} for hop, of in counted.hops.items()},
        "batches": {hop: {"batches": of.count, "mean_size": round(of.mean, 2)} for hop, of in counted.batches.items()},
        "devices": {name: _device(name, device, advise) | _gpu(readings.get(name)) for name, device in devices.items()},
        "advice": advise("the average device", together),
        "replicas": {
            worker.name: {
                "devices": list(of),
                "pid": worker.pid,
                "in_flight": worker.in_flight,
                "restarts": worker.restarts,
                "taken_out": worker.taken_out,
                "requests": counted.replica_requests.get(str(i), 0),
                "stage_s": {hop: round(s, 3) for (replica, hop), s in counted.stage_seconds.items() if replica == str(i)},
            }
            for i, (worker, of) in enumerate(zip(now.replicas, placement, strict=True))
        },
    }


def _spared(counted: Statistics) -> dict[str, dict[str, int]]:
    """By error code and what was not begun."""
    return {code: {at: count for (of, at), count in counted.spared.items() if of == code} for code, _ in counted.spared}


def _device(name: str, device: DeviceTime, advise: Any) -> dict[str, Any]:
    recent = device.recent()
    elapsed = sum(recent.values())
    return {
        "busy_percent": round(100.0 * recent[BUSY] / elapsed, 1) if elapsed > 0 else 0.0,
        "recent_s": {state: round(seconds, 3) for state, seconds in recent.items()},
        "total_s": {state: round(seconds, 3) for state, seconds in device.seconds.items()},
        "advice": advise(name, recent),
    }


def _gpu(reading: dict[str, Any] | None) -> dict[str, Any]:
    return {} if reading is None else {"gpu": reading}
