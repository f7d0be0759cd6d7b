from __future__ import annotations

import contextlib
import math
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from multigpu_inference.context import Context
from multigpu_inference.engine import codec
from multigpu_inference.engine.script_runner import ScriptRunner
from multigpu_inference.engine.trial import run_trial
from multigpu_inference.errors import BadRequest, ServingError
from multigpu_inference.ipc import Buffer
from multigpu_inference.messages import INPUT_FN, STOCK_ORDER, Findings, Invocation, Result, Task
from multigpu_inference.user_module import UserModule

SCRIPT = """
import itertools, random, threading, torch
import numpy as np
STATE, DEVICE = None, "cpu"
def model_fn(model_dir):
    globals().update(STATE="loaded", DEVICE="meta")  # not to be seen in the code; `meta` stands for a GPU
    return 10
def input_fn(body, content_type): return float(body)
def predict_fn(data, model): return data * model
def output_fn(prediction, accept): return str(prediction)
"""
INVOCATION = Invocation("r-1", "text/csv", "a/b", {}, 0.0, math.inf)
BODY = b"2"


class Unreadable:
    """Pickles, and cannot be made again from that."""

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return _fail, ()


def _fail() -> None:
    raise RuntimeError("not here")


class Box:
    def __init__(self, inner: Any) -> None:
        self.inner = inner


def load(text: str, *, with_model: bool) -> ScriptRunner:
    """The script in a process of its own, as far as it can see."""
    module = ModuleType("inference")
    module.__dict__.update(Box=Box, Unreadable=Unreadable)
    exec(SCRIPT + text, module.__dict__)
    script = UserModule(module)
    return ScriptRunner(script, Context(), script.call("model_fn", Context(), "/m") if with_model else None, "meta")


PREDICTS = "\ndef predict_fn(data, model): return 1"


def writable(blobs: list[Buffer]) -> list[Buffer]:
    return [bytearray(blob) for blob in blobs]


def trial(text: str) -> tuple[Result, list[Buffer]]:
    """A trial in a replica worker, with what a pool worker gave before."""
    blobs: list[Buffer] = [BODY]
    with contextlib.suppress(ServingError):
        blobs += writable(load(text, with_model=False).run(Task(0, (INPUT_FN,), INVOCATION), [BODY])[1])
    return run_trial(load(text, with_model=True), Task(7, STOCK_ORDER, INVOCATION, trial=True), blobs)


def findings(text: str) -> Findings:
    found = trial(text)[0].findings
    assert found is not None
    return found


@pytest.fixture
def _gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors on `meta` can be fetched, as from a GPU, and hold ones."""
    to = Tensor.to
    monkeypatch.setattr(Tensor, "cpu", lambda self: torch.ones(self.shape) if self.is_meta else self)
    monkeypatch.setattr(
        Tensor, "to", lambda self, device: torch.ones(self.shape) if self.is_meta and device == "cpu" else to(self, device)
    )


# The answer


def test_a_trial_answers_the_request_in_the_stock_order() -> None:
    result, (body, *prediction) = trial("")
    assert body == b"20.0"
    assert (result.task_id, result.content_type) == (7, "a/b")
    assert codec.decode(prediction) == 20.0


def test_an_ordinary_script_may_leave() -> None:
    assert findings("") == Findings(keep_input=None, device_paths=frozenset(), tensor_paths=frozenset(), keep_output=None)


@pytest.mark.parametrize("function", ["input_fn", "predict_fn", "output_fn"])
def test_a_request_that_fails_finds_nothing_out(function: str) -> None:
    text = f"from multigpu_inference.errors import BadRequest\ndef {function}(a, b): raise BadRequest('no')"
    with pytest.raises(BadRequest):
        trial(text)


# input_fn


def test_input_that_reads_what_model_fn_set_stays() -> None:
    text = "def input_fn(body, content_type): return STATE"
    assert findings(text).keep_input == "its result differs in a pool worker: the result is NoneType there and str here"


def test_input_that_reads_another_value_of_the_same_type_stays() -> None:
    text = "STATE = 'unset'\ndef input_fn(body, content_type): return [1, STATE]\ndef predict_fn(data, model): return 1"
    assert "depends on what model_fn has set" in (findings(text).keep_input or "")


def test_input_that_is_random_may_leave() -> None:
    text = "def input_fn(body, content_type): return random.random()"
    assert findings(text).keep_input is None


def test_input_that_rounds_may_leave() -> None:
    text = "def input_fn(body, content_type): return torch.ones(3) * (1 + (STATE is None) * 1e-6)"
    assert findings(text).keep_input is None


def test_input_that_cannot_be_read_here_stays() -> None:
    text = "def input_fn(body, content_type): return Unreadable()\ndef predict_fn(data, model): return 1"
    assert "cannot be read here (RuntimeError: not here)" in (findings(text).keep_input or "")


def test_input_of_which_the_pool_has_nothing_is_not_compared() -> None:
    text = "def input_fn(body, content_type): return threading.Lock()\ndef predict_fn(data, model): return 1"
    result, (body, *_) = trial(text)
    assert body == b"1"
    assert result.findings is not None


def test_input_that_holds_a_sparse_tensor_may_leave() -> None:
    text = "def input_fn(body, content_type): return torch.eye(3).to_sparse()\ndef predict_fn(data, model): return 1"
    assert findings(text).keep_input is None


def test_input_that_does_not_pickle_here_stays() -> None:
    text = """
