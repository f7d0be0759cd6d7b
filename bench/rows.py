"""The rows of the suite, which is where the goals are, and the sweeps that the report draws."""

from __future__ import annotations

from typing import Any

from bench.goal import Goal
from bench.row import BRANCHES, FRONT_END_MEMORY, MEMORY, OVERLOAD, Row

_MB_IN_MIB = 1e6 / (1 << 20)
# A row that takes turns with a second container has twice the windows.
_HTTP_WINDOWS = {"seconds": 6.0, "warmup_s": 1.5}
_LARGE_WINDOWS = {"seconds": 5.0, "warmup_s": 1.0}
# Three windows and the end of one, for each front end.
_OVERLOAD_WINDOWS = {"seconds": 10.0, "warmup_s": 1.0}


def _sim(devices: int, concurrency: int, *goals: Goal) -> Row:
    load = {"devices": devices, "concurrency": (concurrency,), "front_end": "mms"}
    plural = "s" if devices > 1 else ""
    return Row(f"sim, {devices} device{plural}, {concurrency} in flight, mms", "sim", load, goals)


def _batched(devices: int, concurrency: int, front_end: str, *goals: Goal) -> Row:
    load = {"devices": devices, "concurrency": (concurrency,), "front_end": front_end}
    windows = {**_HTTP_WINDOWS, "repeat": 1} if front_end == "http" else {}
    name = f"sim-batched, {devices} devices, {concurrency} in flight, {front_end}"
    return Row(name, "sim-batched", load, goals, windows=windows)


def _cpu(workload: str, in_flight: int, goal: float, front_end: str = "mms") -> Row:
    load = {"replicas": 2, "concurrency": (in_flight,), "front_end": front_end}
    windows = _HTTP_WINDOWS if front_end == "http" else {}
    name = f"{workload}, 2 replicas, {in_flight} in flight, {front_end}"
    return Row(name, workload, load, (Goal("ratio", goal),), windows=windows)


def _large(workload: str, megabytes: int, *goals: Goal) -> Row:
    """Large bodies through the HTTP front end, against the same through multi-model-server."""
    load = {"replicas": 2, "concurrency": (8,), "front_end": "http", "body_bytes": megabytes * 1_000_000}
    name = f"{workload} of {megabytes} MB, 8 in flight, http against mms"
    return Row(name, workload, load, goals, windows=_LARGE_WINDOWS)


def _overload(front_end: str, *goals: Goal) -> Row:
    # In the closed loop as many as are admitted, so that there none of them waits for that.
    load = {"replicas": 2, "concurrency": (8,), "front_end": front_end}
    name = f"overload: 5 times what tiny can serve, {front_end}"
    return Row(name, "tiny", load, (*_OVERLOAD_GOALS, *goals), OVERLOAD, windows=_OVERLOAD_WINDOWS)


def _memory(in_flight: int) -> Row:
    return Row(
        f"memory: {in_flight} requests of tiny at once, 1 replica, engine",
        "tiny",
        {"replicas": 1, "concurrency": (in_flight,), "front_end": "engine"},
        (Goal("beyond_bodies_mib", _MB_IN_MIB, at_least=False), Goal("answered", in_flight)),
        MEMORY,
    )


def _shared_memory(in_flight: int) -> Row:
    return Row(
        f"memory: {in_flight} inferences of shared at once on one copy of its weights, 1 replica, http",
        "shared",
        {
            "replicas": 1,
            "concurrency": (in_flight,),
            "front_end": "http",
            "extra": {"MULTIGPU_STREAMS_PER_STAGE": str(in_flight)},
        },
        (Goal("beyond_bodies_mib", _MB_IN_MIB, at_least=False), Goal("answered", in_flight)),
        MEMORY,
    )


def _branches(workload: str, *goals: Goal) -> Row:
    return Row(f"branches at the same time, {workload}", workload, {}, goals, BRANCHES, reported="of_slowest")


