from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from multigpu_inference import toolkit_defaults
from multigpu_inference.config import ModelSettings
from multigpu_inference.context import Context, Headers
from multigpu_inference.errors import (
    BadRequest,
    FunctionFailed,
    ModelError,
    PayloadTooLarge,
    ScriptImportError,
    ServingError,
    UnsupportedMediaType,
)
from multigpu_inference.one_line import one_line
from multigpu_inference.user_module import UserModule, as_body, as_serving_error, request_body

FOUR = """
def model_fn(model_dir): return model_dir
def input_fn(body, content_type): return body
def predict_fn(data, model): return data
def output_fn(prediction, accept): return prediction
"""
TRANSFORM = """
def model_fn(model_dir): return None
def transform_fn(model, body, content_type, accept): return body
"""


def script(text: str, base: str = FOUR) -> UserModule:
    module = ModuleType("inference")
    exec(base + text, module.__dict__)
    return UserModule(module)


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., UserModule]]:
    """Writes a model folder and loads its script; import path, modules and working folder are put back."""
    modules = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", "before")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)

    def make(text: str, program: str = "inference.py", **others: str) -> UserModule:
        settings = ModelSettings(tmp_path, program, None)
        settings.code_dir.mkdir(parents=True)
        settings.script.write_text(text)
        for name, content in others.items():
            (settings.code_dir / f"{name}.py").write_text(content)
        return UserModule.load(settings)

    yield make
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    importlib.invalidate_caches()


# Loading


def test_what_the_script_starts_finds_the_code_folder_too(load: Callable[..., UserModule], tmp_path: Path) -> None:
    (tmp_path / "model" / "code" / "lib").mkdir(parents=True)
    (tmp_path / "model" / "code" / "inference.py").write_text(FOUR)
    UserModule.load(ModelSettings(tmp_path, "inference.py", None))
    code = str(tmp_path / "model" / "code")
    assert os.environ["PYTHONPATH"] == os.pathsep.join([code, f"{code}/lib", "before"])
    assert sys.path[:2] == [code, f"{code}/lib"]


def test_a_script_is_imported_from_the_code_folder(load: Callable[..., UserModule]) -> None:
    assert load(FOUR).call("model_fn", Context(), "/m") == "/m"


def test_a_script_may_import_what_stands_beside_it(load: Callable[..., UserModule]) -> None:
    loaded = load(FOUR + "import my_sibling\ndef model_fn(model_dir): return my_sibling.VALUE", my_sibling="VALUE = 42")
    assert loaded.call("model_fn", Context(), "/m") == 42


def test_what_stands_beside_it_comes_before_what_is_installed(
    load: Callable[..., UserModule], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    loaded = load(FOUR + "import colorsys\ndef model_fn(model_dir): return colorsys.VALUE", colorsys="VALUE = 42")
    assert loaded.call("model_fn", Context(), "/m") == 42


def test_the_model_folder_is_the_working_folder(load: Callable[..., UserModule], tmp_path: Path) -> None:
    load(FOUR)
    assert os.getcwd() == str(tmp_path / "model")


def test_the_code_folder_does_not_shadow_the_standard_module_code(load: Callable[..., UserModule]) -> None:
    loaded = load(
        FOUR + "import code\ndef model_fn(model_dir): return code.InteractiveConsole.__name__",
    )
    assert loaded.call("model_fn", Context(), "/m") == "InteractiveConsole"


def test_objects_of_the_scripts_classes_pickle(load: Callable[..., UserModule]) -> None:
    import pickle

    loaded = load(FOUR + "class Box: pass\ndef model_fn(model_dir): return Box()", program="my_script.py")
    box = loaded.call("model_fn", Context(), "/m")
    assert type(pickle.loads(pickle.dumps(box))) is type(box)


def test_no_script_is_said_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"there is no .*/model/code/inference\.py"):
        UserModule.load(ModelSettings(tmp_path, "inference.py", None))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import no_such_module_here", "ModuleNotFoundError: No module named 'no_such_module_here'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def", "SyntaxError: invalid syntax"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("raise ValueError", "ValueError"),
    ],
)
def test_a_script_that_cannot_be_imported_says_why(load: Callable[..., UserModule], text: str, reason: str) -> None:
    with pytest.raises(ScriptImportError) as error:
        load(text)
    assert str(error.value).startswith(f"inference.py cannot be imported: {reason}")
    assert error.value.__cause__ is not None  # the trace goes to the log


