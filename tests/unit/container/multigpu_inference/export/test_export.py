from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from multigpu_inference import Exportable, Size
from multigpu_inference.errors import ModelError
from multigpu_inference.export import command, comparison, exporters
from multigpu_inference.export.comparison import Comparison, compare

SCRIPT = """
import torch
from multigpu_inference import Exportable, Size

def model_fn(model_dir):
    return None

def export_networks(model_dir):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3, padding=1), torch.nn.ReLU()).eval()
    sizes = {0: Size("batch"), 2: Size("height", 2, 100, multiple=8), 3: Size("width", 2, 100, multiple=8)}
    return {"net": Exportable(network, {"image": torch.rand(2, 3, 24, 32)}, {"image": sizes}, tolerance=TOLERANCE)}
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs the command on a script given as text; import path, modules and working folder are put back."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setitem(sys.modules, "inference", None)
    monkeypatch.chdir(tmp_path)

    def with_script(text: str, *options: str) -> int:
        (tmp_path / "code").mkdir()
        (tmp_path / "code" / "inference.py").write_text(text)
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        return command.run(parser.parse_args([str(tmp_path), *options]), {})

    return with_script


def saves_a_linear_layer(exportable: Exportable, path: Path) -> None:
    """An exporter that takes no seconds, and gets the weights wrong by a tenth."""
    wrong = copy.deepcopy(exportable.network)
    for weight in wrong.parameters():
        weight.data += 0.1
    torch.export.save(torch.export.export(wrong, tuple(exportable.inputs.values())), path)


def test_sizes_of_one_name_are_one_symbol_and_multiples_are_kept() -> None:
    sizes = {0: Size("batch"), 2: Size("height", 2, 100, multiple=8)}
    exportable = Exportable(
        torch.nn.Identity(), {"a": torch.ones(1), "b": torch.ones(1)}, {"a": sizes, "b": {0: Size("batch")}}
    )
    first, second = exporters._dynamic_shapes(exportable)
    assert first[0] is second[0]
    assert str(first[2]) == "8*height"


def test_a_difference_is_found_and_a_wrong_shape_or_no_number_is_infinite() -> None:
    from multigpu_inference.export.comparison import _difference

    assert _difference(torch.ones(2), torch.tensor([1.0, 1.5])) == 0.5
    assert _difference(torch.ones(2), torch.ones(3)) == float("inf")
    assert _difference(torch.ones(1), torch.tensor([float("nan")])) == float("inf")


def test_both_are_run_and_compared(tmp_path: Path) -> None:
    network = torch.nn.Linear(3, 1, bias=False)
    exportable = Exportable(network, {"x": torch.ones(1, 3)}, tolerance=0.1)
    saves_a_linear_layer(exportable, tmp_path / "net.pt2")
    found = compare("net", exportable, tmp_path / "net.pt2")
    assert found.difference == pytest.approx(0.3, abs=1e-5)
    assert not found.is_close
    assert min(found.eager_ms, found.exported_ms) > 0
    assert Comparison("net", 0.1, 0.1, 1, 1).is_close


def test_a_graph_that_has_fixed_a_size_is_not_close(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"x": {0: Size("batch"), 1: Size("length", 1, 3, multiple=2)}}
    exportable = Exportable(torch.nn.Identity(), {"x": torch.ones(2, 4)}, sizes)
    monkeypatch.setattr(comparison, "load_network", lambda path, device: lambda x: x[:, :4])
    assert compare("net", exportable, tmp_path / "net.onnx").difference == float("inf")
    monkeypatch.setattr(comparison, "load_network", lambda path, device: lambda x: x)
    assert compare("net", exportable, tmp_path / "net.onnx").difference == 0


def test_a_hook_that_returns_something_else_is_one_line(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("def export_networks(model_dir): return {'net': 3}") == 3
    assert capsys.readouterr().err == "export: export_networks returned int for 'net', and not an Exportable\n"


def test_a_network_that_fails_beside_its_file_is_one_line(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(exporters.EXPORTERS, "onnx", (".pt2", lambda exportable, path: path.touch()))
    monkeypatch.setattr(comparison, "load_network", lambda path, device: lambda x: 1 / 0)
    assert run(SCRIPT.replace("TOLERANCE", "1")) == 3
    assert capsys.readouterr().err.startswith("export: net cannot be compared with eager PyTorch: ZeroDivisionError")


def test_without_a_compiler_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ModelError, match=r"^AOTInductor needs a C\+\+ compiler, and there is none here: install g\+\+$"):
        exporters.to_package(Exportable(torch.nn.Identity(), {"x": torch.ones(1)}), tmp_path / "a.pt2")


def test_a_script_without_the_hook_is_told_of_it(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("def model_fn(model_dir): pass") == 3
    assert "inference.py has no export_networks(model_dir)" in capsys.readouterr().err


def test_a_hook_that_fails_is_one_line(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("def export_networks(model_dir): 1 / 0") == 3
    assert capsys.readouterr().err == "export: export_networks failed: ZeroDivisionError: division by zero\n"


def test_a_network_that_cannot_be_exported_leaves_no_file(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(exportable: Exportable, path: Path) -> None:
        with exporters._quietly(exportable, path):
            path.write_bytes(b"half")
            raise RuntimeError("no such operator\nmany lines")

    monkeypatch.setitem(exporters.EXPORTERS, "onnx", (".onnx", fails))
    assert run(SCRIPT.replace("TOLERANCE", "1")) == 3
    assert capsys.readouterr().err == (
        "export: Sequential cannot be exported to onnx: RuntimeError: no such operator many lines\n"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["code"]


def test_answers_that_differ_are_said_and_the_file_is_not_kept(
    run: Callable[..., int], capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(exporters.EXPORTERS, "onnx", (".pt2", saves_a_linear_layer))
    script = "import torch\nfrom multigpu_inference import Exportable\ndef export_networks(model_dir):\n"
    script += (
        "    return {'net': Exportable(torch.nn.Linear(3, 1, bias=False), {'x': torch.ones(1, 3)}, tolerance=TOLERANCE)}\n"
    )
    assert run(script.replace("TOLERANCE", "0.01")) == 1
    assert "TOO FAR: not kept" in capfd.readouterr().out
    assert not (tmp_path / "net.pt2").exists()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("runtime", "file"), [("onnx", "net.onnx"), ("aotinductor", "net.pt2")])
def test_a_network_is_exported_for_sizes_that_vary(run: Callable[..., int], tmp_path: Path, runtime: str, file: str) -> None:
    from multigpu_inference import load_network

    assert run(SCRIPT.replace("TOLERANCE", "1e-5"), "--runtime", runtime) == 0
    network = load_network(tmp_path / file, "cpu:0")  # as a replica's devices are called
    for size in ((1, 3, 16, 48), (5, 3, 80, 16)):
        assert network(torch.rand(size)).shape == (size[0], 2, *size[2:])
