from __future__ import annotations

import io
import json
import os
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from multigpu_inference import toolkit_defaults
from multigpu_inference.config import ModelSettings
from multigpu_inference.context import Context
from multigpu_inference.errors import BadRequest, ModelError, NotAcceptable, UnsupportedMediaType
from multigpu_inference.runtimes.load_network import is_compiled
from multigpu_inference.toolkit_defaults import input_fn, model_fn, output_fn, predict_fn
from multigpu_inference.user_module import UserModule


class Double(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if not self.training else x


def npy(array: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """A model folder with a TorchScript model.pt."""
    folder = tmp_path / "model"
    folder.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.script(Double())  # in training mode
        torch.jit.save(scripted, str(folder / "model.pt"))
    return folder


# The model


def test_a_torchscript_model_is_loaded_and_called(model_dir: Path) -> None:
    prediction = predict_fn(torch.ones(2, requires_grad=True), model_fn(str(model_dir)))
    assert prediction.tolist() == [2.0, 2.0]
    assert not prediction.requires_grad


def test_another_kind_of_file_says_that_it_needs_a_model_fn(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(1)}, tmp_path / "weights.pth")
    with pytest.raises(ModelError, match=r"^weights\.pth is no TorchScript model; one of another kind needs a model_fn$"):
        model_fn(str(tmp_path))


def test_an_exported_program_is_loaded_and_called(tmp_path: Path) -> None:
    program = torch.export.export(Double().eval(), (torch.ones(2),))
    torch.export.save(program, tmp_path / "double.pt2")
    assert predict_fn(torch.ones(2), model_fn(str(tmp_path))).tolist() == [2.0, 2.0]


def test_a_pt2_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pt2").write_bytes(b"no archive")
    with pytest.raises(ModelError, match=r"^a\.pt2 is no \.pt2 archive$"):
        model_fn(str(tmp_path))
    with zipfile.ZipFile(tmp_path / "a.pt2", "w") as archive:
        archive.writestr("a/other", b"")
    with pytest.raises(ModelError, match=r"^a\.pt2 is no program of torch\.export for cpu on this machine: "):
        model_fn(str(tmp_path))


def test_compiled_code_is_told_from_an_exported_program(tmp_path: Path) -> None:
    for name, compiled in (("p/models/model.json", False), ("p/data/aotinductor/model/x.so", True)):
        with zipfile.ZipFile(tmp_path / "a.pt2", "w") as archive:
            archive.writestr(name, b"")
        assert is_compiled(tmp_path / "a.pt2") is compiled


# Input


@pytest.mark.parametrize(
    ("body", "content_type", "value", "dtype"),
    [
        ("[[1, 2], [3, 4]]", "application/json", [[1.0, 2.0], [3.0, 4.0]], torch.float32),
        ("5", "application/json", 5.0, torch.float32),
        ("1,2\n3,4\n", "text/csv", [[1.0, 2.0], [3.0, 4.0]], torch.float32),
        (bytearray(b"1,2"), "text/csv; charset=utf-8", [1.0, 2.0], torch.float32),
        (bytearray(b"[1]"), "Application/JSON; charset=utf-8", [1.0], torch.float32),
        (bytearray(npy(np.array([[1], [2]], np.int16))), "application/x-npy", [[1], [2]], torch.int16),
        (
            bytearray(npy(np.asfortranarray([[1.0, 2.0], [3.0, 4.0]]))),
            "application/x-npy",
            [[1.0, 2.0], [3.0, 4.0]],
            torch.float64,
        ),
    ],
)
def test_bodies_become_tensors(body: Any, content_type: str, value: Any, dtype: torch.dtype) -> None:
    tensor = input_fn(body, content_type)
    assert (tensor.tolist(), tensor.dtype) == (value, dtype)
    tensor.add_(1)  # its memory is its own


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("{", "application/json"),
        ("[[1], [2, 3]]", "application/json"),
        ('{"a": 1}', "application/json"),
        ('["a"]', "application/json"),
        ("[" * 100_000, "application/json"),
        ("[1" + "0" * 5000 + "]", "application/json"),
        ("1,2\n3\n", "text/csv"),
        ("", "text/csv"),
        (bytearray(b"\xff,1"), "text/csv; charset=utf-8"),
        (bytearray(b""), "application/x-npy"),
        (bytearray(b"no array"), "application/x-npy"),
        (bytearray(npy(np.ones(4)))[:-1], "application/x-npy"),
        (bytearray(npy(np.ones(4)).replace(b"(4,)", b"(5,)")), "application/x-npy"),
        (bytearray(npy(np.array(["a"]))), "application/x-npy"),
        (bytearray(npy(np.array([print], object), allow_pickle=True)), "application/x-npy"),
        (bytearray(npy(np.ones(1)).replace(b"(1,)", b"(2,(")), "application/x-npy"),
        (bytearray(npy(np.ones(1)).replace(b"'<f8'", b"'f,,'")), "application/x-npy"),
        (bytearray(npy(np.ones(1)).replace(b"{'desc", b"  a\n b")), "application/x-npy"),
        (bytearray(npy(np.ones(10)).replace(b"(10,)", b"(-1,)")), "application/x-npy"),
        (bytearray(npy(np.ones(1)).replace(b"(1,), }" + b" " * 11, b"(9999999999999999,)}")), "application/x-npy"),
    ],
)
def test_bodies_that_cannot_be_read_are_the_clients_fault(body: Any, content_type: str) -> None:
    with pytest.raises(BadRequest, match=r"^the body is no array in [a-z/-]+$"):
        input_fn(body, content_type)