def input_fn(body, content_type):
    return Box(threading.Lock() if STATE else None)
def predict_fn(data, model): return 1
"""
    assert findings(text).keep_input is not None


@pytest.mark.usefixtures("_gpu")
def test_input_on_the_device_may_leave_and_every_tensor_is_put_there() -> None:
    text = """
def input_fn(body, content_type): return {"x": torch.ones(3, device=DEVICE), "y": [torch.ones(2, device=DEVICE)]}
def predict_fn(data, model): return 1
"""
    found = findings(text)
    assert found.keep_input is None
    assert found.device_paths == found.tensor_paths != frozenset()


@pytest.mark.usefixtures("_gpu")
def test_input_partly_on_the_device_may_leave_and_that_part_is_put_there() -> None:
    text = """
def input_fn(body, content_type): return {"x": torch.ones(3, device=DEVICE), "size": torch.ones(2)}
def predict_fn(data, model): return 1
"""
    found = findings(text)
    assert (found.keep_input, found.device_paths, found.tensor_paths) == (None, frozenset({".x"}), frozenset({".x", ".size"}))


@pytest.mark.usefixtures("_gpu")
def test_input_whose_list_mixes_devices_stays() -> None:
    text = """
def input_fn(body, content_type): return [torch.ones(3, device=DEVICE), torch.ones(3)]
def predict_fn(data, model): return 1
"""
    assert findings(text).keep_input == "its lists mix tensors on the CPU and on the device"


@pytest.mark.usefixtures("_gpu")
def test_input_with_a_device_tensor_within_an_object_stays() -> None:
    text = """
def input_fn(body, content_type): return Box(torch.ones(3, device=DEVICE))
def predict_fn(data, model): return 1
"""
    assert findings(text).keep_input == "an object in its result holds a tensor on the device"


@pytest.mark.usefixtures("_gpu")
def test_input_on_the_device_that_has_other_values_stays() -> None:
    text = """
def input_fn(body, content_type): return torch.ones(3, device=DEVICE) if STATE else torch.zeros(3)
def predict_fn(data, model): return 1
"""
    assert "depends on what model_fn has set" in (findings(text).keep_input or "")


# output_fn


def test_output_that_gives_the_same_twice_may_leave() -> None:
    assert findings("").keep_output is None


@pytest.mark.parametrize("what", ["str(random.random())", "(b'x', str(random.random()))"])
def test_output_that_is_random_stays_because_it_cannot_be_compared(what: str) -> None:
    found = findings(f"def output_fn(prediction, accept): return {what}")
    assert found.keep_output == "its answer is another one each time, so it cannot be compared with a pool worker's"


def test_output_that_reads_what_model_fn_set_is_for_the_pool_to_show() -> None:
    text = "def output_fn(prediction, accept): return str(STATE)"
    result, (body, *prediction) = trial(text)
    assert result.findings is not None
    assert result.findings.keep_output is None
    assert body == b"loaded"
    assert prediction


def test_a_prediction_that_does_not_pickle_keeps_output_here() -> None:
    text = "def predict_fn(data, model): return threading.Lock()"
    result, blobs = trial(text)
    assert result.findings is not None
    assert "the prediction does not pickle (TypeError: cannot pickle" in (result.findings.keep_output or "")
    assert len(blobs) == 1


def test_a_prediction_that_cannot_be_read_again_keeps_output_here() -> None:
    text = "def predict_fn(data, model): return Unreadable()\ndef output_fn(prediction, accept): return 'x'"
    result, blobs = trial(text)
    assert result.findings is not None
    assert result.findings.keep_output is not None
    assert blobs == [b"x"]


@pytest.mark.usefixtures("_gpu")
def test_output_that_needs_the_prediction_on_the_device_stays() -> None:
    text = """
def predict_fn(data, model): return torch.ones(3, device=DEVICE)
def output_fn(prediction, accept):
    if prediction.device.type == "cpu": raise TypeError("a tensor on the device, please")
    return b"x"
