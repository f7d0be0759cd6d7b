"""Runs the load generator in a process of its own, and looks at the server when its measuring begins and ends."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.bench_error import BenchError
from bench.device_time import DeviceTime
from bench.load import LoadOutcome, LoadPlan
from bench.processes import Usage, usage
from bench.workload import ROOT


@dataclass(frozen=True, slots=True)
class Window:
    """One measured time.

    Attributes:
        outcome: What the load generator saw.
        before: The server when it began.
        after: The server when it ended.
        device_time: What each device did meanwhile, where the server says it.
        advice: What the server would change; "" where it does not say.
    """

    outcome: LoadOutcome
    before: Usage
    after: Usage
    device_time: list[DeviceTime] = field(default_factory=list)
    advice: str = ""

    @property
    def requests_per_second(self) -> float:
        """Right answers per second."""
        return len(self.outcome.latencies_ms) / self.outcome.seconds

    @property
    def foreign_cores(self) -> float:
        """How many cores were busy with something else meanwhile: neither the server nor the load."""
        ours = sum(self.after.cpu_since(self.before).values()) + self.outcome.client_cpu_s
        return max(0.0, (self.after.machine_cpu_s - self.before.machine_cpu_s - ours) / self.outcome.seconds)

    def cpu_ms_per_request(self) -> dict[str, float]:
        """CPU time by role and right answer."""
        count = max(1, len(self.outcome.latencies_ms))
        spent = {**self.after.cpu_since(self.before), "client": self.outcome.client_cpu_s}
        return {role: seconds * 1e3 / count for role, seconds in spent.items()}


def put_load(
    plan: LoadPlan,
    server_pid: int,
    on_measuring: Callable[[], None] = lambda: None,
    on_measured: Callable[[], None] = lambda: None,
) -> Window:
    """Carry out a plan; returns when the last request has been answered.

    Args:
        plan: What to send, and where.
        server_pid: The server's first process.
        on_measuring: Called when the warm-up is over.
        on_measured: Called when the window is over; the last requests may still wait for their answers.
    """
    with tempfile.NamedTemporaryFile("w", prefix="bench-", suffix=".json") as file:
        json.dump(dataclasses.asdict(plan), file)
        file.flush()
        with subprocess.Popen(
            [sys.executable, "-m", "bench.load", file.name], cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            try:
                lines = process.stdout
                _hear(lines.readline())
                on_measuring()
                before = usage(server_pid)
                _hear(lines.readline())
                after = usage(server_pid)
                on_measured()
                outcome = LoadOutcome(**_hear(lines.readline()))
            except BaseException:
                process.kill()
                raise
    return Window(outcome, before, after)


def plan_load(folder: Path, target: str, **rest: Any) -> LoadPlan:
    """A plan for the bodies and answers in a folder."""
    return LoadPlan(
        target=target,
        inputs=[str(path) for path in sorted(folder.glob("*.input"))],
        expected=[str(path) for path in sorted(folder.glob("*.expected"))],
        **rest,
    )


def _hear(line: str) -> dict[str, Any]:
    if not line:
        raise BenchError("the load generator ended early; what it printed stands above")
    said: dict[str, Any] = json.loads(line)
    return said