# The contract


@pytest.mark.parametrize("name", ["model_fn", "input_fn", "predict_fn", "output_fn"])
def test_a_missing_function_is_the_toolkits(name: str) -> None:
    module = script(f"del {name}")
    assert name in module.info().functions
    assert module._functions[name] is getattr(toolkit_defaults, name)


def test_what_cannot_be_called_is_missing() -> None:
    assert script("predict_fn = 5")._functions["predict_fn"] is toolkit_defaults.predict_fn


def test_a_default_does_not_count_as_reading_the_scripts_globals() -> None:
    module = script("def model_fn(model_dir):\n    global types, torch\n    types = torch = 1", base="")
    assert module.globals_from_model("input_fn") == []


def test_transform_fn_stands_for_the_three() -> None:
    assert script("", TRANSFORM).has_transform_fn
    assert not script("").has_transform_fn


def test_transform_fn_without_model_fn_gets_the_toolkits_model() -> None:
    module = script("del model_fn", TRANSFORM)
    assert module.info().functions == {"model_fn", "transform_fn"}


def test_transform_fn_beside_others_is_refused() -> None:
    with pytest.raises(ModelError, match="has transform_fn and output_fn: use one or the other"):
        script("def output_fn(prediction, accept): ...", TRANSFORM)


@pytest.mark.parametrize(
    ("text", "count", "contract"),
    [
        ("def input_fn(body): ...", 1, 2),
        ("def input_fn(a, b, c, d): ...", 4, 2),
        ("def model_fn(): ...", 0, 1),
        ("def predict_fn(data): ...", 1, 2),
        ("def sample_input(a, b): ...", 2, 0),
    ],
)
def test_a_wrong_number_of_parameters_is_refused(text: str, count: int, contract: int) -> None:
    with pytest.raises(ModelError, match=f"has {count} parameters; its contract is {contract}, or one more for context"):
        script(text)


# Calling


@pytest.mark.parametrize(
    "text",
    [
        "def predict_fn(data, model, context): return context",
        "def predict_fn(data, model, context=None): return context",
        "def predict_fn(data, model, anything): return anything",
        "predict_fn = type('P', (), {'__call__': lambda self, data, model, context: context})()",
    ],
)
def test_one_parameter_more_gets_the_context(text: str) -> None:
    context = Context(replica_id=3)
    assert script(text).call("predict_fn", context, 1, 2) is context


@pytest.mark.parametrize(
    "text",
    [
        "def predict_fn(data, model): return data, model",
        "def predict_fn(*args): return args",
        "def predict_fn(data, model, **kwargs): return data, model, *kwargs",
        "predict_fn = divmod\ndef predict_fn(data, model, *, extra=0): return data, model",
    ],
)
def test_without_one_more_it_does_not(text: str) -> None:
    assert script(text).call("predict_fn", Context(), 1, 2) == (1, 2)


def test_a_function_written_in_c_gets_its_two_arguments() -> None:
    assert script("predict_fn = max").call("predict_fn", Context(), 1, 2) == 2


def test_the_context_knows_the_requests_headers() -> None:
    context = Context(request_id="7", headers=Headers({"x-colour": "red"}))
    assert context.get_request_header(0, "X-Colour") == "red"
    assert context.get_request_id() == context.get_request_id(0) == "7"
    processor = context.request_processor[0]
    assert processor.get_request_property("X-COLOUR") == processor.get_request_properties()["x-Colour"] == "red"
    assert processor.get_request_properties().get("Accept") is None
    assert context.get_request_header(0, "X-Shape") is None
    assert context.get_all_request_header(0) == {"x-colour": "red"}


# What the probe reads


def test_a_script_has_one_stage_unless_it_says_so() -> None:
    assert script("").info().stages == 1
    assert script("STAGES = 3").info().stages == 3


@pytest.mark.parametrize("value", ["0", "65", "-1", "'2'", "2.0", "True", "None"])
def test_a_number_of_stages_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(ModelError, match=r"STAGES is .*; allowed is a whole number from 1 to 64"):
        script(f"STAGES = {value}").info()


