"""A replica worker's stand-in: loads the model on its devices and times what it does with one request.

Run with a replica worker's arguments and environment: its own devices only, its share of the cores.

    body ──► input_fn (here, or the pool's result) ──► predict_fn around a tap ──► each stage alone, batch by batch
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from multigpu_inference import process
from multigpu_inference.config import Settings
from multigpu_inference.context import Context
from multigpu_inference.engine import codec
from multigpu_inference.engine.script_runner import ScriptRunner
from multigpu_inference.engine.stage import Stage
from multigpu_inference.engine.trial import run_trial
from multigpu_inference.errors import ModelError, ServingError
from multigpu_inference.ipc import Buffer, FrameSocket
from multigpu_inference.messages import INPUT_FN, OUTPUT_FN, PREDICT_FN, STOCK_ORDER, TRANSFORM_FN, Findings, Task
from multigpu_inference.planner.asked import MeasureReplica, ReplicaMeasured
from multigpu_inference.planner.memory import PeakMemory, resident_bytes
from multigpu_inference.planner.profile import BatchCost, Cost, ReplicaProfile, StageProfile
from multigpu_inference.planner.profiler import Measure, Ticker, serve
from multigpu_inference.planner.stage_clock import time_stage
from multigpu_inference.planner.stage_memory import DeviceMemory, model_bytes
from multigpu_inference.planner.stage_tap import StageTap
from multigpu_inference.planner.stopwatch import time_calls
from multigpu_inference.user_module import UserModule, as_body, as_serving_error


class ReplicaProfiler:
    """A loaded replica that is timed."""

    def __init__(self, devices: tuple[str, ...], num_replicas: int) -> None:
        """Take the devices, import the script, load the model, as a replica worker does."""
        self._memory = DeviceMemory.initialise(devices)
        settings = Settings.from_env(os.environ).model
        gpu = next((int(d.removeprefix("cuda:")) for d in devices if d.startswith("cuda:")), None)
        self._context = Context(devices, 0, num_replicas, {"model_dir": str(settings.model_dir), "gpu_id": gpu})
        self._script = UserModule.load(settings)
        started = time.perf_counter()
        self._model = self._script.load_model(self._context)
        self._load_s = time.perf_counter() - started
        self._stages = _stages(self._model)
        if self._stages and len(self._stages) != len(devices):
            raise ModelError(f"model_fn returned a model with {len(self._stages)} stages, but STAGES is {len(devices)}")
        self._devices = devices
        self._runner = ScriptRunner(self._script, self._context, self._model, devices[0])

    def measure(
        self, message: MeasureReplica, blobs: Sequence[Any], ticker: Ticker
    ) -> tuple[ReplicaMeasured, Sequence[Buffer]]:
        """Time everything that one request asks of this replica."""
        ticker.begin("the first request")
        if self._script.has_transform_fn:
            return self._measure_transform(message, blobs[0], ticker)
        one_request = _OneRequest(self._runner, message, blobs)
        findings, answer = one_request.find_places()
        profile = self._profile(one_request, ticker)
        here = one_request.costs_here(ticker)
        prediction = [] if one_request.encoded is None else one_request.encoded
        measured = ReplicaMeasured(profile, answer[1] if answer else None, findings, *here)
        return measured, [answer[0] if answer else b"", *prediction]

    def _profile(self, request: _OneRequest, ticker: Ticker) -> ReplicaProfile:
        tap = self._tapped(request)
        stages: tuple[StageProfile, ...]
        if tap is not None:
            stages = tuple(
                _stage_profile(stage, number, tap.items[number - 1], ticker) for number, stage in enumerate(self._stages, 1)
            )
            tap.replay()
            ticker.begin("predict_fn beside its stages")
            around = time_calls(
                lambda _: request.encode(self._predict(request.data(), tap, request.message)), lambda: None, ticker.tick
            )
        else:
            stages = (self._whole(request, ticker),)
            ticker.begin("what goes in and out")
            around = time_calls(lambda _: request.carry(), lambda: None, ticker.tick)
        return self._with_memory(stages, around, pipelined=tap is not None)

    def _tapped(self, request: _OneRequest) -> StageTap | None:
        """What the stages were given; None where there are none, or where the script does more with its model than call it."""
        if not self._stages:
            return None
        tap = StageTap(self._model)
        try:
            self._predict(request.data(), tap, request.message)
        except ServingError:
            return None
        return tap if all(tap.items) else None

    def _whole(self, request: _OneRequest, ticker: Ticker) -> StageProfile:
        """A model without stages of its own: `predict_fn` is its only one, for one request at a time."""
        ticker.begin("predict_fn")
        with PeakMemory(self._devices[0]) as memory:
            cost = time_calls(
                lambda data: self._memory.synchronise(self._predict(data, self._model, request.message)),
                request.data,
                ticker.tick,
            )
        return self._one_stage(PREDICT_FN, cost, memory.grown_bytes)

    def _one_stage(self, name: str, cost: Cost, peak_bytes: int) -> StageProfile:
        device = self._devices[0]
        costs = {1: BatchCost(cost, peak_bytes)}
        return StageProfile(name, device, 1, device.startswith("cuda"), costs, self._memory.allocated(device))

    def _measure_transform(
        self, message: MeasureReplica, body: Any, ticker: Ticker
    ) -> tuple[ReplicaMeasured, Sequence[Buffer]]:
        invocation = message.invocation
        answer = as_body(self._runner.call(TRANSFORM_FN, body, invocation), invocation.accept)
        ticker.begin(TRANSFORM_FN)
        with PeakMemory(self._devices[0]) as memory:
            cost = time_calls(
                lambda given: self._memory.synchronise(self._runner.call(TRANSFORM_FN, given, invocation)),
                lambda: bytearray(body),
                ticker.tick,
            )
        profile = self._with_memory((self._one_stage(TRANSFORM_FN, cost, memory.grown_bytes),), Cost(), pipelined=False)
        return ReplicaMeasured(profile, answer[1], None, Cost(), Cost()), [answer[0]]

    def _with_memory(self, stages: tuple[StageProfile, ...], around: Cost, *, pipelined: bool) -> ReplicaProfile:
        threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
        memory = self._memory
        return ReplicaProfile(
            stages, pipelined, threads, around, resident_bytes(), memory.context_bytes, memory.device_bytes, self._load_s
        )

    def _predict(self, data: Any, model: Any, message: MeasureReplica) -> Any:
        try:
            return self._script.call(PREDICT_FN, self._context, data, model)
        except BaseException as error:
            raise as_serving_error(error, PREDICT_FN) from error


class _OneRequest:
    """The request that the model is timed with, from its body or from what the pool made of it."""

    def __init__(self, runner: ScriptRunner, message: MeasureReplica, blobs: Sequence[Any]) -> None:
        self.message = message
        self.encoded: list[Buffer] | None = None  # its prediction
        self._runner = runner
        self._body, self._pooled = blobs[0], blobs[1:]
        self._task = Task(0, (PREDICT_FN,), message.invocation)
        self._input_here = not self._pooled
        self._output_here = message.preprocess == "replica"

    def find_places(self) -> tuple[Findings | None, tuple[bytes, str] | None]:
        """Where the functions can run, as the engine's first request finds it out; and the answer, where it was made here."""
        invocation = self.message.invocation
        if self.message.preprocess == "auto":
            trial = Task(0, STOCK_ORDER, invocation, trial=True)
            result, out = run_trial(self._runner, trial, [self._body, *map(bytearray, self._pooled)])
            findings = result.findings
            assert findings is not None  # a trial's result always has some
            self._input_here = self._input_here or findings.keep_input is not None
            self._output_here = findings.keep_output is not None
            self._task = Task(0, (PREDICT_FN,), invocation, findings.device_paths, findings.tensor_paths)
            self.encoded = [bytes(blob) for blob in out[1:]] or None
            return findings, (bytes(out[0]), result.content_type or "")
        prediction = self._runner.call(PREDICT_FN, self.data(), invocation)
        if not self._output_here:
            self.encoded = [bytes(blob) for blob in self._runner.encode(prediction, PREDICT_FN)]
            return None, None
        return None, as_body(self._runner.call(OUTPUT_FN, prediction, invocation), invocation.accept)

    def data(self) -> Any:
        """What `predict_fn` gets, made anew: from the pool's bytes, or by `input_fn` here."""
        if self._input_here:
            return self._runner.call(INPUT_FN, bytearray(self._body), self.message.invocation)
        return self._runner.decode([bytearray(blob) for blob in self._pooled], self._task)

    def encode(self, prediction: Any) -> None:
        """Make a prediction ready for the pool, where it goes there."""
        if not self._output_here:
            self._runner.encode(prediction, PREDICT_FN)

    def carry(self) -> None:
        """Take a request's bytes in and a prediction's out, with nothing between."""
        if not self._input_here:
            self.data()
        if self.encoded is not None:
            self.encode(codec.decode([bytearray(blob) for blob in self.encoded]))

    def costs_here(self, ticker: Ticker) -> tuple[Cost, Cost]:
        """What `input_fn` and `output_fn` take in this process; nothing where they do not run here."""
        invocation = self.message.invocation
        input_cost = output_cost = Cost()
        if self._input_here:
            ticker.begin(INPUT_FN)
            input_cost = time_calls(lambda _: self.data(), lambda: None, ticker.tick)
        if self._output_here:
            ticker.begin(OUTPUT_FN)
            output_cost = time_calls(
                lambda prediction: as_body(self._runner.call(OUTPUT_FN, prediction, invocation), invocation.accept),
                lambda: self._runner.call(PREDICT_FN, self.data(), invocation),
                ticker.tick,
            )
        return input_cost, output_cost


def _stages(model: Any) -> tuple[Stage, ...]:
    """The stages of a model that is a chain of them; none of any other."""
    stages = getattr(model, "stages", None)
    if not isinstance(stages, Sequence) or not all(isinstance(stage, Stage) for stage in stages):
        return ()
    return tuple(stages)


def _stage_profile(stage: Stage, number: int, items: Sequence[Any], ticker: Ticker) -> StageProfile:
    device = str(stage.device)
    return StageProfile(
        type(stage).__name__,
        device,
        stage.max_batch_size,
        device.startswith("cuda") or getattr(stage, "room", None) is not None,
        time_stage(stage, number, items, ticker),
        model_bytes(stage, device),
        len(items),
    )


def main(arguments: Sequence[str]) -> None:
    """Run a profiler; the arguments are a replica worker's."""
    planner = FrameSocket(process.start_as_child(arguments[:3]))
    devices = tuple(arguments[5].split(","))

    def load() -> Measure:
        return ReplicaProfiler(devices, int(arguments[4])).measure

    serve(planner, load)


if __name__ == "__main__":
    main(sys.argv[1:])
