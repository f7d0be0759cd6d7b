"""What an instance of a type was measured to do, read from the files in which measurements come."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from deploy_error import Invalid
from instance_types import INSTANCE_TYPES

# The parts of the GPU benchmark that measure all stages in a row, as a replica runs them.
_CHAINS = ("chain", "replicas")


@dataclass(frozen=True, slots=True)
class CostMeasurement:
    """One instance under full load.

    Attributes:
        instance: Its type.
        first_ms: Latency of the first request after the endpoint came into service; None: not measured.
        mean_ms: Average latency of one request at a time; None: not measured.
        throughput_per_s: Right answers per second under full load.
        source: What was measured, and how.
        date: ISO 8601.
        at_best: Not of the endpoint, but of its GPUs alone: more than that it cannot do.
    """

    instance: str
    first_ms: float | None
    mean_ms: float | None
    throughput_per_s: float
    source: str
    date: str
    at_best: bool = False


# What two results of a benchmark have in common that were taken of the same container.
_SAME = ("front_end", "replicas", "body_bytes", "settings")
_TEXTS = ("instance", "source", "date")


def read_measurements(path: Path, instance: str = "", workload: str = "matting") -> list[CostMeasurement]:
    """Read a file of measurements, of `python -m bench run` or `suite`, or of `python -m bench.gpu`.

    Args:
        path: The file.
        instance: The type that a benchmark ran on, which its file does not say.
        workload: Which of a benchmark's workloads.

    Raises:
        Invalid: where it is none of these, or holds nothing that can be used.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Invalid(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise Invalid(f"{path} is not JSON: {error}") from error
    if isinstance(data, list) and data and all(isinstance(item, dict) and "instance" in item for item in data):
        return [_measurement(f"{path}: entry {number}", item) for number, item in enumerate(data, 1)]
    results = _bench_results(data)
    if not results and not _is_gpu_report(data):
        raise Invalid(f"{path}: neither a list of measurements nor a benchmark's file; `costs.py --help` shows what is read")
    if not instance:
        raise Invalid(f"{path} is a benchmark's: say with --instance which type it ran on, such as ml.g6.12xlarge")
    if _is_gpu_report(data):
        return [_of_gpu(path, data, instance)]
    return [_of_bench(path, results, instance, workload)]


def _measurement(where: str, item: Mapping[str, Any]) -> CostMeasurement:
    known = [field.name for field in fields(CostMeasurement) if field.name != "at_best"]
    for name in item:
        if name not in known:
            raise Invalid(f"{where}: {name} is not known; known are {', '.join(known)}")
    for name in _TEXTS:
        if not isinstance(item.get(name), str) or not item[name].strip():
            raise Invalid(f"{where}: {name}={item.get(name)!r}: allowed is a text")
    return CostMeasurement(
        instance=item["instance"],
        first_ms=_number(where, "first_ms", item.get("first_ms"), optional=True),
        mean_ms=_number(where, "mean_ms", item.get("mean_ms"), optional=True),
        throughput_per_s=_number(where, "throughput_per_s", item.get("throughput_per_s")) or 0.0,
        source=item["source"],
        date=item["date"],
    )


def _number(where: str, name: str, value: Any, optional: bool = False) -> float | None:
    if optional and value is None:
        return None
    if type(value) not in (int, float) or not math.isfinite(value) or value <= 0:
        raise Invalid(f"{where}: {name}={value!r}: allowed is a number above 0{', or null' if optional else ''}")
    return float(value)


def _is_gpu_report(data: Any) -> bool:
    return isinstance(data, dict) and "sections" in data and "about" in data


def _bench_results(data: Any) -> list[Mapping[str, Any]]:
    """The results in a file of `bench`: one, several, or a suite's with its rows and sweeps."""
    if isinstance(data, dict) and "rows" in data:
        rows = [row["result"] for row in data["rows"] if row.get("kind") == "load"]
        found = [*rows, *(result for sweep in data.get("sweeps", ()) for result in sweep)]
    else:
        found = data if isinstance(data, list) else [data]
    return [result for result in found if isinstance(result, dict) and "requests_per_second" in result]


def _of_bench(path: Path, results: Sequence[Mapping[str, Any]], instance: str, workload: str) -> CostMeasurement:
    """The best throughput, and the mean latency where fewest were in flight.

    Both of the same container. In a closed loop that many requests are always in flight, so the mean latency is their number
    divided by the throughput.
    """
    of_workload = [result for result in results if result["workload"] == workload]
    if not of_workload:
        there = ", ".join(sorted({result["workload"] for result in results}))
        raise Invalid(f"{path}: it has no workload {workload}; there are {there} (--workload)")
    usable = [
        result
        for result in of_workload
        if result["devices"] is None and result["rate"] is None and not result["errors"] and result["requests_per_second"] > 0
    ]
    if not usable:
        raise Invalid(f"{path}: no closed loop of {workload} on real devices that went without errors")
    best = max(usable, key=lambda result: float(result["requests_per_second"]))
    alike = [result for result in usable if all(result[name] == best[name] for name in _SAME)]
    lightest = min(alike, key=lambda result: int(result["concurrency"]))
    return CostMeasurement(
        instance=instance,
        first_ms=None,
        mean_ms=1000 * lightest["concurrency"] / lightest["requests_per_second"],
        throughput_per_s=best["requests_per_second"],
        source=f"bench {workload}, {best['front_end']}, {best['concurrency']} in flight; mean with {lightest['concurrency']}",
        date=best["date"],
    )


def _of_gpu(path: Path, data: Mapping[str, Any], instance: str) -> CostMeasurement:
    """The best rate of one GPU, times the GPUs of the type."""
    kind = INSTANCE_TYPES.get(instance)
    device = str(data["about"].get("device", ""))
    if kind is None:
        raise Invalid(f"{instance}: its number of GPUs is not known; known are {', '.join(INSTANCE_TYPES)}")
    if kind.gpu not in re.split(r"[^A-Za-z0-9]+", device):
        raise Invalid(f"{path}: measured on {device}; {instance} has {kind.gpu}")
    rows = [row for section in data["sections"] if section["name"] in _CHAINS for row in section["rows"]]
    if not rows:
        raise Invalid(f"{path}: it has no figure of the whole chain; run `python -m bench.gpu --only chain replicas`")
    best = max(rows, key=lambda row: float(row["images_per_second"]))
    return CostMeasurement(
        instance=instance,
        first_ms=None,
        mean_ms=None,
        throughput_per_s=kind.gpus * best["images_per_second"],
        source=f"bench.gpu on {device}: {best['what']}, {best['precision']}; times {kind.gpus} GPUs",
        date=str(data["about"].get("date", "")),
        at_best=True,
    )
