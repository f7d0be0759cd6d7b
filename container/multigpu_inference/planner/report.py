"""The plan in words: what was measured, the best few candidates, the settings to paste."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from multigpu_inference.planner.deployment import Candidate
from multigpu_inference.planner.engine_run import Measured
from multigpu_inference.planner.machine import Machine
from multigpu_inference.planner.memory_need import MAIN
from multigpu_inference.planner.prediction import Plan, Prediction
from multigpu_inference.planner.profile import Cost, FunctionProfile, Profile, ReplicaProfile
from multigpu_inference.planner.sample import Sample
from multigpu_inference.planner.verification import Verified

_SHOWN = 6
_NOISE_CORES = 0.15
_LONGEST_PLACEMENT = 44


def measured_lines(profile: Profile, sample: Sample, machine: Machine) -> Iterator[str]:
    """What was measured, and on what."""
    here = _devices(machine.devices_at_hand, machine.gpus) + f", {machine.cores_at_hand} cores"
    wanted = _devices(machine.devices, machine.gpus) + f", {machine.cores} cores"
    yield f"measured with {sample.source} ({sample.content_type}, {len(sample.body)} bytes) on {here}"
    if here != wanted:
        yield f"planned for {wanted}: taken to be like those that were measured"
    rows: list[tuple[str, ...]] = [("", "where", "batch", "wall ms", "CPU ms", "memory MiB")]
    rows += _function_rows("input_fn", profile.input)
    for (_, threads), replica in profile.replicas.items():
        rows += _replica_rows(replica, threads)
    rows += _function_rows("output_fn", profile.output)
    yield from _table(rows)
    for name, function in (("input_fn", profile.input), ("output_fn", profile.output)):
        if function is not None and not function.in_pool:
            yield f"{name} runs in the replica worker: {function.because}"
    overhead = profile.overhead
    cpu_ms = overhead.engine_cpu_ms + overhead.client_cpu_ms + 2 * overhead.pool_cpu_ms + overhead.replica_cpu_ms
    yield f"the container itself adds {overhead.hand_over_ms:.1f} ms to a request, and {cpu_ms:.1f} ms of CPU time"


def noise_lines(foreign_cores: float) -> Iterator[str]:
    """A warning where the machine was not quiet."""
    if foreign_cores > _NOISE_CORES:
        yield f"other programs kept {foreign_cores:.1f} cores busy meanwhile: the figures suffer from that; measure again"


def plan_lines(plan: Plan) -> Iterator[str]:
    """The best few, what each waits for, and what was left out."""
    shown = list(plan.predictions[:_SHOWN])
    for extra in (plan.recommended, plan.default):
        if extra is not None and extra not in shown:
            shown.append(extra)
    rows: list[tuple[str, ...]] = [
        ("", "placement", "replicas", "batch", "pool", "requests/s", "alone ms", "full ms", "memory GiB", "bound by")
    ]
    rows += [(_mark(plan, each), *_prediction_row(each)) for each in shown]
    yield from _table(rows)
    left = len(plan.predictions) - len(shown)
    if left or plan.not_simulated:
        yield f"{left} more were simulated, {plan.not_simulated} not: their devices or cores allow far less"
    for deployment, reason in plan.dropped[:3]:
        yield f"dropped: {_name(deployment.candidate)}: {reason}"
    if len(plan.dropped) > 3:
        yield f"dropped: {len(plan.dropped) - 3} more, for want of memory"


def final_line(prediction: Prediction, measured: Measured) -> str:
    """What the engine served with the settings of one finalist."""
    said = prediction.requests_per_second
    return f"  {measured.requests_per_second:.1f}/s, predicted {said:.1f}: {_name(prediction.deployment.candidate)}"


def settings_lines(candidate: Candidate, environ: Mapping[str, str]) -> list[str]:
    """The recommended settings as NAME=VALUE: those that are not the default, or that the environment says otherwise."""
    plain = Candidate().environment()
    lines = []
    for name, value in candidate.environment().items():
        given = environ.get(name, "").strip() or plain[name]
        if value != plain[name]:
            lines.append(f"{name}={value}")
        elif given != plain[name]:
            lines.append(f"{name}=")  # as if it were not set
    return lines


def verified_lines(verified: Sequence[Verified]) -> Iterator[str]:
    """Prediction beside measurement."""
    rows = [("", "requests/s", "predicted", "off by", "alone ms", "predicted", "median ms, full", "predicted")]
    for each in verified:
        served, said = each.measured.requests_per_second, each.predicted.requests_per_second
        rows.append((
            each.name, f"{served:.1f}", f"{said:.1f}", f"{said / served - 1:+.1%}" if served else "-",
            f"{each.measured.lone_ms:.1f}", f"{each.predicted.lone_ms:.1f}",
            f"{each.measured.saturated.latency_ms():.1f}", f"{each.predicted.saturated.latency_ms:.1f}",
        ))  # fmt: skip
    yield from _table(rows)
    for each in verified:
        if each.measured.saturated.errors:
            counts = ", ".join(f"{count} of status {status}" for status, count in each.measured.saturated.errors.items())
            yield f"{each.name}: other answers: {counts}"


def _devices(count: int, gpus: int) -> str:
    if not gpus:
        return "the CPU" if count == 1 else f"{count} devices of the CPU"
    return "1 GPU" if count == 1 else f"{count} GPUs"


def _function_rows(name: str, function: FunctionProfile | None) -> list[tuple[str, ...]]:
    if function is None:
        return []
    memory = _mib(function.process_bytes) if function.in_pool else ""
    return [(name, "pool" if function.in_pool else "replica", "", *_times(function.cost), memory)]


def _replica_rows(replica: ReplicaProfile, threads: int) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for number, stage in enumerate(replica.stages, 1):
        name = f"stage {number}: {stage.name}" if replica.pipelined else stage.name
        where = stage.device if stage.device.startswith("cuda") else f"{stage.device}, {_plural(threads, 'thread')}"
        for size, batch in stage.batches.items():
            first = size == min(stage.batches)
            rows.append((name if first else "", where if first else "", str(size), *_times(batch.cost), _mib(batch.peak_bytes)))
    rows.append(("predict_fn beside them", "", "", *_times(replica.around), _mib(replica.process_bytes)))
    return rows


def _prediction_row(prediction: Prediction) -> tuple[str, ...]:
    deployment, saturated = prediction.deployment, prediction.saturated
    gpus = [size for device, size in prediction.memory.items() if device != MAIN]
    memory = max(gpus) if gpus else prediction.memory.get(MAIN, 0)
    sizes = "/".join(f"{size:.1f}".removesuffix(".0") for size in saturated.batch_sizes)
    return (
        _short(deployment.candidate.placement),
        str(deployment.capacity.num_replicas),
        f"{deployment.max_batch_size} ({sizes})" if deployment.max_batch_size > 1 else "1",
        str(deployment.capacity.pool_workers),
        f"{saturated.requests_per_second:.1f}",
        f"{prediction.lone_ms:.1f}",
        f"{saturated.latency_ms:.1f}",
        f"{memory / 2**30:.1f}",
        prediction.bound_by,
    )


def _mark(plan: Plan, prediction: Prediction) -> str:
    marks = ["recommended"] if prediction is plan.recommended else []
    marks += ["defaults"] if prediction is plan.default else []
    return ", ".join(marks)


def _name(candidate: Candidate) -> str:
    return " ".join(f"{name}={value}" for name, value in candidate.environment().items() if value)


def _short(placement: str) -> str:
    return placement if len(placement) <= _LONGEST_PLACEMENT else f"{placement[:_LONGEST_PLACEMENT]}…"


def _times(cost: Cost) -> tuple[str, str]:
    digits = max(1, 2 - math.floor(math.log10(cost.wall_ms))) if 0 < cost.wall_ms < 1 else 1
    return f"{cost.wall_ms:.{digits}f}", f"{cost.cpu_ms:.{digits}f}"


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f}" if size else ""


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