def test_info_names_the_functions() -> None:
    assert script("").info().functions == {"model_fn", "input_fn", "predict_fn", "output_fn"}
    assert script("", TRANSFORM).info().functions == {"model_fn", "transform_fn"}


def test_info_has_the_scripts_default_accept() -> None:
    assert script("").info().default_accept is None
    assert script("DEFAULT_ACCEPT = 'image/png'").info().default_accept == "image/png"


def test_info_has_the_types_that_are_fetched() -> None:
    assert script("").info().fetch_types is None
    assert script("FETCH_TYPES = ('application/JSON', 'a/b')").info().fetch_types == frozenset({"application/json", "a/b"})


@pytest.mark.parametrize("value", ["'application/json'", "(1,)"])
def test_types_that_are_none_are_refused(value: str) -> None:
    with pytest.raises(ModelError, match="FETCH_TYPES is"):
        script(f"FETCH_TYPES = {value}").info()


@pytest.mark.parametrize(
    ("text", "base", "says"),
    [
        ("def store_fn(body, content_type, store): return body", FOUR, "store_fn and no fetch_fn"),
        ("def fetch_fn(body, content_type): return body", TRANSFORM, "transform_fn and fetch_fn"),
        ("def fetch_fn(body): return body", FOUR, "fetch_fn has 1 parameters"),
    ],
)
def test_fetching_and_storing_belong_together(text: str, base: str, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        script(text, base)


def test_a_script_without_a_sample_has_none() -> None:
    assert script("").info().sample is None


@pytest.mark.parametrize("body", ["b'caf\\xc3\\xa9'", "bytearray(b'caf\\xc3\\xa9')", "'café'", "memoryview(b'caf\\xc3\\xa9')"])
def test_a_sample_is_bytes_and_their_type(body: str) -> None:
    assert script(f"def sample_input(): return {body}, 'text/plain'").info().sample == ("café".encode(), "text/plain")


def test_a_sample_may_ask_for_the_context() -> None:
    assert script("def sample_input(context): return b'x', str(context.replica_id)").info().sample == (b"x", "None")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("return b'only the body'", "ValueError"),
        ("return None", "TypeError"),
        ("return [1, 2, 3], 'application/json'", "TypeError"),
        ("return 1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_sample_that_is_none_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ModelError, match=rf"sample_input\(\) must return a body and its content type: ({reason})"):
        script(f"def sample_input(): {text}").info()


# Bodies, errors, answers


@pytest.mark.parametrize("content_type", ["application/json", "text/csv"])
def test_json_and_csv_come_as_text(content_type: str) -> None:
    assert request_body("[1, 'é']".encode(), content_type) == "[1, 'é']"


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "application/jsonlines", "text/plain", "image/png", "", "TEXT/CSV"]
)
def test_everything_else_comes_as_a_byte_array(content_type: str) -> None:
    body = request_body(memoryview(b"[1]"), content_type)
    assert isinstance(body, bytearray)
    assert body == b"[1]"


@pytest.mark.parametrize("content_type", ["application/json", "text/csv"])
def test_text_that_is_not_utf8_is_a_bad_request(content_type: str) -> None:
    with pytest.raises(BadRequest, match=f"a body of type {content_type} must be UTF-8"):
        request_body(b"\xff", content_type)


class WithStatus(Exception):
    def __init__(self, status_code: Any, message: str) -> None:
        super().__init__(f"{status_code}: {message}")
        self.status_code = status_code
        self.message = message


class UnsupportedFormatError(Exception):
    """As `sagemaker_inference.errors` has it."""


def test_an_error_of_ours_stays_what_it_is() -> None:
    error = PayloadTooLarge("over 20 megapixels")
    assert as_serving_error(error, "input_fn") is error


def test_an_error_with_a_status_keeps_it() -> None:
    answer = as_serving_error(WithStatus(413, "too many rows"), "input_fn")
    assert (type(answer), answer.message) == (PayloadTooLarge, "too many rows")


@pytest.mark.parametrize("status", [200, 399, 600, "413", None])
def test_a_status_that_is_no_errors_is_a_failure(status: Any) -> None:
    assert type(as_serving_error(WithStatus(status, "x"), "input_fn")) is FunctionFailed


