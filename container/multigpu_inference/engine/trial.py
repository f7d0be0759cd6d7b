"""The run that finds out where `input_fn` and `output_fn` can run: once here, in the stock order, once in the pool.

Runs in a replica worker, with the sample input or the first request. A script written for one GPU may preprocess on that
GPU, read globals that its `model_fn` sets, or return what does not pickle; such a function stays in the replica worker. So
do both where a function assigns a global, through which they share something. The code is asked for globals, because one
request need not come by all of it. What both places gave is compared by structure and leaf by leaf; a leaf that differs even
between two runs here (a random number, a time) says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from multigpu_inference.engine import codec, structure
from multigpu_inference.engine.script_runner import ScriptRunner
from multigpu_inference.errors import ServingError
from multigpu_inference.ipc import Buffer
from multigpu_inference.messages import INPUT_FN, OUTPUT_FN, PREDICT_FN, Findings, Result, Task
from multigpu_inference.one_line import one_line
from multigpu_inference.user_module import as_body


def run_trial(runner: ScriptRunner, task: Task, blobs: Sequence[Buffer]) -> tuple[Result, list[Buffer]]:
    """Answer a request in the stock order and compare.

    Args:
        runner: The replica's.
        task: With the request.
        blobs: The body or what `fetch_fn` gave in its place, then what the pool's `input_fn` made of it, encoded (none where it
            failed there).

    Returns:
        The findings, and as blobs the answer's body and the encoded prediction (none where that stays here).

    Raises:
        ServingError: what a function raised here: the request's answer, and nothing is found out.
    """
    first, invocation = max(1, task.fetched), task.invocation
    source, pooled = blobs[:first], blobs[first:]

    def preprocess() -> Any:
        value = runner.decode_fetched(source) if task.fetched else source[0]
        return runner.call(INPUT_FN, value, invocation, fetched=bool(task.fetched))

    data = preprocess()
    paths = structure.tensor_paths(data)
    keep_input, device_paths = runner.keeps(INPUT_FN), frozenset[str]()
    if pooled and keep_input is None:
        keep_input, device_paths = _compare_input(data, pooled, preprocess)

    prediction = runner.call(PREDICT_FN, data, invocation)
    cannot_leave, encoded = _encode_prediction(prediction)
    answer = as_body(runner.call(OUTPUT_FN, prediction, invocation), invocation.accept)
    keep_output = runner.keeps(OUTPUT_FN) or cannot_leave
    if keep_output is None:
        keep_output = _check_output(answer, lambda: runner.call(OUTPUT_FN, codec.decode(_writable(encoded)), invocation), task)
    findings = Findings(keep_input, device_paths, paths, keep_output)
    return Result(task.task_id, (), answer[1], findings), [answer[0], *(encoded if keep_output is None else [])]


def _compare_input(data: Any, pooled: Sequence[Buffer], again: Callable[[], Any]) -> tuple[str | None, frozenset[str]]:
    """Why `input_fn` must stay here, or None and the places of the tensors that belong on the device."""
    try:
        other = codec.decode(pooled)
    except Exception as error:
        return f"its result from a pool worker cannot be read here ({one_line(error)})", frozenset()
    try:
        _refuse_difference(data, other, again)
        return None, _device_paths(data)
    except _Stays as stays:
        return str(stays), frozenset()
    except ServingError:
        raise
    except Exception as error:
        return f"its result cannot be compared with a pool worker's ({one_line(error)})", frozenset()


class _Stays(Exception):
    """A function must stay in the replica worker; the text says why."""


def _refuse_difference(data: Any, other: Any, again: Callable[[], Any]) -> None:
    different = structure.difference(data, other)
    if different is not None:
        raise _Stays(f"its result differs in a pool worker: {different}")
    if structure.equal(data, other):
        return
    repeated = again()
    if structure.difference(data, repeated) is not None:
        raise _Stays("its result has another structure each time, so it cannot be compared with a pool worker's")
    path = structure.changed(data, repeated, other)
    if path is not None:
        raise _Stays(f"its {path.lstrip('.')} is another one in a pool worker, so it depends on what model_fn has set")


def _device_paths(data: Any) -> frozenset[str]:
    tensors = [(path, leaf.device.type != "cpu") for path, leaf in structure.leaves(data) if structure.is_tensor(leaf)]
    on_device = frozenset(path for path, away in tensors if away)
    if any(path in on_device for path, away in tensors if not away):
        raise _Stays("its lists mix tensors on the CPU and on the device")
    if codec.count_device_tensors(data) > sum(away for _, away in tensors):
        raise _Stays("an object in its result holds a tensor on the device")
    return on_device


def _check_output(answer: tuple[bytes, str], again: Callable[[], Any], task: Task) -> str | None:
    """Why `output_fn` must stay here, as far as this process can tell; `again` gives it a copy of the prediction."""
    try:
        if as_body(again(), task.invocation.accept) != answer:
            return "its answer is another one each time, so it cannot be compared with a pool worker's"
    except Exception as error:
        reason = error.detail if isinstance(error, ServingError) else one_line(error)
        return f"it needs the prediction as predict_fn returned it ({reason})"
    return None


def _encode_prediction(prediction: Any) -> tuple[str | None, list[Buffer]]:
    try:
        # Copies: the blobs lie over the prediction, and an output_fn may work in place.
        return None, [bytes(blob) for blob in codec.encode(prediction)]
    except Exception as error:
        return f"the prediction does not pickle ({one_line(error)})", []


def _writable(blobs: Sequence[Buffer]) -> list[Buffer]:
    """Copies, so that an `output_fn` that works in place does not change what is sent to the pool."""
    return [bytearray(blob) for blob in blobs]
