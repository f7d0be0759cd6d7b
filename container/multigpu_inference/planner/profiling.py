"""Has a model measured: starts profilers in the environments of the workers that they stand for, and gathers what they tell.

    pool profiler: input_fn ──► replica profilers: the model on each kind of devices ──► pool profiler: output_fn ──► Profile

Where the functions can run is found out as the engine finds it out, by comparing both places.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

from multigpu_inference.child_process import KEEP_MEMORY, Command
from multigpu_inference.config import Settings
from multigpu_inference.engine.capacity import plan_capacity
from multigpu_inference.engine.devices import cpu_devices
from multigpu_inference.engine.process_pool import NO_GPU, ONE_THREAD, threads
from multigpu_inference.engine.replica import replica_command
from multigpu_inference.errors import ModelError, StartupError
from multigpu_inference.messages import INPUT_FN, OUTPUT_FN, TRANSFORM_FN, Failure, ScriptInfo
from multigpu_inference.planner.asked import FunctionMeasured, MeasureFunction, MeasureReplica, ReplicaMeasured
from multigpu_inference.planner.machine import Machine, kind
from multigpu_inference.planner.profile import Cost, FunctionProfile, Profile, ReplicaProfile
from multigpu_inference.planner.profiler_process import ProfilerProcess, started_profiler
from multigpu_inference.planner.sample import Sample

_POOL, _REPLICA = "multigpu_inference.planner.pool_profiler", "multigpu_inference.planner.replica_profiler"
# The engine takes a function that is quicker than this to the replica worker, where the model has no stages.
_QUICKER_THAN_A_HOP_MS = 0.1
_SILENCE_GRACE_S = 5.0


class Profiling:
    """The measuring of one model."""

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        script: ScriptInfo,
        sample: Sample,
        machine: Machine,
        say: Callable[[str], None],
    ) -> None:
        """Nothing is started yet.

        Args:
            settings: The container's.
            environ: Variables for all processes, beside this one's.
            script: What the probe found.
            sample: What is measured with.
            machine: What is planned for, and what is at hand.
            say: Takes what is being measured, in words.
        """
        self._settings, self._environ, self._script = settings, environ, script
        self._sample, self._machine, self._say = sample, machine, say
        self._preprocess = "replica" if script.import_error else settings.engine.preprocess
        self._silence_s = settings.engine.request_timeout_s + _SILENCE_GRACE_S

    async def run(self) -> Profile:
        """Measure everything.

        Raises:
            StartupError: where the model does not load, or cannot answer the sample.
        """
        async with AsyncExitStack() as stack:
            pool: ProfilerProcess | None = None
            before: FunctionMeasured | Failure | None = None
            pooled: list[Any] = []
            if self._preprocess != "replica" and TRANSFORM_FN not in self._script.functions:
                command = Command("plan-pool", _POOL, (), {**self._environ, **ONE_THREAD, **NO_GPU, **KEEP_MEMORY})
                started: ProfilerProcess = await stack.enter_async_context(self._started(command))
                before, pooled = await self._ask_pool(started, INPUT_FN, [self._sample.body])
                pool = started
            replicas: dict[tuple[tuple[str, ...], int], ReplicaProfile] = {}
            first: tuple[ReplicaMeasured, list[Any]] | None = None
            for devices, count in self._wanted():
                measured, blobs = await self._measure_replica(devices, count, pooled, optional=first is not None)
                if measured is not None:
                    replicas[tuple(map(kind, devices)), count] = measured.profile
                    first = first or (measured, blobs)
            assert first is not None  # the first one is not optional
            measured, (answer, *prediction) = first
            if TRANSFORM_FN in self._script.functions or _is_transform(measured.profile):
                return Profile(None, None, replicas)
            after = await self._measure_output(pool, measured, answer, prediction)
        stays = None if measured.findings is None else measured.findings.keep_input
        input_profile = self._place(before, stays, measured.input_cost)
        size = sum(memoryview(blob).nbytes for blob in prediction)
        return Profile(self._quick(input_profile), self._quick(after), replicas, size)

    def _started(self, command: Command) -> Any:
        return started_profiler(command, self._settings.engine.startup_timeout_s, self._silence_s, self._say)

    def _wanted(self) -> list[tuple[tuple[str, ...], int]]:
        """What is measured: devices of each stage with the threads of each; the first is the one that must load."""
        stages, machine = self._script.stages, self._machine
        at_hand = machine.devices_at_hand if machine.gpus else 0
        if at_hand:
            count = plan_capacity(self._settings.engine, machine.gpus, machine.cores, stages).threads_per_stage
            gpus = tuple(f"cuda:{stage % at_hand}" for stage in range(stages))
            on_cpu = [(*gpus[:s], "cpu", *gpus[s + 1 :]) for s in range(stages)] if stages > 1 else []
            return [(devices, count) for devices in (gpus, *on_cpu)]
        counts = sorted({self._threads(replicas) for replicas in (1, 2, machine.cores, machine.devices)}, reverse=True)
        return [(cpu_devices(1, stages)[:stages], count) for count in counts]

    def _threads(self, replicas: int) -> int:
        engine = dataclasses.replace(self._settings.engine, num_replicas=replicas)
        return plan_capacity(engine, 0, self._machine.cores, self._script.stages).threads_per_stage

    async def _measure_replica(
        self, devices: tuple[str, ...], count: int, pooled: list[Any], *, optional: bool
    ) -> tuple[ReplicaMeasured | None, list[Any]]:
        capacity = plan_capacity(self._settings.engine, self._machine.gpus, self._machine.cores, len(devices))
        worker = replica_command(0, [devices], capacity)
        environ = {**self._environ, **worker.environ, **threads(count)}
        command = dataclasses.replace(worker, name="plan-replica", module=_REPLICA, environ=environ)
        try:
            async with self._started(command) as profiler:
                message = MeasureReplica(self._sample.invocation(), self._preprocess)
                said, blobs = await profiler.ask(message, [self._sample.body, *pooled])
        except StartupError:
            if not optional:
                raise
            return None, []
        if isinstance(said, Failure):
            if optional:
                return None, []
            raise ModelError(f"the model cannot answer the sample: {said.detail or said.message}")
        return said, blobs

    async def _ask_pool(
        self, pool: ProfilerProcess, function: str, blobs: list[Any]
    ) -> tuple[FunctionMeasured | Failure, list[Any]]:
        said, out = await pool.ask(MeasureFunction(function, self._sample.invocation()), blobs)
        if isinstance(said, Failure) and self._preprocess == "pool":
            raise ModelError(f"the model cannot answer the sample: {said.detail or said.message}")
        return said, out

    async def _measure_output(
        self, pool: ProfilerProcess | None, measured: ReplicaMeasured, answer: Any, prediction: list[Any]
    ) -> FunctionProfile:
        stays = measured.findings.keep_output if measured.findings else None
        said: FunctionMeasured | Failure | None = None
        if pool is not None and stays is None and prediction:
            said, out = await self._ask_pool(pool, OUTPUT_FN, prediction)
            if isinstance(said, FunctionMeasured) and self._preprocess == "auto" and bytes(out[0]) != bytes(answer):
                stays = "it gives another answer in a pool worker"
        return self._place(said, stays, measured.output_cost)

    def _place(self, in_pool: FunctionMeasured | Failure | None, stays: str | None, cost_here: Cost) -> FunctionProfile:
        """Where a function runs, and what it takes there."""
        if isinstance(in_pool, FunctionMeasured) and stays is None:
            return in_pool.profile
        failed = f"it fails in a pool worker ({in_pool.detail or in_pool.message})" if isinstance(in_pool, Failure) else None
        because = failed or stays or ("the script cannot be imported without a GPU" if self._script.import_error else None)
        # Where only the pool's answer told that it cannot stay there, it was not timed in the replica worker.
        cost = in_pool.profile.cost if isinstance(in_pool, FunctionMeasured) and not cost_here.wall_ms else cost_here
        return FunctionProfile(cost, in_pool=False, because=because or "MULTIGPU_PREPROCESS=replica")

    def _quick(self, function: FunctionProfile) -> FunctionProfile:
        """A function that the engine would bring to the replica worker because it is so quick."""
        watched = self._preprocess == "auto" and self._script.stages == 1
        if not watched or not function.in_pool or function.cost.wall_ms >= _QUICKER_THAN_A_HOP_MS:
            return function
        return dataclasses.replace(function, in_pool=False, because="it is quicker than handing over")


def _is_transform(replica: ReplicaProfile) -> bool:
    return not replica.pipelined and replica.stages[0].name == TRANSFORM_FN
