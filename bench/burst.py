"""Requests that are all sent at the same moment, so many on each connection, and waited for."""

from __future__ import annotations

from bench.load import LoadOutcome
from bench.load_process import plan_load, put_load
from bench.measure import Started

# The machine is busy with the first requests when the last ones arrive, and with those in front of each until it answers.
TIMEOUT_S = 600.0
# Settings that let the container wait as long.
SETTINGS = {"MULTIGPU_REQUEST_TIMEOUT_S": f"{TIMEOUT_S:g}"}


def burst(running: Started, connections: int, requests_each: int) -> LoadOutcome:
    """Send; returns when the last one has its answer."""
    workload = running.setup.workload
    plan = plan_load(
        running.requests,
        running.target,
        content_type=workload.content_type,
        accept=workload.accept,
        exact=workload.exact,
        concurrency=connections,
        seconds=0.0,
        requests_each=requests_each,
        timeout_s=TIMEOUT_S,
    )
    return put_load(plan, running.server.pid).outcome
