from __future__ import annotations

import dataclasses
import gc
import math
import time
import weakref
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from multigpu_inference.context import Context
from multigpu_inference.engine import codec
from multigpu_inference.engine.pipeline import Pipeline
from multigpu_inference.engine.script_runner import ScriptRunner
from multigpu_inference.errors import BadRequest, DeadlineExceeded, FunctionFailed, UnknownStructure
from multigpu_inference.ipc import Buffer
from multigpu_inference.messages import (
    INPUT_FN,
    OUTPUT_FN,
    PREDICT_FN,
    STOCK_ORDER,
    TRANSFORM_FN,
    Invocation,
    Result,
    Task,
)
from multigpu_inference.user_module import UserModule

SCRIPT = """
import threading, torch
def model_fn(model_dir): return None
def input_fn(body, content_type): return {"body": body, "type": content_type}
def predict_fn(data, model): return {"data": data, "model": model}
def output_fn(prediction, accept): return repr(prediction), accept + ";v=1"
"""
TRANSFORM = """
def model_fn(model_dir): return None
def transform_fn(model, body, content_type, accept): return f"{model} {body!r} {content_type} {accept}"
"""


ALL = frozenset({"", ".x", ".y"})  # paths that the data of these tests has


def runner(text: str = "", base: str = SCRIPT, model: Any = "the model", device: str = "cpu") -> ScriptRunner:
    module = ModuleType("inference")
    exec(base + text, module.__dict__)
    return ScriptRunner(UserModule(module), Context(replica_id=1, num_replicas=2), model, device)


def task(*steps: str, content_type: str = "text/csv", paths: frozenset[str] = frozenset(), deadline: float = math.inf) -> Task:
    return Task(7, steps, Invocation("r-1", content_type, "a/b", {"x-colour": "red"}, 0.0, deadline), paths, ALL)


def run_with(made: ScriptRunner, todo: Task, value: Any) -> tuple[Result, Any]:
    """Give a runner an object, and take one from it."""
    result, blobs = made.run(todo, writable(codec.encode(value)))
    return result, codec.decode(writable(blobs))


def writable(blobs: list[Buffer]) -> list[Buffer]:
    return [bytearray(blob) for blob in blobs]


def hops_of(result: Result) -> list[str]:
    assert all(started <= ended for _, started, ended, _ in result.spans)
    return [name for name, *_ in result.spans]


class Naming:
    """A stage that says which it is."""

    max_batch_size = 1
    device = "cpu"

    def __call__(self, items: Any) -> Any:
        return items


def test_input_fn_gets_the_body_and_its_type() -> None:
    result, blobs = runner().run(task(INPUT_FN), [b"1,2"])
    assert codec.decode(writable(blobs)) == {"body": "1,2", "type": "text/csv"}
    assert (result.task_id, result.content_type, result.findings) == (7, None, None)
    assert hops_of(result) == ["preprocess_ms", "copy_ms"]


def test_input_fn_gets_bytes_where_it_is_no_text() -> None:
    _, blobs = runner().run(task(INPUT_FN, content_type="image/png"), [b"\xff"])
    assert codec.decode(writable(blobs)) == {"body": bytearray(b"\xff"), "type": "image/png"}


def test_predict_fn_gets_the_object_and_the_model() -> None:
    result, prediction = run_with(runner(), task(PREDICT_FN), [1, 2])
    assert prediction == {"data": [1, 2], "model": "the model"}
    assert hops_of(result) == ["copy_ms", "predict_ms", "copy_ms"]


def test_output_fn_makes_the_body_and_its_type() -> None:
    result, blobs = runner().run(task(OUTPUT_FN), codec.encode([1]))
    assert blobs == [b"[1]"]
    assert result.content_type == "a/b;v=1"
    assert hops_of(result) == ["copy_ms", "postprocess_ms"]


def test_consecutive_steps_run_in_order() -> None:
    result, (body,) = runner().run(task(*STOCK_ORDER), [b"1"])
    assert body == b"{'data': {'body': '1', 'type': 'text/csv'}, 'model': 'the model'}"
    assert hops_of(result) == ["preprocess_ms", "predict_ms", "postprocess_ms"]


def test_what_does_not_pickle_may_pass_from_step_to_step() -> None:
    text = "def input_fn(body, content_type): return threading.Lock()"
    _, (body,) = runner(text).run(task(*STOCK_ORDER), [b"1"])
    assert b"lock" in bytes(body)


def test_transform_fn_makes_an_answer_alone() -> None:
    result, (body,) = runner(base=TRANSFORM).run(task(TRANSFORM_FN), [b"1"])
    assert body == b"the model '1' text/csv a/b"
    assert result.content_type == "a/b"
    assert hops_of(result) == ["predict_ms"]


def test_the_stages_of_a_pipeline_stand_for_the_whole() -> None:
    text = "def predict_fn(data, model): return model(data)"
    model = Pipeline([Naming(), Naming()])
    result, prediction = run_with(runner(text, model=model), task(PREDICT_FN), "x")
    assert prediction == "x"
    assert hops_of(result) == ["copy_ms", "stage_1_ms", "stage_2_ms", "copy_ms"]


def test_functions_know_the_request() -> None:
    text = """
def input_fn(body, content_type, context):
    return context.request_id, context.get_request_header(0, "X-Colour"), context.replica_id, context.num_replicas
"""
    _, blobs = runner(text).run(task(INPUT_FN), [b""])
    assert codec.decode(writable(blobs)) == ("r-1", "red", 1, 2)