def test_other_types_are_refused() -> None:
    with pytest.raises(UnsupportedMediaType, match="must be one of application/json, text/csv, application/x-npy"):
        input_fn(bytearray(b""), "image/png")


# Output


def test_the_first_type_that_can_be_made_is_made() -> None:
    prediction = torch.tensor([[1.0, 2.0]])
    assert output_fn(prediction, "image/png, text/csv, application/json") == (b"1.0,2.0\n", "text/csv")
    assert output_fn(prediction, "*/*") == (b"[[1.0, 2.0]]", "application/json")
    body, content_type = output_fn(prediction, "application/x-npy; q=0.5")
    assert (np.load(io.BytesIO(body)).tolist(), content_type) == ([[1.0, 2.0]], "application/x-npy")


def test_a_dict_of_tensors_can_be_json() -> None:
    body, _ = output_fn({"logits": torch.ones(1)}, "application/json")
    assert json.loads(body) == {"logits": [1.0]}


def test_no_type_that_can_be_made_is_said() -> None:
    with pytest.raises(NotAcceptable, match="application/json, text/csv, application/x-npy"):
        output_fn(torch.ones(1), "image/png, application/json;q=0")


# Without a script


def test_a_folder_with_nothing_but_a_model_is_served(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model_dir)
    script = UserModule.load(ModelSettings(model_dir.parent, "inference.py", None))
    assert script.info().functions == {"model_fn", "input_fn", "predict_fn", "output_fn"}
    model = script.load_model(Context(system_properties={"model_dir": str(model_dir)}))
    assert script.call("predict_fn", Context(), torch.ones(1), model).tolist() == [2.0]
    assert Path.cwd() == model_dir


def test_a_script_that_was_named_and_is_missing_is_not_replaced(model_dir: Path) -> None:
    with pytest.raises(ModelError, match=r"there is no .*mine\.py"):
        UserModule.load(ModelSettings(model_dir.parent, "mine.py", None))


def test_no_script_and_no_model_say_both(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(ModelError, match=r"there is no .*inference\.py.*; without a model_fn .* there is none"):
        UserModule.load(ModelSettings(tmp_path, "inference.py", None))


# The toolkit's own name


def test_a_script_may_extend_the_toolkits_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("sagemaker_pytorch_serving_container")]:
        monkeypatch.delitem(sys.modules, name)
    toolkit_defaults.offer_toolkit()
    from sagemaker_pytorch_serving_container.default_pytorch_inference_handler import (  # type: ignore[import-not-found]
        DefaultPytorchInferenceHandler,
    )

    handler = DefaultPytorchInferenceHandler()
    tensor = handler.default_input_fn("[1, 2]", "application/json")
    assert handler.default_output_fn(handler.default_predict_fn(tensor, Double()), "text/csv") == b"2.0\n4.0\n"
    for name in [name for name in sys.modules if name.startswith("sagemaker_pytorch_serving_container")]:
        del sys.modules[name]


def test_what_is_installed_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("sagemaker_pytorch_serving_container")]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "sagemaker_pytorch_serving_container").mkdir()
    (tmp_path / "sagemaker_pytorch_serving_container" / "__init__.py").touch()
    monkeypatch.syspath_prepend(os.fspath(tmp_path))
    toolkit_defaults.offer_toolkit()
    assert "sagemaker_pytorch_serving_container" not in sys.modules