"""
    result, blobs = trial(text)
    assert result.findings is not None
    assert "it needs the prediction as predict_fn returned it (output_fn: TypeError" in (result.findings.keep_output or "")
    assert blobs == [b"x"]


@pytest.mark.parametrize("kind", ["torch.ones(2000)", "np.ones(2000)", "[1.0] * 2000"], ids=["tensor", "array", "list"])
def test_output_that_works_in_place_gets_the_prediction_as_it_was(kind: str) -> None:
    text = f"""
def predict_fn(data, model): return {kind}
def output_fn(prediction, accept):
    prediction[0] += 1
    return str(float(prediction[0]))
"""
    result, (body, *prediction) = trial(text)
    assert result.findings is not None
    assert body == b"2.0"
    assert codec.decode(writable(prediction))[0] == 1
    assert result.findings.keep_output is None


# What functions share


@pytest.mark.parametrize(
    "text",
    [
        "def input_fn(body, content_type):\n    global LAST\n    LAST = body\n    return 1.0",
        "def predict_fn(data, model):\n    global LAST\n    LAST = data\n    return 1.0",
        "def keep(x):\n    global LAST\n    LAST = x\ndef input_fn(body, content_type):\n    keep(body)\n    return 1.0",
        "def input_fn(body, content_type):\n    def keep():\n        global LAST\n        LAST = 1\n    keep()\n    return 1.0",
    ],
    ids=["input_fn", "predict_fn", "a function that it calls", "a function within it"],
)
def test_functions_that_share_a_global_stay_together(text: str) -> None:
    found = findings(text)
    assert found.keep_input == found.keep_output == "the functions assign the global LAST, which others may read"


def test_a_stable_leaf_beside_a_random_one_is_compared() -> None:
    text = "SCALE = 1\ndef input_fn(body, content_type): return {'id': random.random(), 'scale': 1 if STATE else 2}"
    assert "its scale is another one in a pool worker" in (findings(text + PREDICTS).keep_input or "")


@pytest.mark.parametrize(
    "made",
    ["Image.new('L', (2, 2), 9 if STATE else 3)", "{1} if STATE else {2}", "Fraction(1 if STATE else 2)"],
    ids=["picture", "set", "object"],
)
def test_an_object_that_is_another_one_in_the_pool_keeps_input_here(made: str) -> None:
    text = f"from PIL import Image\nfrom fractions import Fraction\ndef input_fn(body, content_type): return [{made}]"
    assert "another one in a pool worker" in (findings(text + PREDICTS).keep_input or "")


def test_an_object_that_is_the_same_in_the_pool_may_leave() -> None:
    text = "from PIL import Image\ndef input_fn(body, content_type): return [Image.new('L', (2, 2), 9), {1, 2}]"
    assert findings(text + PREDICTS).keep_input is None


def test_input_of_another_length_each_time_stays() -> None:
    text = "def input_fn(body, content_type): return [0.0] * random.randrange(10**4) + [1.0 if STATE else 2.0]"
    assert findings(text + PREDICTS).keep_input is not None


@pytest.mark.parametrize(
    "read",
    [
        "return LABELS[0] if accept == 'text/plain' else 'x'",
        "return str(name())\ndef name(): return LABELS[0]",
        "return (lambda: LABELS if accept == 'text/plain' else 'x')()",
    ],
    ids=["where another type is accepted", "in a function that it calls", "in a function within it"],
)
def test_a_global_of_model_fn_is_noticed_though_this_request_does_not_read_it(read: str) -> None:
    text = f"""
LABELS = ["x"]
def model_fn(model_dir):
    global LABELS
    LABELS = ["cat"]
def input_fn(body, content_type): return 1
def predict_fn(data, model): return 2
def output_fn(prediction, accept): {read}
"""
    found = findings(text)
    assert found.keep_output == "it reads the global LABELS, which model_fn sets"
    assert found.keep_input is None


def test_what_was_fetched_is_given_to_each_run_anew() -> None:
    # In place, so that a second run over the same bytes would see what the first has done.
    text = "\ndef input_fn(data, content_type):\n    data += 1\n    return data + random.random()"
    fetched = [bytearray(blob) for blob in codec.encode(np.zeros(10_000))]
    pool = load(text, with_model=False)
    task = Task(1, (INPUT_FN,), INVOCATION, fetched=len(fetched), trial=True)
    pooled = pool.run(task, [bytearray(blob) for blob in fetched])[1]
    runner = load(text + "\ndef predict_fn(data, model): return float(data.sum())", with_model=True)
    trial = Task(1, STOCK_ORDER, INVOCATION, fetched=len(fetched), trial=True)
    result, (answer, *_) = run_trial(runner, trial, [*fetched, *(bytearray(blob) for blob in pooled)])
    assert 10_000 <= float(bytes(answer)) < 20_000
    assert result.findings is not None
    assert result.findings.keep_input is None