def test_tensors_go_where_the_script_had_put_them() -> None:
    text = "def predict_fn(data, model): return {key: item.device.type for key, item in data.items()}"
    made = runner(text, device="meta")
    data = {"x": torch.ones(2), "y": torch.ones(2000)}
    assert run_with(made, task(PREDICT_FN), data)[1] == {"x": "cpu", "y": "cpu"}
    assert run_with(made, task(PREDICT_FN, paths=frozenset({".y"})), data)[1] == {"x": "cpu", "y": "meta"}
    assert run_with(made, task(PREDICT_FN, paths=frozenset({".x", ".y"})), data)[1] == {"x": "meta", "y": "meta"}


def test_a_tensor_in_a_place_that_no_trial_has_seen_is_not_guessed() -> None:
    todo = dataclasses.replace(task(PREDICT_FN), tensor_paths=frozenset({".x"}))
    blobs = codec.encode({"x": torch.ones(2), "y": torch.ones(2)})
    with pytest.raises(UnknownStructure):
        runner(device="meta").run(todo, writable(blobs))
    runner(device="cpu:1").run(todo, writable(blobs))  # where there is but one device it does not matter


def test_tensors_can_be_written_to() -> None:
    text = "def predict_fn(data, model): return data.add_(1)"
    _, prediction = run_with(runner(text), task(PREDICT_FN), torch.zeros(2000))
    assert isinstance(prediction, Tensor)
    assert prediction.min() == 1


@pytest.mark.parametrize("step", [INPUT_FN, PREDICT_FN, OUTPUT_FN])
@pytest.mark.parametrize("raised", ["KeyError('secret')", "SystemExit(1)"])
def test_a_function_that_raises_fails_the_request_with_a_fixed_text(step: str, raised: str) -> None:
    made = runner(f"def {step}(a, b): raise {raised}")
    with pytest.raises(FunctionFailed) as error:
        made.run(task(*STOCK_ORDER), [b"1"])
    assert error.value.message == f"{step} failed; the log has the reason under this request id"
    assert error.value.detail.startswith(f"{step}: ")
    assert type(error.value.__cause__).__name__ in raised


def test_a_function_may_choose_its_error() -> None:
    text = """
from multigpu_inference.errors import BadRequest
def input_fn(body, content_type): raise BadRequest("a picture, please")
"""
    with pytest.raises(BadRequest, match="a picture, please"):
        runner(text).run(task(INPUT_FN), [b"1"])


def test_a_body_that_is_not_the_text_it_should_be_is_a_bad_request() -> None:
    with pytest.raises(BadRequest, match="must be UTF-8"):
        runner().run(task(INPUT_FN), [b"\xff"])


@pytest.mark.parametrize("step", [INPUT_FN, PREDICT_FN])
def test_a_result_that_does_not_pickle_says_so_in_the_log_only(step: str) -> None:
    made = runner(f"def {step}(a, b): return threading.Lock()")
    blobs: list[Buffer] = [b"1"] if step == INPUT_FN else codec.encode(1)
    with pytest.raises(FunctionFailed) as error:
        made.run(task(step), blobs)
    assert error.value.message == f"{step} failed; the log has the reason under this request id"
    assert "does not pickle: TypeError: cannot pickle '_thread.lock'" in error.value.detail


def test_an_answer_that_is_none_fails_the_request_and_only_the_log_says_why() -> None:
    with pytest.raises(FunctionFailed) as error:
        runner("def output_fn(prediction, accept): pass").run(task(OUTPUT_FN), codec.encode(1))
    assert "NoneType" not in error.value.message
    assert "NoneType" in error.value.detail


def test_for_a_request_whose_time_is_over_nothing_is_run() -> None:
    ran: list[str] = []
    made = runner("def predict_fn(data, model): model.append(data)", model=ran)
    with pytest.raises(DeadlineExceeded) as late:
        made.run(task(PREDICT_FN, deadline=time.monotonic() - 1), codec.encode("x"))
    assert late.value.spared == PREDICT_FN
    assert ran == []


def test_for_a_request_whose_time_is_over_nothing_is_decoded() -> None:
    with pytest.raises(DeadlineExceeded):  # and not what a broken pickle raises
        runner().run(task(PREDICT_FN, deadline=time.monotonic() - 1), [b"no pickle"])


def test_what_nobody_waits_for_any_more_is_not_handed_on() -> None:
    deadline = time.monotonic() + 0.02
    text = f"""
import time
class Heavy:
    def __reduce__(self): raise AssertionError("it was encoded")
def predict_fn(data, model):
    while time.monotonic() <= {deadline!r}: pass
    return Heavy()
"""
    with pytest.raises(DeadlineExceeded) as late:
        runner(text).run(task(PREDICT_FN, deadline=deadline), codec.encode("x"))
    assert late.value.spared == OUTPUT_FN


def test_the_time_is_looked_at_before_every_step() -> None:
    text = """
import time
def input_fn(body, content_type):
    while time.monotonic() <= DEADLINE: pass
def predict_fn(data, model): model.append("ran")
"""
    ran: list[str] = []
    deadline = time.monotonic() + 0.05
    with pytest.raises(DeadlineExceeded):
        runner(f"DEADLINE = {deadline!r}\n{text}", model=ran).run(task(*STOCK_ORDER, deadline=deadline), [b"1"])
    assert ran == []


def test_what_is_dropped_behind_a_function_keeps_nothing_of_the_request() -> None:
    text = "import time\ndef predict_fn(data, model): time.sleep(0.03); return MADE.append(torch.zeros(9)) or MADE[0]\n"
    made = runner(f"MADE = []\n{text}")
    gc.disable()
    try:
        with pytest.raises(DeadlineExceeded):
            run_with(made, task(PREDICT_FN, deadline=time.monotonic() + 0.02), 1)
        kept = weakref.ref(made._script._module.MADE.pop())
        assert kept() is None
    finally:
        gc.enable()
