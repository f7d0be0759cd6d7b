"""Requests and moments as the engine would hand them over, with what a test does not care for filled in."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from multigpu_inference.engine.telemetry.finished_request import FinishedRequest, HopSpan
from multigpu_inference.engine.telemetry.snapshot import Snapshot, WorkerState
from multigpu_inference.messages import Invocation

TWO_STAGES: tuple[HopSpan, ...] = (
    ("preprocess_ms", 100.1, 100.2, 1),
    ("copy_ms", 100.2, 100.25, 1),
    ("stage_1_ms", 100.3, 100.4, 4),
    ("stage_2_ms", 100.4, 100.6, 2),
    ("postprocess_ms", 100.65, 100.7, 1),
)


def finished(
    spans: tuple[HopSpan, ...] = TWO_STAGES,
    *,
    arrived: float = 100.0,
    ended: float = 101.0,
    status: int = 200,
    error: str | None = None,
    replica: str = "0",
    headers: Mapping[str, str] | None = None,
    bytes_in: int = 0,
    bytes_out: int = 0,
) -> FinishedRequest:
    invocation = Invocation("r-1", "image/jpeg", "image/png", headers or {}, arrived, arrived + 55.0)
    return FinishedRequest(invocation, status, error, replica, spans, ended, bytes_in, bytes_out)


def worker(name: str, **given: Any) -> WorkerState:
    return dataclasses.replace(WorkerState(name, pid=1, in_flight=0, oldest_task_s=None, restarts=0), **given)


def snapshot(**given: Any) -> Snapshot:
    idle = Snapshot(
        health="healthy",
        in_flight=0,
        waiting=0,
        oldest_waiting_since=None,
        oldest_request_since=None,
        max_in_flight=22,
        max_queue_size=30,
        replicas=(worker("replica-0"), worker("replica-1")),
        pool=(worker("pool-0"),),
        fetchers=(),
        spares=1,
        healthy_replicas=2,
    )
    return dataclasses.replace(idle, **given)