def test_the_toolkits_error_for_formats_is_an_unsupported_media_type() -> None:
    assert type(as_serving_error(UnsupportedFormatError("image/gif"), "input_fn")) is UnsupportedMediaType


@pytest.mark.parametrize("error", [KeyError("secret"), SystemExit(3)])
def test_every_other_error_is_a_fixed_text(error: BaseException) -> None:
    answer = as_serving_error(error, "predict_fn")
    assert type(answer) is FunctionFailed
    assert answer.message == "predict_fn failed; the log has the reason under this request id"


def test_what_was_raised_is_for_the_log() -> None:
    answer = as_serving_error(KeyError("secret"), "predict_fn")
    assert answer.detail == "predict_fn: KeyError: 'secret'"
    assert ServingError.detail == ""


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("a\nb"), "ValueError: a b"),
        (ValueError("x" * 1000), f"ValueError: {'x' * 400} …"),
        (ValueError(), "ValueError"),
        (ValueError(" \n x"), "ValueError: x"),
    ],
)
def test_an_error_in_one_line(error: Exception, line: str) -> None:
    assert one_line(error) == line


@pytest.mark.parametrize(
    ("answer", "body", "content_type"),
    [
        (b"x", b"x", "a/b"),
        ("é", "é".encode(), "a/b"),
        (bytearray(b"x"), b"x", "a/b"),
        (memoryview(b"x"), b"x", "a/b"),
        ((b"x", "image/png"), b"x", "image/png"),
        (("é", "text/plain"), "é".encode(), "text/plain"),
    ],
)
def test_an_answer_is_bytes_or_text_with_or_without_its_type(answer: Any, body: bytes, content_type: str) -> None:
    assert as_body(answer, "a/b") == (body, content_type)


@pytest.mark.parametrize(
    ("answer", "accept", "body", "content_type"),
    [
        ({"a": [1]}, "a/b", b'{\n  "a": [\n    1\n  ]\n}', "application/json"),
        ({"a": 1}, "application/json;q=0.5", b'{\n  "a": 1\n}', "application/json"),
        (5, "*/*", b"5", "application/json"),
        ({"a": 1}, "text/csv", b'{\n  "a": 1\n}', "application/json"),
        ({"a": [{}]}, "text/csv, application/x-npy, application/json", b'{\n  "a": [\n    {}\n  ]\n}', "application/json"),
        (({}, "a/b"), "application/json", b"{}", "a/b"),
        ([[1, 2], [3, 4]], "image/png, text/csv, */*", b"1,2\n3,4\n", "text/csv"),
        (np.float32(0.5), "application/json", b"0.5", "application/json"),
        ({"t": torch.ones(2)}, "application/json", b'{\n  "t": [\n    1.0,\n    1.0\n  ]\n}', "application/json"),
    ],
)
def test_an_answer_that_is_neither_is_encoded(answer: Any, accept: str, body: bytes, content_type: str) -> None:
    assert as_body(answer, accept) == (body, content_type)


def test_an_array_can_be_npy_and_npz() -> None:
    npy, _ = as_body(np.arange(3), "application/x-npy")
    assert np.load(io.BytesIO(npy)).tolist() == [0, 1, 2]
    npz, _ = as_body({"a": torch.ones(1), "b": [2]}, "application/x-npz")
    assert {name: array.tolist() for name, array in np.load(io.BytesIO(npz)).items()} == {"a": [1.0], "b": [2]}


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("image/png", "image/png"),
        ("image/*;q=0.8, Image/WebP, */*", "image/webp"),
        ("*/*", "application/json"),
        ("x/y;q=0, a/b", "a/b"),
    ],
)
def test_bytes_have_the_first_type_that_the_client_names(accept: str, content_type: str) -> None:
    assert as_body(b"x", accept) == (b"x", content_type)


@pytest.mark.parametrize("answer", [None, [b"x"], (b"x", "a/b", 200), object(), {1: {2, 3}}])
def test_an_answer_that_cannot_be_encoded_is_a_failure(answer: Any) -> None:
    with pytest.raises(FunctionFailed, match="the request failed"):
        as_body(answer, "a/b")
