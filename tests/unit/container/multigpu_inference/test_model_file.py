from __future__ import annotations

from pathlib import Path

import pytest

from multigpu_inference.errors import ModelError
from multigpu_inference.model_file import find_model_file


def test_model_pt_goes_before_others(tmp_path: Path) -> None:
    (tmp_path / "other.pth").touch()
    (tmp_path / "model.pt").touch()
    assert find_model_file(tmp_path).name == "model.pt"


@pytest.mark.parametrize("name", ["a.pt", "b.pth", "c.pt2", "d.onnx"])
def test_else_the_only_one_is_taken(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    (tmp_path / "readme.txt").touch()
    (tmp_path / "folder.pt").mkdir()
    assert find_model_file(tmp_path).name == name


def test_several_or_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.pt, or one \.pt, \.pth, \.pt2 or \.onnx file: there is none"):
        find_model_file(tmp_path)
    for name in ("b.pth", "a.pt"):
        (tmp_path / name).touch()
    with pytest.raises(ModelError, match=r"file: a\.pt, b\.pth"):
        find_model_file(tmp_path)


def test_what_the_toolkit_looks_at_goes_before_what_it_does_not(tmp_path: Path) -> None:
    for name in ("net.pth", "net.onnx", "net.pt2"):
        (tmp_path / name).touch()
    assert find_model_file(tmp_path).name == "net.pth"
