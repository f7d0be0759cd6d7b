"""Runs consecutive functions of the user's script for one task, in whichever worker it stands.

    fetch worker    (fetch_fn)  or  (store_fn)
    pool worker     (input_fn)  or  (output_fn)
    replica worker  (predict_fn), with input_fn before it or output_fn after it where those cannot leave; (transform_fn)

What a function raises becomes an answer here; its trace goes no further than the log.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from multigpu_inference.context import Context
from multigpu_inference.engine import codec, hops, interest, structure
from multigpu_inference.errors import FunctionFailed, UnknownStructure
from multigpu_inference.ipc import Buffer
from multigpu_inference.messages import (
    FETCH_FN,
    INPUT_FN,
    OUTPUT_FN,
    PREDICT_FN,
    STORE_FN,
    TRANSFORM_FN,
    Invocation,
    Result,
    Task,
)
from multigpu_inference.one_line import one_line
from multigpu_inference.user_module import UserModule, as_body, as_serving_error, request_body

# What another worker goes on with.
_BEHIND = {INPUT_FN: PREDICT_FN, PREDICT_FN: OUTPUT_FN}


class ScriptRunner:
    """The script's functions, with the model and the context that this process has for them."""

    def __init__(self, script: UserModule, context: Context, model: Any = None, device: str = "cpu") -> None:
        """Keep what calls need.

        Args:
            script: The imported script.
            context: What functions are told; each request's own headers are added to it.
            model: What `model_fn` returned; None in a pool worker.
            device: Where tensors go that the script had put on its device: the replica's first.
        """
        self._script = script
        self._context = context
        self._model = model
        self._device = device

    def run(self, task: Task, blobs: Sequence[Buffer]) -> tuple[Result, list[Buffer]]:
        """Run a task's steps in order.

        Raises:
            ServingError: what a function raised, as an answer.
        """
        # The probe could not read a script that needs a GPU to be imported: only here is it known to have transform_fn.
        steps = (TRANSFORM_FN,) if self._script.has_transform_fn else task.steps
        interest_in(task.invocation, steps[0])  # before anything is decoded, which takes room on the device
        takes_body = steps[0] in (INPUT_FN, TRANSFORM_FN)
        content_type: str | None = None
        with hops.recording() as spans:
            if takes_body and not task.fetched:
                value: Any = blobs[0]
            else:
                with hops.timed("copy_ms"):
                    value = self.decode_fetched(blobs) if task.fetched else self.decode(blobs, task)
            for step in steps:
                value = self.call(step, value, task.invocation, fetched=bool(task.fetched))
            if steps[-1] in (OUTPUT_FN, TRANSFORM_FN):
                body, content_type = as_body(value, task.invocation.accept)
                out: list[Buffer] = [body]
            else:
                interest_in(task.invocation, _BEHIND[steps[-1]])  # else it would be copied from the device for nobody
                with hops.timed("copy_ms"):
                    out = self.encode(value, steps[-1])
        return Result(task.task_id, as_sent(spans), content_type), out

    def call(self, step: str, value: Any, invocation: Invocation, *, fetched: bool = False) -> Any:
        """Run one function, timed.

        Args:
            step: The function.
            value: What the one before it gave: for the first the body; for `store_fn` the answer, its type, and what to store.
            invocation: The request.
            fetched: Whether `input_fn` is given what `fetch_fn` gave, and not a body.

        Raises:
            ServingError: what it raised, as an answer; or nobody waits for it any more.
        """
        held = interest_in(invocation, step)
        context = self._context.of_request(invocation, held.seconds_left)
        try:
            if step == INPUT_FN:
                with hops.timed("preprocess_ms"):
                    body = value if fetched else request_body(value, invocation.content_type)
                    return self._script.call(step, context, body, invocation.content_type)
            if step == PREDICT_FN:
                return self._predict(context, value)
            if step == OUTPUT_FN:
                with hops.timed("postprocess_ms"):
                    return self._script.call(step, context, value, invocation.accept)
            if step == FETCH_FN:
                with hops.timed("fetch_ms"):
                    body = request_body(value, invocation.content_type)
                    return self._script.call(step, context, body, invocation.content_type)
            if step == STORE_FN:
                with hops.timed("store_ms"):
                    return self._script.call(step, context, *value)
            with hops.timed("predict_ms"):
                body = request_body(value, invocation.content_type)
                return self._script.call(step, context, self._model, body, invocation.content_type, invocation.accept)
        except BaseException as error:
            answer = as_serving_error(error, step)
            try:
                raise answer from (None if answer is error else error)
            finally:
                del answer  # an error that this frame had a name for would keep the frame, and the request's data

    @staticmethod
    def decode_fetched(blobs: Sequence[Buffer]) -> Any:
        """What `fetch_fn` gave, as an object of `input_fn`'s own.

        Not over the arena's bytes, which it could change in place: they stand for the body, and are read again where a request
        is tried again or a trial compares two runs.
        """
        return codec.decode([bytearray(blob) for blob in blobs])

    def decode(self, blobs: Sequence[Buffer], task: Task) -> Any:
        """An object from another worker, with its tensors where the script had put them.

        Raises:
            UnknownStructure: where it has a tensor in a place that no trial has looked at.
        """
        value = codec.decode(blobs)
        if task.tensor_paths is None or self._device.startswith("cpu"):
            return value
        if not structure.tensor_paths(value) <= task.tensor_paths:
            raise UnknownStructure
        return structure.place_tensors(value, task.device_paths, lambda tensor: tensor.to(self._device))

    def keeps(self, function: str) -> str | None:
        """Why a function must stay in the replica worker, as far as its code tells; None where it does not."""
        shared = self._script.globals_assigned()
        if shared:
            return f"the functions assign the global {shared[0]}, which others may read"
        from_model = self._script.globals_from_model(function)
        return f"it reads the global {from_model[0]}, which model_fn sets" if from_model else None

    def encode(self, value: Any, step: str) -> list[Buffer]:
        """An object for another worker; `FunctionFailed` where it does not pickle."""
        try:
            return codec.encode(value)
        except Exception as error:
            failed = FunctionFailed(f"{step} failed; the log has the reason under this request id")
            failed.detail = f"what {step} returned does not pickle: {one_line(error)}"
            try:
                raise failed from error
            finally:
                del failed  # as in `call`

    def _predict(self, context: Context, data: Any) -> Any:
        """Run `predict_fn`; a pipeline within it records its stages, anything else counts as one hop."""
        started = time.monotonic()
        with hops.recording() as stages:
            prediction = self._script.call(PREDICT_FN, context, data, self._model)
        for span in stages or [hops.Span("predict_ms", started, time.monotonic())]:
            hops.record(span)
        return prediction


def interest_in(invocation: Invocation, before: str) -> interest.Interest:
    """Somebody's interest in the answer to a request; `ServingError` where nobody waits for it any more.

    Args:
        invocation: The request.
        before: The function that is not begun then.
    """
    held = interest.current() or interest.Interest(invocation.deadline)
    lost = held.lost(before)
    try:
        if lost is not None:
            raise lost
    finally:
        del lost  # an error that this frame had a name for would keep the frames before it, and the request's data
    return held


def as_sent(spans: Sequence[hops.Span]) -> tuple[tuple[str, float, float, int], ...]:
    """Spans as a result has them."""
    return tuple((s.name, s.started, s.ended, s.batch_size) for s in spans)
