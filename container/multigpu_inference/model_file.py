"""The file that a model folder's model lies in where no script says so. As the PyTorch toolkit finds it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from multigpu_inference.errors import ModelError

SUFFIXES = (".pt", ".pth", ".pt2", ".onnx")
_TOOLKITS = SUFFIXES[:2]  # what the toolkit itself looks at goes first
_NAMED = "model.pt"


def find_model_file(model_dir: Path) -> Path:
    """model.pt, or the only file at the folder's root that could be a model.

    Raises:
        ModelError: where there is none, or more than one.
    """
    return model_dir / choose_model_file(path.name for path in model_dir.iterdir() if path.is_file())


def choose_model_file(names: Iterable[str]) -> str:
    """The same of the names of the files at a folder's root."""
    found = sorted(name for name in names if Path(name).suffix in SUFFIXES)
    if _NAMED in found:
        return _NAMED
    found = [name for name in found if Path(name).suffix in _TOOLKITS] or found
    if len(found) != 1:
        suffixes = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        there = ", ".join(found) or "there is none"
        raise ModelError(f"without a model_fn the model folder must have {_NAMED}, or one {suffixes} file: {there}")
    return found[0]