def _front_end_memory(in_flight: int, *goals: Goal) -> Row:
    return Row(
        f"front-end memory: {in_flight} requests of 5 MB held, http against mms",
        "hold",
        {"replicas": 2, "concurrency": (in_flight,), "front_end": "http"},
        (Goal("held", in_flight), *goals),
        FRONT_END_MEMORY,
    )


_P99 = Goal("p99_ms", 100.0, at_least=False)
_OVERLOAD_GOALS = (
    Goal("goodput_share", 0.95),
    Goal("refused_p99_ms", 50.0, at_least=False),
    Goal("accepted_p99_ratio", 2.0, at_least=False),
    Goal("recovered_s", 2.0, at_least=False),
)
ROWS = (
    _sim(4, 16, Goal("ratio", 0.96), _P99),
    _sim(8, 32, Goal("ratio", 0.96), _P99),
    _sim(4, 1, Goal("p50_ms", 45.0, at_least=False)),
    _batched(4, 64, "engine", Goal("ratio", 0.92)),
    _batched(8, 128, "engine", Goal("ratio", 0.90)),
    _batched(4, 1, "engine", Goal("p50_ms", 48.0, at_least=False)),
    _batched(4, 64, "mms"),
    _sim(1, 4),
    _sim(2, 8),
    _cpu("medium", 16, 0.97),
    _cpu("tiny", 16, 0.90),
    _cpu("noop", 32, 0.6),
    _memory(960),
    _shared_memory(960),
    _branches("sim-branches", Goal("of_slowest", 1.1, at_least=False)),
    _branches("tiny-branches", Goal("of_slowest", 1.3, at_least=False)),
    Row(
        "noop, 32 in flight, http against mms",
        "noop",
        {"replicas": 2, "concurrency": (32,), "front_end": "http"},
        (Goal("requests_per_second", 3500.0), Goal("ratio", 2.5)),
        windows=_HTTP_WINDOWS,
    ),
    _batched(4, 64, "http"),
    _cpu("medium", 16, 0.97, "http"),
    _cpu("tiny", 16, 0.96, "http"),
    _large("noop", 5, Goal("ratio", 1.6)),
    _large("noop", 25, Goal("ratio", 1.6)),
    _front_end_memory(128, Goal("rest_mib", 60 * _MB_IN_MIB, at_least=False), Goal("share_of_mms", 0.25, at_least=False)),
    _overload("mms"),
    _overload("http", Goal("ping_max_ms", 100.0, at_least=False), Goal("not_200", 0, at_least=False)),
)

# Names of the rows that scaling compares, and by how much.
ONE, EIGHT = "sim, 1 device, 4 in flight, mms", "sim, 8 devices, 32 in flight, mms"
EIGHT_TIMES_ONE = 7.6

SWEEPS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("sim", {"devices": 4, "concurrency": (1, 2, 4, 8, 16, 32), "front_end": "mms"}),
    ("sim-batched", {"devices": 4, "concurrency": (1, 4, 16, 32, 64, 96), "front_end": "engine"}),
    ("tiny", {"replicas": 2, "concurrency": (1, 2, 4, 8, 16, 32), "front_end": "mms"}),
    ("matting", {"replicas": 2, "concurrency": (1, 2, 4, 8), "front_end": "mms"}),
)

QUICK_ROWS = (
    Row("sim, 2 devices, 8 in flight, mms", "sim", {"devices": 2, "concurrency": (8,), "front_end": "mms"}),
    Row("sim-batched, 2 devices, engine", "sim-batched", {"devices": 2, "concurrency": (32,), "front_end": "engine"}),
    Row("tiny, 2 replicas", "tiny", {"replicas": 2, "concurrency": (8,), "front_end": "mms"}),
    Row("noop", "noop", {"concurrency": (8,), "front_end": "mms"}),
    Row("noop, http against mms", "noop", {"concurrency": (8,), "front_end": "http"}),
    _memory(48),
    _shared_memory(48),
    _branches("sim-branches"),
    _front_end_memory(16),
)
QUICK_SWEEPS: tuple[tuple[str, dict[str, Any]], ...] = (("sim", {"devices": 2, "concurrency": (1, 4, 8), "front_end": "mms"}),)
