from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from multigpu_inference.errors import ModelError
from multigpu_inference.runtimes.load_network import load_network
from multigpu_inference.runtimes.onnx_network import OnnxNetwork, Provider, known_sizes, output_shape, providers, varying


@pytest.fixture(scope="module")
def doubles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of two inputs and two outputs: x + x, and x + y."""

    def tensor(name: str) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3])

    nodes = [helper.make_node("Add", ["x", "x"], ["twice"]), helper.make_node("Add", ["x", "y"], ["sum"])]
    graph = helper.make_graph(nodes, "doubles", [tensor("x"), tensor("y")], [tensor("twice"), tensor("sum")])
    path = tmp_path_factory.mktemp("onnx") / "doubles.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def test_a_network_takes_and_returns_tensors(doubles: Path) -> None:
    network = load_network(doubles, "cpu")
    for size in (1, 4):
        twice, total = network(torch.ones(size, 3), torch.full((size, 3), 4.0))
        assert twice.tolist() == [[2.0] * 3] * size
        assert total.tolist() == [[5.0] * 3] * size


def test_inputs_are_cast_and_made_contiguous(doubles: Path) -> None:
    network = load_network(doubles, "cpu")
    x = torch.arange(6, dtype=torch.float64, requires_grad=True).reshape(3, 2).T
    twice, _ = network(x, torch.zeros(2, 3))
    assert torch.equal(twice, (2 * x).float())
    assert not twice.requires_grad


def test_a_wrong_number_of_inputs_is_said(doubles: Path) -> None:
    with pytest.raises(ValueError, match=r"^doubles\.onnx takes 2 inputs, not 1$"):
        load_network(doubles, "cpu")(torch.ones(1, 3))


def test_a_file_that_is_none_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"^a\.onnx cannot be loaded by ONNX Runtime: ") as error:
        load_network(tmp_path / "a.onnx", "cpu")
    assert len(str(error.value).splitlines()) == 1


def test_without_the_package_it_says_which(doubles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelError, match=r"put onnxruntime \(on GPUs onnxruntime-gpu\) into code/requirements\.txt"):
        load_network(doubles, "cpu")


@pytest.mark.filterwarnings("ignore:Specified provider")  # all that ONNX Runtime itself says of it
def test_a_provider_that_the_session_has_not_taken_is_no_silent_cpu(doubles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    network = OnnxNetwork(doubles, torch.device("cpu"))
    wanted: list[Provider] = [("CUDAExecutionProvider", {}), ("CPUExecutionProvider", {})]
    monkeypatch.setattr("multigpu_inference.runtimes.onnx_network.providers", lambda *_, **__: wanted)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [name for name, _ in wanted])
    with pytest.raises(
        ModelError, match=r"^doubles\.onnx: ONNX Runtime cannot use CUDAExecutionProvider here; .* another version$"
    ):
        network._load(7)


# What a GPU adds, on paper


def test_sizes_that_vary_beside_the_batch_are_named() -> None:
    assert varying([["batch", 3, "8*height", "8*width"], ["batch", 2, "8*height", "8*width"]]) == "8*height, 8*width"
    assert varying([["batch", 3, 320, 320]]) == ""


def test_on_a_gpu_cuda_runs_it_on_the_stages_stream_and_the_cpu_what_is_left() -> None:
    assert providers("cpu", 0, 0, tensorrt=True) == [("CPUExecutionProvider", {})]
    cuda, cpu = providers("cuda", 1, 77, tensorrt=False)
    assert cuda == ("CUDAExecutionProvider", {"device_id": 1, "user_compute_stream": "77"})
    assert cpu[0] == "CPUExecutionProvider"
    assert "user_compute_stream" not in providers("cuda", 0, 0, tensorrt=False)[0][1]  # the default stream is no session's


def test_tensorrt_goes_first_where_it_is_asked_for_and_keeps_its_engines() -> None:
    names = [name for name, _ in providers("cuda", 0, 5, tensorrt=True)]
    assert names == ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    _, options = providers("cuda", 3, 5, tensorrt=True)[0]
    assert options["trt_engine_cache_enable"]
    assert (options["device_id"], options["user_compute_stream"]) == (3, "5")


def test_an_outputs_shape_is_worked_out_from_the_inputs() -> None:
    sizes = known_sizes([["batch", 3, "height", "width"], ["batch", 2, "height", "width"]], [(4, 3, 8, 16), (4, 2, 8, 16)])
    assert sizes == {"batch": 4, "height": 8, "width": 16}
    assert output_shape("n.onnx", ["batch", 7, "height", "width"], sizes) == [4, 7, 8, 16]
    with pytest.raises(ModelError, match=r"^n\.onnx: the output's dimension 'other' is none of the inputs'"):
        output_shape("n.onnx", ["batch", "other"], sizes)
