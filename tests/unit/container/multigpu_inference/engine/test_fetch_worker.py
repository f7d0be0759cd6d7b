from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from multigpu_inference.context import Context
from multigpu_inference.engine import codec
from multigpu_inference.engine.fetch_worker import MAX_ITEMS, FetchRunner
from multigpu_inference.engine.script_runner import ScriptRunner
from multigpu_inference.errors import BadRequest, FunctionFailed
from multigpu_inference.ipc import Buffer
from multigpu_inference.messages import FETCH_FN, STORE_FN, FetchedItem, Invocation, Result, Task
from multigpu_inference.user_module import UserModule

SCRIPT = """
import numpy as np
from multigpu_inference import Bulk, Fetched
from multigpu_inference.errors import BadRequest, NotAcceptable
def model_fn(model_dir): return None
def input_fn(body, content_type): return body
def predict_fn(data, model): return data
def output_fn(prediction, accept): return prediction
"""


def run(text: str, step: str = FETCH_FN, *blobs: Buffer, content_type: str = "a/b") -> tuple[Result, list[Buffer]]:
    module = ModuleType("inference")
    exec(SCRIPT + text, module.__dict__)
    runner = FetchRunner(ScriptRunner(UserModule(module), Context()))
    invocation = Invocation("r", "a/b", "c/d", {"x": "y"}, 0.0, math.inf, {"name": "field"})
    return runner.run(Task(3, (step,), invocation, content_type=content_type), blobs or (bytearray(b"body"),))


def objects(result: Result, blobs: list[Buffer]) -> list[tuple[Any, Any]]:
    """Data and what is to be stored, of each item."""
    assert result.fetched is not None
    found, rest = [], [bytearray(blob) for blob in blobs]
    for item in result.fetched.items:
        data, rest = rest[: item.data], rest[item.data :]
        store, rest = rest[: item.store], rest[item.store :]
        found.append((codec.decode(data) if data else None, codec.decode(store) if store else None))
    assert not rest
    return found


def test_what_fetch_fn_returns_is_encoded() -> None:
    result, blobs = run("def fetch_fn(body, content_type, context): return [bytes(body), content_type, dict(context.form)]")
    assert objects(result, blobs) == [([b"body", "a/b", {"name": "field"}], None)]
    assert not result.fetched.bulk  # type: ignore[union-attr]
    assert [name for name, *_ in result.spans] == ["fetch_ms", "copy_ms"]


def test_arrays_go_beside_the_pickle() -> None:
    result, blobs = run("def fetch_fn(body, content_type): return Fetched(np.zeros(100_000, np.uint8), store={'to': 1})")
    ((data, store),) = objects(result, blobs)
    assert isinstance(data, np.ndarray)
    assert (data.nbytes, store) == (100_000, {"to": 1})
    assert sorted(memoryview(blob).nbytes for blob in blobs)[-1] == 100_000


def test_several_inputs_in_their_order() -> None:
    result, blobs = run("def fetch_fn(body, content_type): return Bulk(['a', Fetched('b', 's'), BadRequest('no'), 'd'])")
    assert objects(result, blobs) == [("a", None), ("b", "s"), (None, None), ("d", None)]
    assert result.fetched is not None
    assert result.fetched.bulk
    failure = result.fetched.items[2].failure
    assert failure is not None
    error = failure.error()
    assert isinstance(error, BadRequest)
    assert error.message == "no"


def test_why_an_input_was_refused_goes_to_the_log_alone() -> None:
    source = """def fetch_fn(body, content_type):
    try:
        raise BadRequest('no') from ValueError('10.0.0.1 is not global')
    except BadRequest as error:
        return Bulk([error])
"""
    result, _ = run(source)
    assert result.fetched is not None
    failure = result.fetched.items[0].failure
    assert failure is not None
    assert (failure.message, failure.detail) == ("no", "fetch_fn: BadRequest: no (ValueError: 10.0.0.1 is not global)")


def test_one_that_cannot_be_read_may_be_returned_too() -> None:
    result, blobs = run("def fetch_fn(body, content_type): return NotAcceptable('no')")
    assert blobs == []
    assert result.fetched is not None
    (item,) = result.fetched.items
    assert isinstance(item, FetchedItem)
    assert item.failure is not None
    assert item.failure.status == 406


@pytest.mark.parametrize("count", [0, MAX_ITEMS + 1])
def test_no_inputs_and_too_many_are_refused(count: int) -> None:
    with pytest.raises(BadRequest, match=f"1 to 1000 items; this one has {count}"):
        run(f"def fetch_fn(body, content_type): return Bulk([1] * {count})")


def test_what_does_not_pickle_is_a_failure() -> None:
    with pytest.raises(FunctionFailed, match="fetch_fn failed"):
        run("def fetch_fn(body, content_type): return Bulk([1, lambda: 2])")


def test_store_fn_is_given_the_answer_its_type_and_what_to_store() -> None:
    text = """
def fetch_fn(body, content_type): return body
def store_fn(body, content_type, store, context): return repr([body, content_type, store, context.form["name"]]), "e/f"
"""
    stored = [bytearray(blob) for blob in codec.encode({"where": "there"})]
    result, (answer,) = run(text, STORE_FN, b"answer", *stored, content_type="image/png")
    assert eval(bytes(answer)) == [b"answer", "image/png", {"where": "there"}, "field"]
    assert result.content_type == "e/f"
    assert [name for name, *_ in result.spans] == ["copy_ms", "store_ms"]


def test_an_answer_without_a_type_keeps_its_own() -> None:
    text = "def fetch_fn(b, c): return b\ndef store_fn(body, content_type, store): return body"
    result, (answer,) = run(text, STORE_FN, b"answer", *codec.encode(1), content_type="image/png")
    assert (bytes(answer), result.content_type) == (b"answer", "image/png")
